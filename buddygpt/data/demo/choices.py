"""Right against wrong: preference pairs, multiple-choice questions, and beginnings for a base model to go on with."""

from __future__ import annotations

from dataclasses import dataclass

from buddygpt.data.demo.dice import Dice
from buddygpt.data.demo.grammar import expand
from buddygpt.data.demo.split import Split, in_split, rivals
from buddygpt.data.demo.wordings import WORDINGS, word
from buddygpt.data.demo.world import Fact, World, world

PAIRS_PER_FACT = 3
CHOICES = 4


@dataclass(frozen=True)
class PreferencePair:
    """A question with a true and a false reply, equal but for the value of `fact` and a wrong one in its place."""

    prompt: str
    chosen: str
    rejected: str
    fact: Fact
    wrong: str


@dataclass(frozen=True)
class MultipleChoice:
    """A question about `fact`; the right one of the choices is number `answer`, counted from 0."""

    question: str
    choices: tuple[str, ...]
    answer: int
    fact: Fact


def preference_pairs(seed: int, split: Split) -> list[PreferencePair]:
    """Three pairs for each fact of the split, each with another wrong value and mostly another wording, shuffled."""
    town = world(seed)
    dice = Dice("preference pairs", seed, split)
    pairs = []
    for fact in _facts(town, split):
        for i, wrong in enumerate(_nearest_rivals(town, fact, PAIRS_PER_FACT, dice)):
            wording = WORDINGS[fact.relation]
            # Equal dice for both sides choose equal words.
            chosen, rejected = (
                word(wording.tell, Dice("reply", seed, fact, i), town, fact.subject, value)
                for value in (fact.value, wrong)
            )
            prompt = word(wording.ask, dice, town, fact.subject)
            pairs.append(PreferencePair(prompt, chosen, rejected, fact, wrong))
    return dice.shuffled(pairs)


def multiple_choice(seed: int, split: Split) -> list[MultipleChoice]:
    """One question for each fact of the split, shuffled; the right answer is at every position equally often."""
    town = world(seed)
    dice = Dice("multiple choice", seed, split)
    facts = dice.shuffled(_facts(town, split))
    questions = []
    for fact, answer in zip(facts, dice.deal(range(CHOICES), len(facts)), strict=True):
        choices = dice.sample(rivals(town, fact), CHOICES - 1)
        choices.insert(answer, fact.value)
        question = word(WORDINGS[fact.relation].ask, dice, town, fact.subject)
        questions.append(MultipleChoice(question, tuple(choices), answer, fact))
    return questions


def prompts(seed: int) -> list[str]:
    """Beginnings of paragraphs about `world(seed)`: a portrait, a birthday, a street, a festival."""
    town = world(seed)
    dice = Dice("prompts", seed)
    person, other = dice.sample(town.people, 2)
    festival = dice.pick(town.festivals)
    slots = {
        "n": person.name,
        "home": person.home,
        "o_n": other.name,
        "bday": other.birthday,
        "street": dice.pick([*town.streets]),
        "town": town.town,
        "date": festival.date,
    }
    beginnings = (
        "{n}住在{home}，是",
        "{bday}是{o_n}的生日。一早，",
        "{street}不长，从西到东一共三家：最西边是",
        "每年{date}，{town}都要在",
    )
    return [expand(beginning, dice, slots) for beginning in beginnings]


def _facts(town: World, split: Split) -> list[Fact]:
    return [fact for fact in town.facts if in_split(town.seed, (fact,), split)]


def _nearest_rivals(town: World, fact: Fact, count: int, dice: Dice) -> list[str]:
    """Wrong values as nearly as possible of the right one's length, so that length tells nothing."""
    shuffled = dice.shuffled(rivals(town, fact))
    return sorted(shuffled, key=lambda value: abs(len(value) - len(fact.value)))[:count]
