"""Who and what appears in a paragraph: the slots that its template may use."""

from __future__ import annotations

from collections.abc import Sequence

from buddygpt.data.demo.asides import VOCABULARY
from buddygpt.data.demo.dice import Dice
from buddygpt.data.demo.grammar import count
from buddygpt.data.demo.pools import HOBBIES
from buddygpt.data.demo.world import Festival, Good, Person, Place, World

Filled = dict[str, str | tuple[str, ...]]

_NOTES = (10, 20, 50, 100, 200)
_TRAITS = ("home", "workplace", "hobby", "food")


class Cast:
    """The inhabitants and places of one world as slots, each person's worked out once."""

    def __init__(self, town: World) -> None:
        self.town = town
        self._people: dict[tuple[str, str], Filled] = {}
        self._friends = {person.name: _friends(person, town) for person in town.people}

    def person(self, name: str, prefix: str = "") -> Filled:
        """One person's slots, their names behind the prefix."""
        key = name, prefix
        if key not in self._people:
            self._people[key] = {prefix + slot: value for slot, value in _person_slots(self.town.by_name[name]).items()}
        return self._people[key]

    def alone(self, person: Person, dice: Dice) -> Filled:
        """A person, with small numbers and small presents to hand."""
        return {
            **VOCABULARY,
            **self.person(person.name),
            "good": dice.pick(self.town.goods).name,
            "present": dice.pick(self.town.goods).name,
            "town": self.town.town,
            "days": dice.pick("三四五"),
            "weekday": dice.pick("一二三四五六"),
        }

    def family(self, person: Person, dice: Dice) -> Filled:
        """A person with the spouse (`w_`) and both children or both parents (`a_`, `b_`), the male one first."""
        first, second = _kin(person)
        couple = (person.spouse, person.name) if person.female else (person.name, person.spouse)
        return {
            **self.alone(person, dice),
            **self.person(person.spouse, "w_"),
            **self.person(first, "a_"),
            **self.person(second, "b_"),
            "husband": couple[0],
            "wife": couple[1],
        }

    def relatives(self, person: Person, dice: Dice) -> Filled:
        """A person with two relatives in either order, a friend (`o_`) and a present."""
        slots = self.family(person, dice) | self._friend(person, dice)
        if dice.chance(50):
            for one, other in (("kin1", "kin2"), ("role1", "role2"), ("call1", "call2")):
                slots[one], slots[other] = slots[other], slots[one]
            first, second = _kin(person)
            slots |= self.person(second, "a_") | self.person(first, "b_")
        good = dice.pick(self.town.goods)
        return {**slots, "good": good.name, "shop": good.shop}

    def pair(self, person: Person, dice: Dice) -> Filled:
        """A person and a friend (`o_`)."""
        return self.alone(person, dice) | self._friend(person, dice)

    def street(self, places: Sequence[Place], dice: Dice) -> Filled:
        """Three neighbours from west to east and a passer-by."""
        names = (place.name for place in places)
        return {**self.stranger(dice), **dict(zip("abc", names, strict=True)), "street": places[0].street}

    def place(self, place: Place, dice: Dice) -> Filled:
        """A place with one of its staff."""
        worker = dice.pick(self.town.staff[place.name])
        return {**self.alone(worker, dice), **_surroundings(place)}

    def visit(self, place: Place, dice: Dice) -> Filled:
        """A place with two people who meet there."""
        return {**self.pair(dice.pick(self.town.people), dice), **_surroundings(place)}

    def shop(self, good: Good, dice: Dice) -> Filled:
        """A shop with a customer who buys some of one good after asking for the others."""
        others = dice.shuffled([other for other in self.town.stock[good.shop] if other != good])
        quantity = dice.between(2, 4)
        total = good.price * quantity
        note = next(note for note in _NOTES if note > total)
        slots = {
            **self.stranger(dice),
            **_surroundings(self.town.place_by_name[good.shop]),
            "shop": good.shop,
            "q": count(quantity),
            "total": f"{total}元",
            "note": f"{note}元",
            "change": f"{note - total}元",
        }
        for i, item in enumerate((good, *others), 1):
            slots |= {f"good{i}": item.name, f"price{i}": f"{item.price}元", f"m{i}": item.measure}
        return slots

    def festival(self, festival: Festival, dice: Dice) -> Filled:
        """A festival with its host (`h_`) and a visitor who is not of the host's household."""
        host = self.town.by_name[festival.host]
        visitor = dice.pick(self.town.people)
        while visitor.name in (host.name, host.spouse):
            visitor = dice.pick(self.town.people)
        return {
            **self.alone(visitor, dice),
            **self.person(host.name, "h_"),
            "festival": festival.name,
            "date": festival.date,
            "venue": festival.venue,
            "host": host.name,
            "hostg": host.given,
        }

    def stranger(self, dice: Dice) -> Filled:
        """Anybody at all."""
        return self.alone(dice.pick(self.town.people), dice)

    def _friend(self, person: Person, dice: Dice) -> Filled:
        return self.person(dice.pick(self._friends[person.name]), "o_")


def _kin(person: Person) -> tuple[str, str]:
    return (person.son, person.daughter) if person.elder else (person.father, person.mother)


def _friends(person: Person, town: World) -> list[str]:
    """Those outside the family who share no home, workplace, hobby or favourite food with the person.

    So a talk may set what one does against what the other does, and a visit leads somewhere.
    """
    family = {person.name, person.spouse, *_kin(person)}
    return [
        other.name
        for other in town.people
        if other.name not in family and all(getattr(other, trait) != getattr(person, trait) for trait in _TRAITS)
    ]


def _person_slots(person: Person) -> Filled:
    pronoun = "她" if person.female else "他"
    first, second = _kin(person)
    roles = ("儿子", "女儿") if person.elder else ("父亲", "母亲")
    as_parent, as_child = ("母亲", "女儿") if person.female else ("父亲", "儿子")
    return {
        "n": person.name,
        "g": person.given,
        "p": pronoun,
        "who": (pronoun, person.given),
        "home": person.home,
        "job": person.occupation,
        "duty": person.trade.duty,
        "place": person.workplace,
        "pet": person.pet,
        "m": person.pet_kind.measure,
        "habit": person.pet_kind.habits,
        "loss": person.pet_kind.loss,
        "pname": person.pet_name,
        "food": person.food,
        "bday": person.birthday,
        "hobby": person.hobby,
        "scene": HOBBIES[person.hobby],
        "mate": person.spouse,
        "mateg": person.spouse[-2:],
        "partner": "丈夫" if person.female else "妻子",
        "kin1": first,
        "kin2": second,
        "role1": roles[0],
        "role2": roles[1],
        "call1": first[-2:] if person.elder else "爸爸",
        "call2": second[-2:] if person.elder else "妈妈",
        "you": "你" if person.elder else "您",
        "child": as_child,
        "as": as_parent if person.elder else as_child,
        "called": person.given if not person.elder else "妈妈" if person.female else "爸爸",
    }


def _surroundings(place: Place) -> Filled:
    sides = [f"{side}边是{name}" for side, name in (("西", place.west), ("东", place.east)) if name]
    return {"here": place.name, "street": place.street, "side": ("，".join(sides), "，".join(reversed(sides)))}
