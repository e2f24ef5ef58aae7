"""Windows of tokens for training and evaluation, and the order in which training sees them.

A stream is one source's split: documents end to end, each followed by one end-of-text token. The window at w holds
tokens wT ... wT + T: T inputs, and the T tokens that follow them as targets, so that every token is a target exactly
once. The end-of-text token that closes a document is also what the next document starts from: it is the first input of
that document's segment, as an empty prompt is at evaluation.

The order is a pure function of (seed, index): to go on after an interruption takes the step, and the places that the
run passes over.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

IGNORE_INDEX = -100
BLOCK = 4096
"""Samples in one block of the mixture; each block holds every source in its share."""
Sample = TypeVar("Sample", covariant=True)


class Tokens(Protocol):
    """What a shard offers: token ids, and where documents end (exclusive, cumulative)."""

    tokens: NDArray[np.integer]
    document_ends: NDArray[np.integer]


class TokenStream:
    """Shards of one source and split, read as one sequence.

    Args:
        name: the source.
        shards: in order.
        eos_token_id: stands before the first token, and pads the last window.
    """

    def __init__(self, name: str, shards: Sequence[Tokens], eos_token_id: int):
        self.name, self.eos_token_id = name, eos_token_id
        self._shards = [s for s in shards if len(s.tokens)]
        self._starts = np.cumsum([0, *(len(s.tokens) for s in self._shards)])
        self._documents = np.cumsum([0, *(len(s.document_ends) for s in self._shards)])

    def __len__(self) -> int:
        """Tokens."""
        return int(self._starts[-1])

    def document_ends(self) -> Iterator[NDArray[np.int64]]:
        """Where documents end in the stream (exclusive), shard by shard."""
        for shard, offset in zip(self._shards, self._starts, strict=False):
            yield np.asarray(shard.document_ends, dtype=np.int64) + offset

    def read(self, start: int, stop: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Token ids of [start, stop), and for each the number of documents that have ended with it or before it.

        Position -1 is the end-of-text token before the first document; positions past the end are left out.
        """
        ids, ended = [], []
        if start < 0:
            ids.append(np.full(-start, self.eos_token_id))
            ended.append(np.zeros(-start, dtype=np.int64))
        first, last = np.searchsorted(self._starts, (max(start, 0), stop), side="right")
        for number in range(max(first - 1, 0), min(last, len(self._shards))):
            shard, offset = self._shards[number], self._starts[number]
            low, high = max(start - offset, 0), min(stop - offset, len(shard.tokens))
            if high > low:
                ids.append(shard.tokens[low:high].astype(np.int64))
                positions = np.arange(low + 1, high + 1)
                ended.append(self._documents[number] + np.searchsorted(shard.document_ends, positions, side="right"))
        if not ids:
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
        return np.concatenate(ids), np.concatenate(ended)


Window = dict[str, NDArray[np.int64]]


def read_window(stream: TokenStream, start: int, length: int, stop: int | None = None) -> Window:
    """One window: inputs [start, start + length) and the tokens after them.

    Args:
        stream: where it is read.
        start: first input; -1 begins with the end-of-text token before the first document.
        length: T.
        stop: no target at or beyond this position; the stream's end where left out.

    Returns:
        `input_ids` (T), `shift_labels` (T, -100 past the end), `labels` (T + 1, the same ones unshifted),
        `document_ids` (T, growing from 0).
    """
    last = min(start + length + 1, len(stream) if stop is None else stop)
    ids, ended = stream.read(start, last)
    labels = np.full(length + 1, IGNORE_INDEX, dtype=np.int64)
    labels[1 : len(ids)] = ids[1:]
    inputs = np.full(length, stream.eos_token_id, dtype=np.int64)
    inputs[: min(len(ids), length)] = ids[:length]
    documents = np.full(length, ended[-1] + 1, dtype=np.int64)  # padding is a document of its own
    documents[: min(len(ids), length)] = ended[:length]
    return {"input_ids": inputs, "shift_labels": labels[1:], "labels": labels, "document_ids": documents - documents[0]}


class StreamWindows:
    """The windows of a stream, each token once, in the stream's order.

    Args:
        stream: one source's.
        length: T, tokens in a window.
    """

    def __init__(self, stream: TokenStream, length: int):
        self.name, self.stream, self.length = stream.name, stream, length

    def __len__(self) -> int:
        return -(-len(self.stream) // self.length)

    def __getitem__(self, number: int) -> Window:
        return read_window(self.stream, number * self.length - 1, self.length)


class Samples(Protocol[Sample]):
    """What training draws from: the samples of one source, by number."""

    name: str

    def __len__(self) -> int: ...

    def __getitem__(self, number: int, /) -> Sample: ...


class Mixture(Generic[Sample]):
    """All samples of one training run, in training order: a map from the index of a sample to the sample.

    Args:
        sources: what is drawn from.
        weights: shares of the samples, in the sources' order, relative to one another.
        total: samples in the whole run; sources are repeated as often as that takes.
        seed: of the order.

    Raises:
        ValueError: a source without a sample.
    """

    def __init__(self, sources: Sequence[Samples[Sample]], weights: Sequence[float], total: int, seed: int):
        self.sources, self.total, self.seed = list(sources), total, seed
        self.counts = [len(source) for source in sources]
        if not all(self.counts):
            raise ValueError(f"nothing to train on in {', '.join(s.name for s in sources if not len(s))}")
        self._edges = np.cumsum(np.asarray(weights, dtype=np.float64) / np.sum(weights))[:-1]
        self._before = [np.zeros(len(self.sources), dtype=np.int64)]
        for block in range(-(-total // BLOCK)):
            self._count(block)
        self._sources = lru_cache(maxsize=4)(self._sources)  # type: ignore[method-assign]
        self._permutation = lru_cache(maxsize=2 * len(self.sources))(self._permutation)  # type: ignore[method-assign]

    def __len__(self) -> int:
        return self.total

    def __getitem__(self, index: int) -> Sample:
        source, number = self.locate(index)
        return self.sources[source][number]

    def locate(self, index: int) -> tuple[int, int]:
        """Source of sample `index`, and its number there; the order goes on beyond `total`."""
        block, place = divmod(index, BLOCK)
        while block >= len(self._before):
            self._count(len(self._before) - 1)
        sources = self._sources(block)
        source = int(sources[place])
        nth = int(self._before[block][source]) + int(np.count_nonzero(sources[:place] == source))
        epoch, position = divmod(nth, self.counts[source])
        return source, int(self._permutation(source, epoch)[position])

    def epochs(self) -> dict[str, float]:
        """How often the whole run reads each source."""
        used = [0] * len(self.sources)
        full, rest = divmod(self.total, BLOCK)
        for source in range(len(self.sources)):
            used[source] = int(self._before[full][source])
            if rest:
                used[source] += int(np.count_nonzero(self._sources(full)[:rest] == source))
        return {s.name: n / count for s, n, count in zip(self.sources, used, self.counts, strict=True)}

    def _count(self, block: int) -> None:
        """Samples of each source up to the end of `block`, which is the first that is not counted yet."""
        self._before.append(self._before[block] + np.bincount(self._sources(block), minlength=len(self.sources)))

    def _sources(self, block: int) -> NDArray[np.intp]:
        """The source of each sample in a block: systematic sampling keeps every share within one sample."""
        rng = np.random.default_rng((self.seed, 0, block))
        points = (np.arange(BLOCK) + rng.random()) / BLOCK
        sources = np.searchsorted(self._edges, points, side="right")
        rng.shuffle(sources)
        return sources

    def _permutation(self, source: int, epoch: int) -> NDArray[np.integer]:
        rng = np.random.default_rng((self.seed, 1, source, epoch))
        return rng.permutation(np.arange(self.counts[source], dtype=np.uint32))


class Passing(Generic[Sample]):
    """The samples of a run without those that it passes over; as many others follow at the end.

    Args:
        mixture: all samples in training order.
        skipped: places in that order.
    """

    def __init__(self, mixture: Mixture[Sample], skipped: Iterable[int] = ()):
        self.mixture = mixture
        self.skipped: list[int] = []
        self.skip(skipped)

    def skip(self, places: Iterable[int]) -> None:
        """Pass over these places, too."""
        self.skipped = sorted({*self.skipped, *places})
        # Samples that stay before each place that does not.
        self._staying = np.asarray(self.skipped, dtype=np.int64) - np.arange(len(self.skipped))

    def place(self, index: int) -> int:
        """Where sample `index` of the run stands in the mixture's order."""
        return index + int(np.searchsorted(self._staying, index, side="right"))

    def source(self, index: int) -> str:
        """Name of the source of sample `index` of the run."""
        return self.mixture.sources[self.mixture.locate(self.place(index))[0]].name

    def __len__(self) -> int:
        return len(self.mixture)

    def __getitem__(self, index: int) -> Sample:
        return self.mixture[self.place(index)]


def evaluation_windows(stream: TokenStream, length: int, most_tokens: int) -> tuple[list[Window], int]:
    """Windows over the first documents of a held-out stream, and the number of tokens they judge.

    As many whole documents as `most_tokens` holds, at least one; the same ones at every call.
    """
    stop = 0
    for ends in stream.document_ends():
        fitting = int(np.searchsorted(ends, most_tokens, side="right"))
        stop = int(ends[fitting - 1]) if fitting else stop or int(ends[0])
        if fitting < len(ends):
            break
    return [read_window(stream, start, length, stop) for start in range(-1, stop - 1, length)], stop
