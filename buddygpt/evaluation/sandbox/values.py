"""Plain data between a contained program and its judge, as JSON that keeps tuples, sets and the keys of mappings.

What arrives is data and nothing else: an object that claims to equal everything cannot pass.
"""

from __future__ import annotations

from typing import Any

_SMALL = 1 << 53


def pack(value: Any) -> Any:
    """`value` as JSON has it.

    Raises:
        TypeError: it holds something that is no plain data.
    """
    if value is None or isinstance(value, bool | str | float):
        return value
    if isinstance(value, int):
        return int(value) if abs(value) < _SMALL else {"int": hex(value)}
    if isinstance(value, list):
        return [pack(item) for item in value]
    if isinstance(value, dict):
        return {"dict": [[pack(key), pack(item)] for key, item in value.items()]}
    for kind in (tuple, set, frozenset):
        if isinstance(value, kind):
            return {kind.__name__: [pack(item) for item in value]}
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    raise TypeError(f"a {type(value).__name__} is no plain data")


def unpack(packed: Any) -> Any:
    """What `pack` was given.

    Raises:
        ValueError, TypeError: no such data: a program may have written it by its own hand.
    """
    if isinstance(packed, list):
        return [unpack(item) for item in packed]
    if not isinstance(packed, dict):
        return packed
    [(kind, body)] = packed.items()
    if kind == "int":
        return int(body, 16)
    if kind == "dict":
        return {unpack(key): unpack(item) for key, item in body}
    if kind == "complex":
        return complex(*body)
    kinds = {"tuple": tuple, "set": set, "frozenset": frozenset}
    if kind not in kinds:
        raise ValueError("unknown kind of data")
    return kinds[kind](unpack(item) for item in body)
