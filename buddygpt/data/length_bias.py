"""Lengths of chosen answers against rejected ones: where they tell the choice, length is what is learned."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

FAR = 0.1
"""How far from one half the share of longer chosen answers may be: from 60 % on, length says much."""
CERTAIN = 3.0
"""Standard deviations by which that share must differ from a fair coin's, among pairs of unequal lengths."""


@dataclass(frozen=True)
class LengthBias:
    """What lengths say of some pairs.

    Args:
        pairs: how many.
        chosen_mean, chosen_median, rejected_mean, rejected_median: lengths, in whatever was counted.
        longer: share of pairs whose chosen answer is the longer one, equal lengths as half.
        sure: whether `longer` is far from one half, and not by chance.
    """

    pairs: int
    chosen_mean: float
    chosen_median: float
    rejected_mean: float
    rejected_median: float
    longer: float
    sure: bool

    @property
    def warning(self) -> str | None:
        """One line where length alone predicts the choice."""
        if not self.sure:
            return None
        word, share = ("longer", self.longer) if self.longer > 0.5 else ("shorter", 1 - self.longer)
        return (
            f"length alone predicts the choice: the {word} answer is the chosen one in {share:.1%} of {self.pairs:,} "
            f"pairs, so training may teach no more than to write {word} answers; add pairs in which it is not"
        )


def compare_lengths(chosen: Sequence[int], rejected: Sequence[int]) -> LengthBias:
    """Lengths of the two answers of each pair, of which there is one at least."""
    wins = sum(a > b for a, b in zip(chosen, rejected, strict=True))
    losses = sum(a < b for a, b in zip(chosen, rejected, strict=True))
    longer = 0.5 + (wins - losses) / (2 * len(chosen))
    deviations = abs(wins - losses) / math.sqrt(max(wins + losses, 1))  # of a sign test, by the normal distribution
    return LengthBias(
        len(chosen), statistics.fmean(chosen), statistics.median(chosen), statistics.fmean(rejected),
        statistics.median(rejected), longer, abs(longer - 0.5) >= FAR and deviations >= CERTAIN,
    )  # fmt: skip
