"""`buddy push`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from buddygpt.cli import options
from buddygpt.cli.render import Renderer
from buddygpt.recipe.errors import BuddyError, did_you_mean

HUBS = ("modelscope", "huggingface", "both")


def push(
    target: Annotated[
        str | None, typer.Argument(metavar="[TARGET]", help="A run or a model folder; the newest model where left out.")
    ] = None,
    hub: Annotated[
        str | None, typer.Option(metavar="HUB", help="modelscope, huggingface or both; push.hub where left out.")
    ] = None,
    repo: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="name or owner/name; push.repo, or NAME-base or NAME-chat where left out."),
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="Make a new repository public; private where not.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before the first push to a repository.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the files and the card; send nothing.")] = False,
    with_training_state: Annotated[
        bool, typer.Option("--with-training-state", help="Send the newest checkpoint of the stage, too.")
    ] = False,
) -> None:
    """Publish a finished model with card and scores. Tokens: HF_TOKEN, MODELSCOPE_API_TOKEN, or the hubs' logins."""
    if hub is not None and hub not in HUBS:
        raise BuddyError(f"--hub {hub}: unknown; one of {', '.join(HUBS)}{did_you_mean(hub, HUBS)}")
    with Renderer() as renderer:
        from buddygpt.stages import push as stage

        choices = stage.Choices(hub, repo, public, yes, dry_run, with_training_state)  # type: ignore[arg-type]
        ask = renderer.confirm if sys.stdin.isatty() else None
        stage.run(target, options.RUNS, choices, ask=ask, emit=renderer.emit)
