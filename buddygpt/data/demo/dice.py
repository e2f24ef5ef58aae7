"""The one source of chance: a stream of choices named by a key, the same on every machine and Python.

`random.Random` promises stability only for its seeding and for `random()`, so every choice here is made from
that single method. A string key is hashed by the standard library with SHA-512, never with the salted `hash`.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import TypeVar

T = TypeVar("T")


class Dice:
    """A stream of random choices; equal keys give equal streams."""

    def __init__(self, *key: object) -> None:
        self._random = Random("/".join(map(str, key))).random

    def below(self, bound: int) -> int:
        """A whole number from 0 to `bound` - 1."""
        return int(self._random() * bound)

    def between(self, low: int, high: int) -> int:
        """A whole number from `low` to `high`, both included."""
        return low + self.below(high - low + 1)

    def chance(self, percent: int) -> bool:
        """True `percent` times in a hundred."""
        return self.below(100) < percent

    def pick(self, options: Sequence[T]) -> T:
        """One of the options, all equally likely."""
        return options[self.below(len(options))]

    def sample(self, options: Sequence[T], count: int) -> list[T]:
        """`count` different options in random order."""
        rest = list(options)
        for i in range(count):
            j = i + self.below(len(rest) - i)
            rest[i], rest[j] = rest[j], rest[i]
        return rest[:count]

    def shuffled(self, options: Sequence[T]) -> list[T]:
        """All options in random order."""
        return self.sample(options, len(options))

    def deal(self, options: Sequence[T], count: int) -> list[T]:
        """`count` options in random order, each used equally often, give or take one."""
        rounds, rest = divmod(count, len(options))
        return self.shuffled([*options] * rounds + self.sample(options, rest))
