"""The `guard` section of a training run."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from buddygpt.recipe.base import Count, Positive, PositiveNumber, Section


class GuardSection(Section):
    """What happens at a step whose loss or gradient norm is not finite, or far above those before it.

    The step is skipped: weights and moments stay as they are, its text is written down. After several in a row the run
    goes back to its newest checkpoint and passes over the windows of those steps.
    """

    deviations: PositiveNumber | None = 6.0
    """A step is skipped where its loss or gradient norm is so many standard deviations above the mean of the steps
    before it, a hundredth of that mean being the least that counts as one; null: only where it is not finite."""
    window: Annotated[Count, Field(ge=8)] = 128
    """Steps before it that are looked at; no step is called a spike before there are so many."""
    patience: Positive = 3
    """Steps skipped in a row after which the run goes back."""
    rewinds: Annotated[Count, Field(ge=0)] = 3
    """How often it goes back; then it stops where numbers are not finite, and lets spikes pass."""
