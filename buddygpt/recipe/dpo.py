"""The `dpo` section."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from buddygpt.recipe.base import FieldError, Number, Positive, PositiveNumber
from buddygpt.recipe.parallel import FSDP
from buddygpt.recipe.tuning import TuningSection

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

    beta: PositiveNumber = 0.1
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
        if isinstance(self.parallel, FSDP):
            raise FieldError("parallel.kind", "dpo keeps the model whole on each device: leave it at ddp")
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
