"""Local files known by their content, without reading an unchanged one twice."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import astuple
from functools import partial
from pathlib import Path
from typing import Any

import xxhash

from buddygpt.data.files.names import format_of
from buddygpt.data.files.parts import PART_BYTES, Part, borders_of, find_parts
from buddygpt.data.files.streams import Slice, told
from buddygpt.events import Emit, Progress
from buddygpt.recipe.runs import write_atomically

_SETTLED = 2.0
"""Seconds after its last change from which a file's time stamp vouches for its content."""


class FileIndex:
    """Hashes and parts of local files, remembered by path, size, modification time and inode: an unchanged file is read
    once.

    Args:
        path: JSON file that remembers.
    """

    def __init__(self, path: Path):
        self._path = path
        self._known: dict[str, list[Any]] = {}
        try:
            memory = json.loads(path.read_text("utf-8"))
            if memory["part_bytes"] == PART_BYTES:
                self._known = memory["files"]
        except (OSError, ValueError, LookupError, TypeError):
            pass
        self._fresh: dict[str, tuple[tuple[int, int, int], str, tuple[Part, ...]]] = {}

    def learn(self, paths: Sequence[Path], emit: Emit, *, remember: bool) -> None:
        """Take hash and parts of every file that is new or has changed.

        Raises:
            BuddyError: a file cannot be read.
        """
        new, settled = 0, time.time() - _SETTLED
        for done, path in enumerate(paths, 1):
            key = str(path.resolve())
            with told(str(path)):
                stamp = stamp_of(path)
            known = self._known.get(key)
            if known and tuple(known[:3]) == stamp:
                self._fresh[key] = stamp, known[3], tuple(Part(*part) for part in known[4])
                continue
            digest, parts = survey_file(path, str(path))
            self._fresh[key] = stamp, digest, parts
            emit(Progress("hash", done, len(paths), "files"))
            if stamp[1] / 1e9 < settled:  # one written just now may change again within its time stamp's grain
                new += 1
                self._known[key] = [*stamp, digest, [astuple(part) for part in parts]]
        if new and remember:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self._path, json.dumps({"part_bytes": PART_BYTES, "files": self._known}))

    def describe(self, path: Path) -> tuple[tuple[int, int, int], str]:
        """Stamp and hash of a file that `learn` saw."""
        return self._fresh[str(path.resolve())][:2]

    def parts(self, path: Path) -> tuple[Part, ...]:
        """Parts of a file that `learn` saw; none where it is read in one go."""
        return self._fresh[str(path.resolve())][2]


def hash_file(path: Path) -> str:
    """xxh3_128 of a file's bytes, in hex."""
    digest = xxhash.xxh3_128()
    with path.open("rb", buffering=0) as file:
        for block in _blocks(file):
            digest.update(block)
    return digest.hexdigest()


def hash_weights(folder: Path) -> str:
    """xxh3_128, in hex, of the names and bytes of a model folder's weights: what figures of a model are known by."""
    digest = xxhash.xxh3_128()
    for path in sorted(path for end in ("safetensors", "bin") for path in folder.glob(f"*.{end}")):
        digest.update(f"{path.name} {hash_file(path)}\n".encode())
    return digest.hexdigest()


def survey_file(path: Path, name: str, part_bytes: int = PART_BYTES) -> tuple[str, tuple[Part, ...]]:
    """The hash of a file, as `hash_file`, and its parts, as `find_parts`, by reading it once.

    Args:
        path: the file.
        name: what messages call it; its suffix tells the format.
        part_bytes: from which a part ends.

    Raises:
        BuddyError: it cannot be read.
    """
    digest, borders = xxhash.xxh3_128(), None
    with told(name), Slice(path, name) as file:
        for number, block in enumerate(_blocks(file)):
            digest.update(block)
            if number == 0:
                borders = borders_of(name, block, part_bytes)
            if borders:
                borders.pass_block(block)
    if borders:
        return digest.hexdigest(), borders.parts()
    return digest.hexdigest(), find_parts(path, name, part_bytes) if format_of(name) == ".parquet" else ()


def stamp_of(path: Path) -> tuple[int, int, int]:
    """Size in bytes, modification time in ns and inode."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ino


def _blocks(file: Any) -> Iterator[bytes]:
    return iter(partial(file.read, 1 << 20), b"")
