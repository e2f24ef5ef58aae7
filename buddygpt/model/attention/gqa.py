"""Grouped-query attention (arXiv 2305.13245, section 2.2), parameter for parameter Qwen2's; Qwen3's with `qk_norm`.

Shapes: B batch, T tokens, S tokens with the cache, H query heads, K key-value heads, D head width, C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache

from buddygpt.model.configuration import BuddyGPTConfig
from buddygpt.model.flash import attend
from buddygpt.model.linear import Linear
from buddygpt.model.norm import RMSNorm
from buddygpt.model.rope import RotaryEmbedding
from buddygpt.model.visibility import Visibility


class GQAttention(nn.Module):
    """Queries in H heads, keys and values in K <= H heads, each serving H / K queries.

    Args:
        config: the model's config.
        layer_idx: position of the layer, its place in the cache.
    """

    def __init__(self, config: BuddyGPTConfig, layer_idx: int):
        super().__init__()
        self.config, self.layer_idx = config, layer_idx
        self.head_dim = config.rotary_dim
        heads, kv_heads, bias = config.num_attention_heads, config.num_key_value_heads, config.attention_bias
        self.q_proj = Linear(config.hidden_size, heads * self.head_dim, bias=bias)
        self.k_proj = Linear(config.hidden_size, kv_heads * self.head_dim, bias=bias)
        self.v_proj = Linear(config.hidden_size, kv_heads * self.head_dim, bias=bias)
        self.o_proj = Linear(heads * self.head_dim, config.hidden_size, bias=False)
        self.q_norm = RMSNorm(self.head_dim, config.rms_norm_eps) if config.qk_norm else nn.Identity()
        self.k_norm = RMSNorm(self.head_dim, config.rms_norm_eps) if config.qk_norm else nn.Identity()
        self.rotary_emb = RotaryEmbedding()

    def forward(
        self, x_BTC: Tensor, cos_BTD: Tensor, sin_BTD: Tensor, visible: Visibility, cache: Cache | None
    ) -> Tensor:
        """(B, T, C) to (B, T, C); appends this call's keys and values to `cache`."""
        heads = (*x_BTC.shape[:2], -1, self.head_dim)
        q_BTHD = self.q_norm(self.q_proj(x_BTC).view(heads))
        k_BTKD = self.k_norm(self.k_proj(x_BTC).view(heads))
        v_BKSD = self.v_proj(x_BTC).view(heads).transpose(1, 2)
        turned = self.rotary_emb(torch.cat((q_BTHD, k_BTKD), dim=2).transpose(1, 2), cos_BTD, sin_BTD)
        q_BHTD, k_BKSD = turned.split((q_BTHD.shape[2], k_BTKD.shape[2]), dim=1)
        if cache is not None:
            k_BKSD, v_BKSD = cache.update(k_BKSD, v_BKSD, self.layer_idx)
        y_BHTD = attend(q_BHTD, k_BKSD, v_BKSD, visible, self.head_dim**-0.5, self.config._attn_implementation)
        return self.o_proj(y_BHTD.transpose(1, 2).flatten(2))

    def widths(self, keys: int, queries: int) -> tuple[int, int]:
        """Widths of a key and of a value head as the backend gets them."""
        return self.head_dim, self.head_dim
