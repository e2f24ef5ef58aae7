"""Exact and near duplicates over all documents, found piece by piece in bounded memory.

Each batch leaves its documents' keys sorted: the hash of the whole text, and one key for each band of MinHash. A task
takes one such table and one range of its keys from every batch, so that all equal keys meet in one task, and a task
holds about `PART_DOCUMENTS` keys. What a task finds depends on the keys alone: not on workers, tasks or the order of
files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datatrove.pipeline.base import PipelineStep
from numpy.typing import NDArray

from buddygpt.data.clusters import bucket_edges, choose_kept, components
from buddygpt.data.staging import Staged, load_array, whole_file

PART_DOCUMENTS = 1 << 20
"""Keys that a task holds at once, about: 100 MB with what sorting takes."""
Numbers = NDArray[np.uint64]


@dataclass(frozen=True)
class Duplicates:
    """Documents that do not stay, by their number over all batches.

    Args:
        exact: copies of an earlier document, ascending.
        near: those nearly like another, ascending; none of them is in `exact`.
        kept: for each of `near` the document that stays for it.
    """

    exact: Numbers
    near: Numbers
    kept: Numbers

    def of(self, start: int, stop: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Places of exact and of near duplicates among the documents [start, stop), counted from `start`."""
        exact, near = (_between(numbers, start, stop).astype(np.int64) - start for numbers in (self.exact, self.near))
        return exact, near


class MatchStep(PipelineStep):
    """Find the equal keys of one table and one range; task `rank` has table `rank // parts`, range `rank % parts`.

    Args:
        staged: what the reading left.
        starts: number of the first document of each batch, and of all of them last.
        tables: 1 for whole texts, and one for each band of MinHash.
        parts: ranges of each table, a power of two.
        folder: of the results.
    """

    name = "match"
    type = "buddygpt"

    def __init__(self, staged: Staged, starts: Sequence[int], tables: int, parts: int, folder: Path):
        super().__init__()
        self.staged, self.starts, self.tables, self.parts, self.folder = staged, starts, tables, parts, folder

    @property
    def tasks(self) -> int:
        """How many there are."""
        return self.tables * self.parts

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Any]:
        """Nothing comes in and nothing goes on: what is found lies in the folder."""
        table, part = divmod(rank, self.parts)
        found = self._find_copies(part) if table == 0 else self._find_edges(table - 1, part)
        with whole_file(self.results(rank)[0]) as file:
            np.save(file, found)
        return iter(())

    def results(self, rank: int) -> list[Path]:
        """What a completed task has left."""
        return [self.folder / f"{rank:05d}.npy"]

    def _find_copies(self, part: int) -> Numbers:
        """Numbers of documents whose hash an earlier one has, ascending."""
        high, low, numbers = [], [], []
        for batch in range(len(self.starts) - 1):
            keys = self.staged.keys(batch)
            own = keys[self._range(keys["high"], part)]
            high.append(own["high"])
            low.append(own["low"])
            numbers.append(own["place"].astype(np.uint64) + np.uint64(self.starts[batch]))
        highs, lows, all_numbers = np.concatenate(high), np.concatenate(low), np.concatenate(numbers)
        order = np.lexsort((all_numbers, lows, highs))  # of equal hashes the first document comes first
        highs, lows = highs[order], lows[order]
        again = (highs[1:] == highs[:-1]) & (lows[1:] == lows[:-1])
        return np.sort(all_numbers[order[1:][again]])

    def _find_edges(self, band: int, part: int) -> Numbers:
        """Pairs of documents with the same key in a band: shape (2, pairs)."""
        keys, numbers = [], []
        for batch in range(len(self.starts) - 1):
            all_keys, places = self.staged.band(batch, band)
            chosen = self._range(all_keys, part)
            keys.append(np.array(all_keys[chosen]))
            numbers.append(places[chosen].astype(np.uint64) + np.uint64(self.starts[batch]))
        return np.stack(bucket_edges(np.concatenate(keys), np.concatenate(numbers)))

    def _range(self, ascending: NDArray[np.uint64], part: int) -> slice:
        """Where the keys of a range lie in a sorted table."""
        width = 2**64 // self.parts
        start = np.searchsorted(ascending, np.uint64(part * width))
        last = np.searchsorted(ascending, np.uint64((part + 1) * width - 1), side="right")
        return slice(int(start), int(last))


def count_parts(documents: int) -> int:
    """Ranges into which a table of so many keys is cut: a power of two."""
    return 1 << max(0, (documents - 1) // PART_DOCUMENTS).bit_length()


def settle_duplicates(step: MatchStep) -> Duplicates:
    """Put together what all tasks found.

    Near duplicates are the connected components of the pairs, of which the longest text stays, of equally long ones
    that with the smallest hash. Memory: 8 bytes an exact duplicate, about 100 a document that has a near one.
    """
    found = [load_array(step.results(rank)[0]) for rank in range(step.parts)]
    exact = np.sort(np.concatenate(found))
    first, second = np.empty(0, np.uint64), np.empty(0, np.uint64)
    nodes, labels = first, second
    for rank in range(step.parts, step.tasks):
        first, second = load_array(step.results(rank)[0])
        # A copy's first document shares all its keys, so nothing comes apart without the copy.
        new = ~(_among(first, exact) | _among(second, exact))
        if new.any():
            nodes, labels = components(np.concatenate((nodes, first[new])), np.concatenate((labels, second[new])))
    if not len(nodes):
        return Duplicates(exact, nodes, nodes)
    records = _records(step, nodes)
    stays = choose_kept(labels, records["bytes"], records["high"], records["low"], nodes)
    order = np.argsort(labels[stays])
    own = np.searchsorted(labels[stays][order], labels[~stays])
    return Duplicates(exact, nodes[~stays], nodes[stays][order][own])


def _records(step: MatchStep, numbers: Numbers) -> NDArray[Any]:
    """Index records of documents, by ascending number."""
    parts = []
    for batch, (start, stop) in enumerate(zip(step.starts, step.starts[1:], strict=False)):
        if len(own := _between(numbers, start, stop)):
            parts.append(step.staged.index(batch)[(own - np.uint64(start)).astype(np.int64)])
    return np.concatenate(parts)


def _between(ascending: Numbers, start: int, stop: int) -> Numbers:
    low, high = np.searchsorted(ascending, np.array([start, stop], np.uint64))
    return ascending[low:high]


def _among(numbers: Numbers, ascending: Numbers) -> NDArray[np.bool_]:
    """Which numbers are in an ascending array."""
    if not len(ascending):
        return np.zeros(len(numbers), bool)
    at = np.minimum(np.searchsorted(ascending, numbers), len(ascending) - 1)
    return ascending[at] == numbers
