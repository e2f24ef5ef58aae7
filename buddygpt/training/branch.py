"""A run that begins where another one stood: with a checkpoint's weights, moments, step and place in the text.

So one long run at the stable rate of a WSD schedule gives models of several budgets: each decays from a checkpoint.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from buddygpt.events import Caution, Emit
from buddygpt.recipe.errors import BuddyError
from buddygpt.recipe.loader import load_recipe
from buddygpt.recipe.pretrain import PretrainSection
from buddygpt.recipe.runs import Run, differences, find_run
from buddygpt.recipe.schema import PRETRAINING, Recipe
from buddygpt.training import checkpoints
from buddygpt.training.beginnings import ORIGIN
from buddygpt.training.schedules import rate_factor

SAME = ("seed", "sequence_length", "tokens_per_batch", "optimizer")
"""Fields of `pretrain` that are the branch's and the checkpoint's alike, beside all of model, tokenizer and data: they
decide what the checkpoint's moments mean and which text comes next."""
JUMP = 0.01
"""Relative change of the learning rate at the checkpoint that is told, if no step of the branch's own decay."""


def branch_point(recipe: Recipe, run: Run, emit: Emit) -> Path:
    """The whole checkpoint of another run that `pretrain.start_from` names.

    Args:
        recipe: the branch's.
        run: the branch's; runs are looked for beside it.
        emit: who is told where the rate jumps.

    Raises:
        BuddyError: there is none, it is damaged, it was trained otherwise, or the branch's budget ends before it.
    """
    section = recipe.pretrain
    assert section is not None and section.start_from is not None
    checkpoint = _find(section.start_from, run)
    if faults := checkpoints.damages(checkpoint):
        raise BuddyError(f"{checkpoint}: {faults[0]}; name another checkpoint (pretrain.start_from)")
    theirs = load_recipe(checkpoint / "recipe.yaml")
    before, now = (_deciding(r) for r in (theirs, recipe))
    if found := list(differences(before, now)):
        key, old, new = found[0]
        raise BuddyError(
            f"{checkpoint}: {key} is {old} there, {new} here; a run that starts from it keeps its model, text, seed, "
            "windows, batch, optimizer and parallel.kind: take that from there, or leave out pretrain.start_from"
        )
    step = checkpoints.step_of(checkpoint)
    if section.steps <= step:
        raise BuddyError(
            f"pretrain.tokens: {section.tokens:,} are {section.steps:,} steps, and {checkpoint} is at step {step:,} "
            "already; give more tokens, or start from an earlier checkpoint"
        )
    assert theirs.pretrain is not None
    _tell_jump(theirs.pretrain, section, step, emit)
    return checkpoint


def origin_of(start: Path, folder: Path) -> dict[str, Any]:
    """What a branch's checkpoints and `done.json` say of where it began.

    Args:
        start: the checkpoint that is gone on from: another run's, or the branch's own.
        folder: the branch's chapter.
    """
    if start.parent == folder / "checkpoints":
        return json.loads((start / ORIGIN).read_text("utf-8"))["start_from"]
    return {"checkpoint": str(start), "step": checkpoints.step_of(start)}


def take_history(start: Path, folder: Path) -> None:
    """Begin a branch's metrics and samples with those of the run that it starts from; going on cuts them to a step."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("metrics.jsonl", "samples.jsonl"):
        if (start.parent.parent / name).is_file():
            shutil.copyfile(start.parent.parent / name, folder / name)


def _find(target: str, run: Run) -> Path:
    path = Path(target)
    if path.name.startswith("checkpoint-"):
        folder, wanted = path.parent, path
    else:
        parent = Run(path) if (path / "recipe.yaml").is_file() else find_run(run.path.parent, target)
        if parent.path.absolute() == run.path.absolute():
            raise BuddyError(f"pretrain.start_from: {target} is this very run; give this one another name")
        folder, wanted = parent.chapter("pretrain") / "checkpoints", None
    whole = checkpoints.whole_checkpoints(folder)
    if wanted is None and whole:
        return whole[-1]
    if wanted in whole:
        return path
    there = f"there are {', '.join(p.name for p in whole)}" if whole else "there is none"
    raise BuddyError(
        f"pretrain.start_from: no whole checkpoint {wanted or f'in {folder}'}; {there} (that run's "
        "pretrain.keep_checkpoints says how many of the newest stay)"
    )


def _deciding(recipe: Recipe) -> dict[str, Any]:
    sections = recipe.as_dict(*PRETRAINING)
    section = sections["pretrain"]
    split = {"parallel": {"kind": section["parallel"]["kind"]}}  # a split model's checkpoint has another form
    return sections | {"pretrain": {key: section[key] for key in SAME} | split}


def _tell_jump(before: PretrainSection, now: PretrainSection, step: int, emit: Emit) -> None:
    old = rate_factor(before.schedule, step, before.steps)
    new, following = (rate_factor(now.schedule, n, now.steps) for n in (step, step + 1))
    if abs(old - new) > JUMP * old and not 0 < old - new <= 1.01 * (new - following):
        emit(
            Caution(
                f"the learning rate jumps at step {step:,}: {old:.3g} of its peak in the run that this one starts "
                f"from, {new:.3g} here; start from a checkpoint of its stable part, with the same warm-up in steps"
            )
        )
