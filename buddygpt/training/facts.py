"""What a run is made of, as rows of text: shown before it starts, kept in its report."""

from __future__ import annotations

import torch

from buddygpt.model import BuddyGPTConfig, BuddyGPTForCausalLM
from buddygpt.model.cost import cache_bytes, count_flops, training_memory
from buddygpt.recipe.base import spell, spell_bytes
from buddygpt.recipe.geometry import count_parameters, native_architecture
from buddygpt.recipe.pretrain import PretrainSection
from buddygpt.recipe.schema import Recipe
from buddygpt.training.setup import Device

Rows = list[tuple[str, str]]


def outline(recipe: Recipe) -> BuddyGPTForCausalLM:
    """The recipe's model on the meta device: shapes without memory."""
    with torch.device("meta"):
        return BuddyGPTForCausalLM(BuddyGPTConfig.from_recipe(recipe))


def model_rows(recipe: Recipe, model: BuddyGPTForCausalLM) -> Rows:
    """Size and shape."""
    parameters = count_parameters(recipe.model)
    total = parameters.total
    rows = [("parameters", f"{total:,}")]
    if parameters.idle:
        rows.append(("active for a token", f"{parameters.active:,}"))
    rows += [
        ("of which embedding", f"{parameters.embedding:,} ({parameters.embedding / total:.0%})"),
        ("layers x width", f"{recipe.model.num_hidden_layers} x {recipe.model.hidden_size}"),
        ("vocabulary", f"{recipe.model.vocab_size:,}"),
        ("feed-forward", recipe.model.mlp.kind),
        ("attention", f"{recipe.model.attention.kind}, computed by {model.config._attn_implementation}"),
        ("native architecture", native_architecture(recipe.model) or "none"),
    ]
    return rows


def memory_rows(recipe: Recipe, device: Device) -> Rows:
    """Bytes on each device by part, and of the cache when the model is used."""
    section = recipe.pretrain
    assert isinstance(section, PretrainSection)
    memory = training_memory(recipe.model, section, device.kind)
    saved = ", layers recomputed" if section.gradient_checkpointing else ""
    return [
        ("weights", spell_bytes(memory.weights)),
        ("gradients", spell_bytes(memory.gradients)),
        ("optimizer", spell_bytes(memory.optimizer)),
        ("activations", f"{spell_bytes(memory.activations)} for {section.micro_batch_size} windows{saved}"),
        ("loss", spell_bytes(memory.loss)),
        ("together", f"about {spell_bytes(memory.total)} on each device"),
        ("cache", f"{spell_bytes(cache_bytes(recipe.model))} a token in bf16"),
    ]


def training_rows(recipe: Recipe, device: Device, accumulation: int) -> Rows:
    """Budget, batch, optimizer, device."""
    section = recipe.pretrain
    assert isinstance(section, PretrainSection)
    batch = f"{accumulation} x {section.micro_batch_size} windows x {section.sequence_length}"
    if device.processes > 1:
        batch += f" x {device.processes} processes"
    tokens = section.steps * section.tokens_per_batch
    flops = count_flops(recipe.model, section.sequence_length)
    documents = "see only themselves" if section.isolate_documents else "see those before them in a window"
    return [
        ("device", str(device)),
        ("precision", section.precision),
        ("optimizer", f"{section.optimizer.kind}, peak rate {section.optimizer.learning_rate:g}"),
        ("schedule", section.schedule.kind),
        ("tokens", f"{tokens:,} in {section.steps:,} steps"),
        ("tokens a step", f"{spell(section.tokens_per_batch)} = {batch}"),
        ("documents", documents),
        ("operations", f"{tokens * flops.training:.2g} FLOP"),
    ]


def checkpoint_bytes(parameters: int) -> int:
    """Disk that one checkpoint takes: weights and two moments in fp32 (Muon keeps one moment: a little less)."""
    return 12 * parameters
