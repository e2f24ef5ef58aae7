"""What a model costs for a token, from its config alone: operations, and bytes of the cache.

Parameters are counted in recipe/geometry.py, training memory in model/memory.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from buddygpt.model.attention.mla import takes_absorbed
from buddygpt.model.configuration import BuddyGPTConfig
from buddygpt.recipe.geometry import (
    attention_matrices,
    cache_numbers,
    head_widths,
    mlp_matrices,
)
from buddygpt.recipe.model import MLA, ModelSection, unflatten


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

    Latent attention counts by the order of products that a call without a cache takes, which its widths decide at any
    length. Expanded, a head's scores take its query's width and its results its value's width. Absorbed, both take that
    of latent and rotary key, for the keys are the values too and are multiplied whole; the spelling takes as much as
    before, once for a token.

    Args:
        model: geometry.
        length: tokens in the window, one document.
        causal: count half of the square of scores, which is what the model needs and what utilisation (MFU) is
            measured by. False counts the whole square, as torch's FlopCounterMode does for every attention; it also
            counts the scores that fused kernels compute again in their backward pass, which are left out here.
    """
    model = as_section(model)
    matrices = [*attention_matrices(model).values(), *mlp_matrices(model).values()]
    seen = length / 2 if causal else length
    return Flops(
        layers=2 * model.num_hidden_layers * sum(m.size * m.used for m in matrices),
        scores=2 * model.num_hidden_layers * model.attention.num_attention_heads * sum(score_widths(model)) * seen,
        head=2 * model.vocab_size * model.hidden_size,
    )


def is_absorbed(model: ModelSection) -> bool:
    """Whether a window without a cache passes latent attention by its latents."""
    if not isinstance(a := model.attention, MLA):
        return False
    return takes_absorbed(1, 1, a.kv_lora_rank, a.qk_rope_head_dim, a.qk_nope_head_dim, a.v_head_dim)


def score_widths(model: ModelSection) -> tuple[int, int]:
    """Numbers of one head that a query is multiplied with, and that one weight of the softmax is multiplied with."""
    if isinstance(a := model.attention, MLA) and is_absorbed(model):
        return a.kv_lora_rank + a.qk_rope_head_dim, a.kv_lora_rank + a.qk_rope_head_dim
    return head_widths(model)


def cache_bytes(model: ModelSection | BuddyGPTConfig, item: int = 2) -> int:
    """Bytes that the cache keeps of one token, all layers together; `item` bytes a number, 2 for bf16."""
    return item * cache_numbers(as_section(model))
