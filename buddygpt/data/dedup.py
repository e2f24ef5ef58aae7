"""Exact duplicates removed over all sources, then what stays split into training and validation.

Both look at nothing but the hash of a document's text, so the result depends neither on workers nor on the order of
files, but for which copy of a text stays: the first in the recipe's order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from buddygpt.recipe.errors import BuddyError

TRAIN, VALIDATION, DUPLICATE = 0, 1, 2
SPLITS = {TRAIN: "train", VALIDATION: "validation"}


@dataclass(frozen=True)
class Held:
    """How much of a run of documents is held out.

    Args:
        source: its name, for messages.
        start, stop: the run, in all documents.
        share: of its documents, 0 to 1.
    """

    source: str
    start: int
    stop: int
    share: float


def decide(high: NDArray[np.uint64], low: NDArray[np.uint64], held: Sequence[Held]) -> NDArray[np.uint8]:
    """What becomes of each document: TRAIN, VALIDATION or DUPLICATE.

    All hashes are in memory at once: about 60 bytes a document at the peak, 6 GB for 100 million.

    Args:
        high, low: the words of the documents' hashes, in the recipe's order.
        held: one for each source, together all documents.

    Raises:
        BuddyError: a source that cannot be split, or holds nothing but copies of earlier ones.
    """
    fates = np.where(find_duplicates(high, low), np.uint8(DUPLICATE), np.uint8(TRAIN))
    for part in held:
        own = fates[part.start : part.stop]
        kept = np.flatnonzero(own != DUPLICATE)
        if not len(kept):
            raise BuddyError(
                f"{part.source}: all of its {len(own)} documents are copies of documents in earlier sources; "
                "remove it from data.sources"
            )
        own[kept[_hold_out(high[part.start : part.stop][kept], part)]] = VALIDATION
    return fates


def find_duplicates(high: NDArray[np.uint64], low: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which documents have a hash that an earlier one has."""
    order = np.lexsort((low, high))  # stable: among equal hashes the first document comes first
    high, low = high[order], low[order]
    again = np.zeros(len(order), dtype=bool)
    again[order[1:]] = (high[1:] == high[:-1]) & (low[1:] == low[:-1])
    return again


def fractions(high: NDArray[np.uint64]) -> NDArray[np.float64]:
    """The hash's higher word as a number in [0, 1); below the share means held out."""
    return (high >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _hold_out(high: NDArray[np.uint64], part: Held) -> NDArray[np.bool_]:
    """Which documents are held out: by hash, but where the share is neither 0 nor 1 some on each side."""
    out = fractions(high) < part.share
    if not 0 < part.share < 1:
        return out
    if len(high) == 1:
        raise BuddyError(
            f"{part.source}: one document cannot be split into training and validation; "
            "cut it into several, or set the source's `validation` to 0 or 1"
        )
    if not out.any():
        out[np.argmin(high)] = True
    if out.all():
        out[np.argmax(high)] = False
    return out
