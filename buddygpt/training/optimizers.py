"""AdamW, or Muon for the hidden matrices with AdamW for the rest, from the recipe's section."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any

import torch
from torch import nn

from buddygpt.recipe.training import AdamW, Muon


def build_optimizer(model: nn.Module, section: AdamW | Muon) -> torch.optim.Optimizer:
    """The recipe's optimizer over `model`'s parameters, each listed once.

    Only matrices decay; the embedding (and the head tied to it), norms and biases do not.
    """
    hidden, embeddings, vectors = parameter_groups(model)
    betas = (section.betas[0], section.betas[1])
    if section.kind == "adamw":
        groups = [
            {"params": hidden, "weight_decay": section.weight_decay},
            {"params": embeddings + vectors, "weight_decay": 0.0},
        ]
        return _adamw([g for g in groups if g["params"]], lr=section.learning_rate, betas=betas, eps=section.eps)
    muon = torch.optim.Muon(
        hidden, lr=section.learning_rate, momentum=section.momentum, weight_decay=section.weight_decay, nesterov=True,
        adjust_lr_fn="match_rms_adamw",
    )  # fmt: skip
    if not embeddings + vectors:  # LoRA: only matrices learn
        return muon
    tables = [{"params": embeddings + vectors, "weight_decay": 0.0}]
    adamw = _adamw(tables, lr=section.adamw_learning_rate or section.learning_rate, betas=betas, eps=section.eps)
    return OptimizerPair(muon, adamw)


FUSED = ("cpu", "cuda", "mps", "xpu")
"""Devices on which torch steps AdamW in one pass: on two CPU cores four times as fast as its loop over tensors, and
without that loop's copies, which are as large as the largest tensor (0.9 GB for Qwen3's vocabulary at width 768)."""


def _adamw(groups: list[dict[str, Any]], **settings: Any) -> torch.optim.AdamW:
    devices = {p.device.type for group in groups for p in group["params"]}
    return torch.optim.AdamW(groups, fused=True if devices.issubset(FUSED) else None, **settings)


def parameter_groups(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter], list[nn.Parameter]]:
    """Hidden matrices, embedding matrices (an untied head among them), and vectors; of those that learn."""
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    head = getattr(model, "lm_head", None)
    if head is not None:
        tables.add(id(head.weight))
    hidden: list[nn.Parameter] = []
    embeddings: list[nn.Parameter] = []
    vectors: list[nn.Parameter] = []
    for parameter in (p for p in model.parameters() if p.requires_grad):
        group = embeddings if id(parameter) in tables else hidden if parameter.ndim >= 2 else vectors
        group.append(parameter)
    return hidden, embeddings, vectors


class OptimizerPair(torch.optim.Optimizer):
    """Two optimizers over different parameters that look like one to a scheduler and a trainer.

    The parameter groups are the very dictionaries of the two, so that a learning rate set here is set there.
    """

    def __init__(self, first: torch.optim.Optimizer, second: torch.optim.Optimizer):
        self.pair = (first, second)
        super().__init__([*first.param_groups, *second.param_groups], {})
        self._share()

    def _share(self) -> None:
        self.param_groups = [group for optimizer in self.pair for group in optimizer.param_groups]
        self.state = {key: value for optimizer in self.pair for key, value in optimizer.state.items()}  # type: ignore

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Keep the group as it is: it has its own optimizer's settings already."""
        self.param_groups.append(param_group)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step of both."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for optimizer in self.pair:
            optimizer.step()
        self._share()  # the first step makes states
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take back what `state_dict` gave: groups and parameters of the one after those of the other."""
        groups = iter(state_dict["param_groups"])
        for optimizer in self.pair:
            own = list(islice(groups, len(optimizer.param_groups)))
            numbers = {number for group in own for number in group["params"]}
            states = {number: state for number, state in state_dict["state"].items() if number in numbers}
            optimizer.load_state_dict({"state": states, "param_groups": own})
        self._share()
