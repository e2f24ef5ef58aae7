"""Scores that others have published, to be read beside measured ones and never mixed with them."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from buddygpt.recipe.base import Section

Percent = Annotated[str, Field(pattern=r"^(≈ )?\d{1,2}(\.\d+)?(–\d{1,2}(\.\d+)?)?$")]


class Published(Section):
    """One model's scores from one kind of source."""

    model: str
    """Its name, with what parts it from others of that name."""
    parameters: str
    """How many, as spelled."""
    scores: Annotated[dict[str, Percent], Field(min_length=1)]
    """Per cent by task, with the digits of the source; a range where sources differ."""
    setting: str
    """How they were made, as far as that is known."""
    source: str
    """Where they stand."""
    recalled: list[str] = []
    """Tasks whose score was written down from memory."""

    @model_validator(mode="after")
    def _recalled_are_scores(self) -> Published:
        if not set(self.recalled) <= self.scores.keys():
            raise ValueError(f"{self.model}: recalled names a task without a score")
        return self


def published(tasks: Iterable[str]) -> list[Published]:
    """The models that have a score in one of these tasks, in the order of the file."""
    wanted = set(tasks)
    return [row for row in _load() if wanted & row.scores.keys()]


@cache
def _load() -> tuple[Published, ...]:
    from ruamel.yaml import YAML

    text = Path(__file__).with_name("published.yaml").read_text("utf-8")
    return tuple(Published.model_validate(row) for row in YAML(typ="safe", pure=True).load(text))
