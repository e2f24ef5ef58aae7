"""Dialogues about the facts of the demo world, to tune a model on and to examine it with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

from buddygpt.data.demo.dice import Dice
from buddygpt.data.demo.grammar import expand
from buddygpt.data.demo.split import FAMILY, Split, in_split, rivals
from buddygpt.data.demo.wordings import WORDINGS, word
from buddygpt.data.demo.world import Fact, Person, World, world

Form = Literal["short", "sentence", "yes", "no", "reverse", "turns"]
Message = dict[str, str]

_CONVERSATIONS = 4
"""Conversations about each person in the train split."""


@dataclass(frozen=True)
class Dialogue:
    """One conversation, the last message the right reply to the last question.

    `answer` is the value that the reply names, `facts` are all that the conversation reveals. Where `form` is
    "yes", the question holds the answer already; its sibling "no" asks the same with a wrong value.
    """

    messages: tuple[Message, ...]
    form: Form
    facts: tuple[Fact, ...]
    answer: str

    @property
    def question(self) -> str:
        """What the user asks last."""
        return self.messages[-2]["content"]

    @property
    def reply(self) -> str:
        """What the assistant should say to it."""
        return self.messages[-1]["content"]


def dialogues(seed: int, split: Split) -> list[Dialogue]:
    """All dialogues of the split about `world(seed)`, shuffled; the two splits share no fact that is asked for.

    A "test" dialogue asks last for a fact of which no "train" dialogue reveals anything, in whatever form.
    Only in "turns" do questions about other, known facts come before it.
    """
    return _draw(Dice("dialogues", seed, split), seed, split)


def examination(seed: int, split: Split) -> list[Dialogue]:
    """Dialogues to examine a model on, shuffled; no training dialogue has the same messages before the last reply.

    Those of the "test" split ask for facts that training never reveals, those of the "train" split for facts that it
    does: whoever knows them only word for word fails both.
    """
    known = {str(dialogue.messages[:-1]) for dialogue in dialogues(seed, "train")}
    drawn = _draw(Dice("examination", seed, split), seed, split)
    return [dialogue for dialogue in drawn if str(dialogue.messages[:-1]) not in known]


def _draw(dice: Dice, seed: int, split: Split) -> list[Dialogue]:
    town = world(seed)
    found = [*_direct(town, dice), *_reversed(town, dice), *_conversations(town, split, dice)]
    kept = [dialogue for dialogue in found if in_split(seed, dialogue.facts, split)]
    return dice.shuffled(list({str(dialogue.messages): dialogue for dialogue in kept}.values()))


def _direct(town: World, dice: Dice) -> Iterator[Dialogue]:
    """Each fact asked for in two short and two full answers, confirmed once and corrected once."""
    for fact in town.facts:
        wording = WORDINGS[fact.relation]
        say = partial(word, dice=dice, town=town, subject=fact.subject, value=fact.value)
        for _ in range(2):
            brief = say(f"[只说答案|简短回答|直接回答]：{wording.ask}")
            yield _single(brief, fact.value, "short", fact.value, fact)
            yield _single(say(wording.ask), say(wording.tell), "sentence", fact.value, fact)
        doubt = say(wording.doubt, value=dice.pick(rivals(town, fact)))
        yield _single(say(wording.doubt), say(f"[是的|对|没错]，{wording.tell}"), "yes", fact.value, fact)
        yield _single(doubt, say(f"[不是|不对|不]，{wording.tell}"), "no", fact.value, fact)


def _reversed(town: World, dice: Dice) -> Iterator[Dialogue]:
    """From values back to the only subject that has them."""
    for relations, template in _REVERSED:
        values: dict[str, tuple[str, ...]] = {}
        for subject, facts in town.facts_about.items():
            about = {fact.relation: fact.value for fact in facts}
            if all(relation in about for relation in relations):
                values[subject] = tuple(about[relation] for relation in relations)
        owners = Counter(values.values())
        for subject, key in values.items():
            if owners[key] > 1:
                continue
            slots = {"s": subject, **dict(zip(relations, key, strict=True))}
            if person := town.by_name.get(subject):
                slots["m"] = person.pet_kind.measure
            question, _, reply = expand(template, dice, slots).partition("？")
            facts = tuple(map(Fact, (subject,) * len(key), relations, key))
            yield _single(f"{question}？", reply, "reverse", subject, *facts)


# Question and full answer in one template, so that both speak of the same thing in the same words.
_REVERSED = (
    (("birthday",), "[谁的生日是{birthday}|谁在{birthday}过生日]？[{birthday}是{s}的生日|{s}的生日是{birthday}]。"),
    (("pet", "pet_name"), "[谁养了一{m}叫{pet_name}的{pet}|{pet}{pet_name}是谁养的]？[是{s}养的|{s}养的]。"),
    (("home", "occupation"), "[住在{home}的{occupation}是谁|{home}的{occupation}叫什么名字]？[是{s}|叫{s}]。"),
    (("workplace", "hobby"), "在{workplace}上班、[喜欢|爱好]{hobby}的[人|]是谁？[是{s}|那是{s}]。"),
    (("date",), "[{date}举行的是什么活动|什么活动在{date}举行]？[是{s}|{date}举行{s}]。"),
    (("host",), "{host}主持的是[什么|哪个]活动？[是{s}|{host}主持{s}]。"),
)


def _conversations(town: World, split: Split, dice: Dice) -> Iterator[Dialogue]:
    """Several questions about one person, who is called by name only in the first.

    At most one of them is about the family: the names of both parents together would give away a marriage.
    """
    for person in town.people:
        facts = town.facts_about[person.name]
        known = [fact for fact in facts if in_split(town.seed, (fact,), "train")]
        unknown = [fact for fact in facts if fact not in known]
        for fact in unknown if split == "test" else dice.sample(known, min(_CONVERSATIONS, len(known))):
            yield _conversation(town, person, fact, known, dice)


def _conversation(town: World, person: Person, last: Fact, known: list[Fact], dice: Dice) -> Dialogue:
    before: list[Fact] = []
    for fact in dice.shuffled(known):
        relatives = sum(other.relation in FAMILY for other in (*before, last, fact))
        if fact != last and len(before) < 2 and relatives < 2:
            before.append(fact)
    turns = (*before, last)
    messages: list[Message] = []
    for i, fact in enumerate(turns):
        wording = WORDINGS[fact.relation]
        ask = word(wording.ask, dice, town, person.name, again=i > 0)
        tell = word(wording.tell, dice, town, person.name, fact.value, again=i > 0)
        messages += _turn(("那么，" if i and dice.chance(30) else "") + ask, tell)
    return Dialogue(tuple(messages), "turns", turns, last.value)


def _single(question: str, reply: str, form: Form, answer: str, *facts: Fact) -> Dialogue:
    return Dialogue(_turn(question, reply), form, facts, answer)


def _turn(question: str, reply: str) -> tuple[Message, Message]:
    return {"role": "user", "content": question}, {"role": "assistant", "content": reply}
