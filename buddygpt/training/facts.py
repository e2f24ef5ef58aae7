"""What a run is made of, as rows of text: shown before it starts, kept in its report."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from buddygpt.model import BuddyGPTConfig
from buddygpt.model.attention import ATTENTION
from buddygpt.model.backends import Backend, Demand, kept_by
from buddygpt.model.cost import cache_bytes, count_flops
from buddygpt.model.flash import AUTO, UnsupportedError, choose, survey
from buddygpt.model.memory import COMPUTE_TYPES, Memory, training_memory
from buddygpt.recipe.base import spell, spell_bytes
from buddygpt.recipe.dpo import DPOSection
from buddygpt.recipe.errors import BuddyError
from buddygpt.recipe.geometry import count_parameters, count_updates, native_architecture
from buddygpt.recipe.model import ModelSection, flatten
from buddygpt.recipe.parallel import FSDP
from buddygpt.recipe.pretrain import PretrainSection
from buddygpt.recipe.schema import Chapter, Recipe
from buddygpt.recipe.training import TrainingSection
from buddygpt.recipe.tuning import TuningSection
from buddygpt.training.setup import Device

Rows = list[tuple[str, str]]


@dataclass(frozen=True)
class Work:
    """One training run: what, how, and on what.

    Args:
        name: of the recipe's section.
        model: geometry.
        section: how it is trained.
        length: most tokens of a window.
        isolated: documents of a window do not see one another.
        device: where.
    """

    name: Chapter
    model: ModelSection
    section: TrainingSection
    length: int
    isolated: bool
    device: Device

    @classmethod
    def of_pretraining(cls, recipe: Recipe, device: Device) -> Work:
        """As a recipe's `pretrain` says."""
        section = recipe.pretrain
        assert section is not None
        return cls("pretrain", recipe.model, section, section.sequence_length, section.isolate_documents, device)

    @classmethod
    def of_tuning(cls, recipe: Recipe, name: Literal["sft", "dpo"], device: Device) -> Work:
        """As a recipe's `sft` or `dpo` says, on the recipe's own model."""
        section = getattr(recipe, name)
        length = section.sequence_length or recipe.model.max_position_embeddings
        return cls(name, recipe.model, section, length, True, device)

    def demand(self) -> Demand:
        """What it asks of an attention backend."""
        with torch.device("meta"):
            attention = ATTENTION[self.model.attention.kind](BuddyGPTConfig(**flatten(self.model)), 0)
        key_width, value_width = attention.widths(self.length, self.length)
        kind = "runs" if self.isolated else "plain"
        dtype = COMPUTE_TYPES[self.section.precision]
        return Demand(self.device.kind, dtype, key_width, value_width, kind, gradient=True)

    @property
    def accumulates(self) -> bool:
        """Whether a step has several micro-batches."""
        at_once = self.section.micro_batch_size * self.device.processes
        if isinstance(self.section, PretrainSection):
            return self.section.tokens_per_batch > at_once * self.section.sequence_length
        assert isinstance(self.section, TuningSection)
        return self.section.batch_size > at_once

    def split(self, micro_batch_size: int) -> Work:
        """The same with another micro-batch."""
        return replace(self, section=self.section.model_copy(update={"micro_batch_size": micro_batch_size}))

    def memory(self, kind: str | None = None) -> Memory:
        """What training takes on each device.

        Args:
            kind: torch's name of another kind of device, with the attention that is best there.
        """
        attention = "plain" if kind else kept_by(self.attention(), self.isolated)
        section = self.section
        if isinstance(section, DPOSection):  # a pair is two texts
            section = section.model_copy(update={"micro_batch_size": 2 * section.micro_batch_size})
        return training_memory(
            self.model,
            section,
            self.length,
            kind or self.device.kind,
            accumulated=self.accumulates,
            attention=attention,
        )

    def checkpoint_bytes(self) -> int:
        """Disk that one checkpoint takes at most: weights and two moments in fp32; of low-rank updates theirs alone.

        Muon keeps one moment: a little less. A model that is split has its weights in two files.
        """
        numbers = 4 if isinstance(self.section.parallel, FSDP) else 3
        rank = self.section.lora_rank
        return 4 * numbers * (count_updates(self.model, rank) if rank else count_parameters(self.model).total)

    def attention(self) -> Backend:
        """What computes attention.

        Raises:
            BuddyError: the recipe names a backend that cannot do it here.
        """
        try:
            return choose(self.section.attn_implementation, self.demand())
        except UnsupportedError as error:
            raise BuddyError(f"{self.name}.attn_implementation: {error}") from None


def model_rows(model: ModelSection) -> Rows:
    """Size and shape."""
    parameters = count_parameters(model)
    total = parameters.total
    rows = [("parameters", f"{total:,}")]
    if parameters.idle:
        rows.append(("active for a token", f"{parameters.active:,}"))
    rows += [
        ("of which embedding", f"{parameters.embedding:,} ({parameters.embedding / total:.0%})"),
        ("layers x width", f"{model.num_hidden_layers} x {model.hidden_size}"),
        ("vocabulary", f"{model.vocab_size:,}"),
        ("feed-forward", model.mlp.kind),
        ("attention", model.attention.kind),
        ("native architecture", native_architecture(model) or "none"),
    ]
    return rows


def attention_rows(work: Work) -> Rows:
    """What computes attention in training, and why not the others."""
    backend = work.attention()
    if work.section.attn_implementation != AUTO:
        return [("attention by", f"{backend.name}, as the recipe says")]
    passed_over = "; ".join(f"{name}: {reason}" for name, reason in survey(work.demand()) if reason is not None)
    return [("attention by", backend.name), ("passed over", passed_over)]


def memory_rows(work: Work, unit: str = "windows") -> Rows:
    """Bytes on each device by part, and of the cache when the model is used."""
    section, again, memory = work.section, work.section.gradient_checkpointing, work.memory()
    saved = {False: "", True: ", layers recomputed", "selective": ", what is cheap recomputed"}
    return [
        ("weights", spell_bytes(memory.weights)),
        ("gradients", spell_bytes(memory.gradients)),
        ("optimizer", spell_bytes(memory.optimizer)),
        ("activations", f"{spell_bytes(memory.activations)} for {section.micro_batch_size} {unit}{saved[again]}"),
        ("loss", spell_bytes(memory.loss)),
        ("together", f"about {spell_bytes(memory.total)} on each device, {memory.moment}"),
        cache_row(work.model),
    ]


def cache_row(model: ModelSection) -> tuple[str, str]:
    """Bytes of the cache when the model is used."""
    return "cache", f"{spell_bytes(cache_bytes(model))} a token in bf16"


def operation_rows(model: ModelSection, length: int) -> Rows:
    """Floating-point operations of one token, by part."""
    flops = count_flops(model, length)
    parts = {"layers": flops.layers, "scores": flops.scores, "head": flops.head}
    shares = ", ".join(f"{name} {part / flops.forward:.0%}" for name, part in parts.items())
    return [
        ("operations a token", f"{flops.forward / 1e9:.3g} GFLOP read, {flops.training / 1e9:.3g} GFLOP trained on"),
        ("of which", shares),
    ]


def common_rows(work: Work) -> Rows:
    """Optimizer and device."""
    section = work.section
    rows = [
        ("device", str(work.device)),
        ("precision", section.precision),
        ("optimizer", f"{section.optimizer.kind}, peak rate {section.optimizer.learning_rate:g}"),
        ("schedule", section.schedule.kind),
        *([("layers", "compiled")] if section.compile else []),
    ]
    if isinstance(section, TuningSection) and section.lora is not None:
        rows.append(("low-rank updates", f"rank {section.lora.rank}"))
    return rows


def training_rows(work: Work, accumulation: int) -> Rows:
    """Budget, batch, optimizer, device of pretraining."""
    section = work.section
    assert isinstance(section, PretrainSection)
    batch = f"{accumulation} x {section.micro_batch_size} windows x {section.sequence_length}"
    if work.device.processes > 1:
        batch += f" x {work.device.processes} processes"
    tokens = section.steps * section.tokens_per_batch
    flops = count_flops(work.model, section.sequence_length)
    documents = "see only themselves" if section.isolate_documents else "see those before them in a window"
    return [
        *common_rows(work),
        ("tokens", f"{tokens:,} in {section.steps:,} steps"),
        ("tokens a step", f"{spell(section.tokens_per_batch)} = {batch}"),
        *attention_rows(work),
        ("documents", documents),
        ("operations", f"{tokens * flops.training:.2g} FLOP"),
    ]


def missing_bytes(work: Work, steps: int, folder: Path) -> int:
    """Disk that the model and the checkpoints that lie there at once take at most, beside those that are there.

    Args:
        work: what is trained.
        steps: of the run.
        folder: the chapter's.
    """
    kept = lasting_checkpoints(work.section, steps) + 1  # the new one is proved before the oldest goes
    there = sum(f.stat().st_size for f in (folder / "checkpoints").rglob("*") if f.is_file())
    return max(0, kept * work.checkpoint_bytes() + 4 * count_parameters(work.model).total - there)


def lasting_checkpoints(section: TrainingSection, steps: int) -> int:
    """Checkpoints that stay at most: the newest ones, and those of every so many steps."""
    return section.keep_checkpoints + (steps // section.keep_every if section.keep_every else 0)
