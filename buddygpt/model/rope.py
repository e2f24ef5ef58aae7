"""Rotary position embedding (RoFormer, arXiv 2104.09864, section 3.4.2), angles in fp32 whatever the model's type.

Dimensions are paired half against half (d with d + D/2), as in Llama and Qwen2.
Shapes: B batch, T tokens, H heads, D width that is turned.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def inverse_frequencies(rope_parameters: dict[str, Any], dim: int, device: torch.device | None = None) -> Tensor:
    """`theta^(-2i/dim)` for i < dim/2, in radians per position, fp32."""
    exponents = torch.arange(0, dim, 2, dtype=torch.int64, device=device).float() / dim
    return 1.0 / (rope_parameters["rope_theta"] ** exponents)


def rotary_tables(rope_parameters: dict[str, Any], dim: int, position_ids_BT: Tensor) -> tuple[Tensor, Tensor]:
    """cos and sin of every angle, each (B, T, dim), fp32.

    The frequencies are computed here and kept in no buffer: a cast of the whole model to bf16 would round them
    (positions above 256 would blur), and loading through the meta device would leave them unset.
    """
    frequencies = inverse_frequencies(rope_parameters, dim, position_ids_BT.device)
    with torch.autocast(position_ids_BT.device.type, enabled=False):
        angles = position_ids_BT[..., None].float() * frequencies
        angles = torch.cat((angles, angles), dim=-1)
        return angles.cos(), angles.sin()


class RotaryEmbedding(nn.Module):
    """Turns queries and keys by the angles of their positions. It has no parameters and no buffers."""

    def forward(self, x_BHTD: Tensor, cos_BTD: Tensor, sin_BTD: Tensor) -> Tensor:
        """Turn `x`; computed in fp32, returned in the type of `x`."""
        cos, sin = cos_BTD[:, None], sin_BTD[:, None]
        first, second = x_BHTD.chunk(2, dim=-1)
        turned = torch.cat((-second, first), dim=-1)
        return (x_BHTD * cos + turned * sin).to(x_BHTD.dtype)
