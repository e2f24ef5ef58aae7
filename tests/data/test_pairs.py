"""A pair that is too long keeps its prompt's ends and both answers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buddygpt.data.pairs import fit_pair

END = -1


def ids(first, count, end=True):
    return [*range(first, first + count - end), *[END] * end]


def test_nothing_is_cut_where_it_fits():
    prompt, chosen, rejected = ids(0, 10), ids(100, 22), ids(200, 5)
    assert fit_pair(prompt, chosen, rejected, 32, 3) == (prompt, chosen, rejected, ())


@pytest.mark.parametrize("swapped", [False, True])
def test_the_prompt_gives_way_first_behind_its_opening(swapped):
    answers = [ids(100, 12), ids(200, 5)][:: -1 if swapped else 1]
    prompt, *found, cut = fit_pair(range(30), *answers, 32, 3)
    assert prompt == [0, 1, 2, *range(13, 30)] and len(prompt) == 20
    assert found == answers and cut == ("prompt",)


def test_an_answer_longer_than_the_length_leaves_the_short_one_alone():
    prompt, chosen, rejected, cut = fit_pair(range(20), ids(100, 40), ids(200, 5), 32, 3)
    assert prompt == [0, 1, 2, *range(7, 20)]
    assert chosen == ids(100, 40)[:16] and END not in chosen
    assert rejected == ids(200, 5)
    assert cut == ("prompt", "chosen")


def test_a_prompt_longer_than_the_length_leaves_a_short_answer_whole():
    prompt, chosen, rejected, cut = fit_pair(range(80), ids(100, 5), ids(200, 4), 64, 3)
    assert prompt == [0, 1, 2, *range(24, 80)] and len(prompt) == 59
    assert (chosen, rejected, cut) == (ids(100, 5), ids(200, 4), ("prompt",))


def test_a_rejected_answer_twenty_times_as_long_does_not_change_the_chosen_one():
    prompt, chosen, rejected, cut = fit_pair(range(40), ids(100, 10), ids(200, 200), 128, 3)
    assert prompt == list(range(40)) and chosen == ids(100, 10)
    assert rejected == ids(200, 200)[:88]
    assert cut == ("rejected",)


@given(
    st.integers(0, 60), st.integers(1, 60), st.integers(1, 60), st.integers(2, 70), st.integers(0, 10),
)  # fmt: skip
def test_whatever_the_lengths(prompt_tokens, chosen_tokens, rejected_tokens, length, opening):
    whole = list(range(prompt_tokens)), ids(100, chosen_tokens), ids(200, rejected_tokens)
    prompt, chosen, rejected, cut = fit_pair(*whole, length, min(opening, prompt_tokens))
    assert chosen and rejected
    assert len(prompt) + max(len(chosen), len(rejected)) <= length
    assert all(side == answer[: len(side)] for side, answer in zip((chosen, rejected), whole[1:], strict=True))
    kept = min(opening, len(prompt))
    assert prompt[:kept] == whole[0][:kept] and prompt[kept:] == whole[0][len(whole[0]) - len(prompt) + kept :]
    fits = prompt_tokens + max(chosen_tokens, rejected_tokens) <= length
    assert fits == (cut == ())
    for name, was, now in zip(("prompt", "chosen", "rejected"), whole, (prompt, chosen, rejected), strict=True):
        assert (name in cut) == (now != was)
    if len(chosen) < chosen_tokens or len(rejected) < rejected_tokens:  # only where the prompt gave what it could
        assert len(prompt) <= max(length // 2, opening)
        assert len(prompt) + max(len(chosen), len(rejected)) == length
