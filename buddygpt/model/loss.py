"""Cross entropy of a linear head without the logits of the whole batch, and bits per character.

With 151,669 entries one row of fp32 logits takes 0.6 MB: 20 x 1,024 rows would be 11.6 GiB. Here rows pass the head
in chunks that fit a memory budget, and the gradients of the chunk are computed while its logits are there, so that the
head costs its three matrix products and nothing is computed twice.
Shapes: N rows, D channels, V vocabulary.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

IGNORE_INDEX = -100
CHUNK_BYTES = 512 * 2**20
"""Memory that one chunk of logits may take, in bytes."""
BLOCK_BYTES = 16 * 2**20
"""On a CPU the softmax runs over blocks of this size, which stay in its cache."""


def linear_cross_entropy(
    hidden: Tensor, weight_VD: Tensor, targets: Tensor, num_items: Tensor | float | None = None
) -> Tensor:
    """Mean cross entropy in nats of `softmax(hidden @ weight^T)` against `targets`, as an fp32 scalar.

    Args:
        hidden: (..., D).
        weight_VD: the output head.
        targets: (...) token ids; rows with -100 are left out before the matrix product.
        num_items: what the sum is divided by: the number of targets over all micro-batches and devices of the
            optimizer step. The number of targets here where left out (0 targets give a loss of 0).
    """
    hidden_ND, targets_N = hidden.reshape(-1, hidden.shape[-1]), targets.reshape(-1)
    kept = targets_N != IGNORE_INDEX
    if not bool(kept.all()):
        hidden_ND, targets_N = hidden_ND[kept], targets_N[kept]
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
    total = _LinearCrossEntropy.apply(hidden_ND.to(dtype), weight_VD, targets_N)
    return total / (max(targets_N.numel(), 1) if num_items is None else num_items)


class _LinearCrossEntropy(torch.autograd.Function):
    """Sum over rows; both gradients are made in the forward pass, in fp32 for the weight."""

    @staticmethod
    def forward(ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor) -> Tensor:
        needs_hidden, needs_weight = ctx.needs_input_grad[:2]
        head_VD = weight_VD.to(hidden_ND.dtype)
        grad_hidden = torch.empty_like(hidden_ND) if needs_hidden else None
        grad_weight = torch.zeros_like(weight_VD, dtype=torch.float32) if needs_weight else None
        total = torch.zeros((), dtype=torch.float32, device=hidden_ND.device)
        rows = chunk_rows(hidden_ND.shape[0], weight_VD.shape[0], hidden_ND.dtype, hidden_ND.device)
        with torch.autocast(hidden_ND.device.type, enabled=False):
            for start in range(0, hidden_ND.shape[0], rows):
                part = slice(start, start + rows)
                logits = hidden_ND[part] @ head_VD.T
                total += _softmax_step(logits, targets_N[part], needs_hidden or needs_weight)
                if grad_hidden is not None:
                    torch.mm(logits, head_VD, out=grad_hidden[part])
                if grad_weight is not None:
                    grad_weight += logits.T @ hidden_ND[part]
        ctx.save_for_backward(grad_hidden, grad_weight)
        ctx.weight_dtype = weight_VD.dtype
        return total

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        grad_hidden, grad_weight = ctx.saved_tensors
        scale = grad_outputs[0]
        return (
            None if grad_hidden is None else grad_hidden * scale,
            None if grad_weight is None else grad_weight.mul_(scale).to(ctx.weight_dtype),
            None,
        )


def chunk_rows(rows: int, vocab_size: int, dtype: torch.dtype, device: torch.device) -> int:
    """Rows in one chunk: as many as `CHUNK_BYTES` holds, all chunks nearly equal.

    An accelerator holds a chunk's logits twice, in the compute type and in fp32; a CPU converts them block by block.
    """
    bytes_per_logit = dtype.itemsize + (0 if device.type == "cpu" else 4)
    most = max(1, CHUNK_BYTES // (vocab_size * bytes_per_logit))
    chunks = max(1, math.ceil(rows / most))
    return max(1, math.ceil(rows / chunks))


def _softmax_step(logits: Tensor, targets: Tensor, gradient: bool) -> Tensor:
    """Sum of the rows' cross entropies; leaves softmax minus one-hot in `logits` where `gradient` is asked for."""
    total = torch.zeros((), dtype=torch.float32, device=logits.device)
    block = max(1, BLOCK_BYTES // (logits.shape[1] * 4)) if logits.device.type == "cpu" else max(1, logits.shape[0])
    for start in range(0, logits.shape[0], block):
        part, wanted = logits[start : start + block], targets[start : start + block, None]
        log_probs = F.log_softmax(part, dim=-1, dtype=torch.float32)
        total -= log_probs.gather(1, wanted).sum()
        if gradient:
            log_probs.exp_().scatter_add_(1, wanted, torch.full_like(wanted, -1, dtype=torch.float32))
            part.copy_(log_probs)
    return total


def bits_per_character(nats: float, characters: int) -> float:
    """Bits that a text of `characters` characters takes when a model gives it `nats` of negative log-likelihood."""
    return nats / math.log(2) / characters
