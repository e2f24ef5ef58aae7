"""How sure a score is, whether it is more than guessing, and whether two models really differ on the same items."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

Z = 1.959964
"""Standard errors that a 95 % interval reaches to either side."""
SIGMAS = 2.0
"""Standard errors above chance from which on a score counts as more than guessing."""
FLIPS = 9_999
"""Random swaps that a difference is compared with: p is a multiple of 1 / 10,000."""

_BLOCK = 2_000_000  # signs drawn at once, which bounds memory


def share_error(share: float, n: int) -> float:
    """Standard error of a share of `n` items; NaN below two items. As lm-eval counts it, with n - 1."""
    return math.sqrt(share * (1 - share) / (n - 1)) if n > 1 else math.nan


def mean_error(sums: Sequence[float], weights: Sequence[float]) -> float:
    """Standard error of sum(sums) / sum(weights) over items drawn at random; NaN below two items.

    With weights of 1 it is that of a mean. Else the mean is a ratio of two totals, whose error follows from each item's
    distance to it (Cochran, Sampling Techniques, 3rd ed., section 2.11).

    Args:
        sums: of each item: right answers, bits.
        weights: of each item: questions, characters.
    """
    s, w = np.asarray(sums, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    if len(s) < 2:
        return math.nan
    apart = s - w * (s.sum() / w.sum())
    return float(np.sqrt(np.square(apart).sum() / (len(s) - 1) / len(s)) / w.mean())


def interval(share: float, n: int) -> tuple[float, float]:
    """95 % interval of a share of `n` items, by Wilson (1927): within 0 and 1, and never empty at 0 of 30 right."""
    if n == 0:
        return 0.0, 1.0
    middle = (share + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z * math.sqrt(share * (1 - share) / n + Z * Z / (4 * n * n)) / (1 + Z * Z / n)
    # At its ends the interval touches 0 and 1, but for rounding.
    return (0.0 if share == 0 else max(0.0, middle - half)), (1.0 if share == 1 else min(1.0, middle + half))


def above_chance(share: float, n: int, chance: float | None) -> bool | None:
    """Whether a score exceeds chance by more than two standard errors; None where no chance is known.

    The error is the null's, sqrt(c (1 - c) / n): the question is how far a model that guesses gets by luck. The score's
    own error answers another question, and is 0 where all or nothing is right.
    """
    if chance is None:
        return None
    return share - chance > SIGMAS * math.sqrt(chance * (1 - chance) / max(n, 1))


def mcnemar(a: Sequence[bool], b: Sequence[bool]) -> float:
    """Exact two-sided p of McNemar's test (1947): are two models equally often right on the same items?

    Only items matter that one has right and the other wrong: where the models are alike, each of these falls to either
    with probability 1/2. Counted in whole numbers and divided once, so it is exact however many items there are.

    Args:
        a, b: whether each model has each item right, in the same order.
    """
    pairs = [(bool(x), bool(y)) for x, y in zip(a, b, strict=True)]
    first, second = pairs.count((True, False)), pairs.count((False, True))
    n, fewer = first + second, min(first, second)
    term = total = 1  # of the binomial coefficients of n, up to `fewer`
    for k in range(fewer):
        term = term * (n - k) // (k + 1)
        total += term
    return min(1.0, 2 * total / 2**n)


def sign_flip(differences: Sequence[float], seed: int = 0) -> float:
    """Two-sided p of a paired test on differences of any size, such as bits of each text.

    Where two models are alike, their names may be swapped on any item: the sum of the differences is compared with
    sums under random signs (Fisher 1935). Unlike the t test this asks for no shape of their distribution, which for
    texts of unlike lengths is far from normal, and for no equal weights. The same seed gives the same p.

    Args:
        differences: of each item, in an order that does not depend on the models.
        seed: of the random signs.
    """
    d = np.asarray(differences, dtype=np.float64)
    seen = abs(d.sum()) * (1 - 1e-12)  # sums that are equal but for rounding count as reached
    if not d.any():
        return 1.0
    generator = np.random.default_rng(seed)
    rows = max(1, _BLOCK // len(d))
    reached = 0
    for start in range(0, FLIPS, rows):
        shape = (min(rows, FLIPS - start), len(d))
        bits = np.unpackbits(np.frombuffer(generator.bytes(-(-shape[0] * shape[1] // 8)), dtype=np.uint8))
        signs = bits[: shape[0] * shape[1]].reshape(shape) * 2.0 - 1
        reached += int((np.abs(signs @ d) >= seen).sum())
    return (1 + reached) / (1 + FLIPS)
