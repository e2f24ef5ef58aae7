"""Random states of a run's processes: what a checkpoint has of them, and new ones where their number has changed."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch


def kept_states(checkpoint: Path) -> int:
    """Of how many processes a checkpoint has the random state."""
    return 1 if (checkpoint / "rng_state.pth").is_file() else len(list(checkpoint.glob("rng_state_*.pth")))


def seed_process(seed: int, step: int, rank: int) -> None:
    """Seed Python's, numpy's and torch's generators: no two processes and no two starts draw the same numbers.

    Args:
        seed: the recipe's.
        step: optimizer steps done.
        rank: the process' number.
    """
    words = np.random.SeedSequence((seed, step, rank)).generate_state(3)
    random.seed(int(words[0]))
    np.random.seed(words[1])
    torch.manual_seed(int(words[2]))
