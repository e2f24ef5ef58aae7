"""The demo world as rows to fine-tune on, and the dialogues to examine on."""

import pytest

from buddygpt.data.demo import dialogues, examination, held_out, pairs, preference_pairs, talks, world
from buddygpt.data.demo.questions import Dialogue

SEEDS = range(3)


def asked(messages) -> str:
    return str([(message.role, message.content) for message in messages[:-1]])


@pytest.mark.parametrize("seed", SEEDS)
def test_talks_are_the_training_dialogues_word_for_word(seed):
    rows = [[(m.role, m.content) for m in talk.messages] for talk in talks(seed)]
    assert rows == [[(m["role"], m["content"]) for m in d.messages] for d in dialogues(seed, "train")]
    assert all(row[-1][0] == "assistant" for row in rows)


def test_pairs_of_each_split_are_its_preference_pairs():
    for rows, split in ((pairs(0), "train"), (pairs(0, "test"), "test")):
        found = [(p.prompt[0].role, p.prompt[0].content, p.chosen.content, p.rejected.content) for p in rows]
        assert found == [("user", p.prompt, p.chosen, p.rejected) for p in preference_pairs(0, split)]


@pytest.mark.parametrize("seed", SEEDS)
def test_no_examination_asks_what_training_asked_word_for_word(seed):
    learned = {asked(talk.messages) for talk in talks(seed)}
    for split in ("train", "test"):
        for dialogue in examination(seed, split):
            assert str([(m["role"], m["content"]) for m in dialogue.messages[:-1]]) not in learned


@pytest.mark.parametrize("seed", SEEDS)
def test_examinations_cover_their_facts_and_no_others(seed):
    held, told = held_out(seed), {fact for dialogue in dialogues(seed, "train") for fact in dialogue.facts}
    for split, facts in (("train", {*world(seed).facts} - held), ("test", held)):
        found = examination(seed, split)
        assert {dialogue.form for dialogue in found} == {"short", "sentence", "yes", "no", "reverse", "turns"}
        last = {fact for d in found for fact in (d.facts if d.form == "reverse" else d.facts[-1:])}
        assert len(last & facts) > 0.95 * len(facts)
        if split == "train":
            assert last <= told
        else:
            assert all(any(fact in held for fact in dialogue.facts) for dialogue in found)


def test_examinations_are_a_function_of_the_seed():
    assert examination(0, "test") == examination(0, "test") != examination(1, "test")
    assert all(isinstance(dialogue, Dialogue) for dialogue in examination(0, "train"))
