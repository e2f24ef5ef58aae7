"""Bytes that training takes on one device, from the model's config and the recipe's section alone, by part."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

import torch

from buddygpt.model.configuration import BuddyGPTConfig
from buddygpt.model.cost import as_section, is_absorbed, score_widths
from buddygpt.model.loss import BLOCK_BYTES, BLOCK_COLUMNS, chunk_rows, filled
from buddygpt.recipe.dpo import DPOSection
from buddygpt.recipe.geometry import (
    Matrix,
    attention_matrices,
    count_parameters,
    count_updates,
    head_widths,
    mlp_matrices,
    updated_matrices,
)
from buddygpt.recipe.model import GQA, MLA, ModelSection, MoE
from buddygpt.recipe.training import TrainingSection

FP32 = 4
"""Bytes of a number in fp32: weights, gradients, moments, the residual stream, statistics."""
INDEX = 8
"""Bytes of an index."""
TOGETHER = 16 * 2**20
"""Elements of the matrices that Muon moves at once on a GPU, where they are of one shape; of one matrix at least."""
COMPUTE_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


@dataclass(frozen=True)
class Memory:
    """Bytes on one device while it trains, by part. What a CPU's process holds without a model comes on top.

    Args:
        weights: fp32; those of a reference model that is asked at each step among them.
        gradients: fp32.
        optimizer: moments, fp32.
        activations: what one micro-batch keeps for its backward pass.
        layer: of them, those of one layer.
        loss: what the chunked loss holds at its height, the gradients of its two factors among it.
        handed: of them, what it hands to the backward pass.
        again: what checkpointing computes again of one layer.
        fresh: gradients that a layer makes all at once, before any is added to those that are there.
        backward: what the backward pass needs beside.
        update: what the optimizer needs beside while it steps.
        accumulated: gradients of earlier micro-batches are there while one is computed.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    layer: int
    loss: int
    handed: int
    again: int
    fresh: int
    backward: int
    update: int
    accumulated: bool

    @property
    def heights(self) -> dict[str, int]:
        """What is held at each moment that may be the highest; weights and moments always are."""
        held = self.weights + self.optimizer
        before = self.gradients if self.accumulated else 0
        computing = self.activations + before
        beside = self.handed + self.fresh
        return {
            "in the loss": held + computing + self.loss,
            "as the backward pass begins": held + computing + beside + self.again + self.backward,
            "as the backward pass ends": held + self.gradients + (beside if before else 0) + self.layer + self.backward,
            "in the optimizer's step": held + self.gradients + self.update,
        }

    @property
    def total(self) -> int:
        """The highest of `heights`: what torch counts as allocated at most."""
        return max(self.heights.values())

    @property
    def moment(self) -> str:
        """When that is."""
        return max(self.heights, key=self.heights.__getitem__)


KEPT = ("plain", "gathered", "repeated", "scores")
"""What an attention backend keeps beside queries, keys, values and its result: nothing; copies of all, document by
document, filled up to nearly equal lengths; keys and values again for each query head; every weight of the softmax."""
FILLED = 1.1
"""Tokens of gathered documents over real ones: lengths are rounded up in steps of an eighth to a quarter."""


def training_memory(
    model: ModelSection | BuddyGPTConfig,
    section: TrainingSection,
    length: int,
    device: str = "cuda",
    *,
    accumulated: bool = True,
    attention: str = "plain",
) -> Memory:
    """Bytes that training as `section` says takes on one device.

    Args:
        model: geometry.
        section: how it is trained.
        length: tokens of a window.
        device: torch's name of its kind.
        accumulated: a step has several micro-batches.
        attention: one of `KEPT`.
    """
    model = as_section(model)
    parameters = count_parameters(model)
    rows, precision = section.micro_batch_size * length, section.precision
    checkpointing, muon = section.gradient_checkpointing, section.optimizer.kind == "muon"
    rank = section.lora_rank
    updates = count_updates(model, rank)
    learns, hidden = (updates, updates) if rank else (parameters.total, parameters.matrices)
    # Without low-rank updates the reference of `dpo` is a model of its own, unless its scores are kept.
    live = not rank and isinstance(section, DPOSection) and section.reference == "live"
    kept = activation_bytes(model, rows, precision, checkpointing, device, length, attention, rank)
    again = kept.pop("one layer", 0)
    layer = _layer_bytes(model, rows, length, precision, device, attention, rank)
    # Where layers are computed again nobody keeps their matrices in the compute type but autocast, until the loss is:
    # of those that learn.
    cast = model.num_hidden_layers * layer["weights in the compute type"] if checkpointing and not rank else 0
    loss = loss_bytes(model, rows, precision, device, learns=not rank)
    matrices = [*attention_matrices(model).values(), *mlp_matrices(model).values()]
    experts = 0 if rank else sum(FP32 * m.size * m.copies for m in matrices if m.copies > 1)
    if rank:
        beside = updated_matrices(model).values()
        matrices = [Matrix(m.inputs, rank) for m in beside] + [Matrix(rank, m.outputs) for m in beside]
    return Memory(
        weights=FP32 * (parameters.total * (2 if live else 1) + updates),
        gradients=FP32 * learns,
        # AdamW has two moments; Muon has one, of the hidden matrices.
        optimizer=FP32 * (2 * learns - (hidden if muon else 0)),
        activations=sum(kept.values()),
        layer=sum(layer.values()),
        loss=sum(loss.values()) + cast,
        handed=loss["gradient of the head"] + loss["gradient of the hidden states"],
        again=again,
        fresh=experts,
        backward=3 * FP32 * rows * model.hidden_size,  # a norm's: the stream's gradient, its product, its share
        # Muon: a step in fp32, its orthogonal form and two of its products in bf16.
        update=10 * _moved_at_once(matrices, model.num_hidden_layers, device) if muon else 0,
        accumulated=accumulated,
    )


def _moved_at_once(matrices: list[Matrix], layers: int, device: str) -> int:
    """Elements of the matrices that Muon takes together."""
    if device == "cpu":
        return max(m.size for m in matrices)
    shapes: Counter[tuple[int, int]] = Counter()
    for matrix in matrices:
        shapes[matrix.inputs, matrix.outputs] += layers * matrix.copies
    return max(a * b * min(count, max(1, TOGETHER // (a * b))) for (a, b), count in shapes.items())


def loss_bytes(
    model: ModelSection, rows: int, precision: str = "bf16", device: str = "cuda", learns: bool = True
) -> dict[str, int]:
    """Bytes that model/loss.py holds for `rows` judged tokens at its height, by part.

    Args:
        learns: the head has a gradient.
    """
    compute, cpu, width, place = COMPUTE_TYPES[precision], device == "cpu", model.hidden_size, torch.device(device)
    size, table = compute.itemsize, model.vocab_size * width
    chunk, entries = chunk_rows(rows, model.vocab_size, compute, place), filled(model.vocab_size, place)
    copied = precision != "fp32" or entries != model.vocab_size
    share = min(BLOCK_COLUMNS, model.vocab_size) * width if cpu else table
    # torch makes an fp32 copy, then log-probabilities beside it; on a CPU those of the block before are there still.
    block = min(chunk, max(1, BLOCK_BYTES // (FP32 * model.vocab_size))) if cpu else chunk
    copies = 2 if precision == "bf16" else 1
    softmax = max(copies * block, block + copies * min(block, chunk - block))
    return {
        "logits of a chunk": size * chunk * model.vocab_size,
        "head in the compute type": width * entries * size if copied else 0,
        "gradient of the head": FP32 * table if learns else 0,
        "hidden states": size * rows * width,
        "gradient of the hidden states": size * rows * width,
        "one after the other": max(
            FP32 * softmax * model.vocab_size,
            size * share * (2 if share < table else 1) if learns else 0,  # a chunk's share of the head's gradient
            chunk * width * (size + 3 * FP32),  # logits of the targets
        ),
    }


def activation_bytes(
    model: ModelSection,
    rows: int,
    precision: str = "bf16",
    checkpointing: bool | Literal["selective"] = False,
    device: str = "cuda",
    length: int = 1024,
    attention: str = "plain",
    rank: int = 0,
) -> dict[str, int]:
    """Bytes that autograd keeps of one micro-batch until its backward pass, by part.

    With checkpointing the layers keep their inputs alone, selective the results of matrix products and attention too
    (`model/recompute.py`); one layer at a time is whole again.

    Args:
        model: geometry.
        rows: tokens.
        precision: the compute type.
        checkpointing: as in a recipe.
        device: torch's name of its kind.
        length: tokens of a window.
        attention: one of `KEPT`.
        rank: of low-rank updates; 0 where all weights learn.
    """
    layer = _layer_bytes(model, rows, length, precision, device, attention, rank)
    width, layers = model.hidden_size, model.num_hidden_layers
    rotary = model.attention.qk_rope_head_dim if isinstance(model.attention, MLA) else head_widths(model)[0]
    ends = {
        "last norm": rows * _norm_bytes(width),
        "token ids": rows * INDEX,
        "rotary angles": rows * 2 * FP32 * rotary,
    }
    inputs = {"layer inputs": layers * rows * FP32 * width}
    if checkpointing == "selective":
        read, other = _product_bytes(model, COMPUTE_TYPES[precision].itemsize, _is_grouped(model, precision, device))
        again = sum(layer.values()) - rows * (read + FP32 * width)
        return inputs | {"products": layers * rows * (read + other), "one layer": again} | ends
    if checkpointing:
        return inputs | {"one layer": sum(layer.values())} | ends
    return {part: layers * count for part, count in layer.items()} | ends


def _layer_bytes(
    model: ModelSection, rows: int, length: int, precision: str, device: str, attention: str, rank: int
) -> dict[str, int]:
    """What one layer keeps, by part."""
    size, grouped = COMPUTE_TYPES[precision].itemsize, _is_grouped(model, precision, device)
    matrices = attention_matrices(model) | {
        name: matrix
        for name, matrix in mlp_matrices(model).items()
        if name != "gate" and (grouped or not name.startswith("experts."))
    }
    beside = updated_matrices(model).values() if rank else ()
    weights = sum(m.size * m.copies for m in matrices.values()) + sum(rank * (m.inputs + m.outputs) for m in beside)
    return {
        "norms": rows * 2 * _norm_bytes(model.hidden_size),
        "attention": rows * _attention_bytes(model, size, device == "cpu"),
        "documents": int(rows * _beside_attention(model, size, length, attention)),
        "feed-forward": rows * _mlp_bytes(model, size, grouped),
        "updates": rows * size * rank * len(beside),  # what the narrow side gives
        "weights in the compute type": 0 if precision == "fp32" else size * weights,
    }


def _is_grouped(model: ModelSection, precision: str, device: str) -> bool:
    """Whether experts pass in grouped products, which keep all experts' weights, and not one after the other."""
    if not isinstance(model.mlp, MoE):
        return False
    aligned = model.hidden_size % 8 == 0 and model.mlp.moe_intermediate_size % 8 == 0
    return device == "cuda" and precision == "bf16" and aligned


def _norm_bytes(width: int, size: int = FP32) -> int:
    """RMSNorm: its input, which in the stream is fp32, and one root. Its output counts where it is read."""
    return size * width + FP32


def _beside_attention(model: ModelSection, size: int, length: int, attention: str) -> float:
    """What a backend keeps of one token beside queries, keys, values and its result."""
    heads, (key, value) = model.attention.num_attention_heads, score_widths(model)
    wide = max(key, value)
    if isinstance(model.attention, GQA):
        shared = model.attention.num_key_value_heads
    else:
        shared = 1 if is_absorbed(model) else heads
    if attention == "scores":
        return heads * length * (FP32 + size)
    if attention == "repeated":
        return 2 * size * wide * heads if shared < heads else 0
    if attention == "plain":
        return 0
    # The copies take the place of queries, keys and values. The result is put together from them; four indices tell
    # where rows come from and go.
    return size * (FILLED * 2 * wide * (heads + shared) - heads * key - shared * (key + value)) + 4 * INDEX


def _attention_bytes(model: ModelSection, size: int, cpu: bool) -> int:
    """One token's inputs of the projections, queries, keys, values, output and the softmax's log-sum."""
    attention, (key, value) = model.attention, head_widths(model)
    item = size if cpu else FP32  # what the small norms keep of their input
    heads, entry = attention.num_attention_heads, size * model.hidden_size
    if isinstance(attention, GQA):
        shared = attention.num_key_value_heads
        norms = _norm_bytes(key, item) * (heads + shared) if attention.qk_norm else 0
        return entry + norms + 2 * size * key * (heads + shared) + FP32 * heads
    latent = attention.kv_lora_rank + attention.qk_rope_head_dim
    ranks = (attention.q_lora_rank, attention.kv_lora_rank)
    entry += sum(_norm_bytes(rank, item) for rank in ranks) + size * (attention.q_lora_rank + latent) + FP32 * heads
    if is_absorbed(model):  # the plain part of the query, the query as spelt, the result before it is spelt
        return entry + size * heads * (attention.qk_nope_head_dim + 2 * latent + value)
    # The fused kernels take one width: the narrower side is filled up. What o_proj reads is a copy, head beside head.
    wide = max(key, value)
    values = key if value < key else attention.qk_nope_head_dim + value
    return entry + size * heads * (3 * wide + values + value)


def _mlp_bytes(model: ModelSection, size: int, grouped: bool) -> int:
    """One token's input of gate and up, and four vectors of the inner width."""
    mlp, width = model.mlp, model.hidden_size
    if not isinstance(mlp, MoE):
        return size * (width + 4 * mlp.intermediate_size)
    inner, chosen = mlp.moe_intermediate_size, mlp.num_experts_per_tok
    shared = size * (width + 4 * inner * mlp.n_shared_experts)
    # One after the other: the order, gate and up product, the weight; the rest is made again. Grouped: two orders, the
    # gathered input, the inner vectors, the output before its weight, the weight.
    looped = INDEX + size * 2 * inner + FP32
    expert = 2 * INDEX + size * (2 * width + 4 * inner + 1) if grouped else looped
    # The router: its input in fp32, scores, chosen scores, sums, indices.
    copied = width if size < FP32 else 0
    sums = 3 if mlp.router_aux_loss_coef else 1
    router = FP32 * (copied + mlp.n_routed_experts + chosen + sums) + INDEX * chosen
    return shared + chosen * expert + router


def _product_bytes(model: ModelSection, size: int, grouped: bool) -> tuple[int, int]:
    """One token's results of products and attention in a layer: those that the backward pass reads, and the others.

    What the others are for: queries and keys are turned, what attention gives the stream is added to it.
    """
    attention, mlp, (key, value) = model.attention, model.mlp, head_widths(model)
    heads = attention.num_attention_heads
    inner = mlp.moe_intermediate_size * mlp.n_shared_experts if isinstance(mlp, MoE) else mlp.intermediate_size
    stream = 0 if heads * value == inner else size * model.hidden_size  # a product over down_proj's width runs again
    if isinstance(attention, GQA):
        vector, shared = size * key, attention.num_key_value_heads
        turned = vector * (heads + shared)
        read, other = vector * (shared + heads) + FP32 * heads, stream
        read, other = (read + turned, other) if attention.qk_norm else (read, other + turned)
    else:
        latent = attention.kv_lora_rank + attention.qk_rope_head_dim
        plain, absorbed = heads * (attention.qk_nope_head_dim + value), is_absorbed(model)
        result = heads * (latent if absorbed else max(key, value))
        read = size * (attention.q_lora_rank + latent + result) + FP32 * heads
        # The query; then the query as spelt and the result, or keys and values.
        other = stream + size * heads * key
        other += size * (heads * (attention.kv_lora_rank + value) if absorbed else plain)
    read += 2 * size * inner
    if not isinstance(mlp, MoE):
        return read, other
    # Scores, and each choice's value and index; experts one after the other run again.
    chosen, pair = mlp.num_experts_per_tok, size * (2 * mlp.moe_intermediate_size + model.hidden_size)
    read += FP32 * mlp.n_routed_experts
    other += chosen * (FP32 + INDEX) * (2 if mlp.router_aux_loss_coef else 1)
    return (read + chosen * pair if grouped else read), other
