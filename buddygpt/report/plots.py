"""Curves drawn as inline SVG: matplotlib lays them out, the page's style sheet gives the colours and the typeface.

The drawings hold numbers and no words but `tokens`, so no font needs Chinese; what a curve is stands beside it in HTML.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import StringIO

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter, NullLocator

from buddygpt.report.curves import Array, Series
from buddygpt.report.words import spell_count

LINES = 8
"""Colours for lines that the style sheet has; more lines than that share them."""

_NAMED = ("--muted", "--rule", "--warn", "--ink", "--paper", "--accent")
_VARIABLES = (*_NAMED, *(f"--line-{n}" for n in range(1, LINES + 1)))
# matplotlib knows colours only as numbers: each variable travels as an unlikely near-black and is put back in the SVG.
_STAND_INS = {name: f"#0001{n:02x}" for n, name in enumerate(_VARIABLES)}
_FEW = 40  # points that are few enough to be dots on their line


@dataclass(frozen=True)
class Curve:
    """One line of a plot.

    Args:
        series: thinned already.
        line: which of the page's line colours, from 0; more than `LINES` share them.
        width: in pixels.
        opacity: 0 to 1.
        dashed: dashes in place of a solid line.
        spread: a faint band of this half height around the line.
        name: a word written on the line, for those who cannot tell it by its colour; empty: none.
        at: where on the line, as a share of its points.
    """

    series: Series
    line: int = 0
    width: float = 1.6
    opacity: float = 1.0
    dashed: bool = False
    spread: Array | None = None
    name: str = ""
    at: float = 1.0


@dataclass(frozen=True)
class Scale:
    """The vertical axis.

    Args:
        log: logarithmic.
        zero: begins at 0 (linear only).
        counts: tick labels with k, M, B.
        top: where it ends; higher values run out of the plot. None: where the values end.
    """

    log: bool = False
    zero: bool = False
    counts: bool = False
    top: float | None = None


def spans_far(values: Sequence[float] | np.ndarray) -> bool:
    """Whether a logarithmic axis serves these finite values better: all positive, and far apart."""
    return len(values) > 0 and min(values) > 0 and max(values) > 2.5 * min(values)


def draw(
    name: str,
    label: str,
    curves: Sequence[Curve],
    size: tuple[int, int],
    scale: Scale,
    marks: Sequence[float] | np.ndarray = (),
    borders: Sequence[float] = (),
    end: float | None = None,
    unit: str = "tokens",
) -> Markup:
    """One plot over tokens, or what else `unit` names.

    Args:
        name: unlike that of any other drawing on the page; the ids inside are made from it.
        label: what a screen reader says.
        curves: at least one, with at least one point.
        size: width and height in pixels at natural size; it scales.
        scale: the vertical axis.
        marks: tokens at which a value was not finite; ticks on the axis.
        borders: tokens at which a line crosses the plot from below to above.
        end: tokens at which the plot ends; None: where the curves end.
        unit: of the horizontal axis.
    """
    width, height = size
    with drawing(name, label, size) as done:
        axes = done.canvas.add_axes((50 / width, 42 / height, 1 - 62 / width, 1 - 52 / height))
        axes.patch.set_visible(False)
        for curve in curves:
            few = len(curve.series) <= _FEW and not curve.dashed
            x, y = curve.series.x, curve.series.y
            line = colour(f"--line-{curve.line % LINES + 1}")
            if curve.spread is not None:
                axes.fill_between(x, y - curve.spread, y + curve.spread, color=line, alpha=0.16, linewidth=0)
            axes.plot(
                x,
                y,
                color=line,
                linewidth=curve.width,
                alpha=curve.opacity,
                dashes=(4, 3) if curve.dashed else (None, None),
                marker="o" if few else None,
                markersize=1.5 + 1.5 * curve.width,
                markeredgewidth=0,
                clip_on=scale.top is not None,
                zorder=2 if curve.dashed else 3,
            )
            if curve.name:
                _write_name(axes, curve, line)
        _set_axes(axes, curves, scale, end)
        axes.set_xlabel(unit, loc="right", labelpad=3)
        for mark in marks:
            axes.axvline(mark, ymax=0.05, color=colour("--warn"), linewidth=1.2)
        for border in borders:
            axes.axvline(border, color=colour("--muted"), linewidth=1, dashes=(2, 3), zorder=1)
    return done.svg


class Drawing:
    """A canvas to draw on; `svg` is there once it is done."""

    def __init__(self, canvas: Canvas):
        self.canvas = canvas
        self.svg = Markup()


@contextmanager
def drawing(name: str, label: str, size: tuple[int, int]) -> Iterator[Drawing]:
    """An empty drawing in the page's style; arguments as those of `draw`."""
    muted = colour("--muted")
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # its font measures words; the page's typeface draws them
        matplotlib.rcdefaults()  # a matplotlibrc of the user's must not change the page
        matplotlib.rcParams.update({
            "svg.fonttype": "none", "svg.hashsalt": name, "path.simplify": False, "font.size": 12,
            "text.color": muted, "axes.labelcolor": muted, "xtick.color": muted, "ytick.color": muted,
        })  # fmt: skip
        done = Drawing(Canvas(figsize=(size[0] / 72, size[1] / 72), dpi=72))
        done.canvas.patch.set_visible(False)
        yield done
        out = StringIO()
        done.canvas.savefig(out, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    done.svg = _inline(out.getvalue(), label, size)


def colour(variable: str) -> str:
    """What stands for one of the page's colours while matplotlib draws."""
    return _STAND_INS[variable]


def _write_name(axes: Axes, curve: Curve, line: str) -> None:
    good = np.flatnonzero(np.isfinite(curve.series.y))
    if len(good):
        i = good[round(curve.at * (len(good) - 1))]
        spot = {"boxstyle": "circle,pad=0.22", "facecolor": colour("--paper"), "edgecolor": line, "linewidth": 1.1}
        place = (curve.series.x[i], curve.series.y[i])
        axes.annotate(curve.name, place, color=line, fontsize=11, ha="center", va="center", bbox=spot, zorder=5)


def _set_axes(axes: Axes, curves: Sequence[Curve], scale: Scale, end: float | None) -> None:
    if end is None:
        end = max(float(c.series.x.max()) for c in curves)
    axes.set_xlim(0, end or 1)
    axes.xaxis.set_major_locator(MaxNLocator(4 if axes.bbox.width < 500 else 8, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: spell_count(x)))
    axes.margins(y=0.06)
    if scale.top is not None:
        low = min(float(c.series.finite.min()) for c in curves if len(c.series.finite))
        axes.set_ylim(low / 1.04 if scale.log else low - 0.06 * (scale.top - low), scale.top * 1.04)
    number = spell_count if scale.counts else "{:g}".format
    if scale.log:
        axes.set_yscale("log", nonpositive="mask")
        axes.yaxis.set_major_locator(FixedLocator(log_ticks(*axes.get_ylim())))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10], min_n_ticks=4))
        if scale.zero:
            axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: number(y)))
    axes.tick_params(bottom=False, left=False, pad=6)
    axes.grid(axis="y", color=colour("--rule"), linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set(color=colour("--muted"), linewidth=0.8)


def log_ticks(low: float, high: float) -> list[float]:
    """Round values between two positive ones: as few to a decade as give four of them, and no more than seven."""
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    ticks: list[float] = []
    for digits in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7), (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9)):
        ticks = [float(f"{d}e{k}") for k in decades for d in digits if low <= float(f"{d}e{k}") <= high]
        if len(ticks) >= 4:
            break
    return ticks[:: -(-len(ticks) // 7) or 1]


def _inline(svg: str, label: str, size: tuple[int, int]) -> Markup:
    """Only the drawing: without matplotlib's header, its style sheet (which would style the page too) and its ids."""
    body = svg[svg.index(">", svg.index("<svg")) + 1 :]
    body = re.sub(r"<style.*?</style>", "", body, flags=re.DOTALL)
    body = re.sub(r' id="(?![mp][0-9a-f]{10}")[^"]*"', "", body)
    body = re.sub(r"\s*\n\s*", "\n", body)
    for name, stand_in in _STAND_INS.items():
        body = body.replace(stand_in, f"var({name})")
    opening = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">').format(*size, label)
    return opening + Markup(body.strip())
