"""The plots of a training run with what stands around them: caption, legend, and words for a screen reader."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from buddygpt.report.curves import Series, column, reach, settled, smooth, thin
from buddygpt.report.plots import LINES, Curve, Scale, draw, spans_far
from buddygpt.report.words import spell_count

WIDE, NARROW = (920, 340), (430, 250)
"""Pixels of a drawing across the page, and of one in half of it or on a phone."""

LONG = 2000
"""Steps of a run so long that the first steep fall would press everything else flat: the plot leaves it out."""

BITS = "bits_per_character"

_SPEED = Scale(zero=True, counts=True)


@dataclass(frozen=True)
class Key:
    """A line of the legend: `line` is the colour, 1 to 8."""

    text: str
    line: int
    style: str  # "solid", "thin" or "dashed"


@dataclass(frozen=True)
class Figure:
    """A plot as the page shows it.

    Args:
        chinese, english: the caption.
        note: more of the caption, in Chinese and English.
        narrow: the drawing for half the page.
        wide: the drawing across the page; none where it always takes half.
        keys: the legend; empty where there is one line.
    """

    chinese: str
    english: str
    note: tuple[str, str]
    narrow: Markup
    wide: Markup | None = None
    keys: Sequence[Key] = ()


def sources(metrics: Sequence[Mapping[str, Any]], figure: str = BITS) -> list[str]:
    """Names of what is held out, in the order of their first evaluation, that have this figure."""
    keys = dict.fromkeys(
        key for row in metrics for key in row if key.startswith("eval/") and key.endswith("/" + figure)
    )
    return [key[len("eval/") : -len("/" + figure)] for key in keys]


def make_figures(
    metrics: Sequence[Mapping[str, Any]], baselines: Mapping[str, float], answers: bool = False
) -> list[Figure]:
    """The plots of a run over text for which there is something to draw.

    Args:
        metrics: rows of steps and evaluations.
        baselines: bits per character of a 5-gram model, by source.
        answers: only answers are learned and judged, as in fine-tuning.
    """
    return some(
        _held_out(metrics, baselines, answers),
        _loss(metrics, answers),
        *course_figures(metrics),
    )


def course_figures(metrics: Sequence[Mapping[str, Any]]) -> list[Figure]:
    """Learning rate, gradient norm and speed: what every run has."""
    return some(
        _plain("lr", "学习率", "learning rate", column(metrics, "learning_rate"), Scale(zero=True)),
        noisy("gradient", "梯度范数", "gradient norm", column(metrics, "grad_norm")),
        noisy("speed", "速度", "tokens per second", column(metrics, "tokens_per_second"), _SPEED),
    )


def some(*figures: Figure | None) -> list[Figure]:
    """Those that there are."""
    return [figure for figure in figures if figure is not None]


def level(value: float, end: float, line: int) -> Curve:
    """A dashed line across the plot, from 0 to `end` tokens."""
    return Curve(Series(np.array([0.0, end or 1.0]), np.full(2, value)), line, width=1.2, dashed=True)


def _held_out(metrics: Sequence[Mapping[str, Any]], baselines: Mapping[str, float], answers: bool) -> Figure | None:
    curves: list[Curve] = []
    keys: list[Key] = []
    told: list[str] = []
    found = {name: column(metrics, f"eval/{name}/{BITS}") for name in sources(metrics)}
    drawn = {name: series for name, series in found.items() if len(series.finite)}
    end = max((float(series.x.max()) for series in drawn.values()), default=0.0)
    for n, (name, series) in enumerate(drawn.items()):
        curves.append(Curve(thin(series), n, width=2))
        keys.append(Key(f"{name} {series.finite[-1]:.3f}", n % LINES + 1, "solid"))
        told.append(f"{name} {course(series)}")
        if name in baselines and np.isfinite(baselines[name]):
            curves.append(level(baselines[name], end, n))
            keys.append(Key(f"5-gram {baselines[name]:.3f}", n % LINES + 1, "dashed"))
            told[-1] += f"，5-gram {baselines[name]:.3f}"
    if not curves:
        return None
    scale = falling([c.series for c in curves], len(column(metrics, "loss")) >= LONG)
    what = "留出的回答" if answers else "留出文本"
    label = f"{what}的每字符比特数 bits per character: " + "；".join(told)
    note = join(
        ("留出的回答", "of held-out answers") if answers else None,
        ("越低越好", "lower is better"),
        ("虚线是读过同样训练文本的 5-gram Kneser–Ney 模型", "dashed: a 5-gram Kneser–Ney model of the same text")
        if any(c.dashed for c in curves)
        else None,
        *_axis(scale),
    )
    narrow, wide = (draw(f"bits-{size[0]}", label, curves, size, scale) for size in (NARROW, WIDE))
    return Figure("每字符比特数", "bits per character", note, narrow, wide, keys)


def _loss(metrics: Sequence[Mapping[str, Any]], answers: bool) -> Figure | None:
    series = column(metrics, "loss")
    scale = falling([series], len(series) >= LONG)
    unit = ("回答的每词元，单位 nat", "nats a token of answers") if answers else ("每词元，单位 nat", "nats a token")
    skipped = column([row for row in metrics if row.get("skipped")], "loss").x
    note = join(unit, ("红色刻度：跳过的步", "red ticks: skipped steps") if len(skipped) else None)
    return noisy("loss", "训练损失", "training loss", series, scale, note, marks=skipped)


def noisy(
    name: str,
    chinese: str,
    english: str,
    series: Series,
    scale: Scale | None = None,
    note: tuple[str, str] | None = None,
    begin: tuple[float, str] | None = None,
    marks: Sequence[float] | np.ndarray = (),
) -> Figure | None:
    """Each step faint, their running mean over it.

    Args:
        name: of the drawing.
        chinese, english: the caption.
        series: of steps.
        scale: whichever suits the values where left out.
        note: more of the caption.
        begin: a value to compare with and its name: a dashed line.
        marks: tokens that get a tick on the axis, as those of values that are not finite do.
    """
    if not len(series.finite):
        return None
    scale = scale or Scale(log=spans_far(series.finite))
    steps, mean = thin(series), smooth(series)
    label = f"{chinese} {english}: {course(mean)}"
    curves = [Curve(steps, width=0.9, opacity=0.4), Curve(mean, width=1.8)]
    keys = [Key("每步 each step", 1, "thin"), Key(f"平均 mean of ±{reach(series):,} steps", 1, "solid")]
    if begin is not None:
        curves.append(level(begin[0], float(series.x.max()), 1))
        keys.append(Key(begin[1], 2, "dashed"))
    drawing = draw(name, label, curves, NARROW, scale, [*steps.x[np.isnan(steps.y)], *marks])
    return Figure(chinese, english, join(note, *_axis(scale)), drawing, None, keys)


def _plain(name: str, chinese: str, english: str, series: Series, scale: Scale) -> Figure | None:
    """One line."""
    if not len(series.finite):
        return None
    drawing = draw(name, f"{chinese} {english}: {course(series)}", [Curve(thin(series))], NARROW, scale)
    return Figure(chinese, english, join(*_axis(scale)), drawing)


def falling(series: Sequence[Series], long: bool) -> Scale:
    """The axis of figures that fall steeply at first and slowly ever after.

    Args:
        series: drawn over one another.
        long: the run has `LONG` steps; the first, high values are cut off.
    """
    values = np.concatenate([s.finite for s in series])
    late = np.concatenate([settled(s) for s in series])
    cut = long and len(late) > 0 and values.max() > 1.2 * late.max()
    return Scale(log=spans_far(late if cut else values), top=float(late.max()) if cut else None)


def _axis(scale: Scale) -> list[tuple[str, str]]:
    """What a reader must know of the axis."""
    notes = [("对数刻度", "log scale")] if scale.log else []
    return [*notes, ("最初的高值在图外", "the first, high values are cut off")] if scale.top is not None else notes


def join(*notes: tuple[str, str] | None) -> tuple[str, str]:
    """Notes of a caption as one."""
    kept = [note for note in notes if note]
    return "，".join(n[0] for n in kept), ", ".join(n[1] for n in kept)


def course(series: Series) -> str:
    """First and last value in words."""
    values = series.finite
    first, last = (spell_count(v) if abs(v) >= 1000 else f"{v:.4g}" for v in (values[0], values[-1]))
    return f"{first} → {last} ({spell_count(float(series.x.max()))} tokens)"
