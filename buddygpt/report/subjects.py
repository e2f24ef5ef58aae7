"""The subjects of a task as bars: sorted, with their 95 % intervals, and a line where guessing is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup
from matplotlib.ticker import FuncFormatter, MaxNLocator

from buddygpt.report.plots import colour, drawing
from buddygpt.report.scores import Score, Subject
from buddygpt.report.scoretable import spell_score

WIDTH = 430
"""Pixels of a drawing: half of the page, or a phone's."""
FEW = 14
"""Subjects that one drawing holds; more are parted into two of the same length, one beside the other."""
LONGEST = 38
"""Characters of a subject's name that there is room for."""

_LEFT, _RIGHT, _TOP, _FOOT, _ROW = 208, 42, 4, 24, 19  # pixels: names, values, above, axis, each bar


@dataclass(frozen=True)
class Bars:
    """A task's subjects as the page shows them.

    Args:
        name: of the task and its model.
        note: more of the caption, in Chinese and in English.
        drawings: one, or two that belong side by side.
    """

    name: tuple[str, str]
    note: tuple[str, str]
    drawings: Sequence[Markup]


def subject_bars(model: str, score: Score) -> Bars:
    """All subjects of a score that has some.

    Args:
        model: its name.
        score: with subjects.
    """
    sign = -1 if score.share else 1  # of bits the fewest are best
    ordered = sorted(score.subjects.items(), key=lambda item: (sign * item[1].value, item[0]))
    half = len(ordered) if len(ordered) <= FEW else -(-len(ordered) // 2)
    halves = [ordered[:half], ordered[half:]] if half < len(ordered) else [ordered]
    end = max(subject.high for _, subject in ordered)
    drawings = [
        _draw(f"subjects {model} {score.task} {n}", f"{model} {score.task}", score, part, half, end)
        for n, part in enumerate(halves)
    ]
    above = sum(_is_above(subject, score.chance) for _, subject in ordered)
    note = ("细线是 95 % 区间", "thin lines are 95 % intervals")
    if score.chance is not None:
        note = (
            f"{note[0]}；虚线是随机水平 {score.chance:.0%}；{len(ordered)} 个科目中有 {above} 个整个区间高于它"
            f"（单凭运气约 {len(ordered) / 40:.0f} 个），其余为灰色",
            f"{note[1]}; dashed: chance, {score.chance:.0%}; of {len(ordered)} subjects {above} lie above it with "
            f"their whole interval (about {len(ordered) / 40:.0f} would by luck), the others are grey",
        )
    return Bars((model, score.task), note, drawings)


def _draw(name: str, title: str, score: Score, part: Sequence[tuple[str, Subject]], rows: int, end: float) -> Markup:
    """Bars downwards from the best; `rows` is how many there is room for."""
    height = _TOP + _ROW * rows + _FOOT
    told = "; ".join(f"{subject} {spell_score(one.value, score.share)}" for subject, one in part)
    with drawing(name, f"{title} 各科目 by subject: {told}", (WIDTH, height)) as done:
        box = (_LEFT / WIDTH, _FOOT / height, 1 - (_LEFT + _RIGHT) / WIDTH, 1 - (_TOP + _FOOT) / height)
        axes = done.canvas.add_axes(box)
        axes.patch.set_visible(False)
        axes.set_xlim(0, end * 1.02 or 1)
        axes.set_ylim(rows - 0.5, -0.5)
        for place, (_, one) in enumerate(part):
            line = colour("--accent" if _is_above(one, score.chance) else "--muted")
            axes.barh(place, one.value, 0.62, color=line, alpha=0.45, linewidth=0)
            axes.plot((one.low, one.high), (place, place), color=line, linewidth=1.4, clip_on=False)
            axes.annotate(
                _short_value(one.value, score.share), (1, place), (6, 0), ("axes fraction", "data"),
                textcoords="offset points", va="center_baseline", fontsize=11, color=colour("--ink"),
            )  # fmt: skip
        if score.chance is not None:
            axes.axvline(score.chance, color=colour("--ink"), linewidth=1, dashes=(3, 3))
        axes.set_yticks(range(len(part)), [_shorten(subject) for subject, _ in part], fontsize=11)
        for label in axes.get_yticklabels():
            label.set_parse_math(False)
        axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.0%}" if score.share else f"{x:g}"))
        axes.tick_params(bottom=False, left=False, pad=6)
        axes.grid(axis="x", color=colour("--rule"), linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[:].set_visible(False)
    return done.svg


def _is_above(subject: Subject, chance: float | None) -> bool:
    return chance is None or subject.low > chance


def _short_value(value: float, share: bool) -> str:
    return f"{100 * value:.1f}" if share else f"{value:.2f}"


def _shorten(name: str) -> str:
    plain = name.replace("_", " ")
    return plain if len(plain) <= LONGEST else plain[: LONGEST - 1] + "…"
