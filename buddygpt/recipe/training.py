"""What every training run has: how weights move, in what precision, when the work is saved and judged."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from buddygpt.recipe.base import Count, FieldError, Number, Positive, PositiveNumber, Section, Share
from buddygpt.recipe.guard import GuardSection
from buddygpt.recipe.parallel import DDP, Parallel


class AdamW(Section):
    """AdamW (arXiv 1711.05101); only matrices decay, not the embedding, norms and biases."""

    kind: Literal["adamw"]
    """One AdamW for all parameters."""
    learning_rate: PositiveNumber
    """Peak learning rate."""
    betas: Annotated[list[Annotated[Number, Field(ge=0, lt=1)]], Field(min_length=2, max_length=2)] = [0.9, 0.95]
    """Decay rates of the two moments."""
    eps: PositiveNumber = 1e-8
    """Added to the root of the second moment."""
    weight_decay: Annotated[Number, Field(ge=0)] = 0.1
    """Decoupled weight decay of matrices."""


class Muon(Section):
    """Muon for hidden matrices, AdamW for everything else (torch.optim.Muon; arXiv 2502.16982, section 2.2).

    An update is scaled by 0.2 sqrt(max(rows, columns)), which makes it as large as AdamW's: one rate serves both.
    """

    kind: Literal["muon"]
    """Muon for hidden matrices, AdamW for embedding, head, norms and biases."""
    learning_rate: PositiveNumber
    """Peak learning rate of the hidden matrices."""
    momentum: Annotated[Number, Field(ge=0, lt=1)] = 0.95
    """Nesterov momentum."""
    weight_decay: Annotated[Number, Field(ge=0)] = 0.1
    """Decoupled weight decay of hidden matrices."""
    adamw_learning_rate: PositiveNumber | None = None
    """Peak learning rate of everything else; `learning_rate` where left out."""
    betas: Annotated[list[Annotated[Number, Field(ge=0, lt=1)]], Field(min_length=2, max_length=2)] = [0.9, 0.95]
    """AdamW's decay rates."""
    eps: PositiveNumber = 1e-8
    """AdamW's epsilon."""


class Cosine(Section):
    """Linear warm-up, then a cosine down to `min_ratio` of the peak (arXiv 1608.03983)."""

    kind: Literal["cosine"]
    """Cosine."""
    warmup: Share = 0.02
    """Share of the steps that warm up."""
    min_ratio: Share = 0.1
    """Last rate as a share of the peak."""


class Linear(Section):
    """Linear warm-up, then linearly down to `min_ratio` of the peak (arXiv 2310.07831, section 4)."""

    kind: Literal["linear"]
    """Linear."""
    warmup: Share = 0.02
    """Share of the steps that warm up."""
    min_ratio: Share = 0.0
    """Last rate as a share of the peak."""


class WSD(Section):
    """Linear warm-up, stable, linear decay (MiniCPM, arXiv 2404.06395, section 4)."""

    kind: Literal["wsd"]
    """Warm-up, stable, decay."""
    warmup: Share = 0.02
    """Share of the steps that warm up."""
    decay: Share = 0.2
    """Share of the steps, at the end, that decay."""
    min_ratio: Share = 0.0
    """Last rate as a share of the peak."""


MAY_CHANGE = frozenset(
    {
        *("micro_batch_size", "attn_implementation", "gradient_checkpointing", "compile"),
        *("parallel.reshard_after_forward", "trackers"),
        *("guard", "save_every", "keep_checkpoints", "keep_every"),
        *("eval_every", "eval_tokens", "eval_pairs", "prompts"),
    }
)
"""Fields of a training section that may change when a run goes on: how a batch is split and computed, what is kept,
what is told and judged. All others decide what is learned."""


class TrainingSection(Section):
    """What training runs of all kinds have in common."""

    micro_batch_size: Positive
    """What one device passes forward and backward at once; the rest of a batch is gradient accumulation."""

    optimizer: Annotated[AdamW | Muon, Field(discriminator="kind")]
    """How weights move."""
    schedule: Annotated[Cosine | Linear | WSD, Field(discriminator="kind")]
    """How the learning rate moves."""
    max_grad_norm: PositiveNumber = 1.0
    """Gradients are scaled down to this global norm."""
    precision: Literal["bf16", "fp16", "fp32"] = "bf16"
    """Compute type under autocast; weights, moments and statistics stay in fp32."""
    attn_implementation: Literal[
        "auto",
        "flash_attention_4",
        "flash_attention_3",
        "flash_attention_2",
        "varlen_attn",
        "sdpa",
        "flex_attention",
        "eager",
    ] = "auto"
    """What computes attention; `auto` takes the fastest that is right for the device, a named one never falls back."""
    gradient_checkpointing: bool | Literal["selective"] = False
    """What of the layers is computed again in the backward pass to save memory: `true` all, a third more time;
    `selective` keeps what matrix products and attention give and computes the cheap rest again."""
    compile: bool = False
    """Layers go through torch.compile in training: mostly less time a step, after a warm-up of up to a minute or so."""
    parallel: Parallel = DDP(kind="ddp")
    """How several processes share the model."""
    trackers: list[Literal["wandb", "swanlab", "tensorboard", "trackio"]] = []
    """Experiment trackers that get each step's and each evaluation's figures; `pip install 'buddygpt[trackers]'`."""
    guard: GuardSection = GuardSection()
    """What happens at a step that would harm the weights."""
    keep_checkpoints: Positive = 2
    """Newest checkpoints that stay."""
    keep_every: Positive | None = None
    """Checkpoints of steps that this divides stay for good; none where left out."""
    seed: Annotated[Count, Field(ge=0)] = 0
    """Initial weights, order of windows, samples."""

    @property
    def lora_rank(self) -> int:
        """Of the low-rank updates that are trained; 0 where all weights learn."""
        return 0

    @model_validator(mode="after")
    def _schedule_fits(self) -> TrainingSection:
        schedule = self.schedule
        if isinstance(schedule, WSD):
            if schedule.warmup + schedule.decay > 1:
                raise FieldError("schedule.decay", "warmup and decay together are more than the whole run")
        elif schedule.warmup == 1:
            raise FieldError(
                "schedule.warmup", f"1 is the whole run: nothing is left for {schedule.kind} to go down in"
            )
        return self

    @model_validator(mode="after")
    def _keeps(self) -> TrainingSection:
        save_every = getattr(self, "save_every", None)
        if self.keep_every and save_every and self.keep_every % save_every:
            raise FieldError(
                "keep_every",
                f"no checkpoint is written every {self.keep_every} steps: give a multiple of save_every = {save_every}",
            )
        return self
