"""Learning-rate schedules as pure functions of the step: a factor on each group's peak rate."""

from __future__ import annotations

import math

from buddygpt.recipe.training import WSD, Cosine, Linear


def rate_factor(section: Cosine | Linear | WSD, step: int, steps: int) -> float:
    """The factor of optimizer step `step` (from 0) in a run of `steps`.

    Warm-up rises linearly and reaches 1 with its last step; the last step of the run has `min_ratio`.
    """
    warmup = math.ceil(section.warmup * steps)
    if step < warmup:
        return (step + 1) / warmup
    last = max(steps - 1, 1)
    if section.kind == "wsd":
        decay = math.ceil(section.decay * steps)
        left = min(1.0, max(steps - 1 - step, 0) / decay) if decay else 1.0
    else:
        progress = min(1.0, (step - warmup) / max(last - warmup, 1))
        left = 1 - progress if section.kind == "linear" else 0.5 * (1 + math.cos(math.pi * progress))
    return section.min_ratio + (1 - section.min_ratio) * left
