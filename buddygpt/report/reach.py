"""How far a model reaches whose context was extended: before, extended only, and tuned at the new length."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from buddygpt.report.context import FoundCell, PositionLine, needle_figure, positions_figure
from buddygpt.report.figures import Figure
from buddygpt.report.words import CHINESE, NOTHING, spell_number

BEFORE, EXTENDED, TUNED = "not extended", "extended, not tuned", "extended and tuned"
NAMES = BEFORE, EXTENDED, TUNED
"""The models that are compared, in this order."""
WORSE = 0.01
"""Share by which bits per character at the old length may grow untold."""
HEADROOM = 1.6
"""Times the tuned model's highest bits that the plot shows: one that knows nothing of the new positions is far off."""


@dataclass(frozen=True)
class Reached:
    """What was measured of one model; an empty sequence or None where something was not.

    Args:
        edges, bits, errors: of a `PositionLine`.
        old_bits, new_bits: bits per character of all positions up to the old length, and of those beyond.
        cells: needles found by length and depth.
        old_found, new_found: shares of the needles found in texts up to the old length, and in longer ones.
    """

    edges: Sequence[int] = ()
    bits: Sequence[float] = ()
    errors: Sequence[float] = ()
    old_bits: float | None = None
    new_bits: float | None = None
    cells: Sequence[FoundCell] = ()
    old_found: float | None = None
    new_found: float | None = None


@dataclass(frozen=True)
class Context:
    """A context that was extended.

    Args:
        old, new: its lengths in tokens.
        scaling: name of the scaling of rotary positions.
        models: name, of `NAMES`, to what was measured.
        text: what was read.
        windows: how many of it.
        needles: of each length and depth.
        notes: what was left out, and why.
    """

    old: int
    new: int
    scaling: str
    models: Mapping[str, Reached]
    text: str = ""
    windows: int = 0
    needles: int = 0
    notes: Sequence[str] = ()

    @property
    def change(self) -> float:
        """Growth of the bits per character at the old length, as a share; NaN where it is not known."""
        before, tuned = (self.models.get(name, Reached()).old_bits for name in (BEFORE, TUNED))
        return math.nan if before is None or tuned is None else tuned / before - 1


def context_rows(context: Context) -> list[tuple[str, ...]]:
    """A row for each model: name, bits per character up to the old length and beyond, needles found there and there."""
    return [
        (name, *map(_spell_bits, (one.old_bits, one.new_bits)), *map(_spell_share, (one.old_found, one.new_found)))
        for name, one in context.models.items()
    ]


def context_heads(context: Context) -> tuple[str, ...]:
    """What stands above `context_rows`."""
    old = f"{context.old:,}"
    return ("", f"bits/char up to {old}", "beyond", f"needles up to {old}", "beyond")


def context_verdict(context: Context) -> tuple[str, str] | None:
    """How the bits per character at the old length changed, in Chinese and in English."""
    if math.isnan(context.change):
        return None
    change = f"{context.change:+.1%}".replace("-", "−")
    return (
        f"原长度内每字符比特 {change}（目标：不高于 +{WORSE:.0%}）",
        f"bits per character up to the old length: {change} (at most +{WORSE:.0%} is wanted)",
    )


def context_cautions(context: Context) -> Iterable[tuple[str, str]]:
    """What went wrong, in Chinese and in English."""
    if context.change > WORSE:
        before, tuned = (_spell_bits(context.models[name].old_bits) for name in (BEFORE, TUNED))
        yield (
            f"原来的 {context.old:,} 个位置上变差了 {context.change:.1%}：每字符比特 {before} → {tuned}。"
            "可多训练几步、降低学习率，或试试 yarn",
            f"at the {context.old:,} positions of old the model became worse by {context.change:.1%}: bits per "
            f"character {before} -> {tuned}; tune for more steps, at a lower rate, or try yarn",
        )


def context_figures(context: Context) -> list[Figure]:
    """Bits per character by position, and a map of needles for each model."""
    figures = []
    lines = [
        PositionLine(_both(name), one.edges, one.bits, one.errors, number, dashed=name == BEFORE)
        for number, (name, one) in zip((7, 1, 0), _in_order(context), strict=True)
        if one.bits
    ]
    if lines:
        # Until it is tuned, what is there decides; then lines far above the tuned one run out of the plot.
        tuned = context.models.get(TUNED, Reached()).bits
        top = HEADROOM * max(tuned) if tuned and max(max(line.bits) for line in lines) > HEADROOM * max(tuned) else None
        figures.append(positions_figure(lines, context.old, top))
    for number, (name, one) in enumerate(_in_order(context)):
        if one.cells:
            figure = needle_figure(_both(name), one.cells, context.old, f"needles-{number}")
            figures.append(replace(figure, chinese=f"针：{CHINESE[name]}", english=f"needles: {name}"))
    return figures


def _in_order(context: Context) -> list[tuple[str, Reached]]:
    return [(name, context.models.get(name, Reached())) for name in NAMES]


def _both(name: str) -> str:
    return f"{CHINESE[name]} {name}"


def _spell_bits(value: float | None) -> str:
    return NOTHING if value is None else spell_number(value, 3)


def _spell_share(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.0%}"
