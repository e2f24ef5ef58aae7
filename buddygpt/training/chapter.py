"""What the stages that train have in common: they are watched, train to the end or until stopped, leave a model."""

from __future__ import annotations

import json
import shutil
from collections import ChainMap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer, TrainerCallback

from buddygpt.data.windows import Passing
from buddygpt.events import Emit, Note
from buddygpt.recipe.runs import Run, dump_yaml, write_atomically
from buddygpt.recipe.schema import Chapter, Recipe
from buddygpt.report.chapters import Kept, keep, write_chapter
from buddygpt.report.page import load_rows
from buddygpt.training import checkpoints
from buddygpt.training.balance import Balance
from buddygpt.training.beginnings import ORIGIN, newest
from buddygpt.training.callbacks import Brake, Samples
from buddygpt.training.compiled import warm_up
from buddygpt.training.facts import Work
from buddygpt.training.guard import Guard, Rewind
from buddygpt.training.keeper import Keeper
from buddygpt.training.launch import launched_processes, rank
from buddygpt.training.meter import Meter, rewind
from buddygpt.training.pace import Pace
from buddygpt.training.randomness import seed_process
from buddygpt.training.setup import Device, surroundings
from buddygpt.training.trackers import start_trackers
from buddygpt.training.troubles import brake_on_signals, enough_memory, safe_writing


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
                start = newest(folder, emit)
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
