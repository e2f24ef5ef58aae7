"""How several processes share a training run: each has the whole model, or all have a part of it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from buddygpt.recipe.base import Section


class DDP(Section):
    """Distributed data parallel: each device has the whole model, its gradients and its moments."""

    kind: Literal["ddp"]
    """Each device has the whole model."""


class FSDP(Section):
    """Fully sharded data parallel (torch's FSDP2): weights, gradients and moments are split over the devices."""

    kind: Literal["fsdp"]
    """Each device has a part of every layer."""
    reshard_after_forward: bool = True
    """A layer's gathered weights are dropped after its forward pass and gathered again for the backward pass; `false`
    keeps them: more memory, less traffic."""


Parallel = Annotated[DDP | FSDP, Field(discriminator="kind")]
