"""Near-duplicate texts found by MinHash and locality-sensitive hashing.

A text's signature holds, for each of up to 128 hash functions, the least hash among its distinct n-grams; two texts
agree in one place of it with a probability that is their Jaccard similarity s (Broder, "On the resemblance and
containment of documents", 1997, section 3). The signature is cut into b bands of r rows, and a pair is found where a
whole band agrees: with probability 1 - (1 - s^r)^b, an S-shaped curve of s (Leskovec, Rajaraman and Ullman, "Mining of
Massive Datasets", section 3.4). Nobody chooses b and r: they follow from the similarity at which that curve passes 1/2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from buddygpt.data.ngrams import Hashes, Offsets, mix, ngram_blocks

MOST_HASHES = 128
_TOLERANCE = 0.03
"""How far from 1/2 the chance of a pair at the threshold may be, in exchange for a steeper curve."""
_SEED = 20  # any; another one would find other pairs near the threshold
_SLICE = 1 << 16
"""N-grams that are hashed at a time: 256 kB, which stay in a processor's cache."""


@dataclass(frozen=True)
class MinHash:
    """How texts are compared.

    Args:
        threshold: Jaccard similarity of their n-grams at which a pair is found as likely as not.
        ngram: units in an n-gram.
        min_ngrams: texts with fewer distinct n-grams are not compared: a few changed characters make a short text
            another text.
    """

    threshold: float = 0.75
    ngram: int = 5
    min_ngrams: int = 20

    @property
    def bands(self) -> int:
        """How many bands a signature has."""
        return _choose_bands(self.threshold)[0]

    @property
    def rows(self) -> int:
        """How many hashes a band has."""
        return _choose_bands(self.threshold)[1]

    def probability(self, similarity: float) -> float:
        """How likely a pair of this similarity is found."""
        return 1 - (1 - similarity**self.rows) ** self.bands

    def describe(self) -> str:
        """The choice and what it finds, in one line."""
        high, low = (_percent(self.probability(s)) for s in (0.9, 0.3))
        return (
            f"{self.bands} bands of {self.rows} rows: a pair at similarity 0.9 is found with {high}, at 0.3 with {low}"
        )

    def bands_of(self, texts: Sequence[str]) -> tuple[Hashes, NDArray[np.bool_]]:
        """What pairs are found by: two texts with the same key in a column are near duplicates.

        Takes about 30 MB and 500 bytes a text, however long they are.

        Args:
            texts: any number.

        Returns:
            Keys [len(texts), bands], and which texts are long enough; the others' keys mean nothing.
        """
        signatures = np.full((self.bands * self.rows, len(texts)), np.uint32(0xFFFFFFFF))
        distinct = np.zeros(len(texts), np.int64)
        for owners, hashes, offsets in ngram_blocks(texts, self.ngram, self.ngram):
            first, last = owners[0], owners[-1] + 1
            counts = np.bincount(np.repeat(owners - first, np.diff(offsets)), minlength=last - first)
            grams, starts = _distinct(hashes, counts)
            sizes = np.diff(starts)
            distinct[first:last] += sizes
            _sign(signatures[:, first:last], grams, starts)
        return _band_keys(signatures, self.rows), distinct >= self.min_ngrams


@cache
def _choose_bands(threshold: float) -> tuple[int, int]:
    """Bands and rows: of the curves that pass 1/2 at the threshold, nearly, the one with most rows, which is the
    steepest. Each row makes the curve steeper, and needs more bands to keep its place."""
    choices = [(bands, rows) for rows in range(1, MOST_HASHES + 1) for bands in range(1, MOST_HASHES // rows + 1)]
    errors = {(bands, rows): abs((1 - threshold**rows) ** bands - 0.5) for bands, rows in choices}
    within = max(_TOLERANCE, min(errors.values()))
    return max((c for c in choices if errors[c] <= within), key=lambda c: (c[1], -errors[c]))


def _percent(chance: float) -> str:
    if chance < 1e-5:
        return "under 0.001 %"
    return f"{100 * chance:.3g} %" if chance < 0.9995 else "over 99.9 %"


def _distinct(hashes: Hashes, counts: Offsets) -> tuple[NDArray[np.uint32], Offsets]:
    """The higher halves of each text's hashes, each once, sorted, and where each text's begin."""
    keyed = np.repeat(np.arange(len(counts), dtype=np.uint64) << np.uint64(32), counts)
    keyed |= hashes >> np.uint64(32)
    keyed.sort()
    keyed = keyed[np.diff(keyed, prepend=~keyed[:1]) != 0]
    starts = np.searchsorted(keyed, np.arange(len(counts) + 1, dtype=np.uint64) << np.uint64(32))
    return keyed.astype(np.uint32), starts


def _sign(signatures: NDArray[np.uint32], grams: NDArray[np.uint32], starts: Offsets) -> None:
    """Lower each text's signature to the least hashes of its n-grams.

    The hash functions are x -> (a x mod 2^32) xor b with odd a: permutations of the 32 bit words, so that distinct
    n-grams never tie, in arithmetic that processors do eight or sixteen at a time.

    Args:
        signatures: [hashes, texts], changed in place.
        grams: well mixed words.
        starts: where each text's begin, len + 1.
    """
    multipliers, masks = _functions()
    buffer = np.empty(_SLICE, np.uint32)
    for begin in range(0, len(grams), _SLICE):
        part = grams[begin : begin + _SLICE]
        hashed = buffer[: len(part)]
        present = np.flatnonzero((starts[:-1] < begin + len(part)) & (starts[1:] > begin) & (np.diff(starts) > 0))
        cuts = np.maximum(starts[present] - begin, 0)
        for number in range(len(signatures)):
            np.multiply(part, multipliers[number], out=hashed)
            np.bitwise_xor(hashed, masks[number], out=hashed)
            least = np.minimum.reduceat(hashed, cuts)
            row = signatures[number]
            row[present] = np.minimum(row[present], least)


@cache
def _functions() -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    words = mix(np.arange(_SEED, _SEED + MOST_HASHES, dtype=np.uint64))
    return (words >> np.uint64(32)).astype(np.uint32) | np.uint32(1), words.astype(np.uint32)


def _band_keys(signatures: NDArray[np.uint32], rows: int) -> Hashes:
    """A hash of each band's rows and of its number, [texts, bands]."""
    bands = len(signatures) // rows
    keys = np.empty((signatures.shape[1], bands), np.uint64)
    for band in range(bands):
        key = np.full(signatures.shape[1], band + 1, np.uint64)
        for row in signatures[band * rows : (band + 1) * rows]:
            key = mix(key ^ row)
        keys[:, band] = key
    return keys
