"""What a model costs, from its config alone: operations for a token, bytes of training memory, bytes of the cache.

Parameters are counted in recipe/geometry.py; here is what depends on how the model computes.
Letters in formulas: N tokens of a micro-batch, C channels, V vocabulary, H query heads, K key-value heads.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from buddygpt.model.configuration import BuddyGPTConfig
from buddygpt.model.loss import chunk_rows
from buddygpt.recipe.geometry import (
    attention_matrices,
    cache_numbers,
    count_parameters,
    head_widths,
    mlp_matrices,
)
from buddygpt.recipe.model import GQA, MLA, ModelSection, MoE, unflatten
from buddygpt.recipe.pretrain import PretrainSection

FP32 = 4
"""Bytes of a number in fp32: weights, gradients, moments, the residual stream, statistics."""
INDEX = 8
"""Bytes of an index."""
COMPUTE_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


@dataclass(frozen=True)
class Flops:
    """Floating-point operations of one token's forward pass, in its matrix products; one multiply-add is two.

    Args:
        layers: products with weights inside the layers, the chosen experts alone.
        scores: queries with keys and weights with values, the mean over the positions of a window.
        head: hidden state with every row of the head.
    """

    layers: float
    scores: float
    head: float

    @property
    def forward(self) -> float:
        """Of one token read or generated."""
        return self.layers + self.scores + self.head

    @property
    def backward(self) -> float:
        """Each product has two gradients of its own size. Nothing that a kernel or checkpointing recomputes counts."""
        return 2 * self.forward

    @property
    def training(self) -> float:
        """Forward and backward. The head's gradients count as backward; the loss makes them in its forward pass."""
        return self.forward + self.backward


def as_section(model: ModelSection | BuddyGPTConfig) -> ModelSection:
    """The model section that a config holds."""
    return model if isinstance(model, ModelSection) else ModelSection.model_validate(unflatten(model.to_dict()))


def count_flops(model: ModelSection | BuddyGPTConfig, length: int, causal: bool = True) -> Flops:
    """Operations that the model needs for one token of a window of `length` tokens (PaLM, arXiv 2204.02311, app. B).

    Args:
        model: geometry.
        length: tokens in the window, one document.
        causal: count half of the square of scores, which is what the model needs and what utilisation (MFU) is
            measured by. False counts the whole square, as torch's FlopCounterMode does for every attention; it also
            counts the scores that fused kernels compute again in their backward pass, which are left out here.
    """
    model = as_section(model)
    key, value = head_widths(model)
    matrices = [*attention_matrices(model).values(), *mlp_matrices(model).values()]
    seen = length / 2 if causal else length
    return Flops(
        layers=2 * model.num_hidden_layers * sum(m.size * m.used for m in matrices),
        scores=2 * model.num_hidden_layers * model.attention.num_attention_heads * (key + value) * seen,
        head=2 * model.vocab_size * model.hidden_size,
    )


def cache_bytes(model: ModelSection | BuddyGPTConfig, item: int = 2) -> int:
    """Bytes that the cache keeps of one token, all layers together; `item` bytes a number, 2 for bf16."""
    return item * cache_numbers(as_section(model))


@dataclass(frozen=True)
class Memory:
    """Bytes on one device while it trains, by part.

    Temporary buffers of single operations and the allocator's slack come on top.

    Args:
        weights: fp32.
        gradients: fp32.
        optimizer: moments, fp32.
        activations: what one micro-batch keeps for its backward pass.
        loss: what the chunked loss holds at its height.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    loss: int

    @property
    def total(self) -> int:
        """All of it: an upper bound, for not all parts are at their height at once."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.loss


def training_memory(model: ModelSection | BuddyGPTConfig, section: PretrainSection, device: str = "cuda") -> Memory:
    """Bytes that pretraining as `section` says takes on one device; `device` is torch's name of its kind."""
    model = as_section(model)
    parameters = count_parameters(model)
    rows, precision = section.micro_batch_size * section.sequence_length, section.precision
    checkpointing = section.gradient_checkpointing
    # AdamW has two moments; Muon has one, of the hidden matrices.
    moments = 2 * parameters.total - (parameters.matrices if section.optimizer.kind == "muon" else 0)
    return Memory(
        weights=FP32 * parameters.total,
        gradients=FP32 * parameters.total,
        optimizer=FP32 * moments,
        activations=sum(activation_bytes(model, rows, precision, checkpointing).values()),
        loss=sum(loss_bytes(model, rows, precision, device).values()),
    )


def loss_bytes(model: ModelSection, rows: int, precision: str = "bf16", device: str = "cuda") -> dict[str, int]:
    """Bytes that model/loss.py holds for `rows` judged tokens at its height, by part."""
    compute = COMPUTE_TYPES[precision]
    size, table = compute.itemsize, model.vocab_size * model.hidden_size
    chunk = chunk_rows(rows, model.vocab_size, compute, torch.device(device)) * model.vocab_size
    return {
        "logits of a chunk": chunk * (size + (0 if device == "cpu" else FP32)),
        "head in the compute type": 0 if precision == "fp32" else table * size,
        "gradient of the head": FP32 * table,
        "a chunk's share of it": size * table,
        "gradient of the hidden states": size * rows * model.hidden_size,
    }


def activation_bytes(
    model: ModelSection, rows: int, precision: str = "bf16", checkpointing: bool = False
) -> dict[str, int]:
    """Bytes that autograd keeps of one micro-batch of `rows` tokens until its backward pass, by part.

    With checkpointing the layers keep their inputs alone, and one layer at a time is whole again.
    """
    layer = _layer_bytes(model, rows, precision)
    width, layers = model.hidden_size, model.num_hidden_layers
    rotary = model.attention.qk_rope_head_dim if isinstance(model.attention, MLA) else head_widths(model)[0]
    ends = {
        "last norm": rows * _norm_bytes(width),
        "token ids": rows * INDEX,
        "rotary angles": rows * 2 * FP32 * rotary,
    }
    if checkpointing:
        return {"layer inputs": layers * rows * FP32 * width, "one layer": sum(layer.values())} | ends
    return {part: layers * count for part, count in layer.items()} | ends


def _layer_bytes(model: ModelSection, rows: int, precision: str) -> dict[str, int]:
    """What one layer keeps, by part."""
    size = COMPUTE_TYPES[precision].itemsize
    matrices = attention_matrices(model) | {n: m for n, m in mlp_matrices(model).items() if n != "gate"}
    copies = 0 if precision == "fp32" else size * sum(m.size * m.copies for m in matrices.values())
    return {
        "norms": rows * 2 * _norm_bytes(model.hidden_size),
        "attention": rows * _attention_bytes(model, size),
        "feed-forward": rows * _mlp_bytes(model, size),
        "weights in the compute type": copies,
    }


def _norm_bytes(width: int) -> int:
    """RMSNorm in fp32: its input, its output before the weight, and one root."""
    return FP32 * (2 * width + 1)


def _input_bytes(width: int, readers: int, size: int) -> int:
    """A normalised vector that `readers` projections read: autocast copies it for each, fp32 shares one."""
    return readers * width * size if size < FP32 else width * FP32


def _attention_bytes(model: ModelSection, size: int) -> int:
    """One token's inputs of the projections, queries, keys, values, output and the softmax's log-sum."""
    attention, width = model.attention, model.hidden_size
    heads, (key, value) = attention.num_attention_heads, head_widths(model)
    output = heads * (size * value + FP32)
    if isinstance(attention, GQA):
        queries, shared = heads * key, attention.num_key_value_heads * key
        norms = sum(_norm_bytes(key) * n for n in (heads, attention.num_key_value_heads)) if attention.qk_norm else 0
        return _input_bytes(width, 3, size) + size * (queries + 2 * shared) + output + norms
    latents = sum(_norm_bytes(rank) + size * rank for rank in (attention.q_lora_rank, attention.kv_lora_rank))
    keys_values = heads * (attention.qk_nope_head_dim + value)
    again = size * heads * value  # its output comes head by head, so that o_proj reads a copy
    return _input_bytes(width, 2, size) + latents + size * (2 * heads * key + keys_values) + output + again


def _mlp_bytes(model: ModelSection, size: int) -> int:
    """One token's inputs of gate and up, and four vectors of the inner width."""
    mlp, width = model.mlp, model.hidden_size
    if not isinstance(mlp, MoE):
        return _input_bytes(width, 2, size) + 4 * size * mlp.intermediate_size
    inner, chosen = mlp.moe_intermediate_size, mlp.num_experts_per_tok
    shared = _input_bytes(width, 2, size) + 4 * size * inner * mlp.n_shared_experts
    # Row and slot, the gathered inputs, the inner vectors, the output before and after its weight, the weight.
    expert = 2 * INDEX + _input_bytes(width, 2, size) + 4 * size * inner + (size + FP32) * width + FP32
    router = FP32 * (width + mlp.n_routed_experts + chosen + 1) + INDEX * chosen
    return shared + chosen * expert + router
