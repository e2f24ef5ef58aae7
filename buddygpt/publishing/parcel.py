"""The files of a push, each with its name there, its size and its hash."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Item:
    """One file.

    Args:
        name: POSIX path in the repository.
        path: where it lies here.
        size: in bytes.
        sha256: 64 hex digits.
    """

    name: str
    path: Path
    size: int
    sha256: str


@dataclass(frozen=True)
class Parcel:
    """All files of a push, sorted by name."""

    items: tuple[Item, ...]
