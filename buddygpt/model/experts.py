"""The routed experts' computation: tokens sorted by expert, each expert one matrix product over its own.

Shapes: N tokens, A experts chosen for a token, M = N * A pairs sorted by expert, E experts, C channels, F width.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from buddygpt.model.mlp import GateMLP


def mix_experts(x_NC: Tensor, indices_NA: Tensor, weights_NA: Tensor, experts: Iterable[nn.Module]) -> Tensor:
    """Sum of each token's chosen experts by their weights.

    Every expert takes part in the graph, chosen or not, so that all parameters have a gradient on every process.

    Args:
        x_NC: tokens.
        indices_NA: chosen experts.
        weights_NA: their weights.
        experts: one `GateMLP` each, all of one shape.

    Returns:
        (N, C) in the compute type.
    """
    matrices = [m for expert in experts for m in _matrices(expert)]
    device = x_NC.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x_NC.dtype
    compiled = torch.compiler.is_compiling()
    grouped = dtype == torch.bfloat16 and _is_grouped(x_NC, matrices)
    if compiled and torch.is_grad_enabled() and not grouped:
        return _outside(x_NC, indices_NA, weights_NA, experts)  # type: ignore[call-arg]
    order_M = indices_NA.flatten().argsort(stable=True)
    counts_E = _count(indices_NA.flatten(), len(matrices) // 3)
    with torch.autocast(device, enabled=False):
        if grouped or (compiled and dtype == torch.bfloat16):
            return _grouped(x_NC.to(dtype), weights_NA, order_M, counts_E, matrices)
        if compiled:
            return _dense(x_NC.to(dtype), indices_NA, weights_NA, matrices)
        return _Loop.apply(x_NC.to(dtype), weights_NA, order_M, counts_E.tolist(), *matrices)


@torch.compiler.disable
def _outside(*args: Any) -> Tensor:
    """In compiled training: one expert after the other, each over as many tokens as chose it."""
    return mix_experts(*args)


def unstack(state: dict[str, Tensor], prefix: str) -> None:
    """Take the experts below `prefix` one by one from stacks, `gate_up_proj` (E, 2F, C) and `down_proj` (E, C, F).

    That is how transformers' DeepseekV3 holds them in memory. A state without stacks stays as it is.
    """
    for stack, names in (("gate_up_proj", ("gate_proj", "up_proj")), ("down_proj", ("down_proj",))):
        for index, both in enumerate(state.pop(prefix + stack, ())):
            for name, matrix in zip(names, both.chunk(len(names)), strict=True):
                state[f"{prefix}{index}.{name}.weight"] = matrix


def _matrices(expert: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
    assert isinstance(expert, GateMLP)
    return expert.gate_proj.weight, expert.up_proj.weight, expert.down_proj.weight


def _is_grouped(x_NC: Tensor, matrices: list[Tensor]) -> bool:
    """Where torch has one kernel for all experts: on a GPU, for rows of whole 16 bytes."""
    return x_NC.is_cuda and all(size % 8 == 0 for size in matrices[0].shape) and hasattr(F, "grouped_mm")


def _count(indices_M: Tensor, experts: int) -> Tensor:
    """Pairs of each expert; torch's bincount would ask the device for the largest first, and cannot be compiled."""
    zeros = torch.zeros(experts, dtype=torch.int64, device=indices_M.device)
    return zeros.scatter_add_(0, indices_M, torch.ones_like(indices_M))


def _dense(x_NC: Tensor, indices_NA: Tensor, weights_NA: Tensor, matrices: list[Tensor]) -> Tensor:
    """Every expert over every token: for compiled code in fp32, where shapes may not hang on what was chosen."""
    y_NC = torch.zeros_like(x_NC)
    for expert, (gate, up, down) in enumerate(zip(matrices[0::3], matrices[1::3], matrices[2::3], strict=True)):
        share_N1 = (weights_NA * (indices_NA == expert)).sum(-1, keepdim=True).to(x_NC.dtype)
        inner_NF = F.silu(x_NC @ gate.to(x_NC.dtype).T) * (x_NC @ up.to(x_NC.dtype).T)
        y_NC = y_NC + share_N1 * (inner_NF @ down.to(x_NC.dtype).T)
    return y_NC


def _grouped(x_NC: Tensor, weights_NA: Tensor, order_M: Tensor, counts_E: Tensor, matrices: list[Tensor]) -> Tensor:
    """All experts in two grouped products; the counts stay on the device."""
    tokens, chosen = weights_NA.shape
    pairs = [m for expert in zip(matrices[0::3], matrices[1::3], strict=True) for m in expert]
    gate_up_EFC = _stack(pairs, x_NC.dtype).unflatten(0, (-1, 2)).flatten(1, 2)
    down_ECF = _stack(matrices[2::3], x_NC.dtype)
    offsets_E = counts_E.cumsum(0, dtype=torch.int32)
    gate_up = F.grouped_mm(x_NC[order_M // chosen], gate_up_EFC.transpose(1, 2), offs=offsets_E)
    gate_MF, up_MF = gate_up.chunk(2, dim=-1)
    y_MC = F.grouped_mm(F.silu(gate_MF) * up_MF, down_ECF.transpose(1, 2), offs=offsets_E)
    y_NAC = y_MC[_inverse(order_M)].view(tokens, chosen, -1)
    return (y_NAC * weights_NA.to(y_NAC.dtype)[..., None]).sum(1)


def _stack(matrices: list[Tensor], dtype: torch.dtype) -> Tensor:
    """Matrices of one shape in one tensor of the compute type."""
    if torch.compiler.is_compiling():
        return torch.stack([m.to(dtype) for m in matrices])
    return _Stack.apply(dtype, *matrices)


class _Stack(torch.autograd.Function):
    """All matrices cast into one tensor, and their gradients back, in a few kernels; autograd takes some for each."""

    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, *matrices: Tensor) -> Tensor:
        ctx.dtype = matrices[0].dtype
        stack = matrices[0].new_empty(len(matrices), *matrices[0].shape, dtype=dtype)
        torch._foreach_copy_(stack.unbind(), matrices)  # pyright: ignore[reportPrivateImportUsage]
        return stack

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        return None, *grad_outputs[0].to(ctx.dtype).unbind()


class _Loop(torch.autograd.Function):
    """One expert after the other, with a backward pass of its own.

    Of what lies between only the gate and up products are kept. The weight enters between up and down projection, so
    that its gradient needs no output of the expert; pairs are gathered and summed by index, never scattered.
    """

    @staticmethod
    def forward(
        ctx: Any, x_NC: Tensor, weights_NA: Tensor, order_M: Tensor, counts: list[int], *matrices: Tensor
    ) -> Tensor:
        pairs, width = order_M.numel(), matrices[0].shape[0]
        weights_M = weights_NA.flatten()[order_M]
        gate_MF, up_MF = x_NC.new_empty(2, pairs, width)
        y_MC = x_NC.new_empty(pairs, x_NC.shape[1])
        for _, rows, (gate_FC, up_FC, down_CF) in _busy(counts, matrices, x_NC.dtype):
            x = x_NC[order_M[rows] // weights_NA.shape[1]]
            torch.mm(x, gate_FC.T, out=gate_MF[rows])
            torch.mm(x, up_FC.T, out=up_MF[rows])
            inner = F.silu(gate_MF[rows]).mul_(up_MF[rows]).mul_(weights_M[rows, None])
            torch.mm(inner, down_CF.T, out=y_MC[rows])
        ctx.save_for_backward(x_NC, weights_NA, order_M, gate_MF, up_MF, *matrices)
        ctx.counts = counts
        return _sum_pairs(y_MC, order_M, weights_NA.shape[1])

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        x_NC, weights_NA, order_M, gate_MF, up_MF, *matrices = ctx.saved_tensors
        grad_NC, chosen = grad_outputs[0], weights_NA.shape[1]
        weights_M = weights_NA.flatten()[order_M]
        grad_x_MC = x_NC.new_empty(order_M.numel(), x_NC.shape[1])
        grad_weights_M = torch.empty_like(weights_M)
        grads: list[Tensor | None] = [None] * len(matrices)
        for expert, rows, (gate_FC, up_FC, down_CF) in _busy(ctx.counts, matrices, x_NC.dtype):
            tokens = order_M[rows] // chosen
            x, grad, weight, gate, up = x_NC[tokens], grad_NC[tokens], weights_M[rows, None], gate_MF[rows], up_MF[rows]
            silu = F.silu(gate)
            inner = silu * up
            grad_inner = grad @ down_CF
            grad_weights_M[rows] = (grad_inner * inner).sum(-1, dtype=weights_M.dtype)
            grad_down = grad.T @ inner.mul_(weight)
            grad_inner.mul_(weight)
            grad_up = silu.mul_(grad_inner)
            grad_gate = torch.ops.aten.silu_backward(grad_inner.mul_(up), gate)
            torch.mm(grad_gate, gate_FC, out=grad_x_MC[rows])
            torch.addmm(grad_x_MC[rows], grad_up, up_FC, out=grad_x_MC[rows])
            for place, found in enumerate((grad_gate.T @ x, grad_up.T @ x, grad_down)):
                grads[3 * expert + place] = found.to(matrices[3 * expert + place].dtype)
        idle = (torch.zeros_like(m) if g is None else g for m, g in zip(matrices, grads, strict=True))
        grad_weights_NA = grad_weights_M[_inverse(order_M)].view_as(weights_NA)
        return _sum_pairs(grad_x_MC, order_M, chosen), grad_weights_NA, None, None, *idle


def _busy(
    counts: list[int], matrices: Sequence[Tensor], dtype: torch.dtype
) -> Iterator[tuple[int, slice, tuple[Tensor, Tensor, Tensor]]]:
    """Experts that have pairs: number, their rows of the sorted pairs, gate, up and down matrix in `dtype`."""
    start = 0
    for expert, count in enumerate(counts):
        if count:
            gate, up, down = (m.to(dtype) for m in matrices[3 * expert : 3 * expert + 3])
            yield expert, slice(start, start + count), (gate, up, down)
        start += count


def _sum_pairs(y_MC: Tensor, order_M: Tensor, chosen: int) -> Tensor:
    """(N, C): sums of each token's pairs."""
    return y_MC[_inverse(order_M)].view(-1, chosen, y_MC.shape[-1]).sum(1)


def _inverse(order_M: Tensor) -> Tensor:
    """Where each pair, in the order of tokens, lies among the sorted ones."""
    inverse_M = torch.empty_like(order_M)
    inverse_M[order_M] = torch.arange(order_M.numel(), device=order_M.device)
    return inverse_M
