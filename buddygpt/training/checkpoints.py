"""Which checkpoints are whole, which is the newest, and how old ones go.

A checkpoint counts as whole once `complete.json` lies in it: written last, it lists every file with its size and hash.
A folder without it was interrupted while it was written and is passed over.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from buddygpt.data.fingerprints import hash_file
from buddygpt.recipe.errors import BuddyError
from buddygpt.recipe.runs import write_atomically

MARK = "complete.json"


def step_of(checkpoint: Path) -> int:
    """Optimizer steps done when `checkpoint-N` was written."""
    return int(checkpoint.name.rpartition("-")[2])


def all_checkpoints(folder: Path) -> list[Path]:
    """Folders called checkpoint-N, whole or not, oldest first."""
    found = [p for p in folder.glob("checkpoint-*") if p.is_dir() and p.name.rpartition("-")[2].isdigit()]
    return sorted(found, key=step_of)


def whole_checkpoints(folder: Path) -> list[Path]:
    """Checkpoints that were written to their end, oldest first."""
    return [p for p in all_checkpoints(folder) if (p / MARK).is_file()]


def seal(checkpoint: Path) -> None:
    """Sync every file of a finished checkpoint to disk and mark it whole."""
    files = {}
    for path in sorted(p for p in checkpoint.rglob("*") if p.is_file() and p.name != MARK):
        with path.open("rb") as file:
            os.fsync(file.fileno())
        files[path.relative_to(checkpoint).as_posix()] = {"bytes": path.stat().st_size, "xxh3_128": hash_file(path)}
    write_atomically(checkpoint / MARK, json.dumps({"files": files}, indent=1))


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint, its files compared with what was sealed; None where there is none.

    Raises:
        BuddyError: it was whole once and is damaged now.
    """
    whole = whole_checkpoints(folder)
    if not whole:
        return None
    newest = whole[-1]
    if faults := damages(newest):
        rest = f"remove that folder to go on from {whole[-2].name}" if len(whole) > 1 else "there is no older one"
        raise BuddyError(f"{newest}: {faults[0]}; {rest}")
    return newest


def damages(checkpoint: Path) -> list[str]:
    """What differs between a sealed checkpoint and its files now."""
    try:
        sealed = json.loads((checkpoint / MARK).read_text("utf-8"))["files"]
    except (ValueError, KeyError):
        return [f"{MARK} cannot be read"]
    faults = []
    for name, was in sealed.items():
        path = checkpoint / name
        if not path.is_file():
            faults.append(f"{name} is missing")
        elif (size := path.stat().st_size) != was["bytes"]:
            faults.append(f"{name} has {size:,} bytes of {was['bytes']:,}")
        elif hash_file(path) != was["xxh3_128"]:
            faults.append(f"{name} was changed after it was written")
    return faults


def keep_newest(folder: Path, keep: int) -> None:
    """Remove all but the newest `keep` whole checkpoints, and what was interrupted before the newest whole one."""
    whole = whole_checkpoints(folder)
    if not whole:
        return
    kept = set(whole[-keep:])
    for path in all_checkpoints(folder):
        if path not in kept and step_of(path) < step_of(whole[-1]):
            (path / MARK).unlink(missing_ok=True)  # half-removed is not whole
            shutil.rmtree(path)
