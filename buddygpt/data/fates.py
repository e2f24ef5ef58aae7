"""What becomes of each document: removed as a duplicate, or else held out or trained on.

Which documents are held out is decided by nothing but the hash of their text, after duplicates are gone: no text, nor
one nearly like it, stands on both sides. Of talks and pairs to tune on the first question decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from buddygpt.data.duplicates import Duplicates
from buddygpt.data.sources import Source
from buddygpt.data.staging import Batch, Staged, whole_file
from buddygpt.recipe.errors import BuddyError

TRAIN, VALIDATION, DUPLICATE, NEAR_DUPLICATE = 0, 1, 2, 3
SPLITS = {TRAIN: "train", VALIDATION: "validation"}
REMOVED = {DUPLICATE: "duplicate", NEAR_DUPLICATE: "near duplicate"}
"""Why a document that was staged does not stay."""


def fate_file(folder: Path, batch: int) -> Path:
    """Where the fates of a batch's documents lie: one byte each."""
    return folder / f"{batch:05d}.npy"


def write_fates(
    sources: Sequence[Source], batches: Sequence[Batch], staged: Staged, duplicates: Duplicates, folder: Path
) -> None:
    """Decide on every document, batch by batch.

    Raises:
        BuddyError: a source of which nothing stays or that cannot be split, or nothing is left to train on.
    """
    starts = staged.starts(len(batches))
    trained = False
    for source in sources:
        own = [number for number, batch in enumerate(batches) if batch.source.name == source.name]
        fates = {number: _removed(duplicates, starts[number], starts[number + 1]) for number in own}
        out = _hold_out(source, fates, staged)
        for number, fate in fates.items():
            fate[out[number]] = VALIDATION
            trained = trained or bool(np.any(fate == TRAIN))
            with whole_file(fate_file(folder, number)) as file:
                np.save(file, fate)
    if not trained:
        raise BuddyError("every document is held out; lower `data.validation`, or add a source to train on")


def fractions(words: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Words of hashes as numbers in [0, 1); below the share means held out."""
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _removed(duplicates: Duplicates, start: int, stop: int) -> NDArray[np.uint8]:
    """Fates of the documents [start, stop) before any is held out."""
    fate = np.full(stop - start, TRAIN, np.uint8)
    exact, near = duplicates.of(start, stop)
    fate[exact], fate[near] = DUPLICATE, NEAR_DUPLICATE
    return fate


def _hold_out(source: Source, fates: dict[int, NDArray[np.uint8]], staged: Staged) -> dict[int, NDArray[np.intp]]:
    """Places of the documents that are held out: by hash, but where the share is neither 0 nor 1 some on each side."""
    out: dict[int, NDArray[np.intp]] = {}
    kept_in_all, out_in_all = 0, 0
    least: tuple[Any, ...] = ()
    most: tuple[Any, ...] = ()
    for number, fate in fates.items():
        kept = np.flatnonzero(fate == TRAIN)
        words = staged.index(number)["split"][kept]
        out[number] = kept[fractions(words) < source.share]
        kept_in_all += len(kept)
        out_in_all += len(out[number])
        if len(kept):
            low_at, high_at = int(np.argmin(words)), int(np.argmax(words))
            least = min(filter(None, (least, (words[low_at], number, kept[low_at]))))
            most = max(filter(None, (most, (words[high_at], number, kept[high_at]))), key=lambda best: best[0])
    if not kept_in_all:
        raise _nothing_left(source, sum(map(len, fates.values())))
    if not 0 < source.share < 1:
        return out
    if kept_in_all == 1:
        raise BuddyError(
            f"{source.name}: one document cannot be split into training and validation; "
            "cut it into several, or set the source's `validation` to 0 or 1"
        )
    if not out_in_all:
        out[least[1]] = np.array([least[2]])
    if out_in_all == kept_in_all:
        out[most[1]] = out[most[1]][out[most[1]] != most[2]]
    return out


def _nothing_left(source: Source, documents: int) -> BuddyError:
    if not documents:
        return BuddyError(f"{source.name}: no text is left of it; see its `min_score`, and `data.clean`")
    return BuddyError(
        f"{source.name}: all of its {documents} documents are copies of documents in other sources; "
        "remove it from data.sources"
    )
