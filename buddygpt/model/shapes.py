"""Sizes that differ from call to call, brought to few: kernels are written, and batches formed, for each size anew."""

from __future__ import annotations


def round_up(size: int, steps: int) -> int:
    """The next of few sizes: `steps` of them to each doubling, 16 apart at least."""
    step = max(16, (1 << size.bit_length()) // (2 * steps))
    return -(-size // step) * step
