"""Token files: written as datatrove writes them, read as memory maps.

00000.ds         token ids, little-endian uint16 or uint32, one end-of-text token after each document
00000.ds.index   uint64: where each document ends, in tokens from the file's start, its end-of-text token included
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.tokens.tokenizer import TokenizedFile
from numpy.typing import NDArray

from buddygpt.data.fates import SPLITS, fate_file
from buddygpt.data.fingerprints import hash_file
from buddygpt.data.formats import load_talk
from buddygpt.data.staging import Batch, Staged, load_array, whole_file
from buddygpt.data.template import chat_segments
from buddygpt.data.tokenizer import DocumentEncoder
from buddygpt.recipe.errors import BuddyError


@dataclass(frozen=True)
class ShardRecord:
    """What the manifest knows of one shard.

    Args:
        path: of the `.ds` file, below the prepared folder.
        documents, tokens: counts; end-of-text tokens are tokens.
        bytes: of text, in UTF-8.
        xxh3: xxh3_128 of the `.ds` file.
        index_xxh3: of the `.ds.index` file.
    """

    path: str
    documents: int
    tokens: int
    bytes: int
    xxh3: str
    index_xxh3: str

    def check(self, root: Path) -> list[str]:
        """Faults of the files, one line each; reads them whole."""
        faults = []
        for path, expected in ((self.path, self.xxh3), (f"{self.path}.index", self.index_xxh3)):
            try:
                if hash_file(root / path) != expected:
                    faults.append(f"{root / path}: changed since it was written; remove {root} and prepare again")
            except OSError as error:
                faults.append(f"{root / path}: cannot be read ({error.strerror}); remove {root} and prepare again")
        return faults


class Shard:
    """One token file, mapped into memory.

    Args:
        record: its entry in the manifest.
        root: the prepared folder.
        dtype: `uint16` or `uint32`.

    Raises:
        BuddyError: missing, or of another size than when it was written.
    """

    tokens: np.memmap[Any, np.dtype[np.unsignedinteger[Any]]]
    document_ends: NDArray[np.int64]

    def __init__(self, record: ShardRecord, root: Path, dtype: str):
        path = root / record.path
        kind = np.dtype(dtype).newbyteorder("<")
        index = path.with_name(path.name + ".index")
        for file, size in ((path, record.tokens * kind.itemsize), (index, record.documents * 8)):
            if not file.is_file() or file.stat().st_size != size:
                raise BuddyError(f"{file}: missing, or not the {size} bytes written; remove {root} and prepare again")
        self.tokens = np.memmap(path, dtype=kind, mode="r")
        self.document_ends = np.fromfile(index, dtype="<u8").astype(np.int64)


class TokenWriter:
    """Writes one shard with datatrove's own writer; nothing bears the shard's name before `finish`.

    Args:
        root: the prepared folder.
        path: of the `.ds` file below it.
        dtype: of the ids.
        end: the end-of-text id.
    """

    def __init__(self, root: Path, path: str, dtype: str, end: int):
        self._root, self._path, self._end = root, path, end
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self._temporary = f"{path}.{os.getpid()}.tmp"
        self._file = TokenizedFile(str(root), self._temporary, token_size=self._dtype.itemsize)
        self._digest = xxhash.xxh3_128()
        self._bytes = 0

    def write(self, ids: Sequence[list[int]], text_bytes: int) -> None:
        """Add documents.

        Args:
            ids: one list a document.
            text_bytes: UTF-8 bytes of all of them.

        Raises:
            OverflowError: an id that the dtype cannot hold.
        """
        ends = np.cumsum([len(document) + 1 for document in ids])
        tokens = itertools.chain.from_iterable(itertools.chain(document, (self._end,)) for document in ids)
        flat = np.fromiter(tokens, dtype=self._dtype, count=int(ends[-1])).tobytes()
        self._digest.update(flat)
        self._file.write_bytes(flat, ends.tolist())
        self._bytes += text_bytes

    def discard(self) -> None:
        """Remove what was written: the work failed, and perhaps the disk is full."""
        for name in (self._temporary, f"{self._temporary}.index"):
            (self._root / name).unlink(missing_ok=True)

    def finish(self) -> ShardRecord:
        """Close the files, see them on disk, and give them their names."""
        self._file.close()
        final = self._root / self._path
        names = {self._root / self._temporary: final, self._root / f"{self._temporary}.index": Path(f"{final}.index")}
        for temporary, name in names.items():
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(name)
        documents, tokens = len(self._file.doc_ends), len(self._file)
        index = hash_file(Path(f"{final}.index"))
        return ShardRecord(self._path, documents, tokens, self._bytes, self._digest.hexdigest(), index)


class TokeniseStep(PipelineStep):
    """Turn the staged documents of batch `rank` into one shard for each split.

    Args:
        batches: all of them.
        staged: where `ReadStep` left the texts.
        fates: files with what becomes of each document of a batch.
        root: the prepared folder.
        encoder: text to ids.
        dtype: of the ids.
        end: the end-of-text id.
    """

    name = "tokenise"
    type = "buddygpt"

    def __init__(
        self,
        batches: Sequence[Batch],
        staged: Staged,
        fates: Path,
        root: Path,
        encoder: DocumentEncoder,
        dtype: str,
        end: int,
    ):
        super().__init__()
        self.batches, self.staged, self.fates, self.root = batches, staged, fates, root
        self.encoder, self.dtype, self.end = encoder, dtype, end

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Any]:
        """Write the shards, and their records last."""
        batch = self.batches[rank]
        writers: dict[int, TokenWriter] = {}
        try:
            for fate, texts, talks in kept_documents(self.staged, self.fates, rank):
                if fate not in writers:
                    path = f"shards/{batch.source.name}/{SPLITS[fate]}/{batch.number:05d}.ds"
                    writers[fate] = TokenWriter(self.root, path, self.dtype, self.end)
                writers[fate].write(self._encode(texts, talks), sum(len(text.encode()) for text in texts))
            records = {SPLITS[fate]: vars(writer.finish()) for fate, writer in sorted(writers.items())}
        except BaseException:
            for writer in writers.values():
                writer.discard()
            raise
        with whole_file(record_file(self.fates, rank)) as file:
            file.write(json.dumps(records).encode())
        return iter(())

    def results(self, rank: int) -> list[Path]:
        """What a completed task has left."""
        return [record_file(self.fates, rank)]

    def _encode(self, texts: Sequence[str], talks: Sequence[str | None]) -> list[list[int]]:
        """Ids of each document: of its text, or of its talk through the chat template."""
        if all(talk is None for talk in talks):
            return self.encoder.encode(texts)
        return self.encoder.encode_segments(
            [
                [text] if talk is None else chat_segments(load_talk(talk))
                for text, talk in zip(texts, talks, strict=True)
            ]
        )


def record_file(folder: Path, batch: int) -> Path:
    """Where a task leaves the records of its shards."""
    return folder / f"{batch:05d}.json"


def kept_documents(staged: Staged, fates: Path, batch: int) -> Iterator[tuple[int, list[str], list[str | None]]]:
    """What stays of a batch, block by block and split by split: TRAIN or VALIDATION, texts in order, their talks."""
    fate = load_array(fate_file(fates, batch))
    start = 0
    for texts, talks in staged.texts(batch):
        own = fate[start : start + len(texts)]
        start += len(texts)
        for split in SPLITS:
            if len(chosen := np.flatnonzero(own == split)):
                yield split, [texts[i] for i in chosen], [talks[i] for i in chosen]
    assert start == len(fate), f"batch {batch}: {start} texts staged, {len(fate)} judged"
