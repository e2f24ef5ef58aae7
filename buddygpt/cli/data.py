"""`buddy data`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from buddygpt.cli import options
from buddygpt.cli.render import Renderer
from buddygpt.recipe.errors import BuddyError


class RecipeOrVerb(typer.core.TyperGroup):
    """`buddy data RECIPE` is short for `buddy data prepare RECIPE`."""

    def resolve_command(self, ctx, args):  # type: ignore[no-untyped-def]
        """The named verb, or `prepare` where the first word is none."""
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            args = ["prepare", *args]
        return super().resolve_command(ctx, args)


app = typer.Typer(
    help="Prepare, report and verify a recipe's data: `buddy data RECIPE`.", cls=RecipeOrVerb, no_args_is_help=True,
    rich_markup_mode=None,
)  # fmt: skip


@app.command()
def prepare(
    recipe: options.RecipeArgument,
    set_: options.SetOption = None,
    run: options.RunOption = None,
) -> None:
    """Tokenise and pack a recipe's text, and report what became of it."""
    checked = options.read_recipe(recipe, set_)
    where = options.run_of(checked, run)
    with Renderer() as renderer:
        from buddygpt.stages import data as stage

        stage.run(checked, where, cache=options.cache_of(where), emit=renderer.emit)


@app.command()
def fetch(
    recipe: options.RecipeArgument,
    to: Annotated[
        Path | None,
        typer.Option("--to", metavar="FOLDER", help="Make an offline bundle there."),
    ] = None,
    set_: options.SetOption = None,
    run: options.RunOption = None,
) -> None:
    """Download what a recipe takes from hubs, and prepare nothing yet."""
    checked = options.read_recipe(recipe, set_)
    where = options.run_of(checked, run)
    with Renderer() as renderer:
        from buddygpt.stages import data as stage

        stage.fetch(checked, cache=options.cache_of(where), to=to, emit=renderer.emit)


@app.command()
def verify(recipe: options.RecipeArgument, set_: options.SetOption = None, run: options.RunOption = None) -> None:
    """Check the prepared shards' checksums, and tell which source has changed since."""
    checked = options.read_recipe(recipe, set_)
    where = options.run_of(checked, run)
    with Renderer() as renderer:
        from buddygpt.stages import data as stage

        faults = stage.verify(checked, where, cache=options.cache_of(where), emit=renderer.emit)
    if faults:
        raise BuddyError(faults)
