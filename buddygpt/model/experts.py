"""The routed experts' computation: tokens sorted by expert, each expert one matrix product over its own.

Shapes: N tokens, A experts chosen for a token, M = N * A pairs, sorted by expert or not, P rows of pairs and of what
fills them up, E experts, C channels, F width.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from buddygpt.model.mlp import GateMLP
from buddygpt.model.shapes import round_up


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
    that its gradient needs no output of the expert; pairs are gathered and summed by index, never scattered. On a CPU
    an expert's pairs are filled up to a `whole` number by pairs of weight 0, which give nothing and get nothing.
    """

    @staticmethod
    def forward(
        ctx: Any, x_NC: Tensor, weights_NA: Tensor, order_M: Tensor, counts: list[int], *matrices: Tensor
    ) -> Tensor:
        filled = [whole(count) for count in counts] if _knows_shapes(x_NC) else counts
        rows_M = _rows(order_M, counts, filled)
        tokens_P, weights_P = _pairs(rows_M, weights_NA, sum(filled))
        gate_PF, up_PF = x_NC.new_empty(2, tokens_P.numel(), matrices[0].shape[0])
        y_PC = x_NC.new_empty(tokens_P.numel(), x_NC.shape[1])
        for _, rows, (gate_FC, up_FC, down_CF) in _busy(filled, matrices, x_NC.dtype):
            x = x_NC[tokens_P[rows]]
            torch.mm(x, gate_FC.T, out=gate_PF[rows])
            torch.mm(x, up_FC.T, out=up_PF[rows])
            inner = F.silu(gate_PF[rows]).mul_(up_PF[rows]).mul_(weights_P[rows, None])
            torch.mm(inner, down_CF.T, out=y_PC[rows])
        ctx.save_for_backward(x_NC, weights_NA, rows_M, gate_PF, up_PF, *matrices)
        ctx.filled = filled
        return _sum_pairs(y_PC, rows_M, weights_NA.shape[1])

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        x_NC, weights_NA, rows_M, gate_PF, up_PF, *matrices = ctx.saved_tensors
        grad_NC, chosen = grad_outputs[0], weights_NA.shape[1]
        tokens_P, weights_P = _pairs(rows_M, weights_NA, gate_PF.shape[0])
        grad_x_PC = x_NC.new_empty(tokens_P.numel(), x_NC.shape[1])
        grad_weights_P = torch.empty_like(weights_P)
        grads: list[Tensor | None] = [None] * len(matrices)
        for expert, rows, (gate_FC, up_FC, down_CF) in _busy(ctx.filled, matrices, x_NC.dtype):
            tokens = tokens_P[rows]
            x, grad, weight, gate, up = x_NC[tokens], grad_NC[tokens], weights_P[rows, None], gate_PF[rows], up_PF[rows]
            silu = F.silu(gate)
            inner = silu * up
            grad_inner = grad @ down_CF
            grad_weights_P[rows] = (grad_inner * inner).sum(-1, dtype=weights_P.dtype)
            grad_down = grad.T @ inner.mul_(weight)
            grad_inner.mul_(weight)
            grad_up = silu.mul_(grad_inner)
            grad_gate = torch.ops.aten.silu_backward(grad_inner.mul_(up), gate)
            torch.mm(grad_gate, gate_FC, out=grad_x_PC[rows])
            torch.addmm(grad_x_PC[rows], grad_up, up_FC, out=grad_x_PC[rows])
            for place, found in enumerate((grad_gate.T @ x, grad_up.T @ x, grad_down)):
                grads[3 * expert + place] = found.to(matrices[3 * expert + place].dtype)
        idle = (torch.zeros_like(m) if g is None else g for m, g in zip(matrices, grads, strict=True))
        grad_weights_NA = grad_weights_P[rows_M].view_as(weights_NA)
        return _sum_pairs(grad_x_PC, rows_M, chosen), grad_weights_NA, None, None, *idle


def whole(count: int) -> int:
    """Rows that so many pairs of an expert are filled up to; fewer than 16 stay as they are.

    oneDNN writes a kernel for each number of rows that it meets. With numbers as they come experts take 2 to 3 times as
    long in bf16, and kernels 1.3 to 2 GB.
    """
    return count if count < 16 else round_up(count, 16)


def _knows_shapes(x_NC: Tensor) -> bool:
    """Where a product's kernel is written for its shape: in half precision on a CPU."""
    return x_NC.device.type == "cpu" and x_NC.dtype != torch.float32


def _rows(order_M: Tensor, counts: list[int], filled: list[int]) -> Tensor:
    """The row of each pair, in the order of tokens, where an expert's pairs take as many rows as `filled` says."""
    before = accumulate((more - count for more, count in zip(filled, counts, strict=True)), initial=0)
    skipped_E = torch.tensor(list(before)[:-1])
    skipped_M = skipped_E.repeat_interleave(torch.tensor(counts)).to(order_M.device)
    rows_M = torch.empty_like(order_M)
    rows_M[order_M] = torch.arange(order_M.numel(), device=order_M.device) + skipped_M
    return rows_M


def _pairs(rows_M: Tensor, weights_NA: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """Token and weight of each row; what fills up has token 0 and weight 0."""
    tokens_P, weights_P = rows_M.new_zeros(rows), weights_NA.new_zeros(rows)
    tokens_P[rows_M] = torch.arange(rows_M.numel(), device=rows_M.device) // weights_NA.shape[1]
    weights_P[rows_M] = weights_NA.flatten()
    return tokens_P, weights_P


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


def _sum_pairs(y_PC: Tensor, rows_M: Tensor, chosen: int) -> Tensor:
    """(N, C): sums of each token's pairs."""
    return y_PC[rows_M].view(-1, chosen, y_PC.shape[-1]).sum(1)


def _inverse(order_M: Tensor) -> Tensor:
    """Where each pair, in the order of tokens, lies among the sorted ones."""
    inverse_M = torch.empty_like(order_M)
    inverse_M[order_M] = torch.arange(order_M.numel(), device=order_M.device)
    return inverse_M
