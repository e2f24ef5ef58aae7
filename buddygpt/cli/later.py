"""Verbs of the command line whose stage does not exist yet: each says in one line what is missing."""

from __future__ import annotations

import typer

from buddygpt.recipe.errors import BuddyError

ANYTHING = {"allow_extra_args": True, "ignore_unknown_options": True}


def push(context: typer.Context) -> None:
    """Publish on a hub (not in this version)."""
    raise BuddyError("push: not in this version; the model folder is runs/NAME/pretrain/model")
