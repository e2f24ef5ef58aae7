"""What the `sft` and `dpo` sections have in common: a finished model is trained on."""

from __future__ import annotations

from pydantic import model_validator

from buddygpt.recipe.base import FieldError, Positive, PositiveNumber
from buddygpt.recipe.data import DataSection
from buddygpt.recipe.lora import LoraSection
from buddygpt.recipe.parallel import FSDP
from buddygpt.recipe.training import TrainingSection


class TuningSection(TrainingSection):
    """What tuning runs have in common."""

    model: str | None = None
    """The model to begin with: a folder, a run or a hub id. What this run's chapter before has left, where left out."""
    data: DataSection
    """What is trained on. Each row is a whole talk or pair; `weight`s are shares of the tokens, by size where none is
    given."""
    epochs: PositiveNumber = 1.0
    """How often the whole of the data is read; a part of it where below 1."""
    sequence_length: Positive | None = None
    """Most tokens of a window, prompt and answer together; the model's context where left out."""
    save_every: Positive | None = None
    """Optimizer steps between checkpoints; a tenth of the run where left out."""
    eval_every: Positive | None = None
    """Optimizer steps between evaluations on the held-out rows; a tenth of the run where left out."""
    batch_size: Positive
    """Windows, or pairs in `dpo`, in one optimizer step over all devices."""
    micro_batch_size: Positive
    """Windows or pairs that one device passes forward and backward at once; the rest is gradient accumulation."""
    lora: LoraSection | None = None
    """Train low-rank updates in place of all weights."""

    @property
    def lora_rank(self) -> int:
        """Of the low-rank updates that are trained; 0 where all weights learn."""
        return 0 if self.lora is None else self.lora.rank

    @model_validator(mode="after")
    def _divides(self) -> TuningSection:
        if self.batch_size % self.micro_batch_size:
            raise FieldError(
                "batch_size",
                f"{self.batch_size} is not a multiple of micro_batch_size = {self.micro_batch_size}; "
                f"the next one is {-(-self.batch_size // self.micro_batch_size) * self.micro_batch_size}",
            )
        return self

    @model_validator(mode="after")
    def _splits(self) -> TuningSection:
        if self.lora and isinstance(self.parallel, FSDP):
            raise FieldError("parallel", "fsdp splits all weights, lora learns a few more: leave one of the two out")
        return self

    @model_validator(mode="after")
    def _renders(self) -> TuningSection:
        for i, source in enumerate(self.data.sources):
            if "render" in source.model_fields_set:
                raise FieldError(
                    f"data.sources.{i}.render", "is of pretraining; here all rows go through the chat template"
                )
        weighted = [source.weight is not None for source in self.data.sources]
        if any(weighted) and not all(weighted):
            raise FieldError(
                f"data.sources.{weighted.index(False)}.weight", "give every source a weight, or none: then sizes decide"
            )
        return self
