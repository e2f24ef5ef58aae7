"""What the stages that train have in common: begin or go on, stop when asked, tell of a full disk, leave a model."""

from __future__ import annotations

import json
import shutil
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from buddygpt.events import Emit, Note
from buddygpt.recipe.base import spell_bytes
from buddygpt.recipe.errors import BuddyError, is_disk_full
from buddygpt.recipe.runs import free_bytes, write_atomically
from buddygpt.training import checkpoints
from buddygpt.training.callbacks import Brake
from buddygpt.training.facts import checkpoint_bytes

ORIGIN = "origin.json"
"""In each checkpoint: what the run began from, and the versions it was made with."""


def finished(folder: Path, emit: Emit) -> dict[str, Any] | None:
    """What a finished chapter has recorded; None where it is not finished."""
    file = folder / "done.json"
    if not file.is_file():
        return None
    record = json.loads(file.read_text("utf-8"))
    emit(Note(f"{folder}: finished already at step {record['step']}; the model is {folder / 'model'}"))
    return record


def start_from(folder: Path, resume: bool) -> Path | None:
    """The checkpoint to go on from.

    Raises:
        BuddyError: there is one, and nobody asked to go on; or it is damaged.
    """
    newest = checkpoints.newest_checkpoint(folder / "checkpoints")
    if newest is not None and not resume:
        raise BuddyError(
            f"{folder}: an unfinished run is there, saved at step {checkpoints.step_of(newest)}; "
            "go on with --resume, choose another folder with --run, or remove it"
        )
    return newest


def check_origin(start: Path, now: Mapping[str, Any]) -> None:
    """See that a checkpoint began from what is there now: text or model may have changed since.

    Args:
        start: the checkpoint.
        now: what `ORIGIN` would say; `prepared` and `model` must agree.

    Raises:
        BuddyError: something else is there now.
    """
    before = json.loads((start / ORIGIN).read_text("utf-8"))
    if before["prepared"] != now["prepared"]:
        raise BuddyError(
            f"{start}: was trained on other text (prepared as {before['prepared']}, now {now['prepared']}): a source, "
            "the tokenizer or the template has changed; bring it back, or train anew under another name "
            "(--set name=...)"
        )
    if before.get("model") != now.get("model"):
        raise BuddyError(
            f"{start}: began from another model (weights {before.get('model')}, now {now.get('model')}); bring it "
            "back, or train anew under another name (--set name=...)"
        )


def check_space(parameters: int, kept: int, folder: Path, where: str) -> None:
    """See that the checkpoints that will lie on disk at once fit: weights and two moments, in fp32.

    Args:
        parameters: of the model.
        kept: `keep_checkpoints`.
        folder: the chapter's.
        where: the recipe's section.

    Raises:
        BuddyError: they do not.
    """
    kept += 1  # the new one is whole before the oldest goes
    need = kept * checkpoint_bytes(parameters) + 4 * parameters
    free = free_bytes(folder)
    if free < need:
        raise BuddyError(
            f"{folder}: {spell_bytes(need)} are needed for {kept} checkpoints and the model, {spell_bytes(free)} free; "
            f"free some, choose another folder with --run, or lower {where}.keep_checkpoints"
        )


@contextmanager
def brake_on_signals(brake: Brake, emit: Emit) -> Iterator[None]:
    """Ctrl-C or a scheduler's SIGTERM ends the run after its step, saved; a second one ends it at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def pull(number: int, frame: Any) -> None:
        if brake.pulled:
            raise KeyboardInterrupt
        brake.pulled = True
        emit(Note("finishing this step, then saving; once more to stop at once"))

    before = {number: signal.signal(number, pull) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def disk_full(folder: Path) -> Iterator[None]:
    """Tell of a full disk in one line."""
    try:
        yield
    except Exception as error:
        if not is_disk_full(error):
            raise
        whole = checkpoints.whole_checkpoints(folder / "checkpoints")
        kept = f"{whole[-1].name} is whole" if whole else "no checkpoint is whole yet"
        raise BuddyError(f"{folder}: no space left; {kept}; free some space and go on with --resume") from error


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Model, tokenizer and generation settings, whole or not at all."""
    temporary = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    model.save_pretrained(temporary)
    tokenizer.save_pretrained(temporary)
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)


def record(folder: Path, **facts: Any) -> None:
    """Write down that the chapter is finished, and what came of it."""
    write_atomically(folder / "done.json", json.dumps(facts, indent=1, ensure_ascii=False))
