"""Checkpoints that cannot be lost: written aside, sealed, synced, renamed, read back; only then does an old one go.

A checkpoint counts as whole where `complete.json` lies in it: written last, it lists every file with its size and hash.
What is being written lies in `.writing/` and takes its name once it is sealed, so that a kill at any moment leaves the
checkpoints before it as they were.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from buddygpt.recipe.base import spell_bytes
from buddygpt.recipe.errors import BrokenOff, BuddyError
from buddygpt.recipe.runs import free_bytes, write_atomically

MARK = "complete.json"
WRITING = ".writing"
"""Folder in which a checkpoint is written before it has its name."""
_REPLACED = ".replaced"
_NAME = re.compile(r"checkpoint-(0|[1-9][0-9]*)")


@dataclass(frozen=True)
class Shelf:
    """Where a run's checkpoints lie, and which stay.

    Args:
        folder: of all of them.
        keep: newest ones that stay.
        keep_every: those of steps that this divides stay too; none where left out.
        size: bytes that one is expected to take.
        files: name to text of what is added to each, so that it can be rebuilt alone.
    """

    folder: Path
    keep: int
    keep_every: int | None = None
    size: int = 0
    files: Mapping[str, str] = field(default_factory=dict)

    def prepare(self) -> Path:
        """The folder in which the next one is to be written as `checkpoint-N`: empty, with room on its disk.

        Raises:
            BrokenOff: the disk has no room.
        """
        self.clear()
        free = free_bytes(self.folder)
        if free < self.size:
            raise BrokenOff(
                f"{self.folder}: {spell_bytes(self.size)} are needed for a checkpoint, {spell_bytes(free)} free; "
                f"{self._newest()}; free some space and go on with --resume"
            )
        (self.folder / WRITING).mkdir(parents=True)
        return self.folder / WRITING

    def finish(self, step: int) -> Path:
        """Seal what was written, give it its name, read it back, and remove what need not stay.

        Args:
            step: of the checkpoint that lies in `.writing/`.

        Raises:
            BrokenOff: what was written reads back otherwise; nothing is removed.
        """
        written, checkpoint = self.folder / WRITING / f"checkpoint-{step}", self.folder / f"checkpoint-{step}"
        for name, text in self.files.items():
            (written / name).write_text(text, "utf-8")
        seal(written)
        if checkpoint.exists():  # a damaged one, or of a try that was rewound
            checkpoint.rename(self.folder / _REPLACED)
        written.rename(checkpoint)
        sync(self.folder)
        if faults := damages(checkpoint):
            raise BrokenOff(
                f"{checkpoint}: reads back otherwise than it was written ({faults[0]}): the disk cannot be trusted; "
                "nothing older was removed"
            )
        self.clear()
        self._thin(checkpoint)
        return checkpoint

    def clear(self) -> None:
        """Remove what a save that was cut short has left."""
        for left in (WRITING, _REPLACED):
            shutil.rmtree(self.folder / left, ignore_errors=True)

    def _thin(self, newest: Path) -> None:
        """Remove all but the newest whole checkpoints and the lasting ones, and what was cut short before `newest`."""
        whole = [p for p in whole_checkpoints(self.folder) if step_of(p) <= step_of(newest)]
        kept = set(whole[-self.keep :])
        for path in all_checkpoints(self.folder):
            step = step_of(path)
            lasting = self.keep_every and step and step % self.keep_every == 0 and path in whole
            if path not in kept and not lasting and step < step_of(newest):
                _remove(path)

    def _newest(self) -> str:
        whole = whole_checkpoints(self.folder)
        return f"{whole[-1].name} is whole" if whole else "no checkpoint is whole yet"


def _remove(checkpoint: Path) -> None:
    """Remove one; of a link to elsewhere the link alone."""
    if checkpoint.is_symlink():
        checkpoint.unlink()
        return
    (checkpoint / MARK).unlink(missing_ok=True)  # half-removed is not whole
    shutil.rmtree(checkpoint, ignore_errors=True)  # what NFS keeps of a file that is still open goes at the next save


def step_of(checkpoint: Path) -> int:
    """Optimizer steps done when `checkpoint-N` was written."""
    return int(checkpoint.name.rpartition("-")[2])


def all_checkpoints(folder: Path) -> list[Path]:
    """Folders called checkpoint-N and nothing else, whole or not, oldest first."""
    return sorted((p for p in folder.glob("checkpoint-*") if _NAME.fullmatch(p.name) and p.is_dir()), key=step_of)


def whole_checkpoints(folder: Path) -> list[Path]:
    """Checkpoints that were written to their end, oldest first."""
    return [p for p in all_checkpoints(folder) if (p / MARK).is_file()]


def seal(checkpoint: Path) -> None:
    """Sync every file of a finished checkpoint to disk and mark it whole."""
    from buddygpt.data.fingerprints import hash_file  # here, so that a trainer alone needs no readers of data

    files = {}
    for path in sorted(p for p in checkpoint.rglob("*") if p.is_file() and p.name != MARK):
        files[path.relative_to(checkpoint).as_posix()] = {"bytes": path.stat().st_size, "xxh3_128": hash_file(path)}
        with path.open("rb") as file:
            os.fsync(file.fileno())
            if hasattr(os, "posix_fadvise"):  # whoever reads it back reads the disk, not memory
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    write_atomically(checkpoint / MARK, json.dumps({"files": files}, indent=1))
    sync(*(p for p in checkpoint.rglob("*") if p.is_dir()), checkpoint)


def newest_checkpoint(folder: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint whose files are what was sealed, and a line for each newer one that was damaged since.

    Raises:
        BuddyError: there are some, and all are damaged.
    """
    faults = []
    for checkpoint in reversed(whole_checkpoints(folder)):
        found = damages(checkpoint)
        if not found:
            return checkpoint, faults
        faults.append(f"{checkpoint}: {found[0]}")
    if faults:
        raise BuddyError([*faults, f"{folder}: no older checkpoint is whole; remove this folder to begin anew"])
    return None, []


def damages(checkpoint: Path) -> list[str]:
    """What differs between a sealed checkpoint and its files now."""
    from buddygpt.data.fingerprints import hash_file

    try:
        sealed = json.loads((checkpoint / MARK).read_text("utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return [f"{MARK} cannot be read"]
    faults = []
    for name, was in sealed.items():
        path = checkpoint / name
        try:
            if not path.is_file():
                faults.append(f"{name} is missing")
            elif (size := path.stat().st_size) != was["bytes"]:
                faults.append(f"{name} has {size:,} bytes of {was['bytes']:,}")
            elif hash_file(path) != was["xxh3_128"]:
                faults.append(f"{name} was changed after it was written")
        except OSError as error:  # as a disk with a bad sector gives
            faults.append(f"{name} cannot be read: {error.strerror}")
    return faults


def sync(*paths: Path) -> None:
    """Have files, and the names in folders, on disk; Windows has no such call for a folder, and needs none."""
    if os.name == "posix":
        for path in paths:
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
