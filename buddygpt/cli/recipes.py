"""`buddy recipes`: list, show, copy and check recipes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from buddygpt.cli import options
from buddygpt.recipe.errors import BuddyError
from buddygpt.recipe.geometry import size_line
from buddygpt.recipe.lint import remarks
from buddygpt.recipe.reference import json_schema
from buddygpt.recipe.runs import dump_yaml
from buddygpt.recipe.shipped import find_recipe, shipped_recipes, summary

app = typer.Typer(help="List, show, copy and check recipes.", invoke_without_command=True, rich_markup_mode=None)


@app.callback()
def listing(context: typer.Context) -> None:
    """List the shipped recipes."""
    if context.invoked_subcommand is None:
        for name, path in shipped_recipes().items():
            typer.echo(f"{name:<12} {summary(path)}")


@app.command()
def show(
    recipe: options.RecipeArgument,
    set_: options.SetOption = None,
    resolved: Annotated[bool, typer.Option("--resolved", help="With every default filled in.")] = False,
) -> None:
    """Print a recipe."""
    if resolved or set_:
        typer.echo(dump_yaml(options.read_recipe(recipe, set_).as_dict()), nl=False)
    else:
        typer.echo(find_recipe(recipe).read_text("utf-8"), nl=False)


@app.command()
def copy(recipe: options.RecipeArgument, target: Annotated[Path, typer.Argument(help="The new file.")]) -> None:
    """Copy a shipped recipe to edit it; what it extends is merged in."""
    source = find_recipe(recipe)
    target = target / source.name if target.is_dir() else target
    if target.exists():
        raise BuddyError(f"{target}: exists; choose another name")
    text = source.read_text("utf-8")
    if "\nextends:" in text:
        head = "".join(line + "\n" for line in text.splitlines() if line.startswith("#"))
        text = head + dump_yaml(options.read_recipe(recipe, None).as_dict())
    try:
        target.write_text(text, "utf-8")
    except OSError as error:
        raise BuddyError(f"{target}: cannot be written: {error.strerror}") from None
    typer.echo(f"{target}: edit it, then `buddy recipes check {target}`")


@app.command()
def check(recipe: options.RecipeArgument, set_: options.SetOption = None) -> None:
    """Check a recipe. Lists every fault with its line, or else its size and what its geometry costs."""
    checked = options.read_recipe(recipe, set_)
    typer.echo(f"ok: {checked.name}, digest {checked.digest()}")
    typer.echo(size_line(checked.model))
    for remark in remarks(checked.model):
        typer.echo(f"! {remark}")


@app.command()
def schema() -> None:
    """Print the JSON schema that editors use."""
    typer.echo(json.dumps(json_schema(), indent=1, ensure_ascii=False))
