"""`buddy pretrain`, `buddy sft` and `buddy dpo`."""

from __future__ import annotations

import importlib
import shlex
from pathlib import Path
from typing import Annotated

import typer

from buddygpt.cli import options
from buddygpt.cli.plan import plan
from buddygpt.cli.render import Renderer
from buddygpt.recipe.schema import Chapter

ResumeOption = Annotated[
    bool, typer.Option("--resume", help="Go on from the newest whole checkpoint; from the start where there is none.")
]


def pretrain(
    recipe: options.RecipeArgument,
    set_: options.SetOption = None,
    run: options.RunOption = None,
    resume: ResumeOption = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="As `buddy plan`: say what would happen; write nothing.")
    ] = False,
) -> None:
    """Train a model from scratch on the recipe's text."""
    if not dry_run:
        return _train("pretrain", recipe, set_, run, resume)
    plan(recipe, set_, run)


def sft(
    recipe: options.RecipeArgument,
    set_: options.SetOption = None,
    run: options.RunOption = None,
    resume: ResumeOption = False,
) -> None:
    """Fine-tune a base model on talks, so that it answers."""
    _train("sft", recipe, set_, run, resume)


def dpo(
    recipe: options.RecipeArgument,
    set_: options.SetOption = None,
    run: options.RunOption = None,
    resume: ResumeOption = False,
) -> None:
    """Tune a model that answers on pairs of a better and a worse answer."""
    _train("dpo", recipe, set_, run, resume)


def _train(chapter: Chapter, recipe: str, overrides: list[str] | None, folder: Path | None, resume: bool) -> None:
    checked, run, cache = options.open_run(recipe, overrides, folder)
    with Renderer() as renderer:
        stage = importlib.import_module(f"buddygpt.stages.{chapter}")  # torch, once the recipe is found sound
        result = stage.run(checked, run, cache=cache, resume=resume, emit=renderer.emit)
    if not result.finished:
        changed = [part for override in overrides or () for part in ("--set", override)]
        changed += ["--run", str(folder)] if folder else []
        command = shlex.join(["buddy", chapter, recipe, *changed, "--resume"])
        typer.echo(f"stopped at step {result.step}, saved; go on with: {command}", err=True)
        raise typer.Exit(130)
