"""Answers of a model, kept on disk as they come: an evaluation that was interrupted goes on where it was."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, BinaryIO

from buddygpt.recipe.errors import BrokenOff, BuddyError, is_disk_full

Key = tuple[str, Any]
"""The kind of a request, and what was asked."""


class Kept:
    """A file of JSON lines, one an answer; what was asked is known by its hash.

    A line that was cut by a kill is dropped, and written over.

    Args:
        file: made with the first answer; nothing is kept where left out.
    """

    def __init__(self, file: Path | None = None):
        self._file, self._answers = file, {}  # type: ignore[var-annotated]
        self._stream: BinaryIO | None = None  # opened once: an evaluation has tens of thousands of answers
        if file is None or not file.is_file():
            return
        whole = file.read_bytes()
        end = whole.rfind(b"\n") + 1
        if end < len(whole):
            with file.open("r+b") as stream:
                stream.truncate(end)
        self._answers = dict(json.loads(line) for line in whole[:end].splitlines())

    def __contains__(self, key: Key) -> bool:
        return _digest(key) in self._answers

    def __getitem__(self, key: Key) -> Any:
        return self._answers[_digest(key)]

    def __len__(self) -> int:
        return len(self._answers)

    def add(self, key: Key, answer: Any) -> None:
        """Keep one.

        Raises:
            BuddyError: the file cannot be written.
            BrokenOff: the disk is full.
        """
        digest = _digest(key)
        self._answers[digest] = answer
        if self._file is None:
            return
        try:
            if self._stream is None:
                self._file.parent.mkdir(parents=True, exist_ok=True)
                self._stream = self._file.open("ab", buffering=0)
            self._stream.write(json.dumps([digest, answer]).encode() + b"\n")
        except OSError as error:
            if is_disk_full(error):
                raise BrokenOff(f"{self._file.parent}: no space left; free some and start again to go on") from None
            raise BuddyError(f"{self._file.parent}: cannot be written: {error.strerror or error}") from None


def _digest(key: Key) -> str:
    return hashlib.blake2b(json.dumps(key, ensure_ascii=False).encode(), digest_size=16).hexdigest()
