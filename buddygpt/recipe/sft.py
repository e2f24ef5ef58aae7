"""The `sft` section."""

from __future__ import annotations

from typing import Literal

from buddygpt.recipe.base import Positive, Section
from buddygpt.recipe.model import Factor
from buddygpt.recipe.tuning import TuningSection


class Extension(Section):
    """How a model's rotary positions reach further than it was trained for."""

    kind: Literal["linear", "ntk", "dynamic", "yarn", "llama3"] = "linear"
    """Scaling: linear (arXiv 2306.15595), NTK-aware, dynamic NTK, YaRN (all three arXiv 2309.00071), or Llama 3.1's."""
    factor: Factor | None = None
    """Longest context over the length before any scaling; as much as `sequence_length` needs where left out."""


class SFTSection(TuningSection):
    """One run of supervised fine-tuning; only answers are learned."""

    packing: bool = True
    """Several short talks share a window and do not see one another; without it each talk is a window of its own."""
    rope: Extension = Extension()
    """Scaling of rotary positions where `sequence_length` is more than the model's context."""
    eval_tokens: Positive = 200_000
    """Most held-out tokens of each source in one evaluation; always the same ones."""
