"""Talks and pairs to tune on, read from shards with labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from buddygpt.data.formats import Pair
from buddygpt.data.lengths import Openings, Piece, cut_talk
from buddygpt.data.packing import pack
from buddygpt.data.pairs import fit_pair
from buddygpt.data.template import ANSWER, GIVEN, REJECTED, pair_segments
from buddygpt.data.tokenizer import DocumentEncoder
from buddygpt.data.windows import IGNORE_INDEX, Window

SAME = "answers equal once they were cut"


class Labelled(Protocol):
    """What a shard offers: token ids, what each is to training, and where documents end (exclusive, cumulative)."""

    tokens: NDArray[np.integer]
    labels: NDArray[np.uint8] | None
    document_ends: NDArray[np.integer]


class Documents:
    """The documents of some shards, by number.

    Args:
        shards: in order, all with labels.
    """

    def __init__(self, shards: Sequence[Labelled]):
        self._shards = [shard for shard in shards if len(shard.document_ends)]
        self._firsts = np.cumsum([0, *(len(shard.document_ends) for shard in self._shards)])
        lengths = [np.diff(shard.document_ends, prepend=0) for shard in self._shards]
        self.lengths = np.concatenate([np.empty(0, np.int64), *lengths])

    def __len__(self) -> int:
        return int(self._firsts[-1])

    def read(self, number: int) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
        """Ids and labels of a document."""
        place = int(np.searchsorted(self._firsts, number, side="right")) - 1
        shard, own = self._shards[place], number - int(self._firsts[place])
        stop = int(shard.document_ends[own])
        start = stop - int(self.lengths[number])
        assert shard.labels is not None
        return shard.tokens[start:stop].astype(np.int64), np.asarray(shard.labels[start:stop])

    def count(self, label: int) -> NDArray[np.int64]:
        """Tokens of each document that have this label."""
        counts = [np.empty(0, np.int64)]
        for shard in self._shards:
            starts = np.concatenate(([0], shard.document_ends[:-1]))
            counts.append(np.add.reduceat(np.asarray(shard.labels) == label, starts, dtype=np.int64))
        return np.concatenate(counts)


class TalkWindows:
    """Windows of talks, in which a talk begins anew at position 0 and is learned by its answers alone.

    Args:
        name: the source.
        shards: of talks.
        length: most tokens of a window.
        openings: how turns begin.
        packing: short talks share a window; without it each piece of a talk has its own.
        most_tokens: only the first talks are taken, as many as these tokens hold, at least one; all where left out.
    """

    def __init__(
        self,
        name: str,
        shards: Sequence[Labelled],
        length: int,
        openings: Openings,
        packing: bool,
        most_tokens: int | None = None,
    ):
        self.name, self.documents, self.cut = name, Documents(shards), Counter[str]()
        lengths = self.documents.lengths
        if most_tokens is not None:
            lengths = lengths[: max(1, int(np.searchsorted(np.cumsum(lengths), most_tokens, side="right")))]
        self.talks = len(lengths)
        self._pieces: list[tuple[int, Piece | None]] = []  # None: the whole talk
        sizes: list[int] = []
        for number, size in enumerate(lengths.tolist()):
            if size <= length:
                self._pieces.append((number, None))
                sizes.append(size)
                continue
            for piece in cut_talk(*self.documents.read(number), length, openings, self.cut):
                self._pieces.append((number, piece))
                sizes.append(piece.size)
        self._windows = pack(sizes, length) if packing else [np.array([i]) for i in range(len(sizes))]
        self._sizes = np.array(sizes, dtype=np.int64)
        self.tokens = int(self._sizes.sum())
        self.learned = int(self.documents.count(ANSWER)[: self.talks].sum())

    def __len__(self) -> int:
        return len(self._windows)

    def __getitem__(self, number: int) -> Window:
        """`input_ids`, `position_ids` and `shift_labels` (T); `labels` (T + 1), the last shifted back by one.

        T is as long as the window's talks are.
        """
        ids, positions, labels = [], [], []
        for own_ids, own_labels in map(self._read, self._windows[number].tolist()):
            ids.append(own_ids)
            positions.append(np.arange(len(own_ids)))
            learned = np.where(own_labels == ANSWER, own_ids, IGNORE_INDEX)
            labels.append(np.append(learned[1:], IGNORE_INDEX))
        shifted = np.concatenate(labels)
        return {
            "input_ids": np.concatenate(ids),
            "position_ids": np.concatenate(positions),
            "shift_labels": shifted,
            "labels": np.concatenate(([IGNORE_INDEX], shifted)),
        }

    def size(self, number: int) -> int:
        """Tokens of a window."""
        return int(self._sizes[self._windows[number]].sum())

    def prompts(self) -> list[list[int]]:
        """What stands before the first answer of each talk."""
        read = map(self.documents.read, range(self.talks))
        return [ids[: int(np.argmax(labels == ANSWER))].tolist() for ids, labels in read]

    def answers(self) -> list[list[int]]:
        """The ids that are judged, a list for each piece."""
        read = map(self._read, range(len(self._pieces)))
        return [ids[1:][labels[1:] == ANSWER].tolist() for ids, labels in read]

    def _read(self, piece: int) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
        number, part = self._pieces[piece]
        ids, labels = self.documents.read(number)
        if part is None:
            return ids, labels
        chosen = np.concatenate([np.arange(*own) for own in part.ranges])
        return ids[chosen], np.where(chosen < part.learned, GIVEN, labels[chosen])


class PairRows:
    """Pairs that fit a length, by number.

    Args:
        name: the source.
        shards: of pairs.
        length: most tokens of prompt and answer together.
        openings: how turns begin.
        most: only the first so many pairs; all where left out.
    """

    def __init__(self, name: str, shards: Sequence[Labelled], length: int, openings: Openings, most: int | None = None):
        self.name, self.documents, self.length, self.openings = name, Documents(shards), length, openings
        self.cut = Counter[str]()
        counts = np.stack([self.documents.count(label) for label in (GIVEN, ANSWER, REJECTED)], axis=1)[:most]
        long = np.flatnonzero(counts[:, 0] + counts[:, 1:].max(axis=1, initial=0) > length)
        kept = np.ones(len(counts), dtype=bool)
        for number in long.tolist():
            pair, cut = self._fit(number)
            if pair["chosen_ids"] == pair["rejected_ids"]:
                kept[number] = False
                cut = (SAME,)
            self.cut.update(cut)
            counts[number] = [len(side) for side in pair.values()]
        self._numbers = np.flatnonzero(kept)
        self.lengths = counts[kept, 1:]
        self.tokens = int(2 * counts[kept, 0].sum() + self.lengths.sum())

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, number: int) -> dict[str, list[int]]:
        """`prompt_ids`, `chosen_ids` and `rejected_ids`."""
        return self._fit(int(self._numbers[number]))[0]

    def _fit(self, number: int) -> tuple[dict[str, list[int]], tuple[str, ...]]:
        ids, labels = self.documents.read(number)
        prompt, chosen, rejected = (ids[labels == label].tolist() for label in (GIVEN, ANSWER, REJECTED))
        *sides, cut = fit_pair(prompt, chosen, rejected, self.length, self.openings)
        return dict(zip(("prompt_ids", "chosen_ids", "rejected_ids"), sides, strict=True)), cut  # type: ignore[arg-type]


def encode_pairs(pairs: Iterable[Pair], encoder: DocumentEncoder) -> list[dict[str, list[int]]]:
    """Pairs that are on no disk, as `PairRows` gives them; none is cut."""
    ids, labels = encoder.encode_labelled([pair_segments(pair) for pair in pairs])
    sides = {"prompt_ids": GIVEN, "chosen_ids": ANSWER, "rejected_ids": REJECTED}
    return [
        {name: [token for token, own in zip(row, kinds, strict=True) if own == label] for name, label in sides.items()}
        for row, kinds in zip(ids, labels, strict=True)
    ]


def sample_weights(sources: Sequence[Any], weights: Sequence[float | None]) -> list[float]:
    """Shares of the samples that give each source its share of the tokens; by size where no source has a weight.

    Args:
        sources: with `tokens`, and as many samples as they are long.
        weights: shares of the tokens.
    """
    if any(weight is None for weight in weights):
        return [float(len(source)) for source in sources]
    return [weight * len(source) / max(source.tokens, 1) for source, weight in zip(sources, weights, strict=True)]  # type: ignore[operator]
