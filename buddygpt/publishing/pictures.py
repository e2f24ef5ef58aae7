"""A picture of each stage for a card: its loss, and how well it did on what was held out.

Paper is white and opaque, so that a dark page shows the same. Words are English: fonts for Chinese are not everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from buddygpt.publishing.story import Stage
from buddygpt.report.curves import Series, column, reach, settled, smooth, thin
from buddygpt.report.figures import BITS, LONG, sources
from buddygpt.report.words import spell_count

INK, MUTED, RULE = "#1f2328", "#6e7781", "#e3e6ea"
LINES = ("#1f5fb4", "#c2571a", "#2c8a5a", "#8a3fa0", "#a8821a", "#b3324c", "#3a8fa3", "#5b5f66")
SIZE = (9.6, 3.2)
"""Inches; with `DPI` about as many pixels as a card's column has on a fine screen."""
DPI = 150
TITLES = {
    "pretrain": ("Pretraining loss", "Held-out text: bits per character"),
    "sft": ("Fine-tuning loss (answers)", "Held-out answers: bits per character"),
    "dpo": ("Preference loss", "Held-out pairs: accuracy"),
}
_LONGEST = 28


def stage_pictures(stages: Sequence[Stage]) -> dict[str, bytes]:
    """PNG by name of a file, of each stage whose course is known. The same course gives the same bytes."""
    return {f"figures/{stage.name}.png": png for stage in stages if (png := _draw(stage)) is not None}


def _draw(stage: Stage) -> bytes | None:
    """The loss on the left; on the right what is held out, where anything is."""
    loss = column(stage.metrics, "loss")
    if not len(loss.finite):
        return None
    figure = "accuracy" if stage.name == "dpo" else BITS
    held_out = {name: column(stage.metrics, f"eval/{name}/{figure}") for name in sources(stage.metrics, figure)}
    held_out = {name: series for name, series in held_out.items() if len(series.finite)}
    with matplotlib.rc_context({"font.family": "DejaVu Sans", "font.size": 9, "svg.fonttype": "none"}):
        canvas = Figure(figsize=SIZE, dpi=DPI, facecolor="white")
        canvas.set_layout_engine("constrained", w_pad=0.1, h_pad=0.08, wspace=0.04)
        axes = canvas.subplots(1, 2 if held_out else 1, squeeze=False)[0]
        _loss(axes[0], loss)
        if held_out:
            _held_out(axes[1], stage, held_out, share=figure == "accuracy")
        for place, title in zip(axes, TITLES[stage.name], strict=False):
            _dress(place, title)
        out = BytesIO()
        canvas.savefig(out, format="png", facecolor="white", metadata={"Software": None})
    return out.getvalue()


def _loss(axes: Axes, series: Series) -> None:
    steps, mean = thin(series), smooth(series)
    axes.plot(steps.x, steps.y, color=LINES[0], linewidth=0.7, alpha=0.35, label="each step")
    axes.plot(mean.x, mean.y, color=LINES[0], linewidth=1.6, label=f"mean of ±{reach(series):,} steps")
    late = settled(series)
    if len(series) >= LONG and len(late) and series.finite.max() > 1.2 * late.max():
        axes.set_ylim(top=1.05 * float(late.max()))  # the first steep fall would press everything else flat
    axes.legend(frameon=False, labelcolor=INK)


def _held_out(axes: Axes, stage: Stage, held_out: dict[str, Series], share: bool) -> None:
    end = max(float(series.x.max()) for series in held_out.values())
    baselines = stage.done.get("baseline", {})
    for number, (key, series) in enumerate(held_out.items()):
        line, name = LINES[number % len(LINES)], _name(stage, key, number)
        last = f"{series.finite[-1]:.1%}" if share else f"{series.finite[-1]:.3f}"
        axes.plot(series.x, series.y, color=line, linewidth=1.6, marker="o", markersize=3, label=f"{name} {last}")
        level = baselines.get(key)
        if level is not None and np.isfinite(level) and not share:
            label = f"5-gram model {level:.3f}"
            axes.plot((0, end), (level, level), color=line, linewidth=1.1, dashes=(4, 3), label=label)
    if share:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:.0%}"))
    axes.legend(frameon=False, labelcolor=INK)


def _name(stage: Stage, key: str, number: int) -> str:
    """What a line is called: its source's public name, where the font has its letters."""
    known = {source.key: source.name for source in stage.sources}
    name = known.get(key, key)
    plain = name.isascii() and name.isprintable() and "$" not in name
    if not plain:
        name = f"source {number + 1}"
    return name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…"


def _dress(axes: Axes, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=10, color=INK)
    axes.set_xlabel("tokens", color=MUTED)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: spell_count(x)))
    axes.tick_params(colors=MUTED, length=0)
    axes.grid(color=RULE, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
