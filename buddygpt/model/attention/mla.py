"""Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1).

Keys and values are spelt out of a small latent; the cache holds the latent and the shared rotary key, nothing else.
Shapes: B batch, T tokens, S tokens with the cache, H heads, R latent width, D a head's rotary, plain or value width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache

from buddygpt.model.configuration import BuddyGPTConfig
from buddygpt.model.flash import Visibility, attend
from buddygpt.model.norm import RMSNorm
from buddygpt.model.rope import RotaryEmbedding, softmax_factor

LATENT_EPS = 1e-6
"""Of the latent norms: the value that DeepSeek-V3's code has, whatever the other norms use."""


class MLAttention(nn.Module):
    """Latent attention with a query latent, a joint key-value latent and one rotary key for all heads.

    Args:
        config: the model's config.
        layer_idx: position of the layer, its place in the cache.
    """

    def __init__(self, config: BuddyGPTConfig, layer_idx: int):
        super().__init__()
        self.config, self.layer_idx = config, layer_idx
        self.heads, self.rank = config.num_attention_heads, config.kv_lora_rank
        self.nope, self.rope, self.value = config.qk_nope_head_dim, config.qk_rope_head_dim, config.v_head_dim
        self.backend = str(config._attn_implementation)
        self.rope_emb = RotaryEmbedding()
        self.q_down_proj = nn.Linear(config.hidden_size, config.q_lora_rank, bias=False)
        self.q_down_layernorm = RMSNorm(config.q_lora_rank, LATENT_EPS)
        self.q_up_proj = nn.Linear(config.q_lora_rank, self.heads * (self.nope + self.rope), bias=False)
        self.kv_down_proj = nn.Linear(config.hidden_size, self.rank + self.rope, bias=False)
        self.kv_down_layernorm = RMSNorm(self.rank, LATENT_EPS)
        self.kv_up_proj = nn.Linear(self.rank, self.heads * (self.nope + self.value), bias=False)
        self.o_proj = nn.Linear(self.heads * self.value, config.hidden_size, bias=False)

    def forward(
        self, x_BTC: Tensor, cos_BTD: Tensor, sin_BTD: Tensor, visible: Visibility, cache: Cache | None
    ) -> Tensor:
        """(B, T, C) to (B, T, C); appends this call's latents and rotary keys to `cache`."""
        batch, tokens = x_BTC.shape[:2]
        q_BTR = self.q_down_layernorm(self.q_down_proj(x_BTC))
        q_BHTD = self.q_up_proj(q_BTR).view(batch, tokens, self.heads, -1).transpose(1, 2)
        q_nope, q_rope = q_BHTD.split((self.nope, self.rope), dim=-1)
        latent_BTR, k_rope_BTD = self.kv_down_proj(x_BTC).split((self.rank, self.rope), dim=-1)
        latent_B1SR = self.kv_down_layernorm(latent_BTR)[:, None]
        q_rope = self.rope_emb(q_rope, cos_BTD, sin_BTD)
        k_rope_B1SD = self.rope_emb(k_rope_BTD[:, None], cos_BTD, sin_BTD)
        if cache is not None:
            latent_B1SR, k_rope_B1SD = cache.update(latent_B1SR, k_rope_B1SD, self.layer_idx)
        kv_BHSD = self.kv_up_proj(latent_B1SR[:, 0]).view(batch, -1, self.heads, self.nope + self.value).transpose(1, 2)
        k_nope, v_BHSD = kv_BHSD.split((self.nope, self.value), dim=-1)
        k_BHSD = torch.cat((k_nope, k_rope_B1SD.expand(-1, self.heads, -1, -1)), dim=-1)
        q_BHTD = torch.cat((q_nope, q_rope), dim=-1)
        # The scale comes from the whole query width, plain and rotary part together.
        scale = (self.nope + self.rope) ** -0.5 * softmax_factor(self.config.rope_parameters)
        y_BHTD = attend(q_BHTD, k_BHSD, v_BHSD, visible, scale, self.backend)
        return self.o_proj(y_BHTD.transpose(1, 2).flatten(2))
