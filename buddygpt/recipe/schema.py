"""The whole recipe: one YAML, one model's life."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from buddygpt.recipe.base import FieldError, Section
from buddygpt.recipe.data import DataSection
from buddygpt.recipe.dpo import DPOSection
from buddygpt.recipe.errors import BuddyError
from buddygpt.recipe.hub import HubSection
from buddygpt.recipe.model import ModelSection
from buddygpt.recipe.pretrain import PretrainSection
from buddygpt.recipe.push import PushSection
from buddygpt.recipe.sft import SFTSection
from buddygpt.recipe.tokenizer import TokenizerSection

Chapter = Literal["pretrain", "sft", "dpo"]
"""A stage that leaves a model, in the order in which a model lives them."""
PRETRAINING = ("model", "tokenizer", "data", "pretrain")
"""Sections of a recipe that decide what pretraining does."""


def where_data(chapter: Chapter) -> str:
    """Path of a chapter's data in a recipe."""
    return "data" if chapter == "pretrain" else f"{chapter}.data"


class Recipe(Section):
    """A recipe describes one model's life; each verb of `buddy` lives one chapter of it."""

    schema_version: Annotated[Literal[1], Field(alias="schema")]
    """Version of the recipe's format."""
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=96)]
    """Name of the run: letters, digits, `.`, `_`, `-`."""
    model: ModelSection
    """Geometry."""
    tokenizer: TokenizerSection
    """Tokenizer."""
    hub: HubSection = HubSection()
    """Where data sets, tokenizers and models are fetched from."""
    data: DataSection | None = None
    """Pretraining text."""
    pretrain: PretrainSection | None = None
    """Pretraining."""
    sft: SFTSection | None = None
    """Supervised fine-tuning: from a base model to one that answers."""
    dpo: DPOSection | None = None
    """Preference tuning: from one that answers to one that answers better."""
    push: PushSection = PushSection()
    """Publishing."""

    @model_validator(mode="after")
    def _agree(self) -> Recipe:
        if self.tokenizer.train and self.tokenizer.train > self.model.vocab_size:
            raise FieldError(
                "tokenizer.train",
                f"{self.tokenizer.train} entries, but the model has {self.model.vocab_size} rows (model.vocab_size)",
            )
        if self.tokenizer.keep and self.tokenizer.entries != self.model.vocab_size:
            raise FieldError(
                "tokenizer.keep",
                f"{self.tokenizer.entries} entries, but the model has {self.model.vocab_size} rows; "
                f"set model.vocab_size to {self.tokenizer.entries}",
            )
        if self.pretrain and self.pretrain.sequence_length > self.model.max_position_embeddings:
            raise FieldError(
                "pretrain.sequence_length",
                f"{self.pretrain.sequence_length} tokens, but the model has only "
                f"{self.model.max_position_embeddings} positions (model.max_position_embeddings)",
            )
        sft, positions = self.sft, self.model.max_position_embeddings
        if sft and not sft.model and sft.sequence_length and sft.rope.factor:
            needed = sft.sequence_length
            if sft.rope.factor * positions < needed:
                raise FieldError(
                    "sft.rope.factor",
                    f"{sft.rope.factor:g} x {positions} positions do not reach {needed} (sft.sequence_length); "
                    f"{needed / positions:g} would, as would none",
                )
        return self

    def rows(self, stage: Chapter) -> DataSection | None:
        """What a chapter trains on; None where the recipe does not say."""
        if stage == "pretrain":
            return self.data
        section = self.sft if stage == "sft" else self.dpo
        return section and section.data

    def require(self, verb: str, *sections: str) -> None:
        """See that the sections that a verb needs are there.

        Raises:
            BuddyError: one is missing.
        """
        for section in sections:
            if getattr(self, section) is None:
                raise BuddyError(f"{self.name}: the recipe has no `{section}` section, which `buddy {verb}` needs")

    def as_dict(self, *sections: str) -> dict[str, Any]:
        """The resolved recipe, every default filled in, as plain data; only `sections` where given."""
        # In tuning no source has a `render`, and one without a weight is not one of weight 1.
        renders = {chapter: {"data": {"sources": {"__all__": {"render"}}}} for chapter in ("sft", "dpo")}
        full = self.model_dump(mode="json", by_alias=True, exclude_none=True, exclude=renders)
        if self.data:
            for source, told in zip(self.data.sources, full["data"]["sources"], strict=True):
                told["weight"] = source.relative_weight
        return {k: full[k] for k in sections if k in full} if sections else full

    def digest(self, *sections: str) -> str:
        """Hash (16 hex digits of BLAKE2b) of the resolved recipe, or of the named sections of it."""
        text = json.dumps(self.as_dict(*sections), sort_keys=True, ensure_ascii=False)
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
