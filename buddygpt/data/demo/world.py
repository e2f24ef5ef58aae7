"""The world itself: who lives in the town, with whom, where and how. A pure function of the seed."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache

from buddygpt.data.demo.dice import Dice
from buddygpt.data.demo.grammar import numeral
from buddygpt.data.demo.names import (
    CLAN_SURNAMES,
    ELDER_MEN,
    ELDER_WOMEN,
    OTHER_SURNAMES,
    PET_NAMES,
    TOWNS,
    YOUNG_MEN,
    YOUNG_WOMEN,
)
from buddygpt.data.demo.pools import FOODS, HOBBIES, PETS, STREETS, PetKind
from buddygpt.data.demo.trades import (
    CHEAP_PRICES,
    DEAR_GOODS,
    DEAR_PRICES,
    FESTIVALS,
    PLACES,
    SHOPS,
    TRADES,
    VENUES,
    Trade,
)

COUPLES = 25
"""Couples of the older generation; each has a son and a daughter, who marry into other families."""

MIRRORS = {
    "spouse": ("spouse",),
    "father": ("son", "daughter"),
    "mother": ("son", "daughter"),
    "son": ("father", "mother"),
    "daughter": ("father", "mother"),
    "east": ("west",),
    "west": ("east",),
}
"""Relations told from either side, each with those that may lead back."""

_MONTH_DAYS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_DATES = tuple(
    f"{numeral(month)}月{numeral(day)}日" for month, days in enumerate(_MONTH_DAYS, 1) for day in range(1, days + 1)
)


@dataclass(frozen=True)
class Fact:
    """`value` is the one true answer to the question for `relation` of `subject`."""

    subject: str
    relation: str
    value: str


@dataclass(frozen=True)
class Person:
    """An inhabitant. Other people are named, never nested; the older generation has no parents here, the
    younger no children. The fields below `female` are the person's relations."""

    name: str
    given: str
    female: bool
    spouse: str
    father: str | None
    mother: str | None
    son: str | None
    daughter: str | None
    home: str
    occupation: str
    workplace: str
    pet: str
    pet_name: str
    food: str
    birthday: str
    hobby: str

    @property
    def elder(self) -> bool:
        """Whether the person belongs to the older generation."""
        return self.father is None

    @property
    def trade(self) -> Trade:
        """The occupation with all that is known about it."""
        return _TRADE_BY_NAME[self.occupation]

    @property
    def pet_kind(self) -> PetKind:
        """The pet's kind with all that is known about it."""
        return _PET_BY_NAME[self.pet]


@dataclass(frozen=True)
class Place:
    """One of three neighbours on a street; `west` and `east` are None at its ends."""

    name: str
    street: str
    west: str | None
    east: str | None


@dataclass(frozen=True)
class Good:
    """Something for sale; `price` in yuan for one `measure`."""

    name: str
    measure: str
    shop: str
    price: int


@dataclass(frozen=True)
class Festival:
    """What is held once a year, always on the same day, at the same place, by the same host."""

    name: str
    date: str
    venue: str
    host: str


@dataclass(frozen=True)
class World:
    """Everything that is true in the town."""

    seed: int
    town: str
    people: tuple[Person, ...]
    places: tuple[Place, ...]
    goods: tuple[Good, ...]
    festivals: tuple[Festival, ...]
    facts: tuple[Fact, ...]

    @cached_property
    def by_name(self) -> dict[str, Person]:
        """The people by their full names."""
        return {person.name: person for person in self.people}

    @cached_property
    def fact_set(self) -> frozenset[Fact]:
        """All facts, to look one up."""
        return frozenset(self.facts)

    @cached_property
    def facts_about(self) -> dict[str, tuple[Fact, ...]]:
        """The facts of each subject."""
        facts = defaultdict(list)
        for fact in self.facts:
            facts[fact.subject].append(fact)
        return {subject: tuple(about) for subject, about in facts.items()}

    @cached_property
    def good_by_name(self) -> dict[str, Good]:
        """The goods by their names."""
        return {good.name: good for good in self.goods}

    @cached_property
    def place_by_name(self) -> dict[str, Place]:
        """The places by their names."""
        return {place.name: place for place in self.places}

    @cached_property
    def staff(self) -> dict[str, tuple[Person, ...]]:
        """The people who work at each place, none for a place that is missing."""
        staff = defaultdict(list)
        for person in self.people:
            staff[person.workplace].append(person)
        return {place: tuple(people) for place, people in staff.items()}

    @cached_property
    def stock(self) -> dict[str, tuple[Good, ...]]:
        """What each shop sells."""
        return {shop: tuple(good for good in self.goods if good.shop == shop) for shop in SHOPS}

    @cached_property
    def streets(self) -> dict[str, tuple[Place, ...]]:
        """The three places of each street that has any, from west to east."""
        streets = defaultdict(list)
        for place in self.places:
            streets[place.street].append(place)
        return {street: tuple(places) for street, places in streets.items()}


PERSON_RELATIONS = tuple(field.name for field in fields(Person))[3:]
_TRADE_BY_NAME = {trade.name: trade for trade in TRADES}
_PET_BY_NAME = {kind.name: kind for kind in PETS}


@lru_cache(maxsize=8)
def world(seed: int = 0) -> World:
    """The people, places, goods and festivals of one seed, and all facts about them.

    Every person has eleven facts: spouse, the parents or the children (one son, one daughter), home,
    occupation, workplace, pet, pet_name, food, birthday and hobby. A place has its street and its neighbours to
    the east and west, a good its shop and price, a festival its date, venue and host. Within a relation every
    value is dealt about equally often.
    """
    dice = Dice("world", seed)
    people = _people(dice)
    places = _places(dice)
    goods = _goods(dice)
    festivals = _festivals(dice, people)
    facts = [
        Fact(person.name, relation, value)
        for person in people
        for relation in PERSON_RELATIONS
        if (value := getattr(person, relation)) is not None
    ]
    for place in places:
        facts.append(Fact(place.name, "street", place.street))
        facts += [Fact(place.name, side, other) for side in ("east", "west") if (other := getattr(place, side))]
    for good in goods:
        facts += [Fact(good.name, "shop", good.shop), Fact(good.name, "price", f"{good.price}元")]
    for festival in festivals:
        facts += [Fact(festival.name, relation, getattr(festival, relation)) for relation in ("date", "venue", "host")]
    return World(seed, dice.pick(TOWNS), people, places, goods, festivals, tuple(facts))


def _people(dice: Dice) -> tuple[Person, ...]:
    clans = dice.deal(dice.sample(CLAN_SURNAMES, 6), COUPLES)
    fathers = _name(clans, dice.sample(ELDER_MEN, COUPLES))
    mothers = _name(dice.sample(OTHER_SURNAMES, COUPLES), dice.sample(ELDER_WOMEN, COUPLES))
    sons = _name(clans, dice.sample(YOUNG_MEN, COUPLES))
    daughters = _name(clans, dice.sample(YOUNG_WOMEN, COUPLES))

    brides = dice.shuffled(range(COUPLES))
    while any(clans[groom] == clans[bride] for groom, bride in enumerate(brides)):
        brides = dice.shuffled(range(COUPLES))
    couples = [*zip(fathers, mothers, strict=True)]
    couples += [(son, daughters[bride]) for son, bride in zip(sons, brides, strict=True)]
    spouse = dict(couples) | {wife: husband for husband, wife in couples}
    home = {}
    for (husband, wife), street in zip(couples, dice.deal(STREETS, len(couples)), strict=True):
        home[husband] = home[wife] = street

    parents = {child: pair for children in (sons, daughters) for child, pair in zip(children, couples, strict=False)}
    siblings = zip(sons, daughters, strict=True)
    children = {parent: pair for pair, both in zip(siblings, couples, strict=False) for parent in both}
    names = dice.shuffled([*fathers, *mothers, *sons, *daughters])
    women = {*mothers, *daughters}
    trades = dice.deal(TRADES, len(names))
    workplaces = {trade: dice.shuffled(trade.places) for trade in TRADES}
    columns = zip(
        names,
        trades,
        dice.deal([kind.name for kind in PETS], len(names)),
        dice.deal(PET_NAMES, len(names)),
        dice.deal(FOODS, len(names)),
        dice.sample(_DATES, len(names)),
        dice.deal([*HOBBIES], len(names)),
        strict=True,
    )
    people = []
    for name, trade, pet, pet_name, food, birthday, hobby in columns:
        places = workplaces[trade]
        places.append(places.pop(0))
        father, mother = parents.get(name, (None, None))
        son, daughter = children.get(name, (None, None))
        people.append(
            Person(
                name=name,
                given=name[-2:],
                female=name in women,
                spouse=spouse[name],
                father=father,
                mother=mother,
                son=son,
                daughter=daughter,
                home=home[name],
                occupation=trade.name,
                workplace=places[-1],
                pet=pet,
                pet_name=pet_name,
                food=food,
                birthday=birthday,
                hobby=hobby,
            )
        )
    return tuple(people)


def _name(surnames: list[str], given: list[str]) -> list[str]:
    return [surname + name for surname, name in zip(surnames, given, strict=True)]


def _places(dice: Dice) -> tuple[Place, ...]:
    names = dice.shuffled(PLACES)
    places = []
    for i, street in enumerate(dice.sample(STREETS, len(names) // 3)):
        first, second, third = names[3 * i : 3 * i + 3]
        places += [
            Place(first, street, None, second),
            Place(second, street, first, third),
            Place(third, street, second, None),
        ]
    return tuple(places)


def _goods(dice: Dice) -> tuple[Good, ...]:
    stock = [(name, measure, shop) for shop, goods in SHOPS.items() for name, measure in goods]
    cheap = dice.deal(CHEAP_PRICES, len(stock) - len(DEAR_GOODS))
    dear = dice.deal(DEAR_PRICES, len(DEAR_GOODS))
    return tuple(
        Good(name, measure, shop, (dear if name in DEAR_GOODS else cheap).pop()) for name, measure, shop in stock
    )


def _festivals(dice: Dice, people: tuple[Person, ...]) -> tuple[Festival, ...]:
    number = len(FESTIVALS)
    dates, venues = dice.sample(_DATES, number), dice.deal(VENUES, number)
    hosts = [person.name for person in dice.sample(people, number)]
    return tuple(map(Festival, FESTIVALS, dates, venues, hosts))
