"""Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1).

Keys and values are spelt out of a small latent; the cache holds the latent and the shared rotary key, nothing else.
Products can be taken in two orders with one result. *Expanded*: every key and value is spelt out. *Absorbed* (the
paper's section 2.1.2): the spelling goes into the query and out of the result, and all heads look at the latents
themselves, one key of width R + D a token. Each call takes the cheaper one: with a cache it is the absorbed one at any
usual geometry, and where the latent is narrower than the heads, as in this family, it is in training too.
Shapes: B batch, T tokens, S tokens with the cache, H heads, R latent width, D a head's rotary, plain or value width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache

from buddygpt.model.configuration import BuddyGPTConfig
from buddygpt.model.flash import attend
from buddygpt.model.linear import Linear
from buddygpt.model.norm import RMSNorm
from buddygpt.model.rope import RotaryEmbedding, softmax_factor
from buddygpt.model.visibility import Visibility

LATENT_EPS = 1e-6
"""Of the latent norms: the value that DeepSeek-V3's code has, whatever the other norms use."""


def takes_absorbed(keys: int, queries: int, latent: int, rope: int, nope: int, value: int) -> bool:
    """Whether absorbing takes fewer operations: it spells out queries, expanding spells out keys.

    In a window without a cache queries are as many as keys, and the widths alone decide: `2 latent < nope + value`.
    """
    spelling = latent * (nope + value)
    absorbed = queries * spelling + queries * keys * (2 * latent + rope)
    expanded = keys * spelling + queries * keys * (nope + value + rope)
    return absorbed < expanded


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
        self.rope_emb = RotaryEmbedding()
        self.q_down_proj = Linear(config.hidden_size, config.q_lora_rank, bias=False)
        self.q_down_layernorm = RMSNorm(config.q_lora_rank, LATENT_EPS)
        self.q_up_proj = Linear(config.q_lora_rank, self.heads * (self.nope + self.rope), bias=False)
        self.kv_down_proj = Linear(config.hidden_size, self.rank + self.rope, bias=False)
        self.kv_down_layernorm = RMSNorm(self.rank, LATENT_EPS)
        self.kv_up_proj = Linear(self.rank, self.heads * (self.nope + self.value), bias=False)
        self.o_proj = Linear(self.heads * self.value, config.hidden_size, bias=False)

    def forward(
        self, x_BTC: Tensor, cos_BTD: Tensor, sin_BTD: Tensor, visible: Visibility, cache: Cache | None
    ) -> Tensor:
        """(B, T, C) to (B, T, C); appends this call's latents and rotary keys to `cache`."""
        q_BTR = self.q_down_layernorm(self.q_down_proj(x_BTC))
        q_BHTD = self.q_up_proj(q_BTR).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        q_nope, q_rope = q_BHTD.split((self.nope, self.rope), dim=-1)
        latent_BTR, k_rope_BTD = self.kv_down_proj(x_BTC).split((self.rank, self.rope), dim=-1)
        q_rope = self.rope_emb(q_rope, cos_BTD, sin_BTD)
        k_rope_B1TD = self.rope_emb(k_rope_BTD[:, None], cos_BTD, sin_BTD)
        # What is cached: R + D numbers a token. There are no values beside it, the latent is part of it.
        k_B1SD = torch.cat((self.kv_down_layernorm(latent_BTR)[:, None], k_rope_B1TD), dim=-1)
        if cache is not None:
            k_B1SD, _ = cache.update(k_B1SD, k_B1SD[..., :0], self.layer_idx)
        compute = self._absorbed if self._is_absorbed(k_B1SD.shape[-2], x_BTC.shape[1]) else self._expanded
        y_BHTD = compute(q_nope, q_rope, k_B1SD, visible)
        return self.o_proj(y_BHTD.transpose(1, 2).flatten(2))

    @property
    def scale(self) -> float:
        """From the whole query width, plain and rotary part together, in either order of products."""
        return (self.nope + self.rope) ** -0.5 * softmax_factor(self.config.rope_parameters)

    def _is_absorbed(self, keys: int, queries: int) -> bool:
        return takes_absorbed(keys, queries, self.rank, self.rope, self.nope, self.value)

    def widths(self, keys: int, queries: int) -> tuple[int, int]:
        """Widths of a key and of a value head as the backend gets them."""
        if self._is_absorbed(keys, queries):
            return self.rank + self.rope, self.rank + self.rope
        return self.nope + self.rope, self.value

    def _absorbed(self, q_nope: Tensor, q_rope: Tensor, k_B1SD: Tensor, visible: Visibility) -> Tensor:
        spell_k, spell_v = self._spelling(q_nope.dtype)
        q_BHTD = torch.cat((q_nope @ spell_k, q_rope), dim=-1)
        # Keys are values too: of the result only the latent's part is used.
        y_BHTD = attend(q_BHTD, k_B1SD, k_B1SD, visible, self.scale, self.config._attn_implementation)
        return y_BHTD[..., : self.rank] @ spell_v.transpose(1, 2)

    def _expanded(self, q_nope: Tensor, q_rope: Tensor, k_B1SD: Tensor, visible: Visibility) -> Tensor:
        latent_B1SR, k_rope_B1SD = k_B1SD.split((self.rank, self.rope), dim=-1)
        kv_BHSD = self.kv_up_proj(latent_B1SR[:, 0]).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k_nope, v_BHSD = kv_BHSD.split((self.nope, self.value), dim=-1)
        k_BHSD = torch.cat((k_nope, k_rope_B1SD.expand(-1, self.heads, -1, -1)), dim=-1)
        q_BHTD = torch.cat((q_nope, q_rope), dim=-1)
        return attend(q_BHTD, k_BHSD, v_BHSD, visible, self.scale, self.config._attn_implementation)

    def _spelling(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """The matrices (H, D, R) that spell a head's plain key and its value out of the latent."""
        return self.kv_up_proj.weight.to(dtype).view(self.heads, -1, self.rank).split((self.nope, self.value), dim=1)  # type: ignore[return-value]
