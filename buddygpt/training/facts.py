"""What a run is made of, as rows of text: shown before it starts, kept in its report."""

from __future__ import annotations

import torch

from buddygpt.model import BuddyGPTConfig, BuddyGPTForCausalLM
from buddygpt.recipe.base import spell
from buddygpt.recipe.model import GQA, MoE
from buddygpt.recipe.pretrain import PretrainSection
from buddygpt.recipe.schema import Recipe
from buddygpt.training.setup import Device

Rows = list[tuple[str, str]]


def outline(recipe: Recipe) -> BuddyGPTForCausalLM:
    """The recipe's model on the meta device: shapes without memory."""
    with torch.device("meta"):
        return BuddyGPTForCausalLM(BuddyGPTConfig.from_recipe(recipe))


def active_parameters(recipe: Recipe, model: BuddyGPTForCausalLM) -> int:
    """Parameters that one token passes: all but the experts that are not chosen for it."""
    mlp = recipe.model.mlp
    if not isinstance(mlp, MoE):
        return model.num_parameters()
    expert = 3 * recipe.model.hidden_size * mlp.moe_intermediate_size
    idle = mlp.n_routed_experts - mlp.num_experts_per_tok
    return model.num_parameters() - recipe.model.num_hidden_layers * idle * expert


def training_flops(recipe: Recipe, model: BuddyGPTForCausalLM, length: int) -> int:
    """Floating-point operations that one token of training takes, forward and backward.

    Six for each weight that a matrix product uses (PaLM, arXiv 2204.02311, appendix B), and the causal scores of a
    window of `length` tokens; recomputation is not counted.
    """
    embedding = 0 if recipe.model.tie_word_embeddings else recipe.model.vocab_size * recipe.model.hidden_size
    attention = recipe.model.attention
    if isinstance(attention, GQA):
        key = value = attention.head_dim or recipe.model.hidden_size // attention.num_attention_heads
    else:
        key, value = attention.qk_rope_head_dim + attention.qk_nope_head_dim, attention.v_head_dim
    scores = 3 * recipe.model.num_hidden_layers * attention.num_attention_heads * (key + value) * length
    return 6 * (active_parameters(recipe, model) - embedding) + scores


def model_rows(recipe: Recipe, model: BuddyGPTForCausalLM) -> Rows:
    """Size and shape."""
    total, embedding = model.num_parameters(), recipe.model.vocab_size * recipe.model.hidden_size
    active = active_parameters(recipe, model)
    rows = [("parameters", f"{total:,}")]
    if active != total:
        rows.append(("active for a token", f"{active:,}"))
    rows += [
        ("of which embedding", f"{embedding:,} ({embedding / total:.0%})"),
        ("layers x width", f"{recipe.model.num_hidden_layers} x {recipe.model.hidden_size}"),
        ("vocabulary", f"{recipe.model.vocab_size:,}"),
        ("feed-forward", recipe.model.mlp.kind),
        ("attention", f"{recipe.model.attention.kind}, computed by {model.config._attn_implementation}"),
    ]
    return rows


def training_rows(recipe: Recipe, model: BuddyGPTForCausalLM, device: Device, accumulation: int) -> Rows:
    """Budget, batch, optimizer, device."""
    section = recipe.pretrain
    assert isinstance(section, PretrainSection)
    batch = f"{accumulation} x {section.micro_batch_size} windows x {section.sequence_length}"
    if device.processes > 1:
        batch += f" x {device.processes} processes"
    tokens = section.steps * section.tokens_per_batch
    documents = "see only themselves" if section.isolate_documents else "see those before them in a window"
    return [
        ("device", str(device)),
        ("precision", section.precision),
        ("optimizer", f"{section.optimizer.kind}, peak rate {section.optimizer.learning_rate:g}"),
        ("schedule", section.schedule.kind),
        ("tokens", f"{tokens:,} in {section.steps:,} steps"),
        ("tokens a step", f"{spell(section.tokens_per_batch)} = {batch}"),
        ("documents", documents),
        ("operations", f"{tokens * training_flops(recipe, model, section.sequence_length):.2g} FLOP"),
    ]


def checkpoint_bytes(parameters: int) -> int:
    """Disk that one checkpoint takes: weights and two moments in fp32 (Muon keeps one moment: a little less)."""
    return 12 * parameters
