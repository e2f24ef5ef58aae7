"""`buddy pretrain`."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from buddygpt.cli import options
from buddygpt.cli.render import Renderer


def pretrain(
    recipe: options.RecipeArgument,
    set_: options.SetOption = None,
    run: options.RunOption = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on from the newest whole checkpoint; from the start where there is none."),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would happen; write nothing.")] = False,
) -> None:
    """Train a model from scratch on the recipe's text."""
    checked = options.read_recipe(recipe, set_)
    where = options.run_of(checked, run)
    with Renderer() as renderer:
        if dry_run:
            from buddygpt.stages import plan

            plan.run(checked, where, cache=options.cache_of(where), emit=renderer.emit)
            return
        from buddygpt.stages import pretrain as stage

        result = stage.run(checked, where, cache=options.cache_of(where), resume=resume, emit=renderer.emit)
    if not result.finished:
        changed = [part for override in set_ or () for part in ("--set", override)] + (
            ["--run", str(run)] if run else []
        )
        command = shlex.join(["buddy", "pretrain", recipe, *changed, "--resume"])
        typer.echo(f"stopped at step {result.step}, saved; go on with: {command}", err=True)
        raise typer.Exit(130)
