"""The head for one text on a CPU, read at a fraction of its size: an int8 copy tells which ids are likely.

A small model with a large vocabulary spends most of a step in reading the head, 466 of 636 MB for 0.1b in fp32. The
logits by the copy are near the true ones, by a bound that is known; an id is looked at exactly wherever the bound
leaves it a chance. What is chosen is what the whole head would choose, up to the last bit of a sum.
Shapes: V vocabulary, C channels, R rows quantised at once, K ids looked at.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from buddygpt.model.sampling import SHORTLIST, Sampling, choose, draw
from buddygpt.model.step import is_steppable

_LEVELS = 127
_ROWS = 8192
"""R: no fp32 copy of the whole head is made."""
_SMALLEST = 2**24
"""Numbers of a head below which there is little to gain."""
_MOST = 4096
"""Ids from which on the whole head is as fast."""


class Shortlist:
    """An int8 copy of a head, each row with a scale of its own; one byte for each of its numbers.

    Args:
        weight_VC: rows of the head that may be chosen, on the CPU.
    """

    def __init__(self, weight_VC: Tensor):
        self._weight_VC = weight_VC
        self._codes_VC = torch.empty(weight_VC.shape, dtype=torch.int8)
        self._scale_V = torch.empty(weight_VC.shape[0])
        self._longest = self._lost = 0.0  # lengths: of a row, of what rounding took from one
        for start in range(0, weight_VC.shape[0], _ROWS):
            rows = slice(start, start + _ROWS)
            part_RC = weight_VC[rows].float()
            scale_R = (part_RC.abs().amax(-1) / _LEVELS).clamp(min=1e-30)
            codes_RC = (part_RC / scale_R[:, None]).round()
            self._codes_VC[rows], self._scale_V[rows] = codes_RC.to(torch.int8), scale_R
            self._longest = max(self._longest, float(part_RC.norm(dim=-1).max()))
            self._lost = max(self._lost, float((part_RC - codes_RC * scale_R[:, None]).norm(dim=-1).max()))

    def choose(self, x_C: Tensor, sampling: Sampling, draws_1: Tensor) -> Tensor:
        """The id (1,) that `sampling.choose` takes from the logits of the hidden state `x_C`."""
        near_V, error = self._near(x_C.float())
        if sampling.temperature == 0:
            highest = float(near_V.max())
            # Logits of half precision that round to one value are a tie, of which the first is taken.
            rounding = 2 * torch.finfo(x_C.dtype).eps * (abs(highest) + error)
            ids_K = (near_V >= highest - 2 * error - rounding).nonzero()[:, 0]
            if len(ids_K) <= _MOST:
                return ids_K[torch.mv(self._weight_VC[ids_K], x_C).max(-1).indices][None]
        elif sampling.top_p < 1:
            ids_K = near_V.topk(min(SHORTLIST, len(near_V))).indices
            near_V[ids_K] = torch.mv(self._weight_VC[ids_K], x_C).float()
            kept_K, order_K = (near_V / sampling.temperature).softmax(-1)[ids_K].sort(descending=True)
            if float(kept_K.sum()) >= sampling.top_p:
                return draw(kept_K[None], ids_K[order_K][None], sampling.top_p, draws_1)
        return choose(torch.mv(self._weight_VC, x_C)[None], sampling, draws_1)

    def _near(self, x_C: Tensor) -> tuple[Tensor, float]:
        """Logits by the copy, and how far one may be from the true one: |lost . x| <= |lost| |x| (Cauchy-Schwarz).

        The state is split into a coarse and a fine part of eight bits each: two columns take no longer than one.
        """
        coarse = (x_C.abs().max() / _LEVELS).clamp(min=1e-30)
        fine = coarse / (2 * _LEVELS)
        high_C = (x_C / coarse).round()
        low_C = ((x_C - high_C * coarse) / fine).round()
        sums_V2 = torch.ops.aten._int_mm(self._codes_VC, torch.stack((high_C, low_C), dim=-1).to(torch.int8))
        near_V = torch.mv(sums_V2.float(), torch.stack((coarse, fine))).mul_(self._scale_V)
        left = (x_C - high_C * coarse - low_C * fine).norm()
        return near_V, float(self._lost * x_C.norm() + self._longest * left)


def make_shortlist(model: Any, vocabulary: int) -> Shortlist | None:
    """A shortlist of a model's head where it is faster on this machine than the head, which is tried; None elsewhere.

    Args:
        model: on its device, in eval mode. What is made of it is of the weights that it has now.
        vocabulary: rows of the head that may be chosen.
    """
    if not is_steppable(model) or model.lm_head.weight.numel() < _SMALLEST:
        return None
    with torch.no_grad():
        weight_VC = model.lm_head.weight.detach()[:vocabulary]
        shortlist = Shortlist(weight_VC)
        x_C, greedy, nothing = weight_VC[0], Sampling(temperature=0), torch.zeros(1)
        short = _seconds(lambda: shortlist.choose(x_C, greedy, nothing))
        whole = _seconds(lambda: torch.mv(weight_VC, x_C))
    return shortlist if short < whole else None


def _seconds(work: Callable[[], Tensor]) -> float:
    """The shortest of four runs."""
    taken = []
    for _ in range(4):
        begun = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begun)
    return min(taken)
