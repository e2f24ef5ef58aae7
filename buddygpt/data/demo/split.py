"""Which facts are never asked about in training, and which values may stand in for a wrong answer."""

from __future__ import annotations

from collections import Counter, defaultdict
from functools import lru_cache
from hashlib import blake2b
from typing import Literal

from buddygpt.data.demo.world import MIRRORS, Fact, World, world

Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = ("train", "test")

HELD_OUT_PERCENT = 30
FEWEST_HELD_OUT = 8
"""Held-out facts of a small relation: with fewer, a single answer could make up more than 15 % of its questions."""
LARGEST_SHARE_PERCENT = 15
FAMILY = frozenset({"spouse", "father", "mother", "son", "daughter"})


@lru_cache(maxsize=8)
def held_out(seed: int) -> frozenset[Fact]:
    """The facts whose questions belong to the test split; the prose tells them like all others.

    Facts that answer each other's question are held out together. The order in which groups are taken is that of
    a stable hash; one is passed over where a relation has enough already or where its answer would become common.
    """
    town = world(seed)
    sizes = Counter(fact.relation for fact in town.facts)
    quota = {relation: max(FEWEST_HELD_OUT, round(n * HELD_OUT_PERCENT / 100)) for relation, n in sizes.items()}
    taken: Counter[str] = Counter()
    answers: Counter[tuple[str, str]] = Counter()
    chosen: set[Fact] = set()
    for group in sorted(_groups(town), key=lambda group: _digest(seed, group[0])):
        relations = Counter(fact.relation for fact in group)
        values = Counter((fact.relation, fact.value) for fact in group)
        room = all(taken[relation] + n <= quota[relation] for relation, n in relations.items())
        rare = all(
            answers[key] + n <= max(1, quota[key[0]] * LARGEST_SHARE_PERCENT // 100) for key, n in values.items()
        )
        if room and rare:
            chosen.update(group)
            taken += relations
            answers += values
    return frozenset(chosen)


def in_split(seed: int, facts: tuple[Fact, ...], split: Split) -> bool:
    """Whether something that reveals these facts belongs to the split: to test as soon as one is held out."""
    return any(fact in held_out(seed) for fact in facts) == (split == "test")


def twins(town: World, fact: Fact) -> tuple[Fact, ...]:
    """The other facts that say the same: the mirrored relation, or the home of the spouse."""
    back = [Fact(fact.value, relation, fact.subject) for relation in MIRRORS.get(fact.relation, ())]
    if fact.relation == "home":
        back = [Fact(town.by_name[fact.subject].spouse, "home", fact.value)]
    return tuple(other for other in back if other in town.fact_set)


def rivals(town: World, fact: Fact) -> tuple[str, ...]:
    """Wrong answers of the right kind: other values of the relation, none of them true of the subject in any way.

    None is part of the right answer nor holds it, as 13元 holds 3元: who looks for the answer in a reply may not err.
    Relatives are replaced by people of the same sex and generation whose surname is no better a clue.
    """
    own = {subject_fact.value for subject_fact in town.facts_about[fact.subject]}
    values = dict.fromkeys(other.value for other in town.facts if other.relation == fact.relation)
    if fact.relation in FAMILY:
        right = _station(town, fact, fact.value)
        values = {value: None for value in values if _station(town, fact, value) == right}
    return tuple(
        value
        for value in values
        if value not in own and value != fact.subject and fact.value not in value and value not in fact.value
    )


def _station(town: World, fact: Fact, name: str) -> tuple[bool, bool, bool]:
    person = town.by_name[name]
    return person.female, person.elder, name[0] == fact.subject[0]


def _groups(town: World) -> list[tuple[Fact, ...]]:
    """Facts with their twins, each group in a fixed order."""
    groups: dict[tuple[str, str], set[Fact]] = defaultdict(set)
    for fact in town.facts:
        members = {fact, *twins(town, fact)}
        groups[min((member.subject, member.relation) for member in members)] |= members
    return [tuple(sorted(group, key=lambda fact: (fact.subject, fact.relation))) for group in groups.values()]


def _digest(seed: int, fact: Fact) -> bytes:
    return blake2b(f"{seed}/{fact.subject}/{fact.relation}".encode(), digest_size=16).digest()
