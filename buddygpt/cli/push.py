"""`buddy push`."""

from __future__ import annotations

import sys
from typing import Annotated, get_args

import typer

from buddygpt.cli import options
from buddygpt.cli.render import Renderer
from buddygpt.recipe.errors import BuddyError, did_you_mean
from buddygpt.recipe.push import HubChoice

HUBS = get_args(HubChoice)


def push(
    target: Annotated[
        str | None, typer.Argument(metavar="[TARGET]", help="A run or a model folder; the newest model by default.")
    ] = None,
    hub: Annotated[
        str | None, typer.Option(metavar="HUB", help="modelscope, huggingface or both; push.hub by default.")
    ] = None,
    repo: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="name or owner/name; push.repo by default, or else NAME-base or NAME-chat."),
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="Make a new repository public, not private.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before the first push to a repository.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the files and the card; send nothing.")] = False,
    with_training_state: Annotated[
        bool, typer.Option("--with-training-state", help="Also send the newest checkpoint of the stage.")
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
