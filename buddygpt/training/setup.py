"""What training runs on: device, processes, kernels, versions."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import buddygpt
from buddygpt.recipe.base import spell
from buddygpt.recipe.errors import BuddyError
from buddygpt.recipe.parallel import FSDP
from buddygpt.recipe.pretrain import PretrainSection
from buddygpt.recipe.training import TrainingSection
from buddygpt.training.launch import launched_processes

PATIENCE = timedelta(minutes=30)
"""How long a process waits for another one in a joint step: longer than process 0 may take to save, judge and sample.
A process that dies is seen by its launcher at once."""


@dataclass(frozen=True)
class Device:
    """Where training runs.

    Args:
        kind: torch's name: cuda (ROCm too), mps, npu, xpu, cpu.
        name: the hardware's own name.
        processes: over all machines.
    """

    kind: str
    name: str
    processes: int

    def __str__(self) -> str:
        count = f"{self.processes} x " if self.processes > 1 else ""
        return f"{count}{self.kind} ({self.name})"


def find_device() -> Device:
    """The device that accelerate chooses, by its own rules and environment, once all processes have met.

    Raises:
        BuddyError: not every process gets a device of its own, or they do not come together.
    """
    from accelerate import PartialState

    for name in ("ACCELERATE_MIXED_PRECISION", "ACCELERATE_DYNAMO_BACKEND"):
        os.environ.pop(name, None)  # of accelerate's configuration; here the recipe says
    several = launched_processes() > 1
    check_devices(int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    try:
        if several and not torch.accelerator.is_available():
            state = PartialState(cpu=True, backend="gloo", timeout=PATIENCE)
        else:
            state = PartialState(**({"timeout": PATIENCE} if several else {}))
    except torch.distributed.DistError as error:
        place = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise BuddyError(
            f"{place}: the {launched_processes()} processes do not meet there ({' '.join(str(error).split())[:160]}); "
            "see that all are started and that the port is free (MASTER_PORT names it)"
        ) from error
    if state.num_processes != launched_processes():
        raise BuddyError(
            f"{launched_processes()} processes were started, but accelerate joins {state.num_processes} on "
            f"{state.device.type}; start one, or use torchrun on a device that torch.distributed knows"
        )
    kind = state.device.type
    if kind == "cpu":
        name = f"{platform.machine()}, {torch.get_num_threads()} threads"
    elif kind == "mps":
        name = "Apple GPU"
    else:
        name = torch.get_device_module(kind).get_device_name(state.device)
    return Device(kind, name, state.num_processes)


def check_devices(processes: int) -> None:
    """See that each process of this machine gets a device of its own; on a CPU they share it.

    Raises:
        BuddyError: there are fewer devices.
    """
    if processes == 1 or not torch.accelerator.is_available():
        return
    if (count := torch.accelerator.device_count()) < processes:
        raise BuddyError(
            f"{processes} processes need {processes} devices, one each; this machine shows {count} "
            f"({torch.accelerator.current_accelerator()}); start at most {count} on it"
        )


def accumulation_steps(section: PretrainSection, processes: int) -> int:
    """Micro-batches that one process passes in an optimizer step.

    Raises:
        BuddyError: the batch does not divide among the processes.
    """
    at_once = section.sequence_length * section.micro_batch_size * processes
    if section.tokens_per_batch % at_once:
        raise BuddyError(
            f"pretrain.tokens_per_batch: {spell(section.tokens_per_batch)} does not divide by {processes} processes x "
            f"{section.micro_batch_size} windows x {section.sequence_length} tokens = {at_once:,}; change "
            "pretrain.micro_batch_size or the number of processes"
        )
    return section.tokens_per_batch // at_once


def check_precision(section: TrainingSection, device: Device, where: str = "pretrain") -> None:
    """See that the device computes in the recipe's type.

    Raises:
        BuddyError: it does not.
    """
    if section.precision == "fp16" and device.kind == "cpu":
        raise BuddyError(f"{where}.precision: fp16 needs a GPU; write bf16 or fp32 for a CPU")
    if (
        section.precision == "bf16"
        and device.kind == "cuda"
        and not torch.cuda.is_bf16_supported(including_emulation=False)
    ):
        raise BuddyError(f"{where}.precision: {device.name} has no bf16; write fp16 or fp32")


def check_parallel(section: TrainingSection, device: Device, where: str = "pretrain") -> None:
    """See that there are processes to split a model over, where the recipe splits it.

    Raises:
        BuddyError: there is one, or accelerate's configuration splits it and the recipe does not.
    """
    if isinstance(section.parallel, FSDP) and device.processes == 1:
        raise BuddyError(f"{where}.parallel: fsdp splits a model over several processes; start them with --processes N")
    if not isinstance(section.parallel, FSDP) and os.environ.get("ACCELERATE_USE_FSDP") == "true":
        raise BuddyError(f"{where}.parallel: accelerate's configuration asks for FSDP; write parallel: {{kind: fsdp}}")


def versions() -> dict[str, str]:
    """Versions that a result depends on, and the git revision where the package lies in a checkout."""
    names = ("torch", "transformers", "accelerate", "trl", "peft", "tokenizers", "datatrove")
    found = {"buddygpt": buddygpt.__version__, "python": platform.python_version()} | {n: version(n) for n in names}
    root = Path(buddygpt.__file__).parent.parent
    if (root / ".git").exists():
        revision = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
        )
        if revision.returncode == 0:
            found["git"] = revision.stdout.strip()
    return found


def surroundings(device: Device, made_with: Mapping[str, str]) -> dict[str, Any]:
    """What a run was made on, for its record: the device, how much memory it took at most, and versions.

    Args:
        device: where it ran.
        made_with: of `versions`, from the run's start.
    """
    return {**asdict(device), "peak_bytes": peak_bytes(device), "versions": dict(made_with)}


def peak_bytes(device: Device) -> int | None:
    """Most memory that this process has held on its device since it started; None where nobody counts."""
    if device.kind == "cpu":
        return resident_bytes()
    count = getattr(torch.get_device_module(device.kind), "max_memory_allocated", None)
    return None if count is None else int(count())


def resident_bytes() -> int:
    """Most memory that this process has held since its program began.

    Not `getrusage` where there is another way: there a child inherits the peak of its parent.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        return next(1024 * int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most  # kilobytes but there
