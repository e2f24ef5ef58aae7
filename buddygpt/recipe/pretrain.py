"""The `pretrain` section."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from buddygpt.recipe.base import FieldError, Number, Positive, spell
from buddygpt.recipe.training import TrainingSection


class PretrainSection(TrainingSection):
    """One pretraining run."""

    tokens: Positive
    """Tokens to train on; rounded up to whole batches."""
    tokens_per_batch: Positive
    """Tokens in one optimizer step over all devices."""
    sequence_length: Positive
    """Tokens in one window."""
    micro_batch_size: Positive
    """Windows that one device passes forward and backward at once; the rest is gradient accumulation."""
    z_loss: Annotated[Number, Field(ge=0)] = 0.0
    """Coefficient of log^2 Z, Z the softmax normaliser, added to what is minimised (PaLM, arXiv 2204.02311, section 5,
    had 1e-4); reported losses stay the cross entropy."""
    isolate_documents: bool = True
    """Documents that share a window do not see one another."""
    save_every: Positive
    """Optimizer steps between checkpoints."""
    eval_every: Positive
    """Optimizer steps between evaluations on the held-out text."""
    eval_tokens: Positive = 1_000_000
    """Most held-out tokens of each source in one evaluation; always the same ones."""

    start_from: str | None = None
    """A run, or the folder of one of its checkpoints (the newest where none is named): this run begins with its
    weights, optimizer, step and place in the text, and trains on to its own `tokens` by its own `schedule`."""

    prompts: list[str] = []
    """Beginnings that the model completes at each evaluation; the demo corpus brings its own."""

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole run."""
        return -(-self.tokens // self.tokens_per_batch)

    @model_validator(mode="after")
    def _fits(self) -> PretrainSection:
        micro = self.sequence_length * self.micro_batch_size
        if self.tokens_per_batch % micro:
            raise FieldError(
                "tokens_per_batch",
                f"{spell(self.tokens_per_batch)} is not a multiple of sequence_length x micro_batch_size = "
                f"{self.sequence_length} x {self.micro_batch_size} = {micro}; the next one is "
                f"{-(-self.tokens_per_batch // micro) * micro}",
            )
        return self
