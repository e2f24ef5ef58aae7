"""The `lora` section inside `sft` and `dpo`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from buddygpt.recipe.base import Number, Positive, PositiveNumber, Section


class LoraSection(Section):
    """Train low-rank updates of the linear layers in place of all weights (LoRA, arXiv 2106.09685); merged at the end.

    Left out are the embedding, the head, the routed experts and MLA's `kv_up_proj`.
    """

    rank: Positive = 16
    """Rank of an update: numbers that it keeps of a layer's input."""
    alpha: PositiveNumber | None = None
    """An update is scaled by alpha / rank; left out, alpha is twice the rank, so that the scale stays 2."""
    dropout: Annotated[Number, Field(ge=0, lt=1)] = 0.0
    """Share of an update's inputs that are dropped in training."""
