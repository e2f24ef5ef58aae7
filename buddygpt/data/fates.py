"""What becomes of each document: removed as a duplicate, or else held out or trained on.

Which documents are held out is decided by nothing but the hash of their text, after duplicates are gone: no text, nor
one nearly like it, stands on both sides. Of talks and pairs to tune on the first question decides.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from buddygpt.data.duplicates import Duplicates
from buddygpt.data.intake import Intake
from buddygpt.data.sources import RENDER, Source
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

    def judge(number: int) -> tuple[NDArray[np.uint8], NDArray[np.intp], NDArray[np.uint64]]:
        """Fates of a batch before any document is held out; the places of those that stay, and what splits them."""
        fate = _removed(duplicates, starts[number], starts[number + 1])
        kept = np.flatnonzero(fate == TRAIN)
        return fate, kept, staged.index(number)["split"][kept]

    owned = {s.name: [n for n, batch in enumerate(batches) if batch.source.name == s.name] for s in sources}
    limits, asked = {}, [np.empty(0, np.uint64)]
    for source in sources:
        own = owned[source.name]
        limits[source.name] = limit = _limit(source, own, (judge(number)[2] for number in own), staged)
        if source.render in RENDER.values():  # a question that one source holds out is trained on in none
            asked += [words[words < limit] for _, _, words in map(judge, own)]
    held = np.unique(np.concatenate(asked))
    trained = False
    for source in sources:
        for number in owned[source.name]:
            fate, kept, words = judge(number)
            fate[kept[(words < limits[source.name]) | np.isin(words, held)]] = VALIDATION
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


def _limit(source: Source, own: Sequence[int], kept: Iterable[NDArray[np.uint64]], staged: Staged) -> int:
    """What is held out of a source: documents whose words are below it.

    It is the source's share of all words; but where that is neither 0 nor 1 some documents are on each side.

    Args:
        source: its share.
        own: its batches.
        kept: the words of the documents that stay, batch by batch.
        staged: what became of the rows, where none stays.
    """
    limit, least, most = math.ceil(source.share * 2**53) << 11, 2**64, -1
    for words in kept:
        if len(words):
            least, most = min(least, int(words.min())), max(most, int(words.max()))
    if most < 0:
        raise _nothing_left(source, own, staged)
    if not 0 < source.share < 1:
        return limit
    if least == most:
        what, more = "one document cannot", "cut it into several"
        if source.render in RENDER.values():
            what, more = "its rows all ask one question, which cannot", "add rows that ask another"
        raise BuddyError(
            f"{source.name}: {what} be split into training and validation; {more}, "
            "or set the source's `validation` to 0 or 1"
        )
    return min(max(limit, least + 1), most)


def _nothing_left(source: Source, own: Sequence[int], staged: Staged) -> BuddyError:
    if documents := sum(len(staged.index(number)) for number in own):
        return BuddyError(
            f"{source.name}: all of its {documents} documents are copies of documents in other sources; "
            "remove it from the recipe's sources"
        )
    intake = Intake()
    for number in own:
        intake.add(staged.intake(number))
    told = ", ".join(f"{drop.count} {reason} (first {drop.first})" for reason, drop in intake.dropped.items())
    return BuddyError(
        f"{source.name}: nothing is left of its {intake.rows} rows: {told}; see its `map` and `min_score`, and `clean`"
    )
