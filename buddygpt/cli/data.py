"""`buddy data`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

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
    help="Inspect, fetch, prepare and verify data: `buddy data RECIPE`.", cls=RecipeOrVerb, no_args_is_help=True,
    rich_markup_mode=None,
)  # fmt: skip


@app.command()
def prepare(
    recipe: options.RecipeArgument,
    set_: options.SetOption = None,
    run: options.RunOption = None,
    stage: options.StageOption = "pretrain",
) -> None:
    """Tokenise and pack a recipe's text, or the rows of sft or dpo. Shows what became of each source."""
    checked, where, cache = options.open_run(recipe, set_, run)
    with Renderer() as renderer:
        from buddygpt.stages import data

        data.run(checked, where, cache=cache, stage=stage, emit=renderer.emit)


@app.command()
def fetch(
    recipe: options.RecipeArgument,
    to: Annotated[
        Path | None,
        typer.Option("--to", metavar="FOLDER", help="Make an offline bundle in this folder."),
    ] = None,
    set_: options.SetOption = None,
    run: options.RunOption = None,
) -> None:
    """Download what a recipe takes from hubs, without preparing it."""
    checked, _, cache = options.open_run(recipe, set_, run)
    with Renderer() as renderer:
        from buddygpt.stages import data as stage

        stage.fetch(checked, cache=cache, to=to, emit=renderer.emit)


@app.command()
def report(
    recipe: options.RecipeArgument,
    set_: options.SetOption = None,
    run: options.RunOption = None,
    stage: options.StageOption = "pretrain",
) -> None:
    """Write an HTML page on what became of a recipe's data. It has samples of what was removed."""
    checked, where, cache = options.open_run(recipe, set_, run)
    with Renderer() as renderer:
        from buddygpt.stages import data

        data.write_page(checked, where, cache=cache, stage=stage, emit=renderer.emit)


@app.command()
def verify(
    recipe: options.RecipeArgument,
    set_: options.SetOption = None,
    run: options.RunOption = None,
    stage: options.StageOption = "pretrain",
) -> None:
    """Compare prepared shards with their checksums. Names the sources that have changed since."""
    checked, where, cache = options.open_run(recipe, set_, run)
    with Renderer() as renderer:
        from buddygpt.stages import data

        faults = data.verify(checked, where, cache=cache, stage=stage, emit=renderer.emit)
    if faults:
        raise BuddyError(faults)


@app.command("list")
def list_(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Show everything about this data set.")] = None,
    kind: Annotated[
        Literal["pretrain", "sft", "dpo"] | None, typer.Option("--kind", help="Only data sets for this stage.")
    ] = None,
) -> None:
    """List the named data sets with their ids on both hubs. NAME shows everything about one."""
    with Renderer() as renderer:
        from buddygpt.stages import catalog as stage

        if name:
            stage.show(name, renderer.emit)
        else:
            stage.listing(kind, renderer.emit)


@app.command()
def inspect(
    what: Annotated[
        str,
        typer.Argument(metavar="NAME|PATH|ID", help="A name from `list`, a file or folder here, or an id on a hub."),
    ],
    map_: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="MEANING=COLUMN,...", help="What the columns hold, e.g. prompt=q,response=a."),
    ] = None,
    file: Annotated[str | None, typer.Option("--file", metavar="GLOB", help="Which of several files.")] = None,
    tokenizer: Annotated[str, typer.Option("--tokenizer", help="A name, folder or hub id.")] = "qwen3",
    stage_: Annotated[
        Literal["pretrain", "sft", "dpo"], typer.Option("--stage", help="Show which tokens this stage learns.")
    ] = "pretrain",
) -> None:
    """Show what a data set holds. Columns, three rows, the adapter that fits and what it makes of them, lengths."""
    mapping = options.read_map(map_)
    with Renderer() as renderer:
        from buddygpt.stages import inspect as stage

        stage.run(what, map=mapping, file=file, tokenizer=tokenizer, stage=stage_, emit=renderer.emit)
