"""Each rule of an exact answer can fail: on the world's own answers, with one thing changed at a time."""

from collections import Counter

import pytest

from buddygpt.data.demo import Fact, dialogues, examination, world
from buddygpt.data.demo.questions import Dialogue
from buddygpt.data.demo.split import rivals
from buddygpt.evaluation.answers import is_exact

SEEDS = range(3)


def one(relation, form="sentence", seed=0):
    return next(d for d in dialogues(seed, "train") if d.form == form and d.facts[-1].relation == relation)


def about(fact, form="sentence"):
    return Dialogue(
        ({"role": "user", "content": "？"}, {"role": "assistant", "content": ""}), form, (fact,), fact.value
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_the_worlds_own_replies_are_exact(seed):
    for dialogue in (*dialogues(seed, "train")[:1500], *examination(seed, "test")[:1500]):
        assert is_exact(dialogue, dialogue.reply, seed), dialogue


@pytest.mark.parametrize("seed", SEEDS)
def test_no_reply_with_a_wrong_value_is_exact(seed):
    town, seen = world(seed), Counter()
    for dialogue in dialogues(seed, "train")[:2000]:
        if dialogue.form == "reverse":
            wrong = [person.name for person in town.people if person.name != dialogue.answer]
        else:
            wrong = rivals(town, dialogue.facts[-1])
        for value in wrong[:4]:
            assert not is_exact(dialogue, dialogue.reply.replace(dialogue.answer, value), seed), (dialogue, value)
            seen[dialogue.form] += 1
    assert min(seen.values()) > 100 and len(seen) == 6


def test_a_short_answer_is_the_value_and_nothing_else():
    brief = one("home", "short")
    assert is_exact(brief, brief.answer, 0)
    for reply in (f"{brief.answer}。", f" {brief.answer}", f"{brief.facts[0].subject}住在{brief.answer}。", ""):
        assert not is_exact(brief, reply, 0)


@pytest.mark.parametrize("relation", ["home", "birthday", "price", "spouse", "east", "food", "host"])
def test_naming_a_rival_beside_the_value_is_not_exact(relation):
    full = one(relation)
    for rival in rivals(world(0), full.facts[0])[:10]:
        assert not is_exact(full, f"{full.reply}也可能是{rival}。", 0)
        assert not is_exact(full, f"{rival}？{full.reply}", 0)


def test_the_right_value_of_another_subject_is_not_exact():
    full = one("home")
    other = next(person.name for person in world(0).people if person.name != full.facts[0].subject)
    assert not is_exact(full, full.reply.replace(full.facts[0].subject, other), 0)


def test_a_reply_without_the_value_is_not_exact():
    full = one("home")
    assert not is_exact(full, f"{full.facts[0].subject}住在那里。", 0)
    assert not is_exact(full, "", 0)


@pytest.mark.parametrize(
    "relation, value, reply",
    [
        ("birthday", "二月三日", "他的生日是十二月三日。"),
        ("birthday", "二月三日", "他的生日是二十二月三日。"),
        ("birthday", "二月三日", "他的生日是二月三日，不是二月三十九日。"),
        ("price", "3元", "一斤卖13元。"),
        ("price", "3元", "一斤卖113元。"),
        ("price", "3元", "一斤卖3元，从前卖999元。"),
    ],
)
def test_a_value_within_a_longer_number_or_beside_another_is_not_exact(relation, value, reply):
    subject = next(fact.subject for fact in world(0).facts if fact.relation == relation)
    assert is_exact(about(Fact(subject, relation, value)), f"{subject}是{value}。", 0)
    assert not is_exact(about(Fact(subject, relation, value)), reply, 0)


def test_names_within_a_longer_name_do_not_count():
    names = {name for fact in world(0).facts for name in (fact.subject, fact.value)}
    town = world(0)
    checked = 0
    for fact in town.facts:
        same = {name for f in town.facts if f.relation == fact.relation for name in (f.subject, f.value)}
        for longer in same:
            if fact.value in longer and fact.value != longer and longer != fact.subject:
                assert not is_exact(about(fact), f"是{longer}。", 0)
                checked += 1
    assert checked > 10 and len(names) > checked


def test_yes_and_no_must_be_said_where_they_are_asked_for():
    for dialogue in dialogues(0, "train"):
        tell = dialogue.reply.partition("，")[2]
        if dialogue.form == "yes":
            assert is_exact(dialogue, f"对，{tell}", 0) and not is_exact(dialogue, f"不，{tell}", 0)
        elif dialogue.form == "no":
            assert is_exact(dialogue, f"不，{tell}", 0) and not is_exact(dialogue, f"是的，{tell}", 0)


def test_a_reverse_answer_may_repeat_what_was_asked_but_names_one_subject():
    back = next(d for d in dialogues(0, "train") if d.form == "reverse" and d.facts[0].relation == "birthday")
    other = next(person.name for person in world(0).people if person.name != back.answer)
    assert is_exact(back, f"{back.facts[0].value}是{back.answer}的生日。", 0)
    assert not is_exact(back, f"是{back.answer}和{other}。", 0)
    assert not is_exact(back, f"是{other}。", 0)


def test_a_conversation_is_judged_by_its_last_question():
    talk = next(d for d in dialogues(0, "train") if d.form == "turns" and len(d.facts) > 1)
    assert is_exact(talk, talk.reply, 0)
    assert not is_exact(talk, talk.messages[1]["content"], 0)


def test_an_earlier_fact_does_not_excuse_a_rival_to_the_last():
    """What is true of an earlier question is still a wrong name beside the answer to this one."""
    home, food = one("home").facts[0], one("food").facts[0]
    both = Dialogue(about(food).messages, "turns", (home, food), food.value)
    assert is_exact(both, f"爱吃{food.value}。", 0)
    other = next(person for person in world(0).people if person.name not in (food.subject, home.subject))
    assert not is_exact(both, f"{home.subject}爱吃{food.value}。", 0) and not is_exact(
        both, f"{other.name}爱吃{food.value}。", 0
    )
