"""What the stages that train have in common: begin or go on, stop when asked, tell of a full disk, leave a model."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import signal
import threading
import time
from collections import ChainMap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer, TrainerCallback

from buddygpt.data.prepare import Prepared, find_prepared, prepare
from buddygpt.data.windows import Passing
from buddygpt.events import Caution, Emit, Note
from buddygpt.recipe.base import spell_bytes
from buddygpt.recipe.errors import BrokenOff, BuddyError, is_disk_full, is_out_of_memory
from buddygpt.recipe.loader import load_recipe
from buddygpt.recipe.runs import Run, differences, dump_yaml, free_bytes, write_atomically
from buddygpt.recipe.schema import Chapter, Recipe
from buddygpt.recipe.training import TrainingSection
from buddygpt.report.chapters import Kept, keep, write_chapter
from buddygpt.report.page import load_rows
from buddygpt.training import checkpoints
from buddygpt.training.balance import Balance
from buddygpt.training.callbacks import Brake, Samples
from buddygpt.training.compiled import warm_up
from buddygpt.training.facts import Work, lasting_checkpoints, missing_bytes
from buddygpt.training.guard import Guard, Rewind
from buddygpt.training.keeper import Keeper
from buddygpt.training.launch import ONCE, OURS, launched_processes, rank
from buddygpt.training.meter import Meter, rewind
from buddygpt.training.pace import Pace
from buddygpt.training.randomness import seed_process
from buddygpt.training.setup import Device, surroundings
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


def start_from(folder: Path, resume: bool, emit: Emit) -> Path | None:
    """The checkpoint to go on from: the newest that is whole and undamaged.

    Raises:
        BuddyError: there is one with steps in it, and nobody asked to go on; or all are damaged.
    """
    if not resume:
        whole = checkpoints.whole_checkpoints(folder / "checkpoints")
        if whole and (step := checkpoints.step_of(whole[-1])):
            raise BuddyError(
                f"{folder}: an unfinished run is there, saved at step {step}; "
                "go on with --resume, choose another folder with --run, or remove it"
            )
        return None
    return _newest(folder, emit)


def _newest(folder: Path, emit: Emit) -> Path | None:
    """The newest checkpoint that is undamaged; what is passed over is told."""
    newest, damaged = checkpoints.newest_checkpoint(folder / "checkpoints")
    for fault in damaged:
        assert newest is not None
        emit(Caution(f"{fault}; passed over, going on from {newest.name}"))
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


def check_origin(start: Path, recipe: Recipe, now: Mapping[str, Any]) -> None:
    """See that a checkpoint is of this recipe's model and began from what is there now, which may have changed since.

    Args:
        start: the checkpoint.
        recipe: of the run.
        now: what `ORIGIN` would say; `prepared` and `model` must agree.

    Raises:
        BuddyError: it is another model's, or something else is there now.
    """
    theirs = load_recipe(start / "recipe.yaml")
    if differing := list(differences(theirs.as_dict("model", "tokenizer"), recipe.as_dict("model", "tokenizer"))):
        key, old, new = differing[0]
        raise BuddyError(
            f"{start}: is another model's checkpoint: {key} is {old} there, {new} here; remove that folder"
        )
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


def check_space(work: Work, steps: int, folder: Path) -> None:
    """See that the checkpoints that will lie on disk at once fit.

    Args:
        work: what is trained.
        steps: of the run.
        folder: the chapter's.

    Raises:
        BuddyError: they do not.
    """
    section, where = work.section, work.name
    need, free = missing_bytes(work, steps, folder), free_bytes(folder)
    if free < need:
        kept = lasting_checkpoints(section, steps) + 1
        rarer = f" or raise {where}.keep_every" if section.keep_every else ""
        raise BuddyError(
            f"{folder}: {spell_bytes(need)} are needed for {kept} checkpoints and the model, {spell_bytes(free)} free; "
            f"free some, choose another folder with --run, or lower {where}.keep_checkpoints{rarer}"
        )


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


@dataclass(frozen=True)
class Watch:
    """The watchers of a run, and what keeps it.

    Args:
        balance, samples, brake, meter: watchers, in the order in which they are told: the meter last, of what the
            others found.
        keeper: of checkpoints, guard and order.
        judge_again: the run goes on from a step whose evaluation was due and did not end.
        trackers: told after the meter, of what it adds.
    """

    balance: Balance | None
    samples: Samples
    brake: Brake
    meter: Meter
    keeper: Keeper
    judge_again: bool
    trackers: Sequence[TrainerCallback] = ()

    def callbacks(self) -> list[TrainerCallback]:
        """In the order in which they are told: the meter of what the others found, the trackers of what it adds."""
        watchers = (self.balance, self.samples, self.brake, self.meter, *self.trackers)
        return [watcher for watcher in watchers if watcher is not None]

    def go_back(self, step: int) -> None:
        """Take figures and samples after a step back."""
        self.meter.rewind(step)
        rewind(self.samples.file, step)


def watch(
    folder: Path,
    recipe: Recipe,
    work: Work,
    pace: Pace,
    origin: Mapping[str, Any],
    start: Path | None,
    order: Passing[Any],
    prompts: Sequence[tuple[str, Sequence[int]]],
    tokenizer: PreTrainedTokenizerBase,
    emit: Emit,
) -> Watch:
    """The watchers of a chapter, their files taken back to the checkpoint that it goes on from.

    Args:
        folder: the chapter's; made where it is missing.
        recipe: kept in each checkpoint.
        work: what is trained, and where.
        pace: of the run.
        origin: kept in each checkpoint as `ORIGIN`.
        start: the checkpoint to go on from.
        order: what is trained on.
        prompts: what the model goes on with at each evaluation: each as it is shown, and its ids.
        tokenizer: the model's.
        emit: who is told.

    Raises:
        BuddyError: a tracker cannot begin, or the folder cannot be written.
    """
    section = work.section
    # Of low-rank updates nothing else is saved, and the reference of `dpo` is the model under them: experts stay.
    balanced = not section.lora_rank
    step = checkpoints.step_of(start) if start else 0
    balance, guard = Balance() if balanced else None, Guard(section.guard)
    kept = {"recipe.yaml": dump_yaml(recipe.as_dict()), ORIGIN: json.dumps(origin, indent=1)}
    shelf = checkpoints.Shelf(
        folder / "checkpoints", section.keep_checkpoints, section.keep_every, work.checkpoint_bytes(), kept
    )
    keeper = Keeper(folder, shelf, guard, order, pace.batch, tokenizer.decode, emit)
    with safe_writing(folder):
        if rank() == 0:
            keeper.clear(start is None)
        keeper.load(start)
        run, metrics, sampled = Run(folder.parent), folder / "metrics.jsonl", folder / "samples.jsonl"
        judged = not pace.judges(step) or (_judged(metrics, step) and (not prompts or _sampled(sampled, step)))
        (judged,) = broadcast_object_list([judged])  # the others may have read the files before process 0 made them
        figures = ChainMap(guard.figures, balance.figures if balance else {})
        return Watch(
            balance,
            Samples([text for text, _ in prompts], [ids for _, ids in prompts], tokenizer, sampled, emit, step, judged),
            Brake(),
            Meter(metrics, work, pace, emit, step, figures, judged, lambda: write_chapter(run, work.name, False)),
            keeper,
            not judged,
            start_trackers(work.section.trackers, folder, step) if rank() == 0 else (),
        )


def _judged(file: Path, step: int) -> bool:
    return any(row["step"] == step and any(key.startswith("eval/") for key in row) for row in load_rows(file))


def _sampled(file: Path, step: int) -> bool:
    return any(row["step"] == step for row in load_rows(file))


def train(trainer: Trainer, watch: Watch, folder: Path, start: Path | None, emit: Emit) -> tuple[int, dict[str, float]]:
    """Train to the end, or until somebody stops it; go back where the guard says so.

    Returns:
        Steps done, and the figures of the last evaluation.

    Raises:
        BuddyError: the disk is full, memory does not suffice, the layers cannot be compiled, or the run cannot get past
            some text.
    """
    if start:
        emit(Note(f"going on from {start.name}"))
    elif launched_processes() > 1:
        seed_process(trainer.args.seed, 0, trainer.args.process_index)  # or all would drop out the same
    if trainer.section.compile:
        with enough_memory(trainer.section, folder):
            warm_up(trainer, folder.name, emit)
    trainer.args.eval_on_start = watch.judge_again
    with brake_on_signals(watch.brake, emit), safe_writing(folder), enough_memory(trainer.section, folder):
        while True:
            try:
                trainer.train(resume_from_checkpoint=str(start) if start else None)
                break
            except Rewind as trouble:
                trainer.accelerator.wait_for_everyone()
                start = _newest(folder, emit)
                assert start is not None  # one is written before the first step
                watch.keeper.pass_over(trouble, start, trainer.is_world_process_zero())
                watch.keeper.load(start)
                watch.go_back(checkpoints.step_of(start))
                trainer.args.eval_on_start = False
    return trainer.state.global_step, {k: v for k, v in watch.meter.latest.items() if k.startswith("eval/")}


def begin_page(folder: Path, kept: Kept) -> None:
    """Write down what the report shows beyond the chapter's files, for those made while training goes on."""
    if rank() == 0:
        with safe_writing(folder):
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
    checkpoints.sync(*temporary.rglob("*"), temporary)  # done.json, which is written next, must not outlive it
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)
    checkpoints.sync(folder.parent)


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
