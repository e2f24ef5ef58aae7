"""torch.compile in training: what it needs, and the warm-up that keeps its time out of the first step."""

from __future__ import annotations

import os
import shutil
import sys
import time
from contextlib import AbstractContextManager
from importlib.util import find_spec
from typing import Any

import torch

from buddygpt.events import Emit, Note
from buddygpt.model.compiled import compile_layers
from buddygpt.recipe.errors import BuddyError
from buddygpt.recipe.pretrain import PretrainSection
from buddygpt.recipe.training import TrainingSection
from buddygpt.training.balance import gates
from buddygpt.training.setup import Device

INPUTS = ("input_ids", "attention_mask", "position_ids", "document_ids")
"""What a batch tells the decoder."""


def check_compile(section: TrainingSection, device: Device, where: str = "pretrain") -> None:
    """See that what the compiler calls is there.

    Raises:
        BuddyError: it is not.
    """
    if not section.compile:
        return
    off = f"install it, or set {where}.compile to false"
    if device.kind == "cuda":
        if find_spec("triton") is None:
            raise BuddyError(
                f"{where}.compile: torch.compile writes Triton kernels, and triton is not installed; {off}"
            )
        names = [os.environ.get("CC") or "gcc", "clang"]
    else:
        names = [os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")]
    if not any(map(shutil.which, names)):
        raise BuddyError(
            f"{where}.compile: torch.compile needs a compiler, and there is no {' or '.join(names)}; {off}"
        )


def warm_up(trainer: Any, where: str, emit: Emit, backend: Any = "inductor") -> None:
    """Compile the layers of a trainer's model on its first batch, and tell how long that took.

    Weights, gradients, random state and the experts' counts are left as they were.

    Args:
        trainer: with a `section`.
        where: the recipe's section.
        emit: who is told.
        backend: of torch.compile.

    Raises:
        BuddyError: it cannot be compiled here.
    """
    section, model, data = trainer.section, trainer.model, trainer.train_dataset
    compile_layers(model, dynamic=not isinstance(section, PretrainSection), backend=backend)
    if trainer.is_fsdp_enabled:
        emit(Note("layers are compiled in the first step"))  # they are not yet what they will be
        return
    batch = trainer.data_collator([data[i % len(data)] for i in range(section.micro_batch_size)])
    inputs = trainer._prepare_inputs({name: batch[name] for name in INPUTS if name in batch})
    training, begun = model.training, time.perf_counter()
    model.train()
    try:
        with _same_random(trainer.args.device):
            with trainer.accelerator.autocast():
                loss = model(**inputs, shift_labels=inputs["input_ids"], use_cache=False).loss
            loss.backward()
    except (torch._dynamo.exc.TorchDynamoException, torch._inductor.exc.InvalidCxxCompiler) as error:
        lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        reason = lines[1] if lines[0].endswith("raised:") and len(lines) > 1 else lines[0]
        raise BuddyError(f"{where}.compile: torch.compile cannot do it here ({reason}); set it to false") from error
    finally:
        model.train(training)
        model.zero_grad(set_to_none=True)
        for gate in gates(model):
            gate.tokens_per_expert = None
    emit(Note(f"layers compiled in {time.perf_counter() - begun:.0f} s"))


def _same_random(device: torch.device) -> AbstractContextManager[None]:
    """Inside, random numbers are drawn that outside were never drawn."""
    if device.type == "cpu":
        return torch.random.fork_rng([])
    return torch.random.fork_rng([device.index or 0], device_type=device.type)
