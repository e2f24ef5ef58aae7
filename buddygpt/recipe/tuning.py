"""The `sft` and `dpo` sections: a finished model trained on."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from buddygpt.recipe.base import FieldError, Number, Section
from buddygpt.recipe.data import DataSection
from buddygpt.recipe.lora import LoraSection
from buddygpt.recipe.model import Factor
from buddygpt.recipe.training import Positive, TrainingSection


class TuningSection(TrainingSection):
    """What tuning runs have in common."""

    model: str | None = None
    """The model to begin with: a folder, a run or a hub id. What this run's chapter before has left, where left out."""
    data: DataSection
    """What is trained on. Each row is a whole talk or pair; `weight`s are shares of the tokens, by size where none is
    given."""
    epochs: Annotated[Number, Field(gt=0)] = 1.0
    """How often the whole of the data is read; a part of it where below 1."""
    sequence_length: Positive | None = None
    """Most tokens of a window, prompt and answer together; the model's context where left out."""
    save_every: Positive | None = None
    """Optimizer steps between checkpoints; a tenth of the run where left out."""
    eval_every: Positive | None = None
    """Optimizer steps between evaluations on the held-out rows; a tenth of the run where left out."""
    lora: LoraSection | None = None
    """Train low-rank updates in place of all weights."""


class Extension(Section):
    """How a model's rotary positions reach further than it was trained for."""

    kind: Literal["linear", "ntk", "dynamic", "yarn", "llama3"] = "linear"
    """Scaling: linear (arXiv 2306.15595), NTK-aware, dynamic NTK, YaRN (all three arXiv 2309.00071), or Llama 3.1's."""
    factor: Factor | None = None
    """Longest context over the length before any scaling; as much as `sequence_length` needs where left out."""


class SFTSection(TuningSection):
    """One run of supervised fine-tuning; only answers are learned."""

    batch_size: Positive
    """Windows in one optimizer step over all devices."""
    micro_batch_size: Positive
    """Windows that one device passes forward and backward at once; the rest is gradient accumulation."""
    packing: bool = True
    """Several short talks share a window and do not see one another; without it each talk is a window of its own."""
    rope: Extension = Extension()
    """Scaling of rotary positions where `sequence_length` is more than the model's context."""
    eval_tokens: Positive = 200_000
    """Most held-out tokens of each source in one evaluation; always the same ones."""

    @model_validator(mode="after")
    def _divides(self) -> SFTSection:
        _check_batch(self.batch_size, self.micro_batch_size, "windows")
        return self


LossType = Literal[
    "sigmoid",
    "hinge",
    "ipo",
    "exo_pair",
    "nca_pair",
    "robust",
    "bco_pair",
    "sppo_hard",
    "aot",
    "aot_unpaired",
    "apo_zero",
    "apo_down",
    "discopop",
    "sft",
    "sigmoid_norm",
]
SMOOTHED = ("exo_pair", "robust", "aot", "aot_unpaired")
"""Losses that read `label_smoothing`."""


class DPOSection(TuningSection):
    """One run of preference tuning (DPO, arXiv 2305.18290)."""

    batch_size: Positive
    """Pairs in one optimizer step over all devices."""
    micro_batch_size: Positive
    """Pairs that one device passes forward and backward at once; the rest is gradient accumulation."""
    beta: Annotated[Number, Field(gt=0)] = 0.1
    """Weight of staying near the reference: a reward is beta times the log-ratio to it; `ipo` calls it tau."""
    loss_type: Annotated[list[LossType], Field(min_length=1)] = ["sigmoid"]
    """Losses by trl's names; several are added up."""
    label_smoothing: Annotated[Number, Field(ge=0, lt=0.5)] = 0.0
    """Share of pairs taken to be labelled the wrong way round; read by `exo_pair` (which needs one above 0), `robust`,
    `aot` and `aot_unpaired`."""
    reference: Literal["cached", "live"] = "cached"
    """Where the reference's scores come from: `cached` computes them once before training and keeps them on disk,
    `live` keeps the reference in memory and asks it in every step."""
    eval_pairs: Positive = 1_000
    """Most held-out pairs of each source in one evaluation; always the same ones."""

    @model_validator(mode="after")
    def _agree(self) -> DPOSection:
        _check_batch(self.batch_size, self.micro_batch_size, "pairs")
        if len(set(self.loss_type)) < len(self.loss_type):
            raise FieldError("loss_type", "the same loss stands there twice")
        if "exo_pair" in self.loss_type and not self.label_smoothing:
            raise FieldError("label_smoothing", "exo_pair needs one above 0; its paper recommends 1e-3")
        if self.label_smoothing and not set(self.loss_type) & set(SMOOTHED):
            raise FieldError(
                "label_smoothing",
                f"{' + '.join(self.loss_type)} would not read it; set it to 0, or take one of {', '.join(SMOOTHED)}",
            )
        return self


def _check_batch(batch: int, micro: int, what: str) -> None:
    if batch % micro:
        raise FieldError(
            "batch_size",
            f"{batch} {what} are not a multiple of micro_batch_size = {micro}; "
            f"the next multiple is {-(-batch // micro) * micro}",
        )
