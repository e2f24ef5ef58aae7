"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from buddygpt.recipe.loader import load_recipe
from buddygpt.recipe.runs import Run
from buddygpt.recipe.schema import Recipe
from buddygpt.recipe.shipped import find_recipe

RUNS = Path("runs")

RecipeArgument = Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe file, or the name of a shipped one.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a field, e.g. pretrain.tokens=1M. Repeatable."),
]
RunOption = Annotated[
    Path | None, typer.Option("--run", metavar="FOLDER", help="The run directory; runs/NAME where left out.")
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
