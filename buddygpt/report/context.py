"""Figures of a longer context: bits per character by position, and needles found by depth and length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from matplotlib.patches import Rectangle

from buddygpt.report.curves import Series
from buddygpt.report.figures import NARROW, WIDE, Figure, Key
from buddygpt.report.plots import LINES, Curve, Scale, colour, draw, drawing, spans_far

DARK = 0.7
"""Shares above this have a background on which the page's own colour is read better than ink."""


@dataclass(frozen=True)
class PositionLine:
    """One model.

    Args:
        name: what the legend says.
        edges: where ranges of positions begin, in tokens, and where the last one ends.
        bits: bits per character of each range.
        errors: their standard errors.
        line: which of the page's line colours, from 0.
        dashed: for a model that is there to be compared with.
    """

    name: str
    edges: Sequence[int]
    bits: Sequence[float]
    errors: Sequence[float]
    line: int
    dashed: bool = False


@dataclass(frozen=True)
class FoundCell:
    """Needles of one length and depth.

    Args:
        length: of the text, in tokens.
        depth: where the needle stood, from 0, the beginning, to 1.
        share: of the needles, those found; 0 to 1.
    """

    length: int
    depth: float
    share: float


def positions_figure(
    lines: Sequence[PositionLine], old_length: int, top: float | None = None, name: str = "positions"
) -> Figure:
    """Bits per character over the position in the text; a line stands where the context ended before.

    Args:
        lines: at least one.
        old_length: tokens of the context before it was extended.
        top: where the vertical axis ends: a model that knows nothing of the new positions would press the others flat.
        name: unlike that of another figure on the page.
    """
    curves, keys, told = [], [], []
    for one in lines:
        middles = (np.array(one.edges[:-1], dtype=np.float64) + one.edges[1:]) / 2
        spread = np.array(one.errors, dtype=np.float64)
        series = Series(middles, np.array(one.bits, dtype=np.float64))
        curves.append(Curve(series, one.line, width=1.2 if one.dashed else 1.8, dashed=one.dashed, spread=spread))
        old = [b for b, end in zip(one.bits, one.edges[1:], strict=True) if end <= old_length] or [one.bits[0]]
        course = f"{one.name} {np.mean(old):.3f} → {one.bits[-1]:.3f}"
        keys.append(Key(course, one.line % LINES + 1, "dashed" if one.dashed else "solid"))
        told.append(course)
    scale = Scale(log=spans_far(np.concatenate([c.series.finite for c in curves])) and top is None, top=top)
    label = f"每字符比特数按位置 bits per character by position in tokens, up to and after {old_length:,}: "
    label += "; ".join(told)
    note = (
        "越低越好；竖线是原来的长度；色带是标准误；图例：原长度内的平均 → 最后一段",
        "lower is better; the line is the old length; bands are standard errors; legend: mean up to it → last range"
        + ("; log scale" if scale.log else "")
        + ("; what is above the plot is higher" if top is not None else ""),
    )
    end = float(max(one.edges[-1] for one in lines))
    narrow, wide = (
        draw(f"{name}-{size[0]}", label, curves, size, scale, borders=[old_length], end=end) for size in (NARROW, WIDE)
    )
    return Figure("每字符比特数：按位置", "bits per character by position", note, narrow, wide, keys)


def needle_figure(title: str, cells: Sequence[FoundCell], old_length: int, name: str) -> Figure:
    """Shares of needles found, in per cent, by length across and depth downwards; a line stands at the old length.

    Args:
        title: the model.
        cells: every length with every depth.
        old_length: tokens of the context before it was extended.
        name: unlike that of another figure on the page.
    """
    shares = {(cell.length, cell.depth): cell.share for cell in cells}
    lengths, depths = sorted({c.length for c in cells}), sorted({c.depth for c in cells})
    old = [s for (length, _), s in shares.items() if length <= old_length]
    new = [s for (length, _), s in shares.items() if length > old_length]
    told = " → ".join(f"{np.mean(part):.0%}" for part in (old, new) if part)
    label = f"{title} 找回的针 needles found in texts of up to {old_length:,} tokens → beyond: {told}"
    note = (
        f"找回的百分比，原长度内 → 之外：{told}",
        f"per cent of needles found, up to the old length → beyond: {told}",
    )
    return Figure(
        f"针：{title}", f"needles: {title}", note, _heat_map(name, label, shares, lengths, depths, old_length)
    )


def _heat_map(
    name: str,
    label: str,
    shares: dict[tuple[int, float], float],
    lengths: Sequence[int],
    depths: Sequence[float],
    old_length: int,
) -> Markup:
    width, height = NARROW
    with drawing(name, label, NARROW) as done:
        axes = done.canvas.add_axes((50 / width, 42 / height, 1 - 62 / width, 1 - 52 / height))
        axes.patch.set_visible(False)
        axes.set_xlim(0, len(lengths))
        axes.set_ylim(len(depths), 0)
        for (length, depth), share in shares.items():
            x, y = lengths.index(length), depths.index(depth)
            axes.add_patch(Rectangle((x + 0.02, y + 0.03), 0.96, 0.94, color=colour("--rule"), alpha=0.35, linewidth=0))
            axes.add_patch(
                Rectangle((x + 0.02, y + 0.03), 0.96, 0.94, color=colour("--accent"), alpha=share, linewidth=0)
            )
            ink = colour("--paper" if share > DARK else "--ink")
            axes.text(x + 0.5, y + 0.5, f"{100 * share:.0f}", color=ink, ha="center", va="center_baseline")
        between = sum(length <= old_length for length in lengths)
        if 0 < between < len(lengths):
            axes.axvline(between, color=colour("--muted"), linewidth=1.2, dashes=(2, 3))
        axes.set_xticks([i + 0.5 for i in range(len(lengths))], [f"{length:,}" for length in lengths])
        axes.set_yticks([i + 0.5 for i in range(len(depths))], [f"{depth:.0%}" for depth in depths])
        axes.set_xlabel("tokens", loc="right", labelpad=3)
        axes.tick_params(bottom=False, left=False, pad=6)
        axes.spines[:].set_visible(False)
    return done.svg
