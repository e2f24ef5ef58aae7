"""What the stages that train have in common: begin or go on, stop when asked, tell of a full disk, leave a model."""

from __future__ import annotations

import json
import shutil
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer, TrainerCallback

from buddygpt.data.prepare import Prepared, find_prepared, prepare
from buddygpt.events import Emit, Note
from buddygpt.recipe.base import spell_bytes
from buddygpt.recipe.errors import BuddyError, is_disk_full
from buddygpt.recipe.runs import Run, dump_yaml, free_bytes, write_atomically
from buddygpt.recipe.schema import Chapter, Recipe
from buddygpt.report.chapters import Kept, keep, write_chapter
from buddygpt.training import checkpoints
from buddygpt.training.balance import Balance
from buddygpt.training.callbacks import Brake, Samples, Seal
from buddygpt.training.facts import Work, checkpoint_bytes
from buddygpt.training.meter import Meter
from buddygpt.training.pace import Pace
from buddygpt.training.setup import Device, launched_processes, surroundings
from buddygpt.training.trackers import start_trackers

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


def prepare_data(
    recipe: Recipe,
    cache: Path,
    emit: Emit,
    name: Chapter = "pretrain",
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> Prepared:
    """A chapter's text or rows, prepared here, or found prepared where several processes need them.

    Args:
        recipe: with the chapter's data.
        cache: where they lie.
        emit: who is told.
        name: the chapter's.
        tokenizer: of the model that is tuned.

    Raises:
        BuddyError: a source cannot be read, or nothing is prepared and several processes were launched.
    """
    if launched_processes() == 1:
        return prepare(recipe, cache, emit, stage=name, tokenizer=tokenizer)
    prepared = find_prepared(recipe, cache, stage=name, tokenizer=tokenizer)
    if prepared is None:
        command = "buddy data RECIPE" + ("" if name == "pretrain" else f" --stage {name}")
        raise BuddyError(f"{recipe.name}: the data are not prepared; run `{command}` once, then this again")
    return prepared


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


@dataclass(frozen=True)
class Watch:
    """The watchers of a run."""

    balance: Balance | None
    samples: Samples
    brake: Brake
    seal: Seal
    meter: Meter
    trackers: Sequence[TrainerCallback]

    def callbacks(self) -> list[TrainerCallback]:
        """In the order in which they are told: the meter of what the others found, the trackers of what it adds."""
        watchers = (self.balance, self.samples, self.brake, self.seal, self.meter, *self.trackers)
        return [watcher for watcher in watchers if watcher is not None]


def watch(
    name: Chapter,
    folder: Path,
    recipe: Recipe,
    work: Work,
    pace: Pace,
    origin: Mapping[str, Any],
    start: Path | None,
    prompts: Sequence[tuple[str, Sequence[int]]],
    tokenizer: PreTrainedTokenizerBase,
    emit: Emit,
    *,
    balanced: bool = True,
) -> Watch:
    """The watchers of a chapter, their files taken back to the checkpoint that it goes on from.

    Args:
        name: the chapter's, which is that of its section.
        folder: the chapter's; made where it is missing.
        recipe: kept in each checkpoint.
        work: what is trained, and where.
        pace: of the run.
        origin: kept in each checkpoint as `ORIGIN`.
        start: the checkpoint to go on from.
        prompts: what the model goes on with at each evaluation: each as it is shown, and its ids.
        tokenizer: the model's.
        emit: who is told.
        balanced: the selection bias of experts moves.

    Raises:
        BuddyError: a tracker cannot begin.
    """
    folder.mkdir(parents=True, exist_ok=True)
    step = checkpoints.step_of(start) if start else 0
    balance = Balance() if balanced else None
    kept = {"recipe.yaml": dump_yaml(recipe.as_dict()), ORIGIN: json.dumps(origin, indent=1)}
    return Watch(
        balance,
        Samples(
            [text for text, _ in prompts], [ids for _, ids in prompts], tokenizer, folder / "samples.jsonl", emit, step
        ),
        Brake(),
        Seal(kept, getattr(recipe, name).keep_checkpoints),
        Meter(
            folder / "metrics.jsonl",
            work,
            pace,
            emit,
            step,
            balance.figures if balance else None,
            lambda: write_chapter(Run(folder.parent), name, finished=False),
        ),
        start_trackers(work.section.trackers, folder, step) if PartialState().is_main_process else (),
    )


def train(trainer: Trainer, watch: Watch, folder: Path, start: Path | None, emit: Emit) -> tuple[int, dict[str, float]]:
    """Train to the end, or until somebody stops it.

    Returns:
        Steps done, and the figures of the last evaluation.

    Raises:
        BuddyError: the disk is full.
    """
    if start:
        emit(Note(f"going on from {start.name}"))
    with brake_on_signals(watch.brake, emit), disk_full(folder):
        trainer.train(resume_from_checkpoint=str(start) if start else None)
    return trainer.state.global_step, {k: v for k, v in watch.meter.latest.items() if k.startswith("eval/")}


def begin_page(folder: Path, kept: Kept) -> None:
    """Write down what the report shows beyond the chapter's files, for those made while training goes on."""
    if PartialState().is_main_process:
        with disk_full(folder):
            keep(folder, kept)


def page(run: Run, name: Chapter, kept: Kept, finished: bool) -> None:
    """Write a chapter's report.

    Args:
        run: with its recipe.
        name: the chapter's.
        kept: what the report shows beyond the chapter's files.
        finished: the whole budget was trained.
    """
    keep(run.chapter(name), kept)
    write_chapter(run, name, finished)


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Model, tokenizer and generation settings, whole or not at all."""
    temporary = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    model.save_pretrained(temporary)
    tokenizer.save_pretrained(temporary)
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)


def record(folder: Path, device: Device, origin: Mapping[str, Any], **facts: Any) -> None:
    """Write down that the chapter is finished, what came of it, and on what it was made.

    Args:
        folder: the chapter's.
        device: where it ran.
        origin: as kept in its checkpoints.
        facts: what came of it.
    """
    facts["made_on"] = surroundings(device, origin["versions"])
    write_atomically(folder / "done.json", json.dumps(facts, indent=1, ensure_ascii=False))
