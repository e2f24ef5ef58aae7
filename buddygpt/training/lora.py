"""LoRA (arXiv 2106.09685) through peft: which layers get an update, and how updates become part of the weights."""

from __future__ import annotations

import re
from typing import Any

from peft import LoraConfig
from torch import nn
from transformers import PreTrainedModel

from buddygpt.recipe.lora import LoraSection

LAYERS = r".*\.(self_attn|mlp|shared_experts)\.(?!kv_up)\w+_proj"
"""Every linear layer that is called. The matrices of the routed experts and MLA's `kv_up_proj` are not among them: they
are read, for grouped and for absorbed products, and an update beside them would be passed over."""


def lora_config(section: LoraSection) -> LoraConfig:
    """peft's config: an update beside each of `LAYERS`, never beside the head."""
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=section.rank,
        lora_alpha=2 * section.rank if section.alpha is None else section.alpha,  # type: ignore[arg-type]
        lora_dropout=section.dropout,
        target_modules=LAYERS,
    )


def count_updates(model: nn.Module, section: LoraSection) -> int:
    """Parameters of all updates that the section adds to a model."""
    layers = (m for name, m in model.named_modules() if isinstance(m, nn.Linear) and re.fullmatch(LAYERS, name))
    return sum(section.rank * (layer.in_features + layer.out_features) for layer in layers)


def merged(model: Any) -> PreTrainedModel:
    """The model with its updates added to the weights, an ordinary one again; `model` is used up.

    Raises:
        ValueError: an update holds a number that is not finite.
    """
    return model.merge_and_unload(safe_merge=True).requires_grad_(True)
