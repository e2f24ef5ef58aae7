"""Documents between reading and tokenising: their texts, and an index with hash, size and place of each.

    00000.arrow        texts, an Arrow stream compressed with zstd; beside each its talk, where it is one
    00000.npy          one INDEX record a document, in the same order
    00000.keys.npy     one KEY record a document, ascending: what exact duplicates are found by
    00000.bands.npy    MinHash keys of the documents long enough, uint64 [bands, documents], each band ascending
    00000.places.npy   uint32 [bands, documents]: whose keys they are
    00000.json         what became of the rows; written last

A batch is a run of a source's files, small ones together and large ones in parts, and the unit of work: one task
reads it, another writes its shards.
"""

from __future__ import annotations

import json
import os
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from datatrove.pipeline.base import PipelineStep
from numpy.typing import NDArray

from buddygpt.data.clean import Cleaner
from buddygpt.data.contamination import Contamination
from buddygpt.data.documents import Document, place_of, read_documents
from buddygpt.data.intake import Intake
from buddygpt.data.minhash import MinHash
from buddygpt.data.sources import InputFile, Source
from buddygpt.data.units import fetched
from buddygpt.recipe.errors import BuddyError
from buddygpt.recipe.hub import HubSection

INDEX = np.dtype([(name, "<u8") for name in ("high", "low", "split", "bytes", "row", "file")])
"""A document: the two words of its hash, what decides its side, bytes of UTF-8, row in its file, file in its batch."""
KEY = np.dtype([("high", "<u8"), ("low", "<u8"), ("place", "<u4")])
"""The two words of a document's hash, and its place in the batch."""
BATCH_BYTES = 4 << 20
"""Bytes of files up to which small ones share a batch. Not a matter of workers, so that shards are not either."""
CONTAMINATED = "holds a piece of"
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class Batch:
    """Consecutive files of one source.

    Args:
        source: which, and how its rows are read.
        number: of the batch within the source.
        files: units of the source, at least one.
    """

    source: Source
    number: int
    files: tuple[InputFile, ...]


def make_batches(sources: Sequence[Source]) -> list[Batch]:
    """All files of all sources, in order."""
    batches = []
    for source in sources:
        groups: list[list[InputFile]] = []
        for file in source.units:
            if not groups or sum(f.size for f in groups[-1]) + file.size > BATCH_BYTES:
                groups.append([])
            groups[-1].append(file)
        batches += [Batch(source, number, tuple(group)) for number, group in enumerate(groups)]
    return batches


class ReadStep(PipelineStep):
    """Read batch `rank` and stage its documents.

    Args:
        batches: all of them.
        folder: of the staged files.
        hubs: the recipe's section, for files that are streamed.
        cleaner: filters of quality; None for none.
        minhash: how near duplicates are found; None where they are not looked for.
        guarded: file of the evaluation sets' pieces; None where there are none.
    """

    name = "read"
    type = "buddygpt"

    def __init__(
        self,
        batches: Sequence[Batch],
        folder: Path,
        hubs: HubSection,
        cleaner: Cleaner | None,
        minhash: MinHash | None,
        guarded: Path | None,
    ):
        super().__init__()
        self.batches, self.folder, self.hubs = batches, folder, hubs
        self.cleaner, self.minhash, self.guarded = cleaner, minhash, guarded

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Any]:
        """Nothing comes in and nothing goes on: what is staged lies in the folder."""
        batch, intake = self.batches[rank], Intake()
        writer = _Writer(self.minhash)
        guard = None if self.guarded is None else Contamination.load(self.guarded)
        with whole_file(self.folder / f"{rank:05d}.arrow") as file, _TextStream(file) as texts:
            for number, source_file in enumerate(batch.files):
                with fetched(batch.source, source_file, self.folder, self.hubs) as here:
                    documents = read_documents(here, batch.source, self.cleaner, intake)
                    for block in _blocks(documents):
                        writer.write(_unseen(block, here, guard, intake), number, texts)
        for suffix, saved in writer.arrays().items():
            with whole_file(self.folder / f"{rank:05d}.{suffix}") as file:
                np.save(file, saved)
        with whole_file(self.folder / f"{rank:05d}.json") as file:
            file.write(json.dumps(intake.as_dict(), ensure_ascii=False).encode("utf-8", "backslashreplace"))
        self.stat_update("rows", value=intake.rows)
        return iter(())

    def results(self, rank: int) -> list[Path]:
        """What a completed task has left."""
        suffixes = ["arrow", "npy", "keys.npy", "json"] + (["bands.npy", "places.npy"] if self.minhash else [])
        return [self.folder / f"{rank:05d}.{suffix}" for suffix in suffixes]


@dataclass(frozen=True)
class Staged:
    """The folder that `ReadStep` filled."""

    folder: Path

    def intake(self, batch: int) -> Intake:
        """What became of the batch's rows."""
        return Intake.from_dict(json.loads((self.folder / f"{batch:05d}.json").read_text("utf-8")))

    def index(self, batch: int) -> NDArray[Any]:
        """INDEX records of the batch's documents."""
        index = load_array(self.folder / f"{batch:05d}.npy")
        if index.dtype != INDEX:
            raise BuddyError(f"{self.folder}: staged by another version; remove {self.folder.parent} and start again")
        return index

    def keys(self, batch: int) -> NDArray[Any]:
        """KEY records, ascending, mapped from disk."""
        return load_array(self.folder / f"{batch:05d}.keys.npy", mapped=True)

    def band(self, batch: int, band: int) -> tuple[NDArray[np.uint64], NDArray[np.uint32]]:
        """Ascending keys of a band and whose they are, mapped from disk."""
        keys, places = (
            load_array(self.folder / f"{batch:05d}.{name}.npy", mapped=True) for name in ("bands", "places")
        )
        return keys[band], places[band]

    def starts(self, batches: int) -> list[int]:
        """Number of the first document of each batch over all batches, and of all documents last."""
        return np.cumsum([0, *(len(self.keys(batch)) for batch in range(batches))]).tolist()

    def texts(self, batch: int) -> Iterator[tuple[list[str], list[str | None]]]:
        """The batch's texts and talks in blocks of about a megabyte."""
        import pyarrow as pa

        with (self.folder / f"{batch:05d}.arrow").open("rb") as file, pa.ipc.open_stream(file) as blocks:
            for block in blocks:
                yield block.column(0).to_pylist(), block.column(1).to_pylist()


def load_array(path: Path, *, mapped: bool = False) -> NDArray[Any]:
    """An array of the work folder; never Python objects, which could run code.

    Raises:
        BuddyError: it is no such array.
    """
    try:
        return np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        reason = " ".join(str(error).split())[:120]
        raise BuddyError(f"{path}: damaged ({reason}); remove {path.parent.parent} and start again") from None


def _blocks(documents: Iterator[Document]) -> Iterator[list[Document]]:
    """Documents in lists of about a megabyte of text, so that what looks at n-grams looks at many texts at once."""
    block: list[Document] = []
    size = 0
    for document in documents:
        block.append(document)
        size += document.size
        if size >= _BLOCK_BYTES:
            yield block
            block, size = [], 0
    if block:
        yield block


def _unseen(block: list[Document], file: InputFile, guard: Contamination | None, intake: Intake) -> list[Document]:
    """The documents of a block that hold no piece of an evaluation set; counts the others."""
    if guard is None:
        return block
    kept = []
    for document, found in zip(block, guard.find([document.text for document in block]).tolist(), strict=True):
        if found < 0:
            kept.append(document)
            continue
        where, reason = place_of(file, document.row), f"{CONTAMINATED} {guard.guards[found].name}"
        intake.samples.add(reason, where, document.text, guard.matched_piece(document.text))
        intake.drop(reason, where)
    return kept


class _Writer:
    """Gathers the records and keys of a batch and passes its texts on.

    Args:
        minhash: None where near duplicates are not looked for.
    """

    def __init__(self, minhash: MinHash | None):
        self._minhash = minhash
        self._records = array("Q")  # 48 bytes a document; a list of tuples would take 300
        self._bands: list[NDArray[np.uint64]] = []
        self._long: list[NDArray[np.bool_]] = []

    def write(self, block: list[Document], file: int, texts: _TextStream) -> None:
        """Add documents of one file of the batch."""
        if not block:
            return
        texts.write(block)
        for document in block:
            self._records.extend((*document.hash, document.split, document.size, document.row, file))
        if self._minhash is not None:
            keys, long = self._minhash.bands_of([document.text for document in block])
            self._bands.append(keys[long])
            self._long.append(long)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What is saved, by the end of its file's name."""
        index = np.frombuffer(self._records, dtype=INDEX)
        order = np.lexsort((index["low"], index["high"]))
        keys = np.empty(len(index), KEY)
        keys["high"], keys["low"], keys["place"] = index["high"][order], index["low"][order], order
        saved = {"npy": index, "keys.npy": keys}
        if self._minhash is not None:
            bands = np.concatenate([np.empty((0, self._minhash.bands), np.uint64), *self._bands]).T
            places = np.flatnonzero(np.concatenate([np.empty(0, bool), *self._long])).astype(np.uint32)
            orders = np.argsort(bands, axis=1, kind="stable")
            saved["bands.npy"] = np.take_along_axis(bands, orders, axis=1)
            saved["places.npy"] = places[orders]
        return saved


class _TextStream:
    """An Arrow stream of texts and talks."""

    def __init__(self, file: BinaryIO):
        import pyarrow as pa

        self._schema = pa.schema([("text", pa.large_string()), ("talk", pa.large_string())])
        self._stream = pa.ipc.new_stream(file, self._schema, options=pa.ipc.IpcWriteOptions(compression="zstd"))

    def __enter__(self) -> _TextStream:
        return self

    def __exit__(self, *fault: Any) -> None:
        if fault[0] is None:
            self._stream.close()

    def write(self, block: list[Document]) -> None:
        """Write documents as one block."""
        import pyarrow as pa

        columns = [[document.text for document in block], [document.talk for document in block]]
        arrays = [pa.array(column, pa.large_string()) for column in columns]
        self._stream.write_batch(pa.record_batch(arrays, schema=self._schema))


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A binary file that appears under its name only when it is whole and on disk.

    The name on the way carries the process's id: a worker that outlives a killed run disturbs nobody.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
