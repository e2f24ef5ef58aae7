"""What every section of a recipe shares: strictness, and numbers that may be spelt any usual way."""

from __future__ import annotations

import math
import re
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

DECIMAL_SUFFIXES = {"k": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
BINARY_SUFFIXES = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
SUFFIXES = {"": 1} | DECIMAL_SUFFIXES | BINARY_SUFFIXES
_NUMBER = re.compile(r"([+-]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*([A-Za-z]*)")


class Section(BaseModel):
    """A part of a recipe: unknown keys are faults, values keep their type, nothing changes later."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)


class FieldError(ValueError):
    """A fault that only shows when several fields meet; `key` is the field to point at.

    Args:
        key: the field's name, or a dotted path below the section that raises.
        message: what is wrong, what would be right.
    """

    def __init__(self, key: str, message: str):
        self.key = key
        super().__init__(message)


def parse_number(value: Any) -> float | int:
    """A finite number from any usual spelling: `2e-5`, `5E-4`, `2_000_000`, `35B`, `64Ki`.

    `k M B T` are decimal (10^3, 10^6, 10^9, 10^12), `Ki Mi Gi` binary (2^10, 2^20, 2^30).

    Raises:
        ValueError: not a number, or not a finite one.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError(f"{value!r} is not a number")
    if isinstance(value, str):
        match = _NUMBER.fullmatch(value.strip())
        if not match:
            raise ValueError(f"'{value}' is not a number; write 2000000, 2_000_000, 2e6, 2M or 64Ki")
        digits, suffix = match.groups()
        if suffix not in SUFFIXES:
            raise ValueError(f"'{value}' ends in an unknown unit '{suffix}'; known are {' '.join(list(SUFFIXES)[1:])}")
        exact = Decimal(digits.replace("_", "")) * SUFFIXES[suffix]
        if not math.isfinite(float(exact)):  # before int(), which would write out every digit of 1e999999999
            raise ValueError(f"{value} is too large a number")
        value = int(exact) if exact == exact.to_integral_value() else float(exact)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is not a finite number")
    return value


def parse_count(value: Any) -> int:
    """A whole number from any spelling that `parse_number` takes.

    Raises:
        ValueError: not a number, or not a whole one.
    """
    number = parse_number(value)
    if number != int(number):
        raise ValueError(f"{value} is not a whole number")
    return int(number)


def _parse_real(value: Any) -> float:
    return float(parse_number(value))


Count = Annotated[int, BeforeValidator(parse_count, json_schema_input_type=int | float | str)]
"""A whole number in any spelling."""

Number = Annotated[float, BeforeValidator(_parse_real, json_schema_input_type=float | int | str)]
"""A real number in any spelling."""

Positive = Annotated[Count, Field(gt=0)]
"""A whole number above 0."""

PositiveNumber = Annotated[Number, Field(gt=0)]
"""A real number above 0."""

Share = Annotated[Number, Field(ge=0, le=1)]
"""A part of a whole, 0 to 1."""


def spell_bytes(count: float) -> str:
    """A size for readers: 75 GB, 1.8 MB, 830 bytes."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f}".removesuffix(".0") + f" {unit}"
    return f"{count:.0f} bytes"


def spell(number: float) -> str:
    """The number as a recipe would write it: 1310720 -> `1280Ki`, 35000000000 -> `35B`, 12345 -> `12345`."""
    for suffix, unit in reversed((DECIMAL_SUFFIXES | BINARY_SUFFIXES).items()):
        if number >= unit and number % unit == 0:
            return f"{int(number // unit)}{suffix}"
    return f"{number:g}" if isinstance(number, float) else str(number)
