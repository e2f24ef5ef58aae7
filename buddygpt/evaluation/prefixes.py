"""Which sequences are read together, so that what they begin with is read once.

Five worked examples stand before every question of a subject: of a prompt of 900 tokens all but the question are the
same. Chosen is the partition that costs the fewest tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

PASS = 64
"""What a pass of its own for a beginning costs, in tokens: it is read with a batch of one."""


@dataclass(frozen=True)
class Group:
    """Sequences that begin alike.

    Args:
        members: their numbers.
        prefix: tokens that all of them begin with; 0 where nothing is shared.
    """

    members: tuple[int, ...]
    prefix: int


def group_by_prefix(sequences: Sequence[Sequence[int]], judged: Sequence[int]) -> list[Group]:
    """The partition that reads the fewest tokens, each group's beginning once; all that share nothing are one group.

    Every interval of the sorted sequences with a common beginning is weighed against the best of its parts, from the
    longest beginnings to the shortest: linear in the sequences once they are sorted.

    Args:
        sequences: ids, all of one type.
        judged: tokens at the end of each, at least one, that no shared beginning may hold.
    """
    order = sorted(range(len(sequences)), key=lambda number: sequences[number])
    root = _Node(0)
    path = [root]
    for place, number in enumerate(order):
        shared = 0
        if place:
            before = order[place - 1]
            most = min(len(sequences[before]) - judged[before], len(sequences[number]) - judged[number])
            shared = _shared(sequences[before], sequences[number], max(most, 0))
        while path[-1].depth > shared:
            node = path.pop()
            if path[-1].depth < shared:
                path.append(_Node(shared))
            path[-1].adopt(node)
        tokens = len(sequences[number])
        path.append(_Node(tokens, [number], tokens, tokens))
    while len(path) > 1:
        node = path.pop()
        path[-1].adopt(node)
    alone = tuple(number for group in root.parts if not group.prefix for number in group.members)
    return [*(group for group in root.parts if group.prefix), *([Group(alone, 0)] if alone else [])]


@dataclass
class _Node:
    """Sequences that share `depth` tokens, and the cheapest way to read them."""

    depth: int
    members: list[int] = field(default_factory=list)
    tokens: int = 0
    cost: int = 0
    parts: list[Group] = field(default_factory=list)
    below: list[_Node] = field(default_factory=list)

    def adopt(self, node: _Node) -> None:
        """Take in one that shares more."""
        node.settle()
        self.below.append(node)
        self.members += node.members
        self.tokens += node.tokens
        self.cost += node.cost
        self.parts += node.parts

    def settle(self) -> None:
        """Read what is shared here once, for all parts that this helps, if it is worth a pass."""
        if not self.below:
            self.parts = [Group(tuple(self.members), 0)]
            return
        joins = [node.tokens - self.depth * len(node.members) < node.cost for node in self.below]
        joined = [node for node, does in zip(self.below, joins, strict=True) if does]
        others = [node for node, does in zip(self.below, joins, strict=True) if not does]
        together = sum(node.tokens - self.depth * len(node.members) for node in joined)
        cost = self.depth + PASS + together + sum(node.cost for node in others)
        if cost < self.cost:
            group = Group(tuple(number for node in joined for number in node.members), self.depth)
            self.parts, self.cost = [group, *(part for node in others for part in node.parts)], cost
        self.below = []


def _shared(a: Sequence[int], b: Sequence[int], most: int) -> int:
    """How many of the first `most` tokens are the same in both."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
