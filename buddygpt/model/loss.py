"""Cross entropy and log-probabilities of a linear head without the logits of the whole batch; bits per character.

With 151,669 entries one row of fp32 logits takes 0.6 MB: 20 x 1,024 rows would be 11.6 GiB. Here rows pass the head
in chunks that fit a memory budget; statistics are fp32, the logits of a chunk are turned into their gradient in place.
Shapes: N rows, D channels, V vocabulary, W vocabulary filled up to `ALIGNMENT`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

IGNORE_INDEX = -100
CHUNK_BYTES = {"cpu": 160 * 2**20, "accelerator": 512 * 2**20}
"""Memory that one chunk of logits may take, in bytes."""
ALIGNMENT = {"cpu": 1, "accelerator": 64}
"""The vocabulary is filled up to whole so many entries, which no token has a chance of: a GPU's matrix products over
Qwen3's 151,669 entries, an odd number, take 2.2 times as long as over 151,680, whose rows begin at whole 16 bytes."""
BLOCK_BYTES = 4 * 2**20
"""On a CPU the softmax runs over blocks of this size, which stay in its cache."""
BLOCK_COLUMNS = 4096
"""On a CPU logits, and the weight's gradient, are made for this many entries of the vocabulary at once: 1.6 times as
fast as for all of them."""


class TiedGradient:
    """Hands the head's gradient to the embedding that is the same matrix.

    A tied matrix gets two dense gradients, which autograd adds: a second buffer as large as the matrix, filled with
    zeros and read again for the few rows of a batch. Here the head leaves its gradient in this hand-over, and
    `tied_embedding`, whose backward pass always comes later, adds its rows to it and returns it as the only one.
    """

    grad: Tensor | None = None


def tied_embedding(ids: Tensor, weight_VD: Tensor, tied: TiedGradient) -> Tensor:
    """`F.embedding(ids, weight)` whose backward pass takes up the gradient that the head left in `tied`."""
    return _TiedEmbedding.apply(ids, weight_VD, tied)


def linear_cross_entropy(
    hidden: Tensor,
    weight_VD: Tensor,
    targets: Tensor,
    num_items: Tensor | float | None = None,
    tied: TiedGradient | None = None,
    z_loss: float = 0.0,
) -> Tensor:
    """Mean cross entropy in nats of `softmax(hidden @ weight^T)` against `targets`, as an fp32 scalar.

    The gradients of a chunk are computed while its logits are there, so that the head costs its three matrix products
    and nothing is computed twice.

    Args:
        hidden: (..., D).
        weight_VD: the output head.
        targets: (...) token ids; rows with -100 are left out before the matrix product.
        num_items: what the sum is divided by: the number of targets over all micro-batches and devices of the
            optimizer step. The number of targets here where left out (0 targets give a loss of 0).
        tied: where the head's gradient is left, if `hidden` comes from a `tied_embedding` of the same matrix.
        z_loss: c of PaLM's c log^2 Z (arXiv 2204.02311, section 5), a mean over the targets too, which keeps the
            softmax normaliser Z near 1. It acts on the gradients alone: the value stays the cross entropy, so that
            runs with and without it can be compared.
    """
    hidden_ND, targets_N, _ = _judged(hidden, targets)
    total = _LinearCrossEntropy.apply(hidden_ND, weight_VD, targets_N, tied, z_loss)
    return total / (max(targets_N.numel(), 1) if num_items is None else num_items)


class Scores(NamedTuple):
    """What a head says of each target, in the shape of the targets, in fp32; 0 and false where one is not judged.

    Args:
        log_probs: in nats; differentiable, alone of all.
        entropy: of the distribution, in nats.
        mean_logits: over the vocabulary.
        is_top1: whether the target is the likeliest token, the first of equals.
    """

    log_probs: Tensor
    entropy: Tensor
    mean_logits: Tensor
    is_top1: Tensor


def linear_log_probs(hidden: Tensor, weight_VD: Tensor, targets: Tensor, tied: TiedGradient | None = None) -> Tensor:
    """Log-probability in nats of each target under `softmax(hidden @ weight^T)`, fp32, in the shape of `targets`.

    Rows with -100 give 0 and cost no matrix product. Differentiable: the logits of a chunk are computed again in the
    backward pass, because the gradient of each row comes only then.

    Args:
        hidden: (..., D).
        weight_VD: the output head.
        targets: (...) token ids.
        tied: as for `linear_cross_entropy`.
    """
    hidden_ND, targets_N, kept = _judged(hidden, targets)
    (found_N,) = _LinearLogProbs.apply(hidden_ND, weight_VD, targets_N, tied, False)
    return _spread(found_N, kept, targets.shape)


def linear_scores(hidden: Tensor, weight_VD: Tensor, targets: Tensor, tied: TiedGradient | None = None) -> Scores:
    """`linear_log_probs`, and what else the same logits tell of each row; arguments as there."""
    hidden_ND, targets_N, kept = _judged(hidden, targets)
    found = _LinearLogProbs.apply(hidden_ND, weight_VD, targets_N, tied, True)
    return Scores(*(_spread(column_N, kept, targets.shape) for column_N in found))


def bits_per_character(nats: float, characters: int) -> float:
    """Bits that a text of `characters` characters takes when a model gives it `nats` of negative log-likelihood."""
    return nats / math.log(2) / characters


def chunk_rows(rows: int, vocab_size: int, dtype: torch.dtype, device: torch.device) -> int:
    """Rows in one chunk: as many as `CHUNK_BYTES` holds, all chunks nearly equal.

    An accelerator holds a chunk's logits twice, in the compute type and in fp32; a CPU converts them block by block.
    """
    side = _side(device)
    bytes_per_logit = dtype.itemsize + (0 if side == "cpu" else 4)
    most = max(1, CHUNK_BYTES[side] // (vocab_size * bytes_per_logit))
    chunks = max(1, math.ceil(rows / most))
    return max(1, math.ceil(rows / chunks))


def filled(vocab_size: int, device: torch.device) -> int:
    """Entries of the vocabulary as the head's matrix products take it: with those that fill it up."""
    return -(-vocab_size // ALIGNMENT[_side(device)]) * ALIGNMENT[_side(device)]


def _side(device: torch.device) -> str:
    return "cpu" if device.type == "cpu" else "accelerator"


def _judged(hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """Rows that have a target, in the compute type; their targets; which rows they are, None for all of them."""
    hidden_ND, targets_N = hidden.reshape(-1, hidden.shape[-1]), targets.reshape(-1).to(hidden.device)
    kept = targets_N != IGNORE_INDEX
    everything = bool(kept.all())
    if not everything:
        hidden_ND, targets_N = hidden_ND[kept], targets_N[kept]
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
    return hidden_ND.to(dtype), targets_N, None if everything else kept


def _spread(found_N: Tensor, kept: Tensor | None, shape: torch.Size) -> Tensor:
    """What was found of the judged rows among all of them; the others have 0."""
    if kept is None:
        return found_N.view(shape)
    return found_N.new_zeros(shape).masked_scatter(kept.view(shape), found_N)


def _compute_type(weight_VD: Tensor, dtype: torch.dtype) -> Tensor:
    """The head (W, D) for matrix products in `dtype`: with zeros where it is filled up."""
    entries, width = weight_VD.shape
    wanted = filled(entries, weight_VD.device)
    if wanted == entries:
        return weight_VD.to(dtype)
    head_WD = weight_VD.new_empty(wanted, width, dtype=dtype)
    head_WD[:entries] = weight_VD
    head_WD[entries:] = 0
    return head_WD


def _chunks(hidden_ND: Tensor, head_WD: Tensor, entries: int) -> Iterator[tuple[slice, Tensor]]:
    """Parts of the rows, each with its logits, which the receiver may overwrite and the next part does.

    Logits of what fills the vocabulary up are minus infinity: their softmax, and so their gradient, is 0.
    """
    rows = chunk_rows(hidden_ND.shape[0], entries, hidden_ND.dtype, hidden_ND.device)
    buffer = hidden_ND.new_empty(rows, head_WD.shape[0])  # a new one each time costs its page faults
    for start in range(0, hidden_ND.shape[0], rows):
        part = slice(start, start + rows)
        logits = buffer[: hidden_ND[part].shape[0]]
        for columns in _columns(logits):
            torch.mm(hidden_ND[part], head_WD[columns].T, out=logits[:, columns])
        logits[:, entries:] = -torch.inf
        yield part, logits


def _blocks(logits: Tensor) -> Iterator[slice]:
    """Parts of a chunk's rows whose fp32 copy stays in a CPU's cache; an accelerator takes all of them."""
    rows = max(1, BLOCK_BYTES // (logits.shape[1] * 4)) if logits.device.type == "cpu" else max(1, logits.shape[0])
    return (slice(start, start + rows) for start in range(0, logits.shape[0], rows))


def _columns(logits: Tensor) -> Iterator[slice]:
    """Parts of the vocabulary whose matrix product a CPU makes at once; an accelerator makes all of it."""
    columns = BLOCK_COLUMNS if logits.device.type == "cpu" else logits.shape[1]
    return (slice(start, start + columns) for start in range(0, logits.shape[1], columns))


class _Head:
    """Gradients of the two factors of `hidden @ weight^T`, from the gradient of a chunk's logits."""

    def __init__(self, hidden_ND: Tensor, weight_VD: Tensor, needs_hidden: bool, needs_weight: bool):
        self.hidden_ND, self.entries = hidden_ND, weight_VD.shape[0]
        self.head_WD = _compute_type(weight_VD, hidden_ND.dtype)
        self.grad_hidden = torch.empty_like(hidden_ND) if needs_hidden else None
        new = torch.empty_like if hidden_ND.shape[0] else torch.zeros_like  # the first chunk writes all of it
        self.grad_weight = new(weight_VD, dtype=torch.float32) if needs_weight else None

    def add(self, part: slice, grad_logits: Tensor) -> None:
        """Take in one chunk."""
        if self.grad_hidden is not None:
            torch.mm(grad_logits, self.head_WD, out=self.grad_hidden[part])
        if self.grad_weight is None:
            return
        grad_logits = grad_logits[:, : self.entries]
        for columns in _columns(grad_logits):
            grad = grad_logits[:, columns].T @ self.hidden_ND[part]
            if part.start:
                self.grad_weight[columns] += grad
            else:
                self.grad_weight[columns] = grad


class _LinearCrossEntropy(torch.autograd.Function):
    """Sum over rows; both gradients are made in the forward pass, in fp32 for the weight."""

    @staticmethod
    def forward(
        ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, tied: TiedGradient | None, z_loss: float
    ) -> Tensor:
        needs_hidden, needs_weight = ctx.needs_input_grad[:2]
        total = torch.zeros((), dtype=torch.float32, device=hidden_ND.device)
        with torch.autocast(hidden_ND.device.type, enabled=False):
            head = _Head(hidden_ND, weight_VD, needs_hidden, needs_weight)
            for part, logits in _chunks(hidden_ND, head.head_WD, head.entries):
                total -= _target_logits(hidden_ND[part], head.head_WD, targets_N[part]).sum()
                total += _softmax_step(logits, targets_N[part], needs_hidden or needs_weight, z_loss)
                if needs_hidden or needs_weight:
                    head.add(part, logits)
        ctx.grads, ctx.weight_dtype, ctx.tied = (head.grad_hidden, head.grad_weight), weight_VD.dtype, tied
        return total

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.grads is None:
            raise RuntimeError(
                "linear_cross_entropy: its gradients were handed out already; run the forward pass again"
            )
        (grad_hidden, grad_weight), ctx.grads = ctx.grads, None  # whoever gets them may write into them
        scale = grad_outputs[0]
        if grad_hidden is not None:
            grad_hidden = grad_hidden.mul_(scale)
        if grad_weight is not None:
            grad_weight = grad_weight.mul_(scale).to(ctx.weight_dtype)
        if ctx.tied is not None:
            ctx.tied.grad, grad_weight = grad_weight, None
        return grad_hidden, grad_weight, None, None, None


class _TiedEmbedding(torch.autograd.Function):
    """Rows of the matrix; their gradients go into the head's."""

    @staticmethod
    def forward(ctx: Any, ids: Tensor, weight_VD: Tensor, tied: TiedGradient) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.tied, ctx.shape, ctx.dtype = tied, weight_VD.shape, weight_VD.dtype
        return F.embedding(ids, weight_VD)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[None, Tensor, None]:
        (ids,), grad = ctx.saved_tensors, grad_outputs[0]
        whole, ctx.tied.grad = ctx.tied.grad, None
        if whole is None:  # no loss came before: another function of the hidden states is derived
            whole = torch.zeros(ctx.shape, dtype=ctx.dtype, device=grad.device)
        return None, whole.index_add_(0, ids.flatten(), grad.flatten(0, -2).to(whole.dtype)), None


class _LinearLogProbs(torch.autograd.Function):
    """Log-probability of each row's target, and its statistics where wanted; keeps one number a row for backward."""

    @staticmethod
    def forward(
        ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, tied: TiedGradient | None, statistics: bool
    ) -> tuple[Tensor, ...]:
        normalisers_N = torch.empty(hidden_ND.shape[0], dtype=torch.float32, device=hidden_ND.device)
        found_N = torch.empty_like(normalisers_N)
        columns = [normalisers_N]
        if statistics:
            columns += [torch.empty_like(found_N), torch.empty_like(found_N), torch.empty_like(found_N).bool()]
        with torch.autocast(hidden_ND.device.type, enabled=False):
            entries = weight_VD.shape[0]
            head_WD = _compute_type(weight_VD, hidden_ND.dtype)
            for part, logits in _chunks(hidden_ND, head_WD, entries):
                for block in _blocks(logits):
                    values = (
                        _statistics(logits[block, :entries], targets_N[part][block])
                        if statistics
                        else (logits[block].float().logsumexp(-1),)
                    )
                    for column_N, value in zip(columns, values, strict=True):
                        column_N[part][block] = value
                found_N[part] = _target_logits(hidden_ND[part], head_WD, targets_N[part])
        ctx.save_for_backward(hidden_ND, weight_VD, targets_N, normalisers_N)
        ctx.tied = tied
        ctx.mark_non_differentiable(*columns[1:])
        return found_N - normalisers_N, *columns[1:]

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        hidden_ND, weight_VD, targets_N, normalisers_N = ctx.saved_tensors
        grad_N = grad_outputs[0]
        with torch.autocast(hidden_ND.device.type, enabled=False):
            head = _Head(hidden_ND, weight_VD, *ctx.needs_input_grad[:2])
            for part, logits in _chunks(hidden_ND, head.head_WD, head.entries):
                for block in _blocks(logits):
                    grad = grad_N[part][block, None]
                    step = (logits[block].float() - normalisers_N[part][block, None]).exp_().mul_(-grad)
                    logits[block] = step.scatter_add_(1, targets_N[part][block, None], grad)
                head.add(part, logits)
        grad_weight = None if head.grad_weight is None else head.grad_weight.to(weight_VD.dtype)
        if ctx.tied is not None:
            ctx.tied.grad, grad_weight = grad_weight, None
        return head.grad_hidden, grad_weight, None, None, None


def _statistics(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Each row's normaliser, entropy and mean in fp32, and whether its target is the likeliest."""
    logits = logits.float()
    most, likeliest = logits.max(-1, keepdim=True)
    weights = (logits - most).exp_()
    total = weights.sum(-1)
    normaliser = most[:, 0] + total.log()
    entropy = normaliser - weights.mul_(logits).sum(-1) / total
    return normaliser, entropy, logits.mean(-1), likeliest[:, 0] == targets


def _target_logits(hidden_ND: Tensor, head_WD: Tensor, targets_N: Tensor) -> Tensor:
    """The targets' logits (N,) in fp32: of a row's logits this one is not averaged, so bf16's rounding would show."""
    return (hidden_ND.float() * head_WD[targets_N].float()).sum(-1)


def _softmax_step(logits: Tensor, targets: Tensor, gradient: bool, z_loss: float) -> Tensor:
    """Sum of the rows' normalisers; leaves softmax minus one-hot in `logits` where `gradient` is asked for.

    The gradient of c log^2 Z is 2 c log Z times the softmax.
    """
    total = torch.zeros((), dtype=torch.float32, device=logits.device)
    for block in _blocks(logits):
        wanted = targets[block, None]
        log_probs = F.log_softmax(logits[block], dim=-1, dtype=torch.float32)
        normalisers_N1 = logits[block].gather(1, wanted) - log_probs.gather(1, wanted)
        total += normalisers_N1.sum()
        if gradient:
            log_probs.exp_()
            if z_loss:
                log_probs.mul_(1 + 2 * z_loss * normalisers_N1)
            log_probs.scatter_add_(1, wanted, torch.full_like(wanted, -1, dtype=torch.float32))
            logits[block] = log_probs
    return total
