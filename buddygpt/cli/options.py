"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, get_args

import typer

from buddygpt.recipe.data import Mapping, Meaning
from buddygpt.recipe.errors import BuddyError, did_you_mean
from buddygpt.recipe.loader import load_recipe
from buddygpt.recipe.runs import Run
from buddygpt.recipe.schema import Chapter, Recipe
from buddygpt.recipe.shipped import find_recipe

RUNS = Path("runs")

RecipeArgument = Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe file, or the name of a shipped one.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a field, e.g. pretrain.tokens=1M. Repeatable."),
]
StageOption = Annotated[
    Chapter, typer.Option("--stage", help="Which data: the text for pretraining, or the rows for sft or dpo.")
]
RunOption = Annotated[
    Path | None, typer.Option("--run", metavar="FOLDER", help="The run directory; runs/NAME by default.")
]


def read_recipe(name: str, overrides: list[str] | None) -> Recipe:
    """The recipe that the user means, checked."""
    return load_recipe(find_recipe(name), overrides or ())


def run_of(recipe: Recipe, folder: Path | None) -> Run:
    """The recipe's run directory."""
    return Run(folder or RUNS / recipe.name)


def cache_of(run: Run) -> Path:
    """Where prepared data lies: beside the runs that share it."""
    return run.path.absolute().parent / ".data"


def read_map(options: list[str] | None) -> Mapping | None:
    """A `map` as a recipe has it, from `prompt=q,response=a`; a meaning given twice has several columns.

    Raises:
        BuddyError: no `=`, or an unknown meaning.
    """
    found: Mapping = {}
    for part in (part for option in options or () for part in option.split(",")):
        meaning, sign, column = (piece.strip() for piece in part.partition("="))
        known = get_args(Meaning)
        if not sign or not column:
            raise BuddyError(f"--map: '{part}' is no MEANING=COLUMN; write e.g. --map prompt=question,response=answer")
        if meaning not in known:
            near = did_you_mean(meaning, known)
            raise BuddyError(f"--map: nothing is called '{meaning}'{near}; a column holds one of {', '.join(known)}")
        before = found.get(meaning, [])
        found[meaning] = [*([before] if isinstance(before, str) else before), column]
    return {meaning: c[0] if len(c) == 1 else c for meaning, c in found.items()} or None


def open_run(recipe: str, overrides: list[str] | None, folder: Path | None) -> tuple[Recipe, Run, Path]:
    """The recipe that the user means, its run directory, and where prepared data lies."""
    checked = read_recipe(recipe, overrides)
    run = run_of(checked, folder)
    return checked, run, cache_of(run)
