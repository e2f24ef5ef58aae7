"""What a run is made of, as rows of text: shown before it starts, kept in its report."""

from __future__ import annotations

import torch

from buddygpt.model import BuddyGPTConfig
from buddygpt.model.attention import ATTENTION
from buddygpt.model.backends import Backend, Demand
from buddygpt.model.cost import COMPUTE_TYPES, cache_bytes, count_flops, training_memory
from buddygpt.model.flash import AUTO, UnsupportedError, choose, survey
from buddygpt.recipe.base import spell, spell_bytes
from buddygpt.recipe.errors import BuddyError
from buddygpt.recipe.geometry import count_parameters, native_architecture
from buddygpt.recipe.pretrain import PretrainSection
from buddygpt.recipe.schema import Recipe
from buddygpt.training.setup import Device

Rows = list[tuple[str, str]]


def model_rows(recipe: Recipe) -> Rows:
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
        ("attention", recipe.model.attention.kind),
        ("native architecture", native_architecture(recipe.model) or "none"),
    ]
    return rows


def training_attention(recipe: Recipe, device: Device) -> Backend:
    """What computes attention in training.

    Raises:
        BuddyError: the recipe names a backend that cannot do it here.
    """
    section = recipe.pretrain
    assert isinstance(section, PretrainSection)
    try:
        return choose(section.attn_implementation, training_demand(recipe, device))
    except UnsupportedError as error:
        raise BuddyError(f"pretrain.attn_implementation: {error}") from None


def attention_rows(recipe: Recipe, device: Device) -> Rows:
    """What computes attention in training, and why not the others."""
    backend = training_attention(recipe, device)
    if recipe.pretrain and recipe.pretrain.attn_implementation != AUTO:
        return [("attention by", f"{backend.name}, as the recipe says")]
    others = survey(training_demand(recipe, device))
    passed_over = "; ".join(f"{name}: {reason}" for name, reason in others if reason is not None)
    return [("attention by", backend.name), ("passed over", passed_over)]


def training_demand(recipe: Recipe, device: Device) -> Demand:
    """What training asks of an attention backend."""
    section = recipe.pretrain
    assert isinstance(section, PretrainSection)
    with torch.device("meta"):
        attention = ATTENTION[recipe.model.attention.kind](BuddyGPTConfig.from_recipe(recipe), 0)
    key_width, value_width = attention.widths(section.sequence_length, section.sequence_length)
    kind = "runs" if section.isolate_documents else "plain"
    return Demand(device.kind, COMPUTE_TYPES[section.precision], key_width, value_width, kind, gradient=True)


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
        *attention_rows(recipe, device),
        ("documents", documents),
        ("operations", f"{tokens * flops.training:.2g} FLOP"),
    ]


def checkpoint_bytes(parameters: int) -> int:
    """Disk that one checkpoint takes: weights and two moments in fp32 (Muon keeps one moment: a little less)."""
    return 12 * parameters
