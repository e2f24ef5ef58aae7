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
    keep: Annotated[Count, Field(ge=320, le=151_616)] | None = None
    """Of `base: qwen3`, the entries that the training split uses most: this many, rounded up to a multiple of 64, all
    bytes and special tokens included. `model.vocab_size` is the same number."""

    @property
    def entries(self) -> int | None:
        """Entries of the tokenizer, where `train` or `keep` says."""
        return self.train if self.keep is None else -(-self.keep // 64) * 64

    @model_validator(mode="after")
    def _one(self) -> TokenizerSection:
        if (self.base is None) == (self.train is None):
            raise FieldError("train" if self.train else "base", "give exactly one of `base: NAME` and `train: ENTRIES`")
        if self.keep is not None and self.base != "qwen3":
            raise FieldError("keep", "only entries of `base: qwen3` can be chosen; leave it out, or take that base")
        return self
