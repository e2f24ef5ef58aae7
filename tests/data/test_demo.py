from collections import Counter
from hashlib import sha256
from itertools import islice, pairwise

import pytest

from buddygpt.data.demo import asides, gatherings, grammar, paragraphs, portraits, prose, townlife, world
from buddygpt.data.demo.cast import Cast
from buddygpt.data.demo.dice import Dice
from buddygpt.data.demo.world import PERSON_RELATIONS
from buddygpt.recipe.errors import BuddyError

CHARACTERS = 2_500_000
KINDS = {name: kind for name, kind in vars(prose).items() if isinstance(kind, prose.Kind)}


@pytest.fixture(scope="module")
def text() -> list[str]:
    return list(paragraphs(0, CHARACTERS))


def test_the_text_is_the_same_on_every_machine():
    first = "\n".join(islice(paragraphs(0, 100_000), 300))
    assert sha256(first.encode()).hexdigest() == "86cf170c3c55a17b3b8275d192ab7ae5a54a9cb5809e4d7182afcb7c2dc82c56"


def test_a_longer_text_begins_with_the_shorter_one(text):
    shorter = list(paragraphs(0, 300_000))
    assert shorter == text[: len(shorter)]
    assert sum(map(len, shorter)) >= 300_000 > sum(map(len, shorter[:-1]))


@pytest.mark.parametrize("characters", [0, 1])
def test_no_more_paragraphs_than_needed(characters):
    assert len(list(paragraphs(0, characters))) == characters


def test_paragraphs_are_different_and_of_moderate_length(text):
    assert len(set(text)) == len(text)
    assert all(60 <= len(paragraph) <= 250 for paragraph in text)
    assert not any(mark in paragraph for paragraph in text for mark in "\n \t[]{}|,.!?")


def test_quotation_marks_are_paired_and_never_nested(text):
    for paragraph in text:
        marks = [mark for mark in paragraph if mark in "“”"]
        assert marks[::2] == ["“"] * len(marks[::2]) and marks[1::2] == ["”"] * len(marks[::2]), paragraph


def test_seeds_make_different_towns_and_texts():
    towns = [world(seed) for seed in range(3)]
    assert len({town.people for town in towns}) == 3
    texts = [set(paragraphs(seed, 100_000)) for seed in range(3)]
    assert not any(one & other for one, other in pairwise(texts))


def test_every_fact_is_told_often(text):
    told = Counter()
    about = world(0).facts_about
    for paragraph in text:
        for subject, facts in about.items():
            if subject in paragraph:
                told.update(fact for fact in facts if fact.value in paragraph)
    rarest = min(world(0).facts, key=lambda fact: told[fact])
    assert told[rarest] >= 30, rarest


def test_facts_are_told_in_many_wordings(text):
    """What stands between a person's given name and a value right after it differs from place to place."""
    person = world(0).people[0]
    for relation in ("home", "workplace", "food", "hobby", "birthday"):
        value = getattr(person, relation)
        between = {
            part.rpartition(person.given)[2] for p in text for part in p.split(value)[:-1] if person.given in part
        }
        assert len(between) >= 30, relation


def test_text_that_runs_out_says_how_much_there_was(monkeypatch):
    monkeypatch.setattr(prose, "_agenda", lambda town: [(prose.Kind(("{n}" + "好" * 60,), Cast.alone), town.people[0])])
    found = []
    with pytest.raises(BuddyError, match=r"seed 3 holds about 6\d characters .* 1,000 were asked for"):
        found.extend(paragraphs(3, 1_000))
    assert len(found) == 1


# --- the world -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_families_are_consistent(seed):
    town = world(seed)
    for person in town.people:
        spouse = town.by_name[person.spouse]
        assert spouse.spouse == person.name and spouse.female != person.female and spouse.home == person.home
        assert spouse.elder == person.elder
        if person.elder:
            assert (spouse.son, spouse.daughter) == (person.son, person.daughter)
            assert person.name in (town.by_name[person.son].father, town.by_name[person.son].mother)
            assert not town.by_name[person.son].female and town.by_name[person.daughter].female
        else:
            assert person.name in (town.by_name[person.father].son, town.by_name[person.father].daughter)
            assert person.father != spouse.father
            assert person.name[0] == person.father[0]


@pytest.mark.parametrize("seed", range(5))
def test_places_and_trades_are_consistent(seed):
    town = world(seed)
    for place in town.places:
        for side, back in (("east", "west"), ("west", "east")):
            if neighbour := getattr(place, side):
                assert getattr(town.place_by_name[neighbour], back) == place.name
                assert town.place_by_name[neighbour].street == place.street
    for person in town.people:
        assert person.workplace in person.trade.places and person.workplace in town.place_by_name


def test_every_person_has_eleven_facts():
    about = world(0).facts_about
    for person in world(0).people:
        assert len(about[person.name]) == 11
        assert {fact.relation for fact in about[person.name]} <= set(PERSON_RELATIONS)


# --- templates -------------------------------------------------------------------------------------------------------


def subjects(town, kind_name):
    agenda = prose._agenda(town)
    return [subject for kind, subject in agenda if kind is KINDS[kind_name]]


@pytest.mark.parametrize("kind_name", KINDS)
def test_every_slot_of_every_branch_is_known(kind_name):
    kind, town = KINDS[kind_name], world(0)
    slots = kind.slots(Cast(town), subjects(town, kind_name)[0], Dice("slots"))
    for template in kind.templates:
        assert grammar.slot_names(template) <= {*slots, "more", "day"}, template
        grammar.expand(template, Dice("x"), {**slots, "more": "", "day": ""})
        if "{more}" in template:
            for aside in sum(asides.ASIDES.values(), ()):
                assert grammar.slot_names(aside) <= {*slots}, aside


def test_all_templates_are_in_use():
    modules = (portraits, gatherings, townlife)
    written = {id(value) for module in modules for name, value in vars(module).items() if name.isupper()}
    assert written == {id(kind.templates) for kind in KINDS.values()}


@pytest.mark.parametrize("template", ["[a|b", "a]", "[a|[b]", "{a", "a}"])
def test_a_broken_template_is_refused(template):
    with pytest.raises(ValueError, match="bracket"):
        grammar.expand(template, Dice(), {"a": "x"})


def test_an_unknown_slot_is_refused():
    with pytest.raises(KeyError, match="nobody"):
        grammar.expand("{nobody}", Dice(), {})


def test_a_template_stands_for_all_its_branches():
    dice = Dice("branches")
    found = {grammar.expand("a[b|[c|]{x}]", dice, {"x": ("y", "z")}) for _ in range(200)}
    assert found == {"ab", "acy", "acz", "ay", "az"}


@pytest.mark.parametrize(
    ("number", "text"), [(0, "零"), (2, "二"), (10, "十"), (12, "十二"), (20, "二十"), (31, "三十一")]
)
def test_numerals(number, text):
    assert grammar.numeral(number) == text
