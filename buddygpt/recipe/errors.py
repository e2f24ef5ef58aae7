"""The one kind of error that a user is meant to read."""

from __future__ import annotations

import errno
from collections.abc import Iterable

_FULL = ("No space left", "file write failed", "os error 28", "code: 28")


class BuddyError(Exception):
    """A fault in what the user gave, told so that the user can mend it.

    Each line says what is wrong, where, what would be right and what to do. The command line prints
    the lines without a traceback and ends with exit code 2; nothing was written, nothing is lost.

    Args:
        lines: one message, or several when faults were collected.
    """

    exit_code = 2

    def __init__(self, lines: str | Iterable[str]):
        self.lines = (lines,) if isinstance(lines, str) else tuple(lines)
        super().__init__("\n".join(self.lines))


class BrokenOff(BuddyError):
    """A fault of the surroundings, not of the input: what was done so far stays, to go on from."""


class Stopped(BuddyError):
    """Ctrl-C.

    Args:
        told: what the user should know.
    """

    exit_code = 130

    def __init__(self, told: str = "stopped"):
        super().__init__(told)


def is_disk_full(error: BaseException) -> bool:
    """Whether the disk, or the user's share of it, is full: Python, torch and safetensors each have their own word."""
    return getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or any(sign in str(error) for sign in _FULL)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory did not suffice: torch has a class for a device's, and words alone for a CPU's."""
    return type(error).__name__ in ("OutOfMemoryError", "MemoryError") or "can't allocate memory" in str(error)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`"; did you mean 'x'?"` for the nearest of `known`, or an empty string where none is near."""
    from difflib import get_close_matches

    near = get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean '{near[0]}'?" if near else ""
