"""How a chapter begins: anew, from a checkpoint, or not at all; what must be there before its first step."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from buddygpt.data.prepare import Prepared, find_prepared, prepare
from buddygpt.events import Caution, Emit, Note
from buddygpt.recipe.base import spell_bytes
from buddygpt.recipe.errors import BuddyError
from buddygpt.recipe.loader import load_recipe
from buddygpt.recipe.runs import differences, free_bytes
from buddygpt.recipe.schema import Chapter, Recipe
from buddygpt.training import checkpoints
from buddygpt.training.facts import Work, lasting_checkpoints, missing_bytes
from buddygpt.training.launch import launched_processes

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
    return newest(folder, emit)


def newest(folder: Path, emit: Emit) -> Path | None:
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
