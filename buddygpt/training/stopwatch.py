"""Where the time of a training step goes."""

from __future__ import annotations

import time
from typing import Any

import torch


class Stopwatch:
    """Seconds by part; one part runs at a time, so that parts never overlap and never sum to more than the whole.

    On a CPU the host's clock is read. Other devices work behind the host: there each turn puts an event into the
    device's queue, and the events are read when the step is over. Putting one there waits for nothing, and by the time
    of reading the loss has been read from the device, so that reading them waits for nothing either.

    Args:
        device: where the work is done.
    """

    def __init__(self, device: torch.device):
        self._module = None if device.type == "cpu" else torch.get_device_module(device.type)
        self._marks: list[tuple[str | None, Any]] = []

    def begin(self, part: str) -> None:
        """A step begins with `part`; what one that broke off has left is forgotten."""
        self._marks.clear()
        self.turn(part)

    def turn(self, part: str | None) -> None:
        """From here on `part` runs; None: nothing that is told of."""
        if self._marks or part is not None:
            self._marks.append((part, self._now()))

    def take(self) -> dict[str, float]:
        """Seconds of each part since this was asked last; parts appear in the order of their first turn."""
        self.turn(None)
        seconds: dict[str, float] = {}
        if self._marks and self._module is not None:
            self._marks[-1][1].synchronize()
        for (part, start), (_, end) in zip(self._marks, self._marks[1:], strict=False):
            if part is not None:
                spent = end - start if self._module is None else start.elapsed_time(end) / 1000
                seconds[part] = seconds.get(part, 0.0) + spent
        self._marks.clear()
        return seconds

    def _now(self) -> Any:
        if self._module is None:
            return time.perf_counter()
        event = self._module.Event(enable_timing=True)
        event.record()
        return event
