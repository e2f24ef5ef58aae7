"""One more token of one text, on a CPU: what the modules of a dense GQA model do, without the calls of modules.

At 0.1b the calls, views and checks of 130 modules add a fifth to the time in which a step's matrices are read. The
operations here are the modules' own in their order, so the result is theirs bit for bit (tests/model/test_step.py).
Shapes: H query heads, K key-value heads, G = H / K, D head width, S tokens with the cache, C channels, F width inside.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from buddygpt.model.attention import GQAttention
from buddygpt.model.cache import KVCache
from buddygpt.model.flash import AUTO
from buddygpt.model.linear import Linear
from buddygpt.model.mlp import GateMLP
from buddygpt.model.modeling import BuddyGPTForCausalLM, BuddyGPTModel, DecoderLayer, Embedding
from buddygpt.model.norm import RMSNorm, normalised
from buddygpt.model.rope import RotaryEmbedding, rotary_tables, turn

_KNOWN = (
    BuddyGPTForCausalLM, BuddyGPTModel, Embedding, nn.ModuleList, DecoderLayer, GQAttention, GateMLP, Linear, RMSNorm,
    RotaryEmbedding, nn.Identity,
)  # fmt: skip


class Step:
    """The model's tensors at hand; they are the model's own, nothing is copied.

    Args:
        model: one that `fits`.
    """

    def __init__(self, model: BuddyGPTForCausalLM):
        config: Any = model.config
        self._rope, self._width = config.rope_parameters, config.rotary_dim
        self._heads, self._kv_heads = config.num_attention_heads, config.num_key_value_heads
        self._embedding, self._norm = model.model.embed_tokens.weight, model.model.norm
        self._layers: list[Any] = list(model.model.layers)

    @torch.no_grad()
    def __call__(self, token: int, cache: KVCache) -> Tensor:
        """The hidden state (C,) that the head reads after `token`, whose keys and values are appended to `cache`."""
        position = torch.tensor([[cache.get_seq_length()]])
        cos_1D, sin_1D = (table[0] for table in rotary_tables(self._rope, self._width, position))
        scale = self._width**-0.5
        x_C = self._embedding[token]
        for index, layer in enumerate(self._layers):
            attention, mlp = layer.self_attn, layer.mlp
            h_C = _norm(layer.input_layernorm, x_C)
            q_HD, k_KD = (
                _product(projection, h_C).view(-1, self._width) for projection in (attention.q_proj, attention.k_proj)
            )
            if isinstance(attention.q_norm, RMSNorm):
                q_HD, k_KD = _norm(attention.q_norm, q_HD), _norm(attention.k_norm, k_KD)
            turned = turn(torch.cat((q_HD, k_KD)), cos_1D, sin_1D)
            k_1KSD, v_1KSD = cache.update(
                turned[self._heads :].view(1, self._kv_heads, 1, -1),
                _product(attention.v_proj, h_C).view(1, self._kv_heads, 1, -1),
                index,
            )
            q_1KGD = turned[: self._heads].view(1, self._kv_heads, -1, self._width)
            y_1KGD = F.scaled_dot_product_attention(q_1KGD, k_1KSD, v_1KSD, scale=scale)
            x_C = x_C + _product(attention.o_proj, y_1KGD.reshape(-1))
            h_C = _norm(layer.post_layernorm, x_C)
            gated_F = F.silu(_product(mlp.gate_proj, h_C)) * _product(mlp.up_proj, h_C)
            x_C = x_C + _product(mlp.down_proj, gated_F)
        return _norm(self._norm, x_C)


def fits(model: Any, cache: Any) -> bool:
    """Whether one text can be gone on with by steps: a model they are made for, and our own growing cache."""
    return isinstance(cache, KVCache) and not cache.static and cache.batch_size == 1 and is_steppable(model)


def is_steppable(model: Any) -> bool:
    """Whether steps are made for this model as it is now: a plain dense GQA one on a CPU."""
    if not isinstance(model, BuddyGPTForCausalLM) or model.training or model.device.type != "cpu":
        return False
    if (model.config._attn_implementation or AUTO) not in (AUTO, "sdpa") or torch.is_autocast_enabled("cpu"):
        return False
    # Adapters and quantisation put modules of their own in place of ours; hooks want to be called.
    return all(
        type(part) in _KNOWN and not (part._forward_hooks or part._forward_pre_hooks) for part in model.modules()
    )


def _product(linear: Any, x_C: Tensor) -> Tensor:
    return torch.mv(linear.weight, x_C) if linear.bias is None else torch.addmv(linear.bias, linear.weight, x_C)


def _norm(norm: Any, x: Tensor) -> Tensor:
    return normalised(x.float(), norm.weight, norm.eps, x.dtype)[0]
