"""Preference pairs in every form a row may have them."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buddygpt.data.formats import AnswersAdapter, Dropped, Message, Pair, PairAdapter, find_adapter

U, A, B = Message("user", "问"), Message("assistant", "好"), Message("assistant", "坏")
SYSTEM = Message("system", "令")
SIDES = PairAdapter("chosen", ("rejected",), prompt=("prompt",))


def turns(*messages: Message) -> list[dict]:
    return [{"role": m.role, "content": m.content} for m in messages]


def read(**row: object) -> Pair:
    return find_adapter([row], where="x").read(row)


def reason_of(adapter, **row: object) -> str:
    with pytest.raises(Dropped) as dropped:
        adapter.read(row)
    return dropped.value.reason


PROMPTS = {
    "a string": "问",
    "one turn": {"role": "user", "content": "问"},
    "one turn of others' keys": {"from": "human", "value": "问"},
    "turns": turns(U),
}
ANSWERS = {
    "a string": lambda m: m.content,
    "one turn": lambda m: turns(m)[0],
    "one turn of others' keys": lambda m: {"from": "gpt", "value": m.content},
    "turns": lambda m: turns(m),
    "turns with their prompt": lambda m: turns(U, m),
    "strings": lambda m: ["", m.content, "又"],
    "lists of turns": lambda m: [turns(U, m), turns(U, Message("assistant", "又"))],
    "several turns of the assistant": lambda m: turns(m, Message("assistant", "又")),
}


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("answer", ANSWERS)
def test_prompt_and_sides_may_have_any_form(prompt, answer):
    row = {"prompt": PROMPTS[prompt], "chosen": ANSWERS[answer](A), "rejected": ANSWERS[answer](B)}
    assert SIDES.read(row) == Pair((U,), A, B)


def test_what_both_sides_begin_with_is_the_prompt():
    first = (SYSTEM, U, Message("assistant", "一"), Message("user", "再问"))
    assert read(chosen=turns(*first, A), rejected=turns(*first, B)) == Pair(first, A, B)
    # White space and empty turns are no difference.
    spaced = turns(SYSTEM, Message("user", " 问\n"), Message("assistant", ""), *first[2:])
    pair = read(chosen=spaced + turns(A), rejected=turns(*first, B))
    assert pair == Pair(first, A, B, ("empty turn",))
    # The sides part early: the answers are those where they do.
    pair = read(chosen=turns(U, A, U, A), rejected=turns(U, B))
    assert pair == Pair((U,), A, B, ("turns after the answer",))


def test_the_prompt_of_the_sides_and_that_of_a_column_are_not_said_twice():
    whole = (SYSTEM, U, Message("assistant", "一"), Message("user", "再问"))
    last = whole[-1]
    sides = {"chosen": turns(last, A), "rejected": turns(last, B)}
    assert read(prompt=last.content, **sides) == Pair((last,), A, B)
    assert read(prompt=turns(*whole), **sides) == Pair(whole, A, B)  # the column says more
    longer = {"chosen": turns(*whole, A), "rejected": turns(*whole, B)}
    assert read(prompt=last.content, **longer) == Pair(whole, A, B)  # the sides say more
    assert read(prompt="问", chosen=turns(SYSTEM, A), rejected=turns(SYSTEM, B)) == Pair((SYSTEM, U), A, B)
    assert read(prompt="问", system="令", chosen=turns(U, A), rejected=turns(U, B)) == Pair((SYSTEM, U), A, B)
    assert read(instruction="令你", input="问", chosen="好", rejected="坏").prompt == (Message("user", "令你\n问"),)


def test_the_first_of_several_rejected_that_makes_a_pair_counts():
    adapter = PairAdapter("chosen", ("rejected_1", "rejected_2"), prompt=("prompt",))
    row = {"prompt": "问", "chosen": "好"}
    assert adapter.read({**row, "rejected_1": " 好 ", "rejected_2": "坏"}) == Pair((U,), A, B)
    assert adapter.read({**row, "rejected_1": None, "rejected_2": ["好", "坏", "又"]}) == Pair((U,), A, B)
    assert reason_of(adapter, **row, rejected_1="好", rejected_2=["好"]) == "chosen equals rejected"
    assert reason_of(adapter, **row, rejected_1="", rejected_2=None) == "no rejected answer"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "问", "chosen": "好", "rejected": "好\n"}, "chosen equals rejected"),
        ({"prompt": "问", "chosen": turns(U, A), "rejected": turns(U, A)}, "chosen equals rejected"),
        ({"prompt": "问", "chosen": "好", "rejected": None}, "no rejected answer"),
        ({"prompt": "问", "chosen": "好"}, "no rejected answer"),
        ({"prompt": "问", "chosen": "好", "rejected": []}, "no rejected answer"),
        ({"prompt": "问", "chosen": "好", "rejected": [" ", ""]}, "no rejected answer"),
        ({"prompt": "问", "chosen": turns(U, A), "rejected": turns(U)}, "no rejected answer"),
        ({"prompt": "问", "chosen": turns(U, A), "rejected": turns(U, Message("assistant", ""))}, "no rejected answer"),
        ({"prompt": "问", "chosen": "", "rejected": "坏"}, "no answer"),
        ({"prompt": "问", "chosen": turns(U), "rejected": turns(U, B)}, "no answer"),
        ({"prompt": "问", "chosen": "<think>想</think>", "rejected": "坏"}, "no answer"),
        ({"prompt": "", "chosen": "好", "rejected": "坏"}, "no question"),
        ({"prompt": None, "chosen": "好", "rejected": "坏"}, "no question"),
        ({"prompt": turns(SYSTEM), "chosen": "好", "rejected": "坏"}, "no question"),
        ({"prompt": turns(U, A), "chosen": "好", "rejected": "坏"}, "broken conversation"),
        ({"prompt": 5, "chosen": "好", "rejected": "坏"}, "broken conversation"),
        ({"prompt": "问", "chosen": 5, "rejected": "坏"}, "broken conversation"),
        ({"prompt": "问", "chosen": [[["好"]]], "rejected": "坏"}, "broken conversation"),
        (
            {"prompt": "问", "chosen": turns(U, A), "rejected": turns(Message("user", "别"), B)},
            "different prompts",
        ),
        ({"prompt": "问", "chosen": {"role": "judge", "content": "好"}, "rejected": "坏"}, "unknown role"),
        ({"prompt": "问", "chosen": {"role": "gpt", "content": ["好"]}, "rejected": "坏"}, "not a string"),
    ],
)
def test_what_is_no_pair_is_dropped_for_its_reason(row, reason):
    assert reason_of(SIDES, **row) == reason


def test_a_row_that_is_no_mapping_is_no_pair():
    for adapter in (SIDES, AnswersAdapter()):
        for row in (None, "a", [1]):
            with pytest.raises(Dropped, match="no text column"):
                adapter.read(row)


@pytest.mark.parametrize(("chosen", "rejected", "tie"), [(7, 7.0, True), ("7", 7, True), (8, 7, False), (7, 8, False)])
def test_the_same_score_twice_is_no_preference(chosen, rejected, tie):
    row = {"prompt": "问", "chosen": "好", "rejected": "坏", "score_chosen": chosen, "score_rejected": rejected}
    adapter = find_adapter([row], where="x")
    assert {"score_chosen", "score_rejected"} < set(adapter.columns)
    if tie:
        assert reason_of(adapter, **row) == "same score"
    else:
        assert adapter.read(row) == Pair((U,), A, B)


def test_scores_that_are_missing_are_no_tie():
    row = {"prompt": "问", "chosen": "好", "rejected": "坏", "score_chosen": None, "score_rejected": None}
    assert read(**row) == Pair((U,), A, B)


def test_reasoning_is_split_off_both_sides():
    pair = read(prompt="问", chosen="<think>想</think>好", rejected="乱想</think>坏")
    assert (pair.chosen, pair.rejected) == (Message("assistant", "好", "想"), Message("assistant", "坏", "乱想"))
    pair = read(prompt="问", chosen="<think>想</think>好", rejected="好")  # they differ by that alone
    assert pair.chosen.reasoning == "想" and pair.rejected == A


PEOPLE, MODEL = "人" * 20, "机" * 60


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"human_answers": [PEOPLE]}, "no answer"),
        ({"human_answers": [PEOPLE], "chatgpt_answers": ["", " "]}, "no answer"),
        ({"human_answers": [], "chatgpt_answers": [MODEL]}, "no rejected answer"),
        ({"human_answers": None, "chatgpt_answers": [MODEL]}, "no rejected answer"),
        ({"human_answers": [PEOPLE[1:]], "chatgpt_answers": [MODEL]}, "answer too short"),
        ({"human_answers": [PEOPLE], "chatgpt_answers": [MODEL + "。"]}, "lengths too different"),
        ({"human_answers": [PEOPLE], "chatgpt_answers": [PEOPLE]}, "chosen equals rejected"),
        ({"human_answers": [PEOPLE], "chatgpt_answers": [MODEL], "question": " "}, "no question"),
        ({"human_answers": [PEOPLE], "chatgpt_answers": [MODEL], "question": ["a"]}, "not a string"),
        ({"human_answers": [PEOPLE], "chatgpt_answers": [5]}, "broken conversation"),
    ],
)
def test_answer_lists_that_do_not_compare_are_dropped_for_their_reasons(row, reason):
    assert reason_of(AnswersAdapter(), **({"question": "问"} | row)) == reason


def test_answer_lists_give_the_first_answer_of_each_and_may_be_swapped():
    row = {"question": "问 ", "human_answers": ["", PEOPLE, "别"], "chatgpt_answers": [MODEL + " "], "id": 0}
    model, people = Message("assistant", MODEL), Message("assistant", PEOPLE)
    assert AnswersAdapter().read(row) == Pair((U,), model, people)
    assert AnswersAdapter(swap=True).read(row) == Pair((U,), people, model)
    # A map says the same of answers of any length.
    by_map = find_adapter([row], map=AnswersAdapter(swap=True).map, where="x")
    assert by_map.read(row) == Pair((U,), people, model)


CONTENTS = st.text(alphabet="甲乙 \n", max_size=3)
ROLES = st.sampled_from(["system", "user", "assistant", "tool"])
LISTS = st.lists(st.builds(lambda role, content: {"role": role, "content": content}, ROLES, CONTENTS), max_size=5)
SIDE = st.one_of(st.none(), CONTENTS, LISTS, st.lists(CONTENTS, max_size=3))


@given(st.one_of(CONTENTS, LISTS), SIDE, SIDE, LISTS, CONTENTS)
def test_whatever_the_row_a_pair_has_one_prompt_and_two_answers(prompt, chosen, rejected, before, system):
    adapter = PairAdapter("chosen", ("rejected",), prompt=("prompt",), system=("system",))
    if isinstance(chosen, list) and isinstance(rejected, list):
        chosen, rejected = before + chosen, before + rejected
    try:
        pair = adapter.read({"prompt": prompt, "chosen": chosen, "rejected": rejected, "system": system})
    except Dropped as dropped:
        assert dropped.reason in (
            "no question",
            "no answer",
            "no rejected answer",
            "chosen equals rejected",
            "different prompts",
            "broken conversation",
        )
        return
    roles = [m.role for m in pair.prompt]
    assert all(a != b for a, b in pairwise(roles))
    assert next(role for role in roles if role != "system") == "user" and roles[-1] != "assistant"
    assert pair.chosen.role == pair.rejected.role == "assistant" and pair.chosen != pair.rejected
    assert pair.chosen.content and pair.rejected.content
