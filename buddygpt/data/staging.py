"""Documents between reading and tokenising: their texts, and an index with hash, size and place of each.

    00000.arrow   texts, an Arrow stream compressed with zstd
    00000.npy     one INDEX record a document, in the same order
    00000.json    what became of the rows; written last

A batch is a run of a source's files, small ones together, and the unit of work: one task
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

from buddygpt.data.documents import Document, Intake, read_documents
from buddygpt.data.sources import InputFile, Source

INDEX = np.dtype([("high", "<u8"), ("low", "<u8"), ("bytes", "<u8"), ("row", "<u8"), ("file", "<u8")])
"""A document: the two words of its hash, bytes of UTF-8, row in its file, file in its batch."""
BATCH_BYTES = 4 << 20
"""Bytes of files up to which small ones share a batch. Not a matter of workers, so that shards are not either."""
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class Batch:
    """Consecutive files of one source.

    Args:
        source: which, and how its rows are read.
        number: of the batch within the source.
        files: at least one.
    """

    source: Source
    number: int
    files: tuple[InputFile, ...]


def make_batches(sources: Sequence[Source]) -> list[Batch]:
    """All files of all sources, in order."""
    batches = []
    for source in sources:
        groups: list[list[InputFile]] = []
        for file in source.files:
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
    """

    name = "read"
    type = "buddygpt"

    def __init__(self, batches: Sequence[Batch], folder: Path):
        super().__init__()
        self.batches, self.folder = batches, folder

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Any]:
        """Nothing comes in and nothing goes on: what is staged lies in the folder."""
        batch, intake = self.batches[rank], Intake()
        records = array("Q")  # 40 bytes a document; a list of tuples would take 300
        with whole_file(self.folder / f"{rank:05d}.arrow") as file, _TextWriter(file) as texts:
            for number, source_file in enumerate(batch.files):
                for document in read_documents(source_file, batch.source.columns, batch.source.min_score, intake):
                    texts.write(document)
                    records.extend((*document.hash, len(document.data), document.row, number))
        with whole_file(self.folder / f"{rank:05d}.npy") as file:
            np.save(file, np.frombuffer(records, dtype=INDEX))
        with whole_file(self.folder / f"{rank:05d}.json") as file:
            file.write(json.dumps(intake.as_dict()).encode())
        self.stat_update("rows", value=intake.rows)
        return iter(())

    def results(self, rank: int) -> list[Path]:
        """What a completed task has left."""
        return [self.folder / f"{rank:05d}.{suffix}" for suffix in ("arrow", "npy", "json")]


@dataclass(frozen=True)
class Staged:
    """The folder that `ReadStep` filled."""

    folder: Path

    def intake(self, batch: int) -> Intake:
        """What became of the batch's rows."""
        return Intake.from_dict(json.loads((self.folder / f"{batch:05d}.json").read_text("utf-8")))

    def index(self, batch: int) -> NDArray[Any]:
        """INDEX records of the batch's documents."""
        return np.load(self.folder / f"{batch:05d}.npy")

    def texts(self, batch: int) -> Iterator[list[str]]:
        """The batch's texts in blocks of about a megabyte."""
        import pyarrow as pa

        with (self.folder / f"{batch:05d}.arrow").open("rb") as file, pa.ipc.open_stream(file) as blocks:
            for block in blocks:
                yield block.column(0).to_pylist()


class _TextWriter:
    """Gathers texts into blocks and writes them."""

    def __init__(self, file: BinaryIO):
        import pyarrow as pa

        self._schema = pa.schema([("text", pa.large_string())])
        self._stream = pa.ipc.new_stream(file, self._schema, options=pa.ipc.IpcWriteOptions(compression="zstd"))
        self._texts: list[str] = []
        self._bytes = 0

    def __enter__(self) -> _TextWriter:
        return self

    def __exit__(self, *fault: Any) -> None:
        if fault[0] is None:
            self._flush()
            self._stream.close()

    def write(self, document: Document) -> None:
        self._texts.append(document.text)
        self._bytes += len(document.data)
        if self._bytes >= _BLOCK_BYTES:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        if self._texts:
            self._stream.write_batch(pa.record_batch([pa.array(self._texts, pa.large_string())], schema=self._schema))
        self._texts, self._bytes = [], 0


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
