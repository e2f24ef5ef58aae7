"""What accelerators can do at most, from their makers' datasheets."""

from __future__ import annotations

PEAKS = {
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "RTX 4090": 165e12,
    "RTX 3090": 71e12,
}
"""Dense FLOP/s of bf16 and fp16 products with fp32 sums, by a part of the card's name; the first that fits counts."""


def peak_flops(device_name: str, precision: str) -> float | None:
    """FLOP/s that a device reaches at most.

    Args:
        device_name: the hardware's own.
        precision: of the products: bf16, fp16 or fp32.

    Returns:
        None where it is not known: CPUs have no such figure, and fp32 products run in TF32 or not as torch is set.
    """
    if precision == "fp32":
        return None
    return next((peak for name, peak in PEAKS.items() if name in device_name), None)
