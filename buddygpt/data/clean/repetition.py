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
    lettered = (kinds >= DIGIT).nonzero()[0]
    starts = kinds.take(lettered) >= KANA
    starts[1:] |= starts[:-1] | (lettered[1:] - lettered[:-1] != 1)
    starts[:1] = True
    letters = points.take(lettered)
    letters |= starts * _WORD_START  # "ab c" differs from "a bc"
    mixed = letters * _MIX
    mixed ^= mixed >> _HALF
    powers, inverses = _powers()
    mixed *= powers[: len(mixed)]
    prefix = np.zeros(len(mixed) + 1, np.uint64)
    mixed.cumsum(out=prefix[1:])
    first = starts.nonzero()[0]
    hashes = np.empty(len(first) + 1, np.uint64)
    prefix.take(first, out=hashes[:-1], mode="clip")  # the mode that needs no copy
    hashes[-1] = prefix[-1]
    return Words(hashes, inverses.take(first))


def repeats(runs: NDArray[np.uint64]) -> int:
    """How many of the runs, given by `Words.runs`, repeat an earlier one."""
    return int(np.count_nonzero(runs[1:] == runs[:-1]))


def times_of_commonest(runs: NDArray[np.uint64]) -> int:
    """How often the commonest of the runs, at least one, is there."""
    borders = (runs[1:] != runs[:-1]).nonzero()[0] + 1
    return int(np.diff(borders, prepend=0, append=len(runs)).max())


@cache
def _powers() -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Powers of the base and of its inverse modulo 2^64."""
    bases = (_BASE, pow(_BASE, -1, 1 << 64))
    up, down = (np.cumprod(np.r_[np.uint64(1), np.full(LONGEST, base, np.uint64)]) for base in bases)
    return up, down
