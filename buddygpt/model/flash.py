"""Attention dispatch: one call for every kind of attention; each backend answers what it supports.

A backend is named as transformers names it (`attn_implementation`), or `auto`: the fastest that is right for the
device, the type and the shape of the call. A named backend that cannot do what is asked is an error: none falls back.
Shapes: B batch, T query tokens, S key tokens (cache included), H query heads, K key-value heads, D width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from buddygpt.model.backends import (
    Backend,
    Demand,
    Eager,
    FlashAttention,
    FlexAttention,
    ScaledDotProduct,
    VarlenAttention,
)
from buddygpt.model.visibility import Visibility
from buddygpt.recipe.errors import BuddyError


class UnsupportedError(BuddyError, ValueError):
    """The backend that was asked for cannot do it; says why, and what can."""


BACKENDS: dict[str, Backend] = {
    backend.name: backend
    for backend in (
        FlashAttention(4, "flash_attn.cute", (9, 10, 12), 128),
        FlashAttention(3, "flash_attn_interface", (9,), 256),
        FlashAttention(2, "flash_attn", (8, 9, 10, 12), 256),
        VarlenAttention(),
        ScaledDotProduct(),
        FlexAttention(),
        Eager(),
    )
}
"""Backends in the order in which `auto` asks them."""

AUTO = "auto"


def attend(
    q_BHTD: Tensor, k_BKSD: Tensor, v_BKSD: Tensor, visible: Visibility, scale: float, name: str | None = None
) -> Tensor:
    """softmax(q k^T * scale) v over the visible keys.

    Args:
        name: a backend; None and `auto` leave the choice.

    Returns:
        (B, H, T, D of v), in the type of `q`; padding has any finite value.

    Raises:
        UnsupportedError: the named backend cannot do this here.
    """
    if torch.compiler.is_compiling() and torch.is_grad_enabled():
        return _outside(q_BHTD, k_BKSD, v_BKSD, visible, scale, name)
    demand = Demand(
        q_BHTD.device.type,
        q_BHTD.dtype,
        q_BHTD.shape[-1],
        v_BKSD.shape[-1],
        visible.kind(k_BKSD.shape[-2]),
        torch.is_grad_enabled() and (q_BHTD.requires_grad or k_BKSD.requires_grad),
    )
    return choose(name or AUTO, demand).attend(q_BHTD, k_BKSD, v_BKSD, visible, scale)


@torch.compiler.disable
def _outside(*args: Any) -> Tensor:
    """In compiled training: kernels are called as ever, for packed documents give them shapes that are always new."""
    return attend(*args)


def choose(name: str, demand: Demand) -> Backend:
    """The backend for a demand.

    Raises:
        UnsupportedError: it is unknown, or cannot do this here.
    """
    if name == AUTO:
        return next(b for b in BACKENDS.values() if not (b.refusal(demand) or b.better(demand)))
    backend = BACKENDS[check_name(name)]
    if reason := backend.refusal(demand):
        raise UnsupportedError(f"attention by {name}: {reason}; use auto, which takes {choose(AUTO, demand).name} here")
    return backend


def survey(demand: Demand) -> list[tuple[str, str | None]]:
    """Why `auto` passes each backend over; None for those that it may take, of which it takes the first."""
    return [(name, backend.refusal(demand) or backend.better(demand)) for name, backend in BACKENDS.items()]


def check_name(name: str | None) -> str:
    """The name of a backend, `auto` where none is given.

    Raises:
        UnsupportedError: there is no such backend.
    """
    if name is not None and name != AUTO and name not in BACKENDS:
        raise UnsupportedError(f"attention by '{name}': unknown; one of {', '.join((AUTO, *BACKENDS))}")
    return name or AUTO
