"""How much of a text says the same again: in lines and in runs of words, where each Chinese character is a word.

Runs are compared by a hash of 64 bits that slides over the text (Karp and Rabin, "Efficient randomized
pattern-matching algorithms", 1987): prefix sums of letter times power, so that any run's hash is one difference.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from buddygpt.data.clean.characters import DIGIT, KANA, Kinds, Points

LONGEST = 1 << 18
"""Characters at most; what comes after them is not judged, which bounds memory."""

_BASE = 0x9E3779B97F4A7C15
_MIX = np.uint64(0xBF58476D1CE4E5B9)
_WORD_START = np.uint32(1 << 21)  # above all code points
_HALF = np.uint64(32)


@dataclass(frozen=True)
class Words:
    """The words of a text, ready for comparison.

    Args:
        hashes: prefix hashes at the words' first letters and at the end, (words + 1,).
        shifts: what makes a run's hash independent of its place, (words,).
    """

    hashes: NDArray[np.uint64]
    shifts: NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.shifts)

    def runs(self, length: int) -> NDArray[np.uint64]:
        """Sorted hashes of all runs of `length` words."""
        if len(self) < length:
            return np.empty(0, np.uint64)
        hashes = self.hashes[length:] - self.hashes[:-length]
        hashes *= self.shifts[: len(hashes)]
        hashes.sort()
        return hashes


def find_words(points: Points, kinds: Kinds) -> Words:
    """Chinese characters and kana one by one; letters and digits of other scripts in runs; nothing else."""
    lettered = np.flatnonzero(kinds >= DIGIT)
    letters, kinds = points.take(lettered), kinds.take(lettered)
    starts = kinds >= KANA
    after = starts[:-1] | (lettered[1:] - lettered[:-1] != 1)
    starts[1:] |= after
    starts[:1] = True
    letters |= starts * _WORD_START  # "ab c" differs from "a bc"
    mixed = letters * _MIX
    mixed ^= mixed >> _HALF
    powers, inverses = _powers()
    mixed *= powers[: len(mixed)]
    prefix = np.zeros(len(mixed) + 1, np.uint64)
    np.cumsum(mixed, out=prefix[1:])
    first = np.flatnonzero(starts)
    return Words(np.append(prefix.take(first), prefix[-1]), inverses.take(first))


def repeated_runs(words: Words, length: int) -> float:
    """Share of the runs of `length` words that repeat an earlier one."""
    hashes = words.runs(length)
    if len(hashes) < 2:
        return 0.0
    return int(np.count_nonzero(hashes[1:] == hashes[:-1])) / len(hashes)


def commonest_run(words: Words, length: int, floor: float, least: int) -> float:
    """Share of all words that the commonest run of `length` words makes up.

    Args:
        words: of the text.
        length: words of a run.
        floor: shares up to this one need not be known, and give 0.
        least: nor do those of runs that occur less often.
    """
    times = max(least, int(floor * len(words) / length) + 1)
    hashes = words.runs(length)
    if not (hashes[times - 1 :] == hashes[: max(0, len(hashes) - times + 1)]).any():
        return 0.0
    borders = np.flatnonzero(hashes[1:] != hashes[:-1]) + 1
    longest = np.diff(borders, prepend=0, append=len(hashes)).max()
    return min(1.0, float(longest) * length / len(words))


def repeated_lines(text: str) -> float:
    """Share of the text that stands in lines which repeat an earlier one."""
    lines = [line for line in map(str.strip, text.split("\n")) if line]
    distinct = set(lines)
    if len(distinct) == len(lines):
        return 0.0
    return 1 - sum(map(len, distinct)) / sum(map(len, lines))


@cache
def _powers() -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Powers of the base and of its inverse modulo 2^64."""
    bases = (_BASE, pow(_BASE, -1, 1 << 64))
    up, down = (np.cumprod(np.r_[np.uint64(1), np.full(LONGEST, base, np.uint64)]) for base in bases)
    return up, down
