"""What comes from outside while a chapter trains: a signal, a disk that cannot be written to, too little memory."""

from __future__ import annotations

import errno
import math
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from buddygpt.events import Emit, Note
from buddygpt.recipe.errors import BrokenOff, BuddyError, is_disk_full, is_out_of_memory
from buddygpt.recipe.training import TrainingSection
from buddygpt.training import checkpoints
from buddygpt.training.callbacks import Brake
from buddygpt.training.launch import ONCE, OURS, launched_processes


@contextmanager
def brake_on_signals(brake: Brake, emit: Emit) -> Iterator[None]:
    """Ctrl-C or a scheduler's SIGTERM ends the run after its step, saved; a second one ends it at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    first, told, several = math.inf, False, launched_processes() > 1

    def pull(number: int, frame: Any) -> None:
        nonlocal first, told
        if time.monotonic() - first > (ONCE if several else 0):
            raise KeyboardInterrupt
        first = min(first, time.monotonic())
        brake.pulled = True
        # From our own launcher SIGTERM means that another process has died.
        if not told and (number == signal.SIGINT or OURS not in os.environ):
            told = True
            emit(Note("finishing this step, then saving; once more to stop at once"))

    before = {number: signal.signal(number, pull) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def safe_writing(folder: Path) -> Iterator[None]:
    """Tell in one line of a disk that is full, or that cannot be written to."""
    try:
        yield
    except Exception as error:
        if isinstance(error, BuddyError):
            raise
        number = getattr(error, "errno", None)
        if not is_disk_full(error) and number not in (errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO):
            raise
        whole = checkpoints.whole_checkpoints(folder / "checkpoints")
        kept = f"{whole[-1].name} is whole" if whole else "no checkpoint is whole yet"
        what = "no space left" if is_disk_full(error) else f"cannot be written: {os.strerror(number or 0)}"
        mend = "free some space" if is_disk_full(error) else "mend that"
        raise BrokenOff(f"{folder}: {what}; {kept}; {mend} and go on with --resume") from error


@contextmanager
def enough_memory(section: TrainingSection, folder: Path) -> Iterator[None]:
    """Tell in one line of memory that does not suffice, and what takes less of it.

    Args:
        section: how is trained.
        folder: the chapter's.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        name, size = folder.name, section.micro_batch_size
        smaller = max((part for part in range(1, size) if size % part == 0), default=None)
        remedies = [f"--set {name}.micro_batch_size={smaller}"] if smaller else []
        remedies += [] if section.gradient_checkpointing is True else [f"--set {name}.gradient_checkpointing=true"]
        way = f"go on with --resume and {' or '.join(remedies)}" if remedies else f"lower {name}.sequence_length"
        raise BrokenOff(
            f"{name}.micro_batch_size: {size}: the memory of the device does not suffice; {way}; `buddy plan` tells "
            "what fits"
        ) from error
