"""Where the time of a training step goes."""

from __future__ import annotations

import itertools
import time
from typing import Any

import torch


class Timeline:
    """Moments in the work of a device, and the seconds between two of them.

    On a CPU the host's clock is read. Other devices work behind the host: there a moment is an event in the device's
    queue, which the device comes to in its turn. Putting one there waits for nothing, so that the host runs as far
    ahead as it does where nobody measures.

    Args:
        device: where the work is done.
    """

    def __init__(self, device: torch.device):
        self._module = None if device.type == "cpu" else torch.get_device_module(device.type)

    def now(self) -> Any:
        """This moment."""
        if self._module is None:
            return time.perf_counter()
        event = self._module.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self, start: Any, end: Any) -> float:
        """From one moment to a later one; the device is waited for until it has come there."""
        if self._module is None:
            return end - start
        end.synchronize()
        return start.elapsed_time(end) / 1000


class Stopwatch:
    """Seconds by part; one part runs at a time, so that parts never overlap and never sum to more than the whole.

    Moments are read when the step is over: its loss has been read by then, and the device need not be waited for.

    Args:
        device: where the work is done.
    """

    def __init__(self, device: torch.device):
        self._timeline = Timeline(device)
        self._marks: list[tuple[str | None, Any]] = []

    def begin(self, part: str) -> None:
        """A step begins with `part`; what one that broke off has left is forgotten."""
        self._marks.clear()
        self.turn(part)

    def turn(self, part: str | None) -> None:
        """From here on `part` runs; None: nothing that is told of."""
        if self._marks or part is not None:
            self._marks.append((part, self._timeline.now()))

    def take(self) -> dict[str, float]:
        """Seconds of each part since this was asked last; parts appear in the order of their first turn."""
        self.turn(None)
        seconds: dict[str, float] = {}
        for (part, start), (_, end) in itertools.pairwise(self._marks):
            if part is not None:
                seconds[part] = seconds.get(part, 0.0) + self._timeline.seconds(start, end)
        self._marks.clear()
        return seconds
