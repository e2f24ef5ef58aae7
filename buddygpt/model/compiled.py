"""Layers through torch.compile, in training alone: what generates, evaluates and is saved stays as it was.

One function is compiled for all layers, which differ in their weights alone: a layer's compile time is the model's. Two
things in it are called as ever, since packed documents and the router's choice give them shapes that are always new:
attention's kernel, and experts that pass one after the other. The loss is outside. Nothing is wrapped: names of weights
stay theirs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from buddygpt.model.modeling import DecoderLayer


def compile_layers(model: nn.Module, *, dynamic: bool, backend: Any = "inductor") -> None:
    """Have the layers' training pass compiled at its first call.

    Args:
        model: ours, adapters or not.
        dynamic: batches have shapes of many kinds; else each new shape is compiled anew.
        backend: of torch.compile.
    """
    compiled = torch.compile(DecoderLayer.run, dynamic=dynamic, backend=backend)
    for module in model.modules():
        if isinstance(module, DecoderLayer):
            module.compiled = compiled
