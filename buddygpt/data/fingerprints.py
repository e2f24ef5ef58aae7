"""Local files known by their content, without reading an unchanged one twice."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import xxhash

from buddygpt.events import Emit, Progress
from buddygpt.recipe.errors import BuddyError
from buddygpt.recipe.runs import write_atomically

_SETTLED = 2.0
"""Seconds after its last change from which a file's time stamp vouches for its content."""


class FileIndex:
    """Hashes of local files, remembered by path, size, modification time and inode: an unchanged file is read once.

    Args:
        path: JSON file that remembers.
    """

    def __init__(self, path: Path):
        self._path = path
        try:
            self._known: dict[str, list[Any]] = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError):
            self._known = {}
        self._fresh: dict[str, tuple[tuple[int, int, int], str]] = {}

    def learn(self, paths: Sequence[Path], emit: Emit, *, remember: bool) -> None:
        """Take the hash of every file that is new or has changed.

        Raises:
            BuddyError: a file cannot be read.
        """
        new, settled = 0, time.time() - _SETTLED
        for done, path in enumerate(paths, 1):
            key = str(path.resolve())
            try:
                stamp = stamp_of(path)
                known = self._known.get(key)
                if known and tuple(known[:3]) == stamp:
                    self._fresh[key] = stamp, known[3]
                    continue
                self._fresh[key] = stamp, hash_file(path)
            except OSError as error:
                raise BuddyError(f"{path}: cannot be read: {error.strerror}") from None
            emit(Progress("hash", done, len(paths), "files"))
            if stamp[1] / 1e9 < settled:  # one written just now may change again within its time stamp's grain
                new += 1
                self._known[key] = [*stamp, self._fresh[key][1]]
        if new and remember:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self._path, json.dumps(self._known))

    def describe(self, path: Path) -> tuple[tuple[int, int, int], str]:
        """Stamp and hash of a file that `learn` saw."""
        return self._fresh[str(path.resolve())]


def hash_file(path: Path) -> str:
    """xxh3_128 of a file's bytes, in hex."""
    digest = xxhash.xxh3_128()
    with path.open("rb", buffering=0) as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def stamp_of(path: Path) -> tuple[int, int, int]:
    """Size in bytes, modification time in ns and inode."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ino
