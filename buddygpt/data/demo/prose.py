"""The demo world as running text: endless different paragraphs that keep telling the same facts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from buddygpt.data.demo.asides import ASIDES, SETTINGS
from buddygpt.data.demo.cast import Cast, Filled
from buddygpt.data.demo.dice import Dice
from buddygpt.data.demo.gatherings import BIRTHDAYS, ELDER_FAMILIES, LETTERS, TALKS, YOUNG_FAMILIES
from buddygpt.data.demo.grammar import expand
from buddygpt.data.demo.portraits import LOST_PETS, PETS, PORTRAITS, RIDDLES, WORKDAYS
from buddygpt.data.demo.townlife import FESTIVALS, PLACES, SHOPS, STREETS, VISITS
from buddygpt.data.demo.world import World, world
from buddygpt.recipe.errors import BuddyError

SHORTEST, LONGEST = 60, 250
"""Characters of a paragraph."""
_TRIES = 4
_RELATIONS = tuple(ASIDES)


@dataclass(frozen=True)
class Kind:
    """One kind of paragraph: its templates, and the method of `Cast` that fills their slots for a subject."""

    templates: tuple[str, ...]
    slots: Callable[[Cast, Any, Dice], Filled]

    def write(self, cast: Cast, subject: Any, dice: Dice) -> str:
        """One paragraph about the subject."""
        template = dice.pick(self.templates)
        slots = self.slots(cast, subject, dice)
        if "{day}" in template:
            slots["day"] = expand(dice.pick(SETTINGS), dice, slots)
        if "{more}" in template:
            slots["more"] = _asides(dice, slots)
        return expand(template, dice, slots)


PORTRAIT = Kind(PORTRAITS, Cast.alone)
WORKDAY = Kind(WORKDAYS, Cast.alone)
PET = Kind(PETS, Cast.alone)
LOST_PET = Kind(LOST_PETS, Cast.pair)
RIDDLE = Kind(RIDDLES, Cast.pair)
ELDER_FAMILY = Kind(ELDER_FAMILIES, Cast.family)
YOUNG_FAMILY = Kind(YOUNG_FAMILIES, Cast.family)
BIRTHDAY = Kind(BIRTHDAYS, Cast.relatives)
LETTER = Kind(LETTERS, Cast.relatives)
TALK = Kind(TALKS, Cast.pair)
STREET = Kind(STREETS, Cast.street)
PLACE = Kind(PLACES, Cast.place)
VISIT = Kind(VISITS, Cast.visit)
SHOP = Kind(SHOPS, Cast.shop)
FESTIVAL = Kind(FESTIVALS, Cast.festival)


def paragraphs(seed: int, characters: int) -> Iterator[str]:
    """Different paragraphs about `world(seed)`, until they come to at least `characters` characters together.

    The stream depends on the seed alone; `characters` only says where it ends. Every round of about two thousand
    paragraphs deals with every subject in every kind, so facts are told about equally often.

    Raises:
        BuddyError: the wordings are used up before; the paragraphs until then were all that there are.
    """
    town = world(seed)
    cast, dice = Cast(town), Dice("prose", seed)
    agenda = _agenda(town)
    seen: set[bytes] = set()
    written = 0
    while written < characters:
        before = written
        for kind, subject in dice.shuffled(agenda):
            text = _new_paragraph(kind, subject, cast, dice, seen)
            if text is None:
                continue
            yield text
            written += len(text)
            if written >= characters:
                return
        if written == before:
            raise BuddyError(
                f"the demo world of seed {seed} holds about {written:,} characters of different text, "
                f"{characters:,} were asked for; ask for fewer, or mix several seeds"
            )


def _agenda(town: World) -> list[tuple[Kind, Any]]:
    """What one round tells: every subject with every kind that suits it."""
    everybody = (PORTRAIT, PORTRAIT, WORKDAY, PET, LOST_PET, RIDDLE, BIRTHDAY, BIRTHDAY, LETTER, TALK, TALK)
    agenda: list[tuple[Kind, Any]] = []
    for person in town.people:
        family = ELDER_FAMILY if person.elder else YOUNG_FAMILY
        agenda += [(kind, person) for kind in (*everybody, family, family)]
    agenda += [(STREET, places) for places in town.streets.values()] * 6
    agenda += [(PLACE, place) for place in town.places if place.name in town.staff]
    agenda += [(VISIT, place) for place in town.places] * 2
    agenda += [(SHOP, good) for good in town.goods] * 3
    agenda += [(FESTIVAL, festival) for festival in town.festivals] * 5
    return agenda


def _new_paragraph(kind: Kind, subject: Any, cast: Cast, dice: Dice, seen: set[bytes]) -> str | None:
    """A paragraph of fitting length that was never seen before, or None after a few tries."""
    for _ in range(_TRIES):
        text = kind.write(cast, subject, dice)
        # Not `hash`: its salt would let two machines collide on different texts.
        digest = blake2b(text.encode(), digest_size=8).digest()
        if SHORTEST <= len(text) <= LONGEST and digest not in seen:
            seen.add(digest)
            return text
    return None


def _asides(dice: Dice, slots: Filled) -> str:
    """A few sentences about the person that the paragraph is about."""
    relations = dice.sample(_RELATIONS, dice.between(2, 4))
    return "".join(expand(dice.pick(ASIDES[relation]), dice, slots) for relation in relations)
