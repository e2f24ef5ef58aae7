"""How replies are drawn, as it is typed: `temperature=0.5 top_p=0.9 max_new_tokens=64 seed=1`."""

from __future__ import annotations

import math
from dataclasses import asdict, replace

from buddygpt.model.sampling import Sampling
from buddygpt.recipe.errors import BuddyError, did_you_mean

LARGEST_SEED = 2**32 - 1
_KINDS = {"max_new_tokens": int, "temperature": float, "top_p": float, "seed": int}
_RIGHT = {
    "max_new_tokens": "a whole number from 1 on",
    "temperature": "a number from 0 on, 0 takes the likeliest token always",
    "top_p": "a number from 0 to 1",
    "seed": f"a whole number from 0 to {LARGEST_SEED}, or none",
}
NAMES = tuple(_KINDS)


def check(sampling: Sampling) -> Sampling:
    """The same, if it can be drawn with.

    Raises:
        BuddyError: a value out of its range.
    """
    right = {
        "max_new_tokens": sampling.max_new_tokens >= 1,
        "temperature": 0 <= sampling.temperature < math.inf,  # and false for NaN
        "top_p": 0 <= sampling.top_p <= 1,
        "seed": sampling.seed is None or 0 <= sampling.seed <= LARGEST_SEED,
    }
    if wrong := [_fault(name, getattr(sampling, name)) for name, good in right.items() if not good]:
        raise BuddyError(wrong)
    return sampling


def change(sampling: Sampling, typed: str) -> Sampling:
    """With the values that `typed` names; all or none of them.

    Raises:
        BuddyError: an unknown name, no value, or a wrong one.
    """
    values: dict[str, int | float | None] = {}
    for word in typed.split():
        name, sign, value = word.partition("=")
        name = name.lower().replace("-", "_")
        if name not in _KINDS:
            raise BuddyError(f"'{word}': there is {', '.join(NAMES)}{did_you_mean(name, NAMES)}")
        if not sign:
            raise BuddyError(f"'{word}' has no value; type e.g. {name}={getattr(Sampling(), name) or 1}")
        if name == "seed" and value.lower() == "none":
            values[name] = None
            continue
        try:
            values[name] = _KINDS[name](value)
        except ValueError:
            raise BuddyError(_fault(name, value)) from None
    return check(replace(sampling, **values))


def describe(sampling: Sampling) -> str:
    """As it could be typed."""
    return " ".join(f"{name}={'none' if value is None else value}" for name, value in asdict(sampling).items())


def _fault(name: str, value: object) -> str:
    return f"{name}={value}: give {_RIGHT[name]}"
