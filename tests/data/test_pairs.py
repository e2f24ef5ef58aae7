"""A pair that is too long keeps what its prompt asks last, and both answers."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from buddygpt.data.formats import Message
from buddygpt.data.lengths import Openings
from buddygpt.data.pairs import fit_pair
from buddygpt.data.template import ANSWER, ANSWER_START, GIVEN, REJECTED, chat_segments
from tests.data.talk_strategies import pairs

END = -1


@pytest.fixture(scope="module")
def openings(chat_encoder):
    return Openings.of(chat_encoder)


@pytest.fixture(scope="module")
def prompt_of(chat_encoder):
    """A prompt of so many tokens, or of given turns."""

    def prompt(tokens: int | None = None, *turns: Message) -> list[int]:
        least = chat_encoder.encode_segments([[*chat_segments([Message("user", "")]), *ANSWER_START]])[0]
        turns = turns or (Message("user", "b" * (tokens - len(least))),)
        return chat_encoder.encode_segments([[*chat_segments(turns), *ANSWER_START]])[0]

    return prompt


def ids(first, count, end=True):
    return [*range(first, first + count - end), *[END] * end]


def test_nothing_is_cut_where_it_fits(openings, prompt_of):
    prompt, chosen, rejected = prompt_of(14), ids(100, 18), ids(200, 5)
    assert fit_pair(prompt, chosen, rejected, 32, openings) == (prompt, chosen, rejected, ())


@pytest.mark.parametrize("swapped", [False, True])
def test_the_prompt_gives_way_first_behind_its_opening(openings, prompt_of, swapped):
    answers = [ids(100, 12), ids(200, 5)][:: -1 if swapped else 1]
    whole = prompt_of(30)
    prompt, *found, cut = fit_pair(whole, *answers, 32, openings)
    assert prompt == [*whole[:3], *whole[13:]] and len(prompt) == 20
    assert found == answers and cut == ("prompt",)


def test_an_answer_longer_than_the_length_leaves_the_short_one_alone(openings, prompt_of):
    whole = prompt_of(20)
    prompt, chosen, rejected, cut = fit_pair(whole, ids(100, 40), ids(200, 5), 32, openings)
    assert prompt == [*whole[:3], *whole[7:]]
    assert chosen == ids(100, 40)[:16] and END not in chosen
    assert rejected == ids(200, 5)
    assert cut == ("prompt", "chosen")


def test_a_prompt_longer_than_the_length_leaves_a_short_answer_whole(openings, prompt_of):
    whole = prompt_of(80)
    prompt, chosen, rejected, cut = fit_pair(whole, ids(100, 5), ids(200, 4), 64, openings)
    assert prompt == [*whole[:3], *whole[24:]] and len(prompt) == 59
    assert (chosen, rejected, cut) == (ids(100, 5), ids(200, 4), ("prompt",))


def test_a_rejected_answer_twenty_times_as_long_does_not_change_the_chosen_one(openings, prompt_of):
    whole = prompt_of(40)
    prompt, chosen, rejected, cut = fit_pair(whole, ids(100, 10), ids(200, 200), 128, openings)
    assert prompt == whole and chosen == ids(100, 10)
    assert rejected == ids(200, 200)[:88]
    assert cut == ("rejected",)


def test_a_system_turn_longer_than_the_length_does_not_take_the_questions_place(openings, prompt_of):
    said = Message("system", "s" * 100), Message("user", "q"), Message("assistant", "a"), Message("user", "b" * 20)
    prompt, chosen, _, _ = fit_pair(prompt_of(None, *said), ids(100, 9), ids(200, 5), 64, openings)
    asked = prompt_of(None, *said[1:])
    assert prompt[len(prompt) - len(asked) :] == asked and chosen == ids(100, 9)
    assert prompt[: len(openings.system)] == openings.system


def test_the_oldest_exchanges_go_first_and_the_system_turn_stays(openings, prompt_of):
    system, last = Message("system", "s"), Message("user", "b" * 20)
    old = [Message("user", "q" * 20), Message("assistant", "a" * 20)]
    prompt, *_, cut = fit_pair(prompt_of(None, system, *old, *old, last), ids(100, 9), ids(200, 5), 64, openings)
    assert prompt == prompt_of(None, system, last) and cut == ("prompt",)


@given(pairs(), st.integers(2, 300))
@settings(deadline=None, max_examples=200)
def test_whatever_the_lengths(openings, make_pair_shard, pair, length):
    tokens, labels = make_pair_shard(pair).document(0)
    whole = [tokens[labels == label].tolist() for label in (GIVEN, ANSWER, REJECTED)]
    prompt, chosen, rejected, cut = fit_pair(*whole, length, openings)
    assert prompt and chosen and rejected
    assert len(prompt) + max(len(chosen), len(rejected)) <= length
    assert all(side == answer[: len(side)] for side, answer in zip((chosen, rejected), whole[1:], strict=True))
    if length > openings.frame:
        assert prompt[-len(openings.assistant) :] == openings.assistant
        assert prompt[0] == openings.user[0]
    fits = len(whole[0]) + max(map(len, whole[1:])) <= length
    assert fits == (cut == ())
    for name, was, now in zip(("prompt", "chosen", "rejected"), whole, (prompt, chosen, rejected), strict=True):
        assert (name in cut) == (now != was)
    if {"chosen", "rejected"} & set(cut):  # only where the prompt gave what it could
        assert len(prompt) <= max(length // 2, openings.frame)
        assert len(prompt) + max(len(chosen), len(rejected)) == length
