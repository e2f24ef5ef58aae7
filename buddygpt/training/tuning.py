"""What fine-tuning and preference tuning have in common: their rows, and the record of the chapters before."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import PreTrainedTokenizerBase

from buddygpt.data.prepare import Prepared, find_prepared, prepare
from buddygpt.events import Caution, Emit, Note
from buddygpt.recipe.data import DataSection, DemoSource
from buddygpt.recipe.errors import BuddyError
from buddygpt.recipe.runs import Run, write_atomically
from buddygpt.recipe.schema import Chapter, Recipe
from buddygpt.training.setup import launched_processes

READ_OFTEN = 8
"""Epochs above which a caution is told."""


def prepare_rows(
    recipe: Recipe, cache: Path, chapter: Chapter, tokenizer: PreTrainedTokenizerBase, emit: Emit
) -> Prepared:
    """The chapter's rows, prepared here, or found prepared where several processes need them.

    Raises:
        BuddyError: a source cannot be read, or they are not prepared and several processes were launched.
    """
    if launched_processes() == 1:
        return prepare(recipe, cache, emit, stage=chapter, tokenizer=tokenizer)
    prepared = find_prepared(recipe, cache, stage=chapter, tokenizer=tokenizer)
    if prepared is None:
        raise BuddyError(
            f"{recipe.name}: the rows of {chapter} are not prepared; run `buddy data RECIPE --stage {chapter}` once, "
            "then this again"
        )
    return prepared


def demo_seeds(data: DataSection) -> list[int]:
    """Seeds of the demo worlds among the sources, each once."""
    return list(dict.fromkeys(source.seed for source in data.sources if isinstance(source, DemoSource)))


def tell_intake(prepared: Prepared, emit: Emit) -> None:
    """What became of the rows: how many stay of each source, and why the others do not."""
    for name, source in prepared.manifest["sources"].items():
        gone = ", ".join(f"{drop['count']:,} {reason}" for reason, drop in source["dropped"].items())
        told = f"{name}: {source['documents_out']:,} of {source['documents_in']:,} rows"
        emit(Note(told + (f"; dropped: {gone}" if gone else "")))


def tell_cuts(sources: Sequence[Any], emit: Emit) -> None:
    """What did not fit, by source.

    Args:
        sources: with a `name`, and `cut`, counts by what was done.
    """
    for source in sources:
        if source.cut:
            told = ", ".join(f"{count:,} {what}" for what, count in source.cut.items())
            emit(Caution(f"{source.name}: too long for the window: {told}"))


def tell_epochs(epochs: dict[str, float], emit: Emit) -> None:
    """A caution for each source that is read very often."""
    for name, times in epochs.items():
        if times > READ_OFTEN:
            emit(Caution(f"{name} is read {times:.1f} times: the model will know it by heart"))


def first_figures(folder: Path, judge: Callable[[], dict[str, float]], resumed: bool) -> dict[str, float]:
    """Figures of the model that a run begins with; those of its first start where it goes on."""
    file = folder / "before.json"
    if resumed and file.is_file():  # else it is of an earlier try, maybe with another model
        return json.loads(file.read_text("utf-8"))
    figures = judge()
    if PartialState().is_main_process:
        write_atomically(file, json.dumps(figures))
    return figures


def chapters_before(run: Run) -> dict[str, dict[str, float]]:
    """Figures of what fine-tuning began with and of what came of it, by name; none where it is not finished."""
    file = run.chapter("sft") / "done.json"
    if not file.is_file():
        return {}
    record = json.loads(file.read_text("utf-8"))
    return {record["began"]: record["before"], "sft": record["after"]}
