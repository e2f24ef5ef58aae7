"""A chapter is trained by one command at a time: two would clear each other's saves and write lines twice."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from buddygpt.recipe.errors import BuddyError

LOCK = ".lock"
"""In a chapter's folder: locked by the command that trains it, for as long as it lives, however it ends."""
_held: list[IO[str]] = []


@contextmanager
def alone() -> Iterator[None]:
    """Around a stage: what it holds is let go at its end."""
    try:
        yield
    finally:
        while _held:
            _held.pop().close()


def hold(folder: Path) -> None:
    """Have a chapter for this command alone, before anything of its training is touched.

    Windows, and a disk that knows no locks, let every command in.

    Args:
        folder: the chapter's; made where it is missing.

    Raises:
        BuddyError: another command trains it, or it cannot be written.
    """
    if os.name != "posix":
        return
    import fcntl

    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK).open("a", encoding="utf-8")
    except OSError as error:
        raise BuddyError(f"{folder}: cannot be written: {error.strerror}; choose another folder with --run") from None
    _held.append(file)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            raise BuddyError(
                f"{folder}: another command is training here; wait for its end or stop it, then go on with --resume, "
                "or give this one another name (--set name=...)"
            ) from None
