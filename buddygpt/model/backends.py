"""Ways to compute attention, one class each: what it supports, and how it is called.

Layouts change here and nowhere else. `buddygpt.model.flash` chooses among them.
Shapes: B batch, T query tokens, S key tokens (cache included), H query heads, K key-value heads, D width,
M real tokens of the batch.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from buddygpt.model.shapes import round_up
from buddygpt.model.visibility import Runs, Visibility

SHORT = 256
"""Tokens up to which a CPU takes 1.2 to 5 times as long for attention with its gradient in bf16 as in fp32."""


@dataclass(frozen=True)
class Demand:
    """What one attention call asks for.

    Args:
        device: torch's name of its kind.
        dtype: of queries, keys and values.
        key_width: of a query or key head.
        value_width: of a value head.
        kind: see `Visibility.kind`.
        gradient: a backward pass will follow.
    """

    device: str
    dtype: torch.dtype
    key_width: int
    value_width: int
    kind: str
    gradient: bool = False


class Backend(ABC):
    """One way to compute attention."""

    name: str

    def refusal(self, demand: Demand) -> str | None:
        """Why it cannot do what is asked; None where it can."""
        return None

    def better(self, demand: Demand) -> str | None:
        """Why `auto` does better with a backend further down; None where it does not."""
        return None

    @abstractmethod
    def attend(self, q_BHTD: Tensor, k_BKSD: Tensor, v_BKSD: Tensor, visible: Visibility, scale: float) -> Tensor:
        """`buddygpt.model.flash.attend`, by this backend."""


class FlashAttention(Backend):
    """The flash-attn packages (arXiv 2205.14135, 2307.08691, 2407.08608).

    Args:
        version: 2, 3 or 4.
        module: where its functions are.
        capabilities: major compute capabilities that it is built for.
        widest: widest head.
    """

    def __init__(self, version: int, module: str, capabilities: tuple[int, ...], widest: int):
        self.name = f"flash_attention_{version}"
        self.version, self.module, self.capabilities, self.widest = version, module, capabilities, widest

    def refusal(self, demand: Demand) -> str | None:
        """Needs its package, a GPU that it is built for, half precision, whole 8-wide heads of one width."""
        if demand.device != "cuda":
            return f"needs a CUDA device, this is {demand.device}"
        if torch.cuda.get_device_capability()[0] not in self.capabilities:
            return f"is not built for {torch.cuda.get_device_name()}"
        if not _is_installed(self.module):
            return f"the package {self.module.partition('.')[0]} is not installed"
        if demand.kind == "mask":
            return "knows no padding after a cache"
        return _half_precision(demand) or _widths(demand, self.widest)

    def better(self, demand: Demand) -> str | None:
        """torch carries the kernel of version 2 itself."""
        return "sdpa has the same kernel built in" if self.version == 2 and demand.kind != "runs" else None

    def attend(self, q_BHTD: Tensor, k_BKSD: Tensor, v_BKSD: Tensor, visible: Visibility, scale: float) -> Tensor:
        """Documents and padding as cumulative lengths."""
        functions: Any = __import__(self.module, fromlist=["flash_attn_func"])
        if visible.kind(k_BKSD.shape[-2]) != "runs":
            q, k, v = (x.transpose(1, 2) for x in (q_BHTD, k_BKSD, v_BKSD))
            return _first(functions.flash_attn_func(q, k, v, softmax_scale=scale, causal=True)).transpose(1, 2)

        def kernel(q: Tensor, k: Tensor, v: Tensor, runs: Runs) -> Tensor:
            return _first(
                functions.flash_attn_varlen_func(
                    q, k, v,
                    cu_seqlens_q=runs.cumulative_n1, cu_seqlens_k=runs.cumulative_n1,
                    max_seqlen_q=max(runs.lengths), max_seqlen_k=max(runs.lengths),
                    softmax_scale=scale, causal=True,
                )
            )  # fmt: skip

        return _end_to_end(kernel, q_BHTD, k_BKSD, v_BKSD, visible)


class VarlenAttention(Backend):
    """torch.nn.attention.varlen: FlashAttention 2 for documents laid end to end, without a further package."""

    name = "varlen_attn"

    def refusal(self, demand: Demand) -> str | None:
        """Needs torch with windows in varlen_attn, an Ampere GPU or newer, half precision."""
        if demand.device != "cuda":
            return f"needs a CUDA device, this is {demand.device}"
        if torch.cuda.get_device_capability()[0] < 8:
            return f"needs compute capability 8.0, {torch.cuda.get_device_name()} is older"
        if not {"scale", "window_size"} <= _varlen_options():
            return f"torch {torch.__version__} has no causal varlen_attn"
        if demand.kind not in ("plain", "runs"):
            return "has no cache here"
        return _half_precision(demand) or _widths(demand, 256)

    def better(self, demand: Demand) -> str | None:
        """Without documents there is nothing to gain."""
        return None if demand.kind == "runs" else "sdpa has the same kernel"

    def attend(self, q_BHTD: Tensor, k_BKSD: Tensor, v_BKSD: Tensor, visible: Visibility, scale: float) -> Tensor:
        """Every row, or every document, is a run."""
        from torch.nn.attention.varlen import varlen_attn

        share = q_BHTD.shape[1] // k_BKSD.shape[1]
        options: dict[str, Any] = {"scale": scale, "window_size": (-1, 0)}
        if share > 1 and "enable_gqa" in _varlen_options():
            options["enable_gqa"] = True
        elif share > 1:
            k_BKSD, v_BKSD = k_BKSD.repeat_interleave(share, 1), v_BKSD.repeat_interleave(share, 1)

        def kernel(q: Tensor, k: Tensor, v: Tensor, runs: Runs) -> Tensor:
            ends, longest = runs.cumulative_n1, max(runs.lengths)
            return _first(varlen_attn(q, k, v, ends, ends, longest, longest, **options))

        return _end_to_end(kernel, q_BHTD, k_BKSD, v_BKSD, visible)


class FlexAttention(Backend):
    """torch's flex attention (arXiv 2412.05496): compiled on a GPU, plain matrix products on a CPU."""

    name = "flex_attention"

    def refusal(self, demand: Demand) -> str | None:
        """torch has no backward pass of it on a CPU."""
        return "has no backward pass on a CPU" if demand.device == "cpu" and demand.gradient else None

    def better(self, demand: Demand) -> str | None:
        """It is slow to start everywhere."""
        return "compiles anew for every shape; name it to have it"

    def attend(self, q_BHTD: Tensor, k_BKSD: Tensor, v_BKSD: Tensor, visible: Visibility, scale: float) -> Tensor:
        """The rule as a block mask."""
        blocks = visible.block_mask(q_BHTD.shape[0], k_BKSD.shape[-2], q_BHTD.device)
        function = _flex(q_BHTD.is_cuda)
        return function(q_BHTD, k_BKSD, v_BKSD, block_mask=blocks, scale=scale, enable_gqa=_is_grouped(q_BHTD, k_BKSD))


class ScaledDotProduct(Backend):
    """torch's scaled_dot_product_attention and whatever kernel it has for the device."""

    name = "sdpa"

    def attend(self, q_BHTD: Tensor, k_BKSD: Tensor, v_BKSD: Tensor, visible: Visibility, scale: float) -> Tensor:
        """Documents are computed in batches of nearly equal length, so that no T x T mask is made."""
        kind = visible.kind(k_BKSD.shape[-2])
        if visible.queries == 1:
            return _one_query(q_BHTD, k_BKSD, v_BKSD, visible, scale)
        if kind == "plain":
            return _sdpa(q_BHTD, k_BKSD, v_BKSD, scale)
        if kind == "runs":

            def kernel(q: Tensor, k: Tensor, v: Tensor, runs: Runs) -> Tensor:
                return _by_length(q, k, v, runs, scale)

            return _end_to_end(kernel, q_BHTD, k_BKSD, v_BKSD, visible)
        # torch's causal flag is aligned top-left, which is wrong after a cache.
        return _sdpa(q_BHTD, k_BKSD, v_BKSD, scale, visible.mask(k_BKSD.shape[-2], q_BHTD.device))


class Eager(Backend):
    """Plain matrix products with fp32 scores: the reference."""

    name = "eager"

    def better(self, demand: Demand) -> str | None:
        """It holds T x S scores."""
        return "the reference, slower"

    def attend(self, q_BHTD: Tensor, k_BKSD: Tensor, v_BKSD: Tensor, visible: Visibility, scale: float) -> Tensor:
        """By the mask."""
        if _is_grouped(q_BHTD, k_BKSD):
            share = q_BHTD.shape[1] // k_BKSD.shape[1]
            k_BKSD, v_BKSD = k_BKSD.repeat_interleave(share, 1), v_BKSD.repeat_interleave(share, 1)
        scores = (q_BHTD @ k_BKSD.transpose(-1, -2)).float() * scale
        scores = scores.masked_fill(~visible.mask(k_BKSD.shape[-2], q_BHTD.device), float("-inf"))
        return scores.softmax(-1).to(v_BKSD.dtype) @ v_BKSD


def kept_by(backend: Backend, isolated: bool) -> str:
    """What a backend keeps for the backward pass, by the names of `buddygpt.model.memory.KEPT`.

    Args:
        isolated: packed documents do not see one another.
    """
    if isinstance(backend, Eager):
        return "scores"
    if isinstance(backend, ScaledDotProduct) and isolated:
        return "gathered"
    if isinstance(backend, VarlenAttention) and "enable_gqa" not in _varlen_options():
        return "repeated"
    return "plain"


def _half_precision(demand: Demand) -> str | None:
    half = demand.dtype in (torch.bfloat16, torch.float16)
    return None if half else f"computes in bf16 or fp16, this is {str(demand.dtype).removeprefix('torch.')}"


def _widths(demand: Demand, widest: int) -> str | None:
    if demand.key_width != demand.value_width:
        return f"needs keys and values of one width, these have {demand.key_width} and {demand.value_width}"
    if demand.key_width % 8 or demand.key_width > widest:
        return f"needs heads of a multiple of 8 up to {widest}, these have {demand.key_width}"
    return None


@cache
def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of the package above it
        return False


@cache
def _varlen_options() -> frozenset[str]:
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return frozenset()
    return frozenset(inspect.signature(varlen_attn).parameters)


@cache
def _flex(compiled: bool) -> Callable[..., Any]:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention) if compiled else flex_attention


def _first(result: Any) -> Tensor:
    return result[0] if isinstance(result, tuple) else result


def _is_grouped(q_BHTD: Tensor, k_BKSD: Tensor) -> bool:
    return q_BHTD.shape[1] != k_BKSD.shape[1]


def _sdpa(q: Tensor, k: Tensor, v: Tensor, scale: float, mask: Tensor | None = None) -> Tensor:
    """Causal where there is no mask. The fused kernels want one width: zeros in keys and values change nothing."""
    key_width, value_width, dtype = q.shape[-1], v.shape[-1], q.dtype
    if dtype == torch.bfloat16 and q.device.type == "cpu" and k.shape[-2] <= SHORT:
        q, k, v = q.float(), k.float(), v.float()
    if key_width < value_width:
        q, k = (F.pad(x, (0, value_width - key_width)) for x in (q, k))
    elif value_width < key_width:
        v = F.pad(v, (0, key_width - value_width))
    y = F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=mask is None, scale=scale, enable_gqa=_is_grouped(q, k)
    )
    return y[..., :value_width].to(dtype)


def _one_query(q_BH1D: Tensor, k_BKSD: Tensor, v_BKSD: Tensor, visible: Visibility, scale: float) -> Tensor:
    """Heads that share a key stand as rows of one product: no key is repeated, a step's time goes into reading them.

    On a CPU torch has a fused kernel, at a fiftieth of the time of two products in bf16 whose shapes are always new.
    """
    keys = k_BKSD.shape[-2]
    q_BKGD = q_BH1D.view(q_BH1D.shape[0], k_BKSD.shape[1], -1, q_BH1D.shape[-1])
    mask = None if visible.kind(keys) == "step" else visible.mask(keys, q_BH1D.device)
    if q_BH1D.device.type == "cpu" and k_BKSD.shape[-1] == v_BKSD.shape[-1]:
        y_BKGD = F.scaled_dot_product_attention(q_BKGD, k_BKSD, v_BKSD, attn_mask=mask, scale=scale)
    else:
        scores = (q_BKGD @ k_BKSD.transpose(-1, -2)).float() * scale
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        y_BKGD = scores.softmax(-1).to(v_BKSD.dtype) @ v_BKSD
    return y_BKGD.view(*q_BH1D.shape[:3], -1)


def _end_to_end(
    kernel: Callable[[Tensor, Tensor, Tensor, Runs], Tensor], q: Tensor, k: Tensor, v: Tensor, visible: Visibility
) -> Tensor:
    """Lay the real tokens end to end, (M, heads, D), attend there, put the results back; padding gets zeros."""
    batch, _, tokens, _ = q.shape
    runs = visible.runs(batch, q.device)
    q, k, v = (x.transpose(1, 2).flatten(0, 1) for x in (q, k, v))
    if runs.tokens_M is None:
        return kernel(q, k, v, runs).unflatten(0, (batch, tokens)).transpose(1, 2)
    q, k, v = (x.index_select(0, runs.tokens_M) for x in (q, k, v))
    y_MHD = kernel(q, k, v, runs)
    y_NHD = y_MHD.new_zeros(batch * tokens, *y_MHD.shape[1:]).index_copy(0, runs.tokens_M, y_MHD)
    return y_NHD.unflatten(0, (batch, tokens)).transpose(1, 2)


def _by_length(q_MHD: Tensor, k_MKD: Tensor, v_MKD: Tensor, runs: Runs, scale: float) -> Tensor:
    """Causal attention within each run, runs of nearly one length in one batch.

    A shorter run is filled up at its end with any tokens: its own queries do not see them, theirs are left out.
    """
    groups: dict[int, list[int]] = {}
    for number, length in enumerate(runs.lengths):
        groups.setdefault(round_up(length, 4), []).append(number)
    if len(groups) == 1 and len(set(runs.lengths)) == 1:
        q, k, v = (x.unflatten(0, (len(runs.lengths), -1)).transpose(1, 2) for x in (q_MHD, k_MKD, v_MKD))
        return _sdpa(q, k, v, scale).transpose(1, 2).flatten(0, 1)
    starts_n, device = runs.cumulative_n1.long(), q_MHD.device
    y_MHD = q_MHD.new_empty(*q_MHD.shape[:2], v_MKD.shape[-1])
    parts, places = [], []
    for longest, members in groups.items():
        chosen_n = torch.tensor(members, device=device)
        steps = torch.arange(longest, device=device)
        lengths_n1 = (starts_n[chosen_n + 1] - starts_n[chosen_n])[:, None]
        index_nL = (starts_n[chosen_n, None] + steps).clamp(max=q_MHD.shape[0] - 1)
        rows_N = index_nL.flatten()  # its gradient is added row by row; that of `x[index_nL]` takes three times as long
        q, k, v = (
            x.index_select(0, rows_N).unflatten(0, index_nL.shape).transpose(1, 2) for x in (q_MHD, k_MKD, v_MKD)
        )
        inside_nL = steps < lengths_n1
        parts.append(_sdpa(q, k, v, scale).transpose(1, 2)[inside_nL])
        places.append(index_nL[inside_nL])
    return y_MHD.index_copy(0, torch.cat(places), torch.cat(parts))
