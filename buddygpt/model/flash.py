"""Attention dispatch: one call for every kind of attention, one description of who may see whom.

Shapes: B batch, T query tokens, S key tokens (cache included), H query heads, K key-value heads, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

BACKENDS = ("sdpa", "eager")


class Visibility:
    """Which keys each query may see: always causal, and nothing across documents or into padding.

    Queries are the last T of the tokens seen so far, so the causal triangle is aligned bottom-right.
    Boolean masks are made only where the plain causal flag does not say it all, once for all layers.

    Args:
        past: tokens in the cache before this call.
        queries: T.
        padding_BS: true for real tokens, over all tokens up to the last query; None where there is no padding.
        documents_BT: a number for each document of a packed window; None where a row is one document.
            Only without a cache.
    """

    def __init__(self, past: int, queries: int, padding_BS: Tensor | None = None, documents_BT: Tensor | None = None):
        self.past, self.queries = past, queries
        self.padding_BS, self.documents_BT = padding_BS, documents_BT
        self._mask: Tensor | None = None

    def is_plain(self, keys: int) -> bool:
        """True where the rule is causality alone over exactly the tokens seen so far."""
        return self.padding_BS is None and self.documents_BT is None and keys == self.past + self.queries

    def mask(self, keys: int, device: torch.device) -> Tensor:
        """Boolean (B or 1, 1, T, S), true where a query may look; slots beyond the last token are false."""
        if self._mask is not None and self._mask.shape[-1] == keys:
            return self._mask
        slots = torch.arange(keys, device=device)
        positions = self.past + torch.arange(self.queries, device=device)
        mask = (slots <= positions[:, None])[None]
        if self.padding_BS is not None:
            real = F.pad(self.padding_BS.bool(), (0, keys - self.padding_BS.shape[-1]))
            # A padded query sees itself: a row without any key would be NaN and spread through the layers.
            mask = mask & (real[:, None] | (slots == positions[:, None]))
        if self.documents_BT is not None:
            mask = mask & (self.documents_BT[:, :, None] == self.documents_BT[:, None, :])
        self._mask = mask[:, None]
        return self._mask


def attend(q_BHTD: Tensor, k_BKSD: Tensor, v_BKSD: Tensor, visible: Visibility, scale: float, backend: str) -> Tensor:
    """softmax(q k^T * scale) v over the visible keys; values may have a width of their own.

    Args:
        backend: `sdpa` (torch's fused kernels) or `eager` (plain matrix products, the reference).

    Returns:
        (B, H, T, D of v), in the type of `q`.

    Raises:
        ValueError: unknown backend.
    """
    keys, device = k_BKSD.shape[-2], q_BHTD.device
    grouped = q_BHTD.shape[1] != k_BKSD.shape[1]
    if backend == "sdpa":
        plain = visible.is_plain(keys)
        # torch's causal flag is aligned top-left: right only where queries and keys are the same tokens.
        square = plain and visible.past == 0
        needs_mask = not (square or (plain and visible.queries == 1))
        return F.scaled_dot_product_attention(
            q_BHTD, k_BKSD, v_BKSD,
            attn_mask=visible.mask(keys, device) if needs_mask else None,
            is_causal=square and visible.queries > 1,
            scale=scale,
            enable_gqa=grouped,
        )  # fmt: skip
    if backend == "eager":
        if grouped:
            share = q_BHTD.shape[1] // k_BKSD.shape[1]
            k_BKSD, v_BKSD = k_BKSD.repeat_interleave(share, 1), v_BKSD.repeat_interleave(share, 1)
        scores = (q_BHTD @ k_BKSD.transpose(-1, -2)).float() * scale
        scores = scores.masked_fill(~visible.mask(keys, device), float("-inf"))
        return scores.softmax(-1).to(v_BKSD.dtype) @ v_BKSD
    raise ValueError(f"attention backend '{backend}' is unknown; one of {', '.join(BACKENDS)}")
