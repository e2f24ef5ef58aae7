"""What one process does before several train: see that they can, and prepare the data."""

from __future__ import annotations

from pathlib import Path

from buddygpt.data.prepare import prepare
from buddygpt.events import Emit, silent
from buddygpt.recipe.runs import Run
from buddygpt.recipe.schema import PRETRAINING, Chapter, Recipe
from buddygpt.training import beginnings
from buddygpt.training.base import find_base
from buddygpt.training.pace import check_batch
from buddygpt.training.setup import check_devices


def run(recipe: Recipe, run: Run, name: Chapter, *, cache: Path, resume: bool, processes: int, emit: Emit) -> bool:
    """Prepare a chapter's data, so that no process waits for another one that does.

    Args:
        recipe: with the chapter's sections.
        run: the run directory.
        name: the chapter's.
        cache: where prepared data lie.
        resume: go on from the newest whole checkpoint.
        processes: that will train.
        emit: who is told.

    Returns:
        Whether there is something to train: the chapter is not finished.

    Raises:
        BuddyError: something the user can mend, which the processes would otherwise find hours later.
    """
    recipe.require(name, name, *(("data",) if name == "pretrain" else ()))
    section = getattr(recipe, name)
    if name == "pretrain":
        run.check(recipe, *PRETRAINING)
    else:
        run.check_chapter(recipe, name)
    if beginnings.finished(run.chapter(name), emit) is not None:
        return False
    beginnings.start_from(run.chapter(name), resume, silent)  # the processes will tell
    check_devices(processes)
    check_batch(section, name, processes)
    tokenizer = None if name == "pretrain" else find_base(section, run, name).tokenizer
    prepare(recipe, cache, emit, stage=name, tokenizer=tokenizer)
    return True
