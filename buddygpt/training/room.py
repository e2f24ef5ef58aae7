"""How much memory the device has, and the largest micro-batch that fits into it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from buddygpt.model.memory import Memory
from buddygpt.recipe.model import ModelSection, MoE
from buddygpt.training.setup import Device

GROUP = Path("/sys/fs/cgroup")
"""Where Linux tells a container what it may take."""
CONTEXT_BYTES = 600 * 2**20
"""What a GPU's own context takes beside all that torch allocates: kernels, the driver's own."""
WORKSPACE_BYTES = 2 * 32 * 2**20
"""What the matrix library takes on a GPU and torch counts as allocated: a workspace of the forward pass and one of the
backward pass, 32 MB each since Hopper, 8 MB before."""
SLACK = 0.1
"""Of what torch allocates on a GPU, so much comes on top: its caching allocator's blocks are larger than what lies in
them."""
LIBRARY_BYTES = 670_000_000
"""What a process that trains on a CPU holds without a model: Python and all libraries, their kernels' own buffers."""
ENTRY_BYTES = 900
"""Of main memory that a tokenizer takes for an entry."""
HOLES, MOST_HOLES = 0.9, 500_000_000
"""Of activations on a CPU, so much comes on top, up to so many bytes: the C library keeps blocks below 32 MB that are
free, and the next step, whose documents are of other lengths, does not fit into all of them."""
KERNEL_BYTES = 900_000_000
"""On a CPU experts get another number of tokens each time, and oneDNN keeps a kernel of its own for each shape of a
bf16 product, 1,024 of them at most. Measured: 0.9 to 1 GB after 12 steps of 0.7b-moe cut to 4 layers."""


@dataclass(frozen=True)
class Room:
    """Memory of one device.

    Args:
        free: bytes that nobody uses now.
        total: bytes.
    """

    free: int
    total: int


def find_room(device: Device) -> Room | None:
    """Memory of the device that training takes; None where nobody says (MPS shares it with everything)."""
    if device.kind == "cpu":
        return _main_memory()
    count = getattr(torch.get_device_module(device.kind), "mem_get_info", None)
    return None if count is None else Room(*count())


def _main_memory() -> Room:
    """Of the machine, or of the container where that has less (cgroup v2)."""
    memory = psutil.virtual_memory()
    free, total = memory.available, memory.total
    try:
        most = int((GROUP / "memory.max").read_text("ascii"))
        used = int((GROUP / "memory.current").read_text("ascii"))
        files = next(
            int(line.split()[1])
            for line in (GROUP / "memory.stat").read_text("ascii").splitlines()
            if line.startswith("inactive_file ")
        )
    except (OSError, ValueError, StopIteration):  # no such group, or "max": no limit
        return Room(free, total)
    return Room(min(free, most - used + files), min(total, most))


def needed(memory: Memory, model: ModelSection, kind: str, precision: str = "bf16") -> int:
    """Bytes of a device that training takes: its peak, and what lies beside that on a GPU.

    Args:
        memory: of the tensors.
        model: geometry.
        kind: torch's name of the device's kind.
        precision: the compute type.
    """
    peak = expected_peak(memory, model, kind, precision)
    return peak if kind == "cpu" else int(peak * (1 + SLACK)) + CONTEXT_BYTES


def expected_peak(memory: Memory, model: ModelSection, kind: str, precision: str = "bf16") -> int:
    """What a run will tell as its peak: of a GPU all that torch has allocated, of a CPU all that the process holds.

    Args:
        memory: of the tensors.
        model: geometry.
        kind: torch's name of the device's kind.
        precision: the compute type.
    """
    if kind != "cpu":
        return memory.total + WORKSPACE_BYTES
    kernels = KERNEL_BYTES if isinstance(model.mlp, MoE) and precision == "bf16" else 0
    beside = LIBRARY_BYTES + ENTRY_BYTES * model.vocab_size + kernels
    return memory.total + beside + min(int(HOLES * memory.activations), MOST_HOLES)


def divisors(number: int) -> list[int]:
    """All of them, rising."""
    small = [n for n in range(1, int(number**0.5) + 1) if number % n == 0]
    return sorted({*small, *(number // n for n in small)})


def largest_micro_batch(choices: Sequence[int], need: Callable[[int], int], room: int) -> int | None:
    """The largest of `choices` whose need fits into `room`; None where not even the smallest does.

    Args:
        choices: rising.
        need: bytes that each takes; grows with it.
        room: bytes.
    """
    fitting = None
    for choice in choices:
        if need(choice) > room:
            break
        fitting = choice
    return fitting
