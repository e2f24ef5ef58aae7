"""The `tokenizer` section."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from buddygpt.recipe.base import Count, FieldError, Section


class TokenizerSection(Section):
    """Where the tokenizer comes from: a known one, or one trained on the recipe's own training text."""

    base: str | None = None
    """`qwen3` (151,669 entries, built offline), a folder, or a hub id."""
    train: Annotated[Count, Field(ge=300)] | None = None
    """Train a byte-level BPE of this many entries, special tokens included, on the training split."""

    @model_validator(mode="after")
    def _one(self) -> TokenizerSection:
        if (self.base is None) == (self.train is None):
            raise FieldError("train" if self.train else "base", "give exactly one of `base: NAME` and `train: ENTRIES`")
        return self
