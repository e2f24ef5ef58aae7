"""Packages that only some ways of talking need."""

from __future__ import annotations

from importlib.util import find_spec

from buddygpt.recipe.errors import BuddyError

NEEDS = {"web": ("gradio", "fastapi", "uvicorn"), "serve": ("fastapi", "openai", "uvicorn")}
"""Modules by the extra of buddygpt that brings them, which is called as the option is."""


def see_extra(name: str) -> None:
    """See that the packages of an extra are there.

    Raises:
        BuddyError: one is not.
    """
    for module in NEEDS[name]:
        if find_spec(module) is None:
            raise BuddyError(f"--{name}: {module} is not installed: pip install 'buddygpt[{name}]'")
