"""Local files of a source, by paths, folders and globs."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from pathlib import Path

from buddygpt.data.readers import KNOWN, format_of
from buddygpt.recipe.data import FilesSource
from buddygpt.recipe.errors import BuddyError, did_you_mean


def find_files(source: FilesSource) -> list[Path]:
    """The files of a source, in the order in which they are read.

    Raises:
        BuddyError: a path that matches nothing, or a file of an unknown kind.
    """
    return [path for path, _ in match_files(source)[0]]


def match_files(source: FilesSource) -> tuple[list[tuple[Path, bool]], int]:
    """Files, whether the recipe names each by itself, and how many others were passed over."""
    found: dict[Path, tuple[Path, bool]] = {}
    skipped = 0
    for text in source.paths:
        path = Path(text).expanduser()
        known = []
        if path.is_file():
            if format_of(path.name) is None:
                raise BuddyError(f"{path}: unknown kind of file; known are {KNOWN}")
            known = [(path, True)]
        else:
            matches = [path] if path.is_dir() else sorted(map(Path, glob.glob(str(path), recursive=True)))  # noqa: PTH207 - takes absolute globs
            if not matches:
                raise BuddyError(f"{path}: no such file or folder{_near(path)}")
            files = [file for match in matches for file in (_walk(match) if match.is_dir() else [match])]
            known = [(file, False) for file in files if format_of(file.name)]
            skipped += len(files) - len(known)
            if not known:
                raise BuddyError(f"{path}: no file in it of a known kind; known are {KNOWN}")
        for file, named in known:
            found.setdefault(file.resolve(), (file, named))
    return list(found.values()), skipped


def _walk(folder: Path) -> Iterator[Path]:
    """Files below a folder in a fixed order, hidden ones left out."""
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        yield from (Path(parent, f) for f in sorted(files) if not f.startswith("."))


def _near(path: Path) -> str:
    """The nearest name beside the first part of the path that does not exist."""
    for part in (*reversed(path.parents), path):
        if not part.exists() and not glob.has_magic(part.name):
            names = [p.name for p in part.parent.iterdir()] if part.parent.is_dir() else []
            return did_you_mean(part.name, names)
    return ""
