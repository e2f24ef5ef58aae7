"""The `push` section: where a finished model is published, and what is said of it there."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from buddygpt.recipe.base import Section

PushHub = Literal["modelscope", "huggingface"]
"""A hub that takes models."""
HubChoice = Literal[PushHub, "both"]
"""What a user may name."""
_PART = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?")
_LONGEST = 96
"""Characters of owner/name that Hugging Face takes; ModelScope tells no bound."""


def see_repo(name: str) -> str:
    """The name of a repository, `name` or `owner/name`, if both hubs can have one of it.

    Raises:
        ValueError: they cannot; says what would be right.
    """
    parts = name.split("/")
    if len(parts) > 2 or len(name) > _LONGEST or any(not _PART.fullmatch(p) or "--" in p or ".." in p for p in parts):
        raise ValueError(
            f"'{name}' is no name of a repository; write name or owner/name of letters, digits, '.', '_' and '-', with "
            f"a letter or digit at both ends, no '--' or '..', at most {_LONGEST} characters"
        )
    return name


class PushSection(Section):
    """Publishing, by `buddy push`. Tokens come from the environment or the hubs' own logins, never from a recipe."""

    hub: HubChoice | None = None
    """Hub that takes the model, or both; left out, `--hub` has to say it."""
    repo: Annotated[str, AfterValidator(see_repo)] | None = None
    """Repository: `name`, yours on each hub, or `owner/name`; left out, `NAME-base` or `NAME-chat` by the stage."""
    public: bool = False
    """Whether a repository that has to be made is for everyone to see; one that is there keeps its visibility."""
    license: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.+-]*$", max_length=64)] | None = None
    """Licence of the weights, by its SPDX identifier, e.g. `apache-2.0` or `cc-by-nc-4.0`; left out, none is stated."""
