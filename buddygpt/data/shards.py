"""Token files: written as datatrove writes them, read as memory maps.

00000.ds         token ids, little-endian uint16 or uint32, one end-of-text token after each document
00000.ds.index   uint64: where each document ends, in tokens from the file's start, its end-of-text token included
00000.ds.labels  of talks and pairs to tune on, which no end-of-text token follows: uint8, what each token is to
                 training (`GIVEN`, `ANSWER`, `REJECTED` of buddygpt.data.template)
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Iterator, Sequence
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
from buddygpt.data.formats import Message, Pair, load_talk
from buddygpt.data.staging import Batch, Staged, load_array, whole_file
from buddygpt.data.template import ANSWER, Labelled, chat_segments, labelled_segments, pair_segments
from buddygpt.data.tokenizer import DocumentEncoder
from buddygpt.recipe.errors import BuddyError

LABELLED: dict[str, Callable[[Sequence[Message]], list[Labelled]]] = {
    "talk": labelled_segments,
    "pair": lambda said: pair_segments(Pair(tuple(said[:-2]), *said[-2:])),
}
"""What is learned of the messages of a document, by how its source is rendered."""


@dataclass(frozen=True)
class ShardRecord:
    """What the manifest knows of one shard.

    Args:
        path: of the `.ds` file, below the prepared folder.
        documents, tokens: counts; end-of-text tokens are tokens.
        bytes: of text, in UTF-8.
        xxh3: xxh3_128 of the `.ds` file.
        index_xxh3: of the `.ds.index` file.
        labels_xxh3: of the `.ds.labels` file; None where there is none.
        learned: tokens of answers, in a pair of the chosen one.
    """

    path: str
    documents: int
    tokens: int
    bytes: int
    xxh3: str
    index_xxh3: str
    labels_xxh3: str | None = None
    learned: int = 0

    def check(self, root: Path) -> list[str]:
        """Faults of the files, one line each; reads them whole."""
        faults = []
        files = {".ds": self.xxh3, ".ds.index": self.index_xxh3, ".ds.labels": self.labels_xxh3}
        for suffix, expected in files.items():
            if expected is None:
                continue
            path = self.path.removesuffix(".ds") + suffix
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
    labels: np.memmap[Any, np.dtype[np.uint8]] | None
    document_ends: NDArray[np.int64]

    def __init__(self, record: ShardRecord, root: Path, dtype: str):
        path = root / record.path
        kind = np.dtype(dtype).newbyteorder("<")
        index = path.with_name(path.name + ".index")
        labels = path.with_name(path.name + ".labels")
        sizes = {path: record.tokens * kind.itemsize, index: record.documents * 8}
        if record.labels_xxh3 is not None:
            sizes[labels] = record.tokens
        for file, size in sizes.items():
            if not file.is_file() or file.stat().st_size != size:
                raise BuddyError(f"{file}: missing, or not the {size} bytes written; remove {root} and prepare again")
        self.tokens = np.memmap(path, dtype=kind, mode="r")
        self.labels = None if record.labels_xxh3 is None else np.memmap(labels, dtype=np.uint8, mode="r")
        self.document_ends = np.fromfile(index, dtype="<u8").astype(np.int64)


class TokenWriter:
    """Writes one shard with datatrove's own writer; nothing bears the shard's name before `finish`.

    Args:
        root: the prepared folder.
        path: of the `.ds` file below it.
        dtype: of the ids.
        end: the end-of-text id, put behind each document; None for documents with labels.
    """

    def __init__(self, root: Path, path: str, dtype: str, end: int | None):
        self._root, self._path = root, path
        self._end = () if end is None else (end,)
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self._temporary = f"{path}.{os.getpid()}.tmp"
        self._file = TokenizedFile(str(root), self._temporary, token_size=self._dtype.itemsize)
        self._digest = xxhash.xxh3_128()
        self._bytes = self._learned = 0
        self._labels = None if end is not None else (root / f"{self._temporary}.labels").open("wb")

    def write(self, ids: Sequence[list[int]], text_bytes: int, labels: Sequence[NDArray[np.uint8]] = ()) -> None:
        """Add documents.

        Args:
            ids: one list a document.
            text_bytes: UTF-8 bytes of all of them.
            labels: one array a document, of as many; none where the file has none.

        Raises:
            OverflowError: an id that the dtype cannot hold.
        """
        ends = np.cumsum([len(document) + len(self._end) for document in ids])
        tokens = itertools.chain.from_iterable(itertools.chain(document, self._end) for document in ids)
        flat = np.fromiter(tokens, dtype=self._dtype, count=int(ends[-1])).tobytes()
        self._digest.update(flat)
        self._file.write_bytes(flat, ends.tolist())
        self._bytes += text_bytes
        if self._labels is not None:
            flat_labels = np.concatenate(labels)
            self._labels.write(flat_labels.tobytes())
            self._learned += int(np.count_nonzero(flat_labels == ANSWER))

    def discard(self) -> None:
        """Remove what was written: the work failed, and perhaps the disk is full."""
        if self._labels is not None:
            self._labels.close()
        for suffix in ("", ".index", ".labels"):
            (self._root / f"{self._temporary}{suffix}").unlink(missing_ok=True)

    def finish(self) -> ShardRecord:
        """Close the files, see them on disk, and give them their names."""
        self._file.close()
        final = self._root / self._path
        suffixes = ["", ".index"]
        if self._labels is not None:
            self._labels.close()
            suffixes.append(".labels")
        for suffix in suffixes:
            temporary, name = self._root / f"{self._temporary}{suffix}", Path(f"{final}{suffix}")
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(name)
        documents, tokens = len(self._file.doc_ends), len(self._file)
        index = hash_file(Path(f"{final}.index"))
        labels = None if self._labels is None else hash_file(Path(f"{final}.labels"))
        own = self._digest.hexdigest()
        return ShardRecord(self._path, documents, tokens, self._bytes, own, index, labels, self._learned)


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
        render = batch.source.render
        writers: dict[int, TokenWriter] = {}
        try:
            for fate, texts, talks in kept_documents(self.staged, self.fates, rank):
                if fate not in writers:
                    path = f"shards/{batch.source.name}/{SPLITS[fate]}/{batch.number:05d}.ds"
                    end = None if render in LABELLED else self.end
                    writers[fate] = TokenWriter(self.root, path, self.dtype, end)
                size = sum(len(text.encode()) for text in texts)
                if render in LABELLED:
                    said = [LABELLED[render](load_talk(talk)) for talk in talks if talk is not None]
                    ids, labels = self.encoder.encode_labelled(said)
                    writers[fate].write(ids, size, labels)
                else:
                    writers[fate].write(self._encode(texts, talks), size)
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
