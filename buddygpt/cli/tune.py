"""`buddy sft` and `buddy dpo`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from buddygpt.cli import options
from buddygpt.cli.render import Renderer

ResumeOption = Annotated[
    bool, typer.Option("--resume", help="Go on from the newest whole checkpoint; from the start where there is none.")
]


def sft(
    recipe: options.RecipeArgument,
    set_: options.SetOption = None,
    run: options.RunOption = None,
    resume: ResumeOption = False,
) -> None:
    """Fine-tune a base model on talks, so that it answers."""
    checked, where, cache = options.open_run(recipe, set_, run)
    with Renderer() as renderer:
        from buddygpt.stages import sft as stage

        result = stage.run(checked, where, cache=cache, resume=resume, emit=renderer.emit)
    _tell_how_to_go_on("sft", recipe, set_, run, result)


def dpo(
    recipe: options.RecipeArgument,
    set_: options.SetOption = None,
    run: options.RunOption = None,
    resume: ResumeOption = False,
) -> None:
    """Tune a model that answers on pairs of a better and a worse answer."""
    checked, where, cache = options.open_run(recipe, set_, run)
    with Renderer() as renderer:
        from buddygpt.stages import dpo as stage

        result = stage.run(checked, where, cache=cache, resume=resume, emit=renderer.emit)
    _tell_how_to_go_on("dpo", recipe, set_, run, result)


def _tell_how_to_go_on(verb: str, recipe: str, overrides: list[str] | None, run: Path | None, result: Any) -> None:
    if result.finished:
        return
    changed = [part for override in overrides or () for part in ("--set", override)]
    changed += ["--run", str(run)] if run else []
    command = shlex.join(["buddy", verb, recipe, *changed, "--resume"])
    typer.echo(f"stopped at step {result.step}, saved; go on with: {command}", err=True)
    raise typer.Exit(130)
