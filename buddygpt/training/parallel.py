"""How several processes share a model while it trains, and how it becomes an ordinary one again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import DistributedType, PartialState
from accelerate.state import AcceleratorState
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy

from buddygpt.model import BuddyGPTForCausalLM
from buddygpt.recipe.parallel import FSDP
from buddygpt.recipe.training import TrainingSection
from buddygpt.training.launch import rank


def parallel_options(section: TrainingSection) -> dict[str, Any]:
    """Arguments of a Trainer that follow from the recipe's `parallel`."""
    if not isinstance(section.parallel, FSDP):
        return {"ddp_find_unused_parameters": False}  # every one takes part in every step, idle experts too
    settings = {"reshard_after_forward": section.parallel.reshard_after_forward, "state_dict_type": "FULL_STATE_DICT"}
    return {"fsdp": True, "fsdp_config": {"version": 2, **settings}}


@contextmanager
def splitting(section: TrainingSection) -> Iterator[None]:
    """Inside, an Accelerator is made that splits a model as the recipe says, over CPUs too.

    By itself accelerate would quietly give each CPU process all of it. TrainingArguments have reset its state before.
    """
    state = PartialState()
    if isinstance(section.parallel, FSDP) and state.distributed_type == DistributedType.MULTI_CPU:
        state.distributed_type = DistributedType.MULTI_GPU
    yield
    plugin = getattr(AcceleratorState(), "fsdp_plugin", None)
    if plugin is not None and section.precision != "fp32":
        # Weights travel in the compute type, gradients are summed in fp32; positions must not be rounded.
        kind = torch.bfloat16 if section.precision == "bf16" else torch.float16
        plugin.mixed_precision_policy = MixedPrecisionPolicy(kind, torch.float32, cast_forward_inputs=False)


def whole(model: Any) -> Any:
    """A model as an ordinary one: itself, or of one that is split a copy in process 0 and None in the others.

    All processes must call it.
    """
    if not isinstance(model, FSDPModule):
        return model
    weights = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    if rank() > 0:
        return None
    copy = BuddyGPTForCausalLM(model.config)
    copy.load_state_dict(weights)
    copy.generation_config = model.generation_config
    return copy.to(PartialState().device)
