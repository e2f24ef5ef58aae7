"""How the next token is drawn: temperature, top-p, and random numbers of our own.

Shapes: B rows, N steps, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

SHORTLIST = 512
"""Tokens among which the likeliest are looked for before all are sorted: 0.3 ms in place of 10 on a CPU."""


@dataclass(frozen=True)
class Sampling:
    """How a reply is drawn.

    Args:
        max_new_tokens: most tokens of one reply.
        temperature: 0 takes the likeliest token always.
        top_p: share of the probability mass that is drawn from.
        seed: makes replies repeatable; None draws afresh.
    """

    max_new_tokens: int = 256
    temperature: float = 0.8
    top_p: float = 0.95
    seed: int | None = None


def choose(logits_BV: Tensor, sampling: Sampling, draws_B: Tensor) -> Tensor:
    """One id a row: the likeliest at temperature 0, else drawn from the top-p set (arXiv 1904.09751, section 3.1).

    Args:
        draws_B: numbers from [0, 1), which decide; the same number gives the same id on any device.
    """
    if sampling.temperature == 0:
        return logits_BV.max(-1).indices  # a quarter of the time of argmax on a CPU
    probabilities_BV = ((logits_BV - logits_BV.amax(-1, keepdim=True)).float() / sampling.temperature).softmax(-1)
    if sampling.top_p < 1:
        kept_BV, ids_BV = probabilities_BV.topk(min(SHORTLIST, probabilities_BV.shape[-1]))
        if bool((kept_BV.sum(-1) < sampling.top_p).any()):
            kept_BV, ids_BV = probabilities_BV.sort(-1, descending=True)
        return draw(kept_BV, ids_BV, sampling.top_p, draws_B)
    return _place(probabilities_BV, draws_B)[:, 0]


def draw(kept_BK: Tensor, ids_BK: Tensor, top_p: float, draws_B: Tensor) -> Tensor:
    """One id a row from the top-p set.

    Args:
        kept_BK: probabilities among all tokens, the largest first, at least `top_p` together.
        ids_BK: whose they are.
    """
    before_BK = kept_BK.cumsum(-1) - kept_BK
    before_BK[:, 0] = -1.0  # the likeliest stays whatever top_p is
    return ids_BK.gather(-1, _place(kept_BK.masked_fill(before_BK >= top_p, 0.0), draws_B))[:, 0]


def _place(shares_BK: Tensor, draws_B: Tensor) -> Tensor:
    """Where (B, 1) the numbers fall when the shares lie end to end."""
    sums_BK = shares_BK.double().cumsum(-1)
    return torch.searchsorted(sums_BK, draws_B.to(sums_BK)[:, None] * sums_BK[:, -1:], right=True)


def draws(rows: int, sampling: Sampling) -> Tensor:
    """Numbers from [0, 1) for each row and step, from a generator of our own on the CPU."""
    generator = torch.Generator()
    if sampling.seed is None:
        generator.seed()
    else:
        generator.manual_seed(sampling.seed)
    return torch.rand(rows, sampling.max_new_tokens, generator=generator, dtype=torch.double)
