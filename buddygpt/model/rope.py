"""Rotary position embedding (RoFormer, arXiv 2104.09864, section 3.4.2) and its scalings, angles in fp32.

Dimensions are paired half against half (d with d + D/2), as in Llama and Qwen2.
Shapes: B batch, T tokens, H heads, D width that is turned, F = D/2 frequencies.

A scaling is a function (`rope_parameters`, D, positions) -> (inverse frequencies in radians per position, fp32; factor
on cos and sin), under transformers' name for it in `SCALINGS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Parameters = dict[str, Any]


def _frequencies(theta: float | Tensor, dim: int, device: torch.device) -> Tensor:
    """`theta^(-2i/dim)` for i < dim/2."""
    exponents = torch.arange(0, dim, 2, dtype=torch.int64, device=device).float() / dim
    return 1.0 / (theta**exponents)


def default(parameters: Parameters, dim: int, position_ids_BT: Tensor) -> tuple[Tensor, float]:
    """No scaling."""
    return _frequencies(parameters["rope_theta"], dim, position_ids_BT.device), 1.0


def linear(parameters: Parameters, dim: int, position_ids_BT: Tensor) -> tuple[Tensor, float]:
    """Position interpolation (arXiv 2306.15595, section 2.3): positions, hence all frequencies, over the factor."""
    return default(parameters, dim, position_ids_BT)[0] / parameters["factor"], 1.0


def raised_theta(parameters: Parameters, dim: int) -> float:
    """The base of NTK-aware scaling (arXiv 2309.00071, section 3.1): the lowest frequency falls by the factor."""
    return parameters["rope_theta"] * parameters["factor"] ** (dim / (dim - 2))


def ntk(parameters: Parameters, dim: int, position_ids_BT: Tensor) -> tuple[Tensor, float]:
    """NTK-aware scaling: no scaling, with the raised base."""
    return _frequencies(raised_theta(parameters, dim), dim, position_ids_BT.device), 1.0


def dynamic(parameters: Parameters, dim: int, position_ids_BT: Tensor) -> tuple[Tensor, float]:
    """Dynamic NTK (arXiv 2309.00071, section 3.3): the base grows with the length, once that passes the original one.

    The length is the highest position of the call plus one, over all rows and packed documents together. It stays on
    the device. Keys in a cache were turned by the frequencies of their own call, and stay so, as in transformers: past
    the original length, decoding token by token is not the one forward pass over the whole text. Nothing is
    remembered between calls; transformers keeps the longest length that it saw until a short text comes.
    """
    growth = (position_ids_BT.max() + 1).float() / parameters["original_max_position_embeddings"]
    growth = parameters["factor"] * growth.clamp(min=1.0) - (parameters["factor"] - 1)
    return _frequencies(parameters["rope_theta"] * growth ** (dim / (dim - 2)), dim, position_ids_BT.device), 1.0


def yarn(parameters: Parameters, dim: int, position_ids_BT: Tensor) -> tuple[Tensor, float]:
    """YaRN (arXiv 2309.00071, sections 3.2 and 3.4): linear below the ramp, unscaled above it; a factor on cos, sin."""
    theta, original = parameters["rope_theta"], parameters["original_max_position_embeddings"]

    def dimension(turns: float) -> float:
        """The pair, as a real number, that makes so many turns over the original length."""
        return dim * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low, high = dimension(parameters["beta_fast"]), dimension(parameters["beta_slow"])
    if parameters["truncate"]:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    pairs_F = torch.arange(dim // 2, dtype=torch.float32, device=position_ids_BT.device)
    interpolated_F = ((pairs_F - low) / max(high - low, 0.001)).clamp(0, 1)
    frequencies_F = _frequencies(theta, dim, position_ids_BT.device)
    frequencies_F = frequencies_F / parameters["factor"] * interpolated_F + frequencies_F * (1 - interpolated_F)
    return frequencies_F, _yarn_attention_factor(parameters)


def _mscale(factor: float, weight: float) -> float:
    """YaRN's `sqrt(1/t)` (section 3.4), with DeepSeek-V2's weight of the logarithm."""
    return 0.1 * weight * math.log(factor) + 1.0


def _yarn_attention_factor(parameters: Parameters) -> float:
    if "attention_factor" in parameters:
        return parameters["attention_factor"]
    above, below = parameters.get("mscale"), parameters.get("mscale_all_dim")
    if above and below:
        return _mscale(parameters["factor"], above) / _mscale(parameters["factor"], below)
    return _mscale(parameters["factor"], 1.0)


def llama3(parameters: Parameters, dim: int, position_ids_BT: Tensor) -> tuple[Tensor, float]:
    """Llama 3.1's scaling: linear for long wavelengths, none for short ones, a smooth passage between."""
    low, high = parameters["low_freq_factor"], parameters["high_freq_factor"]
    frequencies_F = default(parameters, dim, position_ids_BT)[0]
    turns_F = parameters["original_max_position_embeddings"] * frequencies_F / (2 * math.pi)
    kept_F = ((turns_F - low) / (high - low)).clamp(0, 1)
    return (1 - kept_F) * frequencies_F / parameters["factor"] + kept_F * frequencies_F, 1.0


SCALINGS: dict[str, Callable[[Parameters, int, Tensor], tuple[Tensor, float]]] = {
    "default": default,
    "linear": linear,
    "ntk": ntk,
    "dynamic": dynamic,
    "yarn": yarn,
    "llama3": llama3,
}


def softmax_factor(rope_parameters: Parameters) -> float:
    """Factor on MLA's logits: `mscale(factor, mscale_all_dim)^2` under YaRN, as in DeepSeek-V3; else 1."""
    weight = rope_parameters.get("mscale_all_dim")
    return _mscale(rope_parameters["factor"], weight) ** 2 if weight else 1.0


def rotary_tables(rope_parameters: Parameters, dim: int, position_ids_BT: Tensor) -> tuple[Tensor, Tensor]:
    """cos and sin of every angle, each (B, T, dim), fp32, times the scaling's factor.

    The frequencies are computed here and kept in no buffer: a cast of the whole model to bf16 would round them
    (positions above 256 would blur), and loading through the meta device would leave them unset.
    """
    with torch.autocast(position_ids_BT.device.type, enabled=False):
        scaling = SCALINGS[rope_parameters.get("rope_type", "default")]
        frequencies_F, factor = scaling(rope_parameters, dim, position_ids_BT)
        angles = position_ids_BT[..., None].float() * frequencies_F
        angles = torch.cat((angles, angles), dim=-1)
        return angles.cos() * factor, angles.sin() * factor


def turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the last dimension's halves against each other; computed in fp32, returned in the type of `x`.

    Where no gradient is wanted `x` is made fp32 once, since a product of two types takes twice as long. In training
    that would only change how a gradient is rounded.
    """
    wide = x if torch.is_grad_enabled() else x.float()
    first, second = wide.chunk(2, dim=-1)
    turned = torch.cat((-second, first), dim=-1)
    return (wide * cos + turned * sin).to(x.dtype)


class RotaryEmbedding(nn.Module):
    """Turns queries and keys by the angles of their positions. It has no parameters and no buffers."""

    def forward(self, x_BHTD: Tensor, cos_BTD: Tensor, sin_BTD: Tensor) -> Tensor:
        """Turn `x`, every head alike."""
        return turn(x_BHTD, cos_BTD[:, None], sin_BTD[:, None])
