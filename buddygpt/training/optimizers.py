"""AdamW, or Muon for the hidden matrices with AdamW for the rest, from the recipe's section."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from buddygpt.model.memory import TOGETHER
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
    muon = MuonTogether(
        hidden, lr=section.learning_rate, momentum=section.momentum, weight_decay=section.weight_decay, nesterov=True,
        adjust_lr_fn="match_rms_adamw",
    )  # fmt: skip
    if not embeddings + vectors:  # LoRA: only matrices learn
        return muon
    tables = [{"params": embeddings + vectors, "weight_decay": 0.0}]
    adamw = _adamw(tables, lr=section.adamw_learning_rate or section.learning_rate, betas=betas, eps=section.eps)
    return OptimizerPair(muon, adamw)


class MuonTogether(torch.optim.Muon):
    """torch's Muon, which on a GPU takes matrices of one shape together.

    torch orthogonalises them one after the other, some thirty kernels each: starting those of a thousand experts takes
    longer than running them. On a CPU, and where a matrix is split over devices, the step is torch's own.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step; its state is that of torch's."""
        if any(_alone(p) for group in self.param_groups for p in group["params"]):
            return super().step(closure)
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            moving: list[Tensor] = []
            self._init_group(group, moving, [], [])  # those with a gradient; makes their moments
            for some in _of_one_shape(moving):
                self._move(group, some)
        return loss

    def _move(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        """Algorithm 1 of arXiv 2502.16982 with Nesterov's momentum, over matrices of one shape."""
        rate, momentum = group["lr"], group["momentum"]
        grads, buffers = [p.grad for p in parameters], [self.state[p]["momentum_buffer"] for p in parameters]
        torch._foreach_lerp_(buffers, grads, 1 - momentum)
        stack_KAB = parameters[0].new_empty(len(parameters), *parameters[0].shape, dtype=torch.bfloat16)
        torch._foreach_copy_(stack_KAB.unbind(), torch._foreach_lerp(grads, buffers, momentum))
        steps_KAB = orthogonal(stack_KAB, group["ns_coefficients"], group["ns_steps"], group["eps"])
        steps = steps_KAB.to(parameters[0].dtype, memory_format=torch.contiguous_format).unbind()
        torch._foreach_mul_(parameters, 1 - rate * group["weight_decay"])
        torch._foreach_add_(parameters, steps, alpha=-rate * 0.2 * max(parameters[0].shape) ** 0.5)


def orthogonal(x_KAB: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> Tensor:
    """Newton-Schulz over each of K matrices by itself, in bf16: all singular values come near 1.

    The quintic iteration of Muon's first author, https://kellerjordan.github.io/posts/muon.
    """
    a, b, c = coefficients
    tall = x_KAB.shape[1] > x_KAB.shape[2]
    x = x_KAB.mT if tall else x_KAB
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


def _alone(parameter: Tensor) -> bool:
    return parameter.device.type == "cpu" or isinstance(parameter, DTensor)


def _of_one_shape(parameters: list[Tensor]) -> Iterator[list[Tensor]]:
    """Parameters of one shape, as many at once as `TOGETHER` allows."""
    shapes: dict[torch.Size, list[Tensor]] = {}
    for parameter in parameters:
        shapes.setdefault(parameter.shape, []).append(parameter)
    for shape, members in shapes.items():
        most = max(1, TOGETHER // shape.numel())
        yield from (members[start : start + most] for start in range(0, len(members), most))


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
