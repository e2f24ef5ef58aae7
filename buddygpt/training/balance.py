"""Even load of a mixture's experts: the rule that moves the selection bias, and what is told of the load.

Shapes: L layers with experts, E experts.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from buddygpt.model.moe import MoEGate


class Balance(TrainerCallback):
    """Moves the selection biases once in an optimizer step; does nothing to a model without experts.

    `figures` holds, after a step, one number a layer: `max_violation`, the fullest expert's load over the mean load,
    less 1 (arXiv 2408.15664, section 4.1; 0 where all are even), and `idle_experts`, the share without a token.
    """

    def __init__(self) -> None:
        self.figures: dict[str, list[float]] = {}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        """Counts of an earlier training that broke off are not of this one."""
        for gate in gates(model):
            gate.tokens_per_expert = None

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        """The step's counts into biases and figures."""
        tokens_LE = take_counts(model)
        if tokens_LE is None:
            return
        move_biases(model, tokens_LE, model.config.router_bias_update_rate)
        self.figures |= load_figures(tokens_LE)


def gates(model: nn.Module) -> list[MoEGate]:
    """The routers, layer by layer."""
    return [module for module in model.modules() if isinstance(module, MoEGate)]


def take_counts(model: nn.Module) -> Tensor | None:
    """The counters (L, E), summed over all processes, set back to nothing; None for a model without experts."""
    found = gates(model)
    if not found:
        return None
    counts = []
    for gate in found:
        none = torch.zeros_like(gate.e_score_correction_bias, dtype=torch.int64)
        counts.append(none if gate.tokens_per_expert is None else gate.tokens_per_expert)
        gate.tokens_per_expert = None
    tokens_LE = torch.stack(counts)
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(tokens_LE)
    return tokens_LE


@torch.no_grad()
def move_biases(model: nn.Module, tokens_LE: Tensor, rate: float) -> None:
    """`bias += rate x sign(mean load - load)` (arXiv 2408.15664, algorithm 1); no tokens, no move."""
    signs_LE = torch.sign(tokens_LE.sum(-1, keepdim=True) - tokens_LE.shape[-1] * tokens_LE)  # exact: whole numbers
    for gate, signs_E in zip(gates(model), signs_LE, strict=True):
        gate.e_score_correction_bias += rate * signs_E


def load_figures(tokens_LE: Tensor) -> dict[str, list[float]]:
    """`Balance.figures` of these counts; a layer that no token passed has 0 and 0."""
    tokens_LE = tokens_LE.cpu().double()
    mean_L = tokens_LE.mean(-1)
    passed_L = mean_L > 0
    violation_L = torch.where(passed_L, tokens_LE.amax(-1) / mean_L.clamp(min=1e-9) - 1, 0)
    idle_L = torch.where(passed_L, (tokens_LE == 0).double().mean(-1), 0)
    return {
        "max_violation": [round(v, 4) for v in violation_L.tolist()],
        "idle_experts": [round(v, 4) for v in idle_L.tolist()],
    }
