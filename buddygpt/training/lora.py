"""LoRA (arXiv 2106.09685) through peft: which layers get an update, and how updates become part of the weights."""

from __future__ import annotations

from typing import Any

from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import PreTrainedModel

from buddygpt.recipe.lora import LoraSection

LAYERS = r".*\.(self_attn|mlp|shared_experts)\.(?!kv_up)\w+_proj"
"""The modules of `updated_matrices`."""


def lora_config(section: LoraSection) -> LoraConfig:
    """peft's config: an update beside each of `LAYERS`, never beside the head."""
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=section.rank,
        lora_alpha=2 * section.rank if section.alpha is None else section.alpha,  # type: ignore[arg-type]
        lora_dropout=section.dropout,
        target_modules=LAYERS,
    )


def share_inputs(model: nn.Module) -> None:
    """Let an update read its layer's input in the compute type, as the layer does.

    peft turns it into the update's own fp32, which autocast turns back: another copy for each update is kept until the
    backward pass. The numbers are the same.
    """
    for module in model.modules():
        if isinstance(module, LoraLayer):
            module.cast_input_dtype_enabled = False


def merged(model: Any) -> PreTrainedModel:
    """The model with its updates added to the weights, an ordinary one again; `model` is used up.

    Raises:
        ValueError: an update holds a number that is not finite.
    """
    return model.merge_and_unload(safe_merge=True).requires_grad_(True)
