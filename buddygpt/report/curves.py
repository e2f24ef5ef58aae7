"""Columns of metric rows as curves short enough to draw. Missing and non-finite values are NaN, and a NaN is a gap."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

POINTS = 600
"""Most points of a drawn curve: about one a pixel."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Series:
    """One figure over the course of training.

    Args:
        x: tokens seen.
        y: the figure; NaN where it is missing or not finite.
    """

    x: Array
    y: Array

    def __len__(self) -> int:
        return len(self.x)

    @property
    def finite(self) -> Array:
        """The values that are numbers."""
        return self.y[np.isfinite(self.y)]


def finite(value: Any) -> float:
    """`value` where it is a finite number, else NaN."""
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else math.nan


def column(rows: Iterable[Mapping[str, Any]], key: str) -> Series:
    """The rows that have `key`, as a series over their tokens."""
    pairs = [(row["tokens"], finite(row[key])) for row in rows if key in row and "tokens" in row]
    return Series(*np.array(pairs, dtype=np.float64).reshape(-1, 2).T)


def thin(series: Series, limit: int = POINTS) -> Series:
    """At most `limit` points that look like all of them: ends, extremes and gaps stay.

    The steps are cut into stretches of equal length; each keeps its lowest and its highest value, and one gap if it has
    any. (Taking every n-th point would lose the spikes, averaging would flatten them.)
    """
    n = len(series)
    if n <= limit:
        return series
    keep = {0, n - 1}
    for stretch in np.array_split(np.arange(n), (limit - 2) // 3):
        y = series.y[stretch]
        good = np.isfinite(y)
        if good.any():
            keep |= {int(stretch[np.nanargmin(y)]), int(stretch[np.nanargmax(y)])}
        if not good.all():
            keep.add(int(stretch[np.argmin(good)]))
    index = np.array(sorted(keep))
    return Series(series.x[index], series.y[index])


def settled(series: Series) -> Array:
    """The finite values after the first fiftieth of the tokens, where an untrained model's steep fall is over."""
    late = series.y[series.x > series.x.max() / 50] if len(series) else series.y
    return late[np.isfinite(late)]


def reach(series: Series) -> int:
    """Steps to either side that `smooth` averages."""
    return max(2, len(series) // 60)


def recent_mean(series: Series, until: float = math.inf) -> tuple[float, int]:
    """Where a noisy curve stands: the mean of its last steps, as many as `smooth` averages, and how many these are.

    Args:
        series: of steps.
        until: tokens; later steps do not count.
    """
    recent = series.y[series.x <= until][-2 * reach(series) :]
    finite = recent[np.isfinite(recent)]
    return float(finite.mean()) if len(finite) else math.nan, len(recent)


def smooth(series: Series, limit: int = POINTS) -> Series:
    """A running mean at no more than `limit` places.

    The window is cut to stay symmetric at the start, where the loss falls steeply and a lopsided mean would lie; at the
    end, where it is flat, the window is cut on its right side only, so that the last point is a mean too.
    """
    n, width = len(series), reach(series)
    index = np.unique(np.linspace(0, n - 1, min(n, limit)).round().astype(int)) if n else np.array([], dtype=int)
    means = np.full(len(index), np.nan)
    for i, centre in enumerate(index):
        half = min(width, centre)
        window = series.y[centre - half : centre + half + 1]
        window = window[np.isfinite(window)]
        if len(window):
            means[i] = window.mean()
    return Series(series.x[index], means)
