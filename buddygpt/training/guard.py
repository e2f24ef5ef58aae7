"""The guard: a step that would harm the weights is not taken, and a run that cannot get past some text goes around it.

A step is judged before it is taken, by its loss and its gradient norm, which are the same numbers in every process.
What is skipped changes neither weights nor moments. After several in a row `Rewind` is raised: the stage reloads the
newest checkpoint and goes on without the samples of those steps.

The rule is that of OLMo-core's SkipStepOptimizer, mean and standard deviation of the steps before; it only skips.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np

from buddygpt.recipe.guard import GuardSection

LEAST_DEVIATION = 0.01
"""Of the mean: where all steps are alike, as in a run that has learned its text by heart, a ripple is no spike."""


class Rewind(Exception):
    """Raised in a training step: the run must go back to its newest checkpoint.

    Args:
        steps: those that were skipped in a row, counted from 1.
        verdict: on the last of them.
    """

    def __init__(self, steps: list[int], verdict: Verdict):
        self.steps, self.reason, self.finite = steps, verdict.reason, verdict.finite
        super().__init__(f"{told_steps(steps)} skipped: {verdict.reason}")


@dataclass(frozen=True)
class Verdict:
    """Why a step is skipped.

    Args:
        reason: in words.
        finite: whether loss and gradient norm are numbers.
    """

    reason: str
    finite: bool


class Guard:
    """Judges the steps of one run.

    `figures` holds `skipped`, the reason, after a step that was skipped, and nothing after any other.

    Args:
        section: the recipe's.
    """

    def __init__(self, section: GuardSection):
        self.section = section
        self.figures: dict[str, str] = {}
        self.rewound = 0
        self._row: list[int] = []
        self._losses: deque[float] = deque(maxlen=section.window)
        self._norms: deque[float] = deque(maxlen=section.window)

    def judge(self, step: int, loss: float, norm: float) -> Verdict | None:
        """Whether step `step` (from 1) is to be skipped, and why; None where it is good.

        Args:
            step: of the run.
            loss: mean of the step's tokens, over all processes.
            norm: of the gradients before they are clipped.
        """
        verdict = self._verdict(loss, norm)
        self.figures.clear()
        if verdict is None:
            self._row.clear()
            self._losses.append(loss)
            self._norms.append(norm)
        else:
            self.figures["skipped"] = verdict.reason
            self._row.append(step)
        return verdict

    def lose_patience(self, verdict: Verdict) -> None:
        """See whether too many steps in a row were skipped.

        Raises:
            Rewind: so it is.
        """
        if len(self._row) >= self.section.patience:
            raise Rewind(list(self._row), verdict)

    def state(self) -> dict[str, Any]:
        """What a run that goes on needs, as plain data."""
        return {
            "losses": list(self._losses),
            "norms": list(self._norms),
            "skipped_in_a_row": self._row,
            "rewound": self.rewound,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Take back what `state` gave. How often the run went back is counted over its whole life."""
        self._losses = deque(state["losses"], maxlen=self.section.window)
        self._norms = deque(state["norms"], maxlen=self.section.window)
        self._row = list(state["skipped_in_a_row"]) if state["rewound"] >= self.rewound else []  # it went back since
        self.rewound = max(self.rewound, state["rewound"])

    def _verdict(self, loss: float, norm: float) -> Verdict | None:
        told = [("loss", loss, self._losses), ("gradient norm", norm, self._norms)]
        for name, value, _ in told:
            if not math.isfinite(value):
                return Verdict(f"{name} is {value}", False)
        if self.section.deviations is None or self.rewound > self.section.rewinds:
            return None
        for name, value, before in told:
            if len(before) == self.section.window:
                mean = float(np.mean(before))
                deviation = max(float(np.std(before)), LEAST_DEVIATION * abs(mean))
                if value > mean + self.section.deviations * deviation:
                    return Verdict(f"{name} {value:.4g} after {mean:.4g} ± {deviation:.2g}", True)
        return None


def told_steps(steps: list[int]) -> str:
    """Steps in words: `step 7` or `steps 7 to 9`."""
    return f"step {steps[0]}" if len(steps) == 1 else f"steps {steps[0]} to {steps[-1]}"
