"""`buddy pretrain`, `buddy sft` and `buddy dpo`."""

from __future__ import annotations

import importlib
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from buddygpt.cli import options
from buddygpt.cli.plan import plan
from buddygpt.cli.render import Renderer
from buddygpt.events import silent
from buddygpt.recipe.runs import Run
from buddygpt.recipe.schema import Chapter, Recipe
from buddygpt.training import launch

ResumeOption = Annotated[
    bool, typer.Option("--resume", help="Continue from the newest whole checkpoint, or begin where there is none.")
]
ProcessesOption = Annotated[
    int | None,
    typer.Option("--processes", metavar="N", min=1, help="Train on N devices of this machine, one process each."),
]


def pretrain(
    recipe: options.RecipeArgument,
    set_: options.SetOption = None,
    run: options.RunOption = None,
    resume: ResumeOption = False,
    processes: ProcessesOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Like `buddy plan`: say what would happen, write nothing.")
    ] = False,
) -> None:
    """Train a model from scratch on the recipe's text."""
    if not dry_run:
        return _train("pretrain", recipe, set_, run, resume, processes)
    plan(recipe, set_, run)


def sft(
    recipe: options.RecipeArgument,
    set_: options.SetOption = None,
    run: options.RunOption = None,
    resume: ResumeOption = False,
    processes: ProcessesOption = None,
) -> None:
    """Fine-tune a base model on conversations, so that it answers."""
    _train("sft", recipe, set_, run, resume, processes)


def dpo(
    recipe: options.RecipeArgument,
    set_: options.SetOption = None,
    run: options.RunOption = None,
    resume: ResumeOption = False,
    processes: ProcessesOption = None,
) -> None:
    """Tune a chat model on pairs of a better and a worse answer."""
    _train("dpo", recipe, set_, run, resume, processes)


def _train(
    chapter: Chapter,
    recipe: str,
    overrides: list[str] | None,
    folder: Path | None,
    resume: bool,
    processes: int | None,
) -> None:
    checked, run, cache = options.open_run(recipe, overrides, folder)
    launch.check_launched(processes)
    if processes not in (None, 1) and not launch.launched():
        return _launch(chapter, checked, run, cache, resume, processes)
    with Renderer() as renderer:
        emit = renderer.emit if launch.rank() == 0 else silent
        stage = importlib.import_module(f"buddygpt.stages.{chapter}")  # torch, once the recipe is found sound
        result = stage.run(checked, run, cache=cache, resume=resume, emit=emit)
    if not result.finished:
        changed = [part for override in overrides or () for part in ("--set", override)]
        changed += ["--run", str(folder)] if folder else []
        changed += ["--processes", str(processes)] if processes else []
        command = shlex.join(["buddy", chapter, recipe, *changed, "--resume"])
        if launch.elsewhere():
            command = "the same launcher and --resume"
        if launch.rank() == 0:
            typer.echo(f"stopped at step {result.step}, saved; go on with: {command}", err=True)
        launch.meet()
        raise typer.Exit(130)


def _launch(chapter: Chapter, recipe: Recipe, run: Run, cache: Path, resume: bool, processes: int) -> None:
    """Prepare the data, then train in processes that read the same command line."""
    from buddygpt.stages import processes as stage

    with Renderer() as renderer:
        ready = stage.run(recipe, run, chapter, cache=cache, resume=resume, processes=processes, emit=renderer.emit)
    if ready:
        raise typer.Exit(launch.launch(sys.argv[1:], processes, renderer.emit))
