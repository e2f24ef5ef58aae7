"""Turns in every form a row may have them, and the order they are put in."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buddygpt.data.formats import Dropped, Message, PromptAdapter, Talk, TalkAdapter
from buddygpt.data.formats.turns import ROLES, split_reasoning

TALKS = TalkAdapter("messages")
SHORT = {"u": "user", "a": "assistant", "s": "system", "t": "tool"}


def turns_of(spelled: str) -> list[dict]:
    """`u1 a2 s t3`: turns by role and content."""
    return [{"role": SHORT[part[0]], "content": part[1:]} for part in spelled.split()]


def read(turns: object, **row: object) -> Talk:
    return TALKS.read({"messages": turns, **row})


def spell(talk: Talk) -> str:
    return " ".join(m.role[0] + m.content.replace("\n", "|") for m in talk.messages)


def reason_of(turns: object) -> str:
    with pytest.raises(Dropped) as dropped:
        read(turns)
    return dropped.value.reason


@pytest.mark.parametrize(
    ("given", "kept", "edits"),
    [
        ("u1 a2", "u1 a2", ()),
        ("s0 u1 a2 u3 a4", "s0 u1 a2 u3 a4", ()),
        ("u1 a2 u3", "u1 a2", ("trailing user turn",)),
        ("u1 a2 u3 t4", "u1 a2", ("trailing user turn", "trailing tool turn")),
        ("a0 u1 a2", "u1 a2", ("leading assistant turn",)),
        ("s0 a1 t2 u3 a4", "s0 u3 a4", ("leading assistant turn", "leading tool turn")),
        ("s1 a2 s3 u4 a5", "s1|3 u4 a5", ("leading assistant turn", "merged turns")),
        ("u1 u2 a3 a4", "u1|2 a3|4", ("merged turns",)),
        ("u1 a u2 a3", "u1|2 a3", ("empty turn", "merged turns")),
        ("u a0 u1 a2", "u1 a2", ("empty turn", "leading assistant turn")),
        ("u1 t2 t3 a4", "u1 t2|3 a4", ("merged turns",)),
        ("u1 a2 s3 u4 a5", "u1 a2 s3 u4 a5", ()),
        ("u1 a2 u3 u4 u5", "u1 a2", ("merged turns", "trailing user turn")),
    ],
)
def test_turns_are_put_in_order_and_each_kind_of_change_is_told(given, kept, edits):
    talk = read(turns_of(given))
    assert (spell(talk), talk.edits) == (kept, edits)


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        (None, "empty"),
        ([], "empty"),
        ("", "empty"),
        (" ", "empty"),
        ([{}], "empty"),
        (turns_of("u a s"), "empty"),
        (turns_of("s1"), "no question"),
        (turns_of("s1 a2"), "no question"),
        (turns_of("u1"), "no answer"),
        (turns_of("u1 a"), "no answer"),
        (turns_of("a1 u2"), "no answer"),
        ("[{", "broken conversation"),
        ("[" * 100_000, "broken conversation"),
        ("5", "broken conversation"),
        (5, "broken conversation"),
        (["你好", "您好"], "broken conversation"),
        ([[Message("user", "a")]], "broken conversation"),
        ([{"role": "narrator", "content": "a"}], "unknown role"),
        ([{"role": 5, "content": "a"}], "unknown role"),
        ([{"content": "a"}], "unknown role"),
        ([{"role": "user", "content": ["a"]}], "not a string"),
        ([{"human": 5, "assistant": "a"}], "not a string"),
        ([{"role": "assistant", "content": "a", "reasoning": ["b"]}], "not a string"),
    ],
)
def test_what_is_no_talk_is_dropped_for_its_reason(turns, reason):
    assert reason_of(turns) == reason


def test_a_row_that_is_no_mapping_is_dropped():
    for row in (None, "text", [1], 5):
        for adapter in (TALKS, PromptAdapter(("prompt",), ("response",))):
            with pytest.raises(Dropped, match="no text column"):
                adapter.read(row)


SPEAKING = sorted(ROLES.keys() - {"function_call"})


@pytest.mark.parametrize("name", [*SPEAKING, "Human", " GPT "])
def test_every_name_of_a_role_is_known_in_both_forms_and_in_a_string(name):
    said = [("human", "一"), ("gpt", "二"), (name, "三"), ("gpt", "四")]
    role = ROLES[name.strip().lower()]
    expected = "u一 a二|三|四" if role == "assistant" else f"u一 a二 {role[0]}三 a四"
    for who, what in (("role", "content"), ("from", "value")):
        turns = [{who: speaker, what: text} for speaker, text in said]
        assert spell(read(turns)) == spell(read(json.dumps(turns))) == expected


@pytest.mark.parametrize(("who", "answers"), [("human", "assistant"), ("user", "bot"), ("Human", "GPT"), ("问", "答")])
def test_a_question_and_its_answer_may_share_a_mapping_in_any_order(who, answers):
    turns = [{who: "u1", answers: "a2"}, {answers: "a4", who: "u3", "model": "gpt-9", "id": 5}, {who: "u5"}]
    talk = read(turns)
    assert (spell(talk), talk.edits) == ("uu1 aa2 uu3 aa4", ("trailing user turn",))


def test_a_system_column_goes_first_and_is_not_said_twice():
    adapter = TalkAdapter("messages", system=("system",))
    row = {"messages": turns_of("u1 a2"), "system": " s0 "}
    assert spell(adapter.read(row)) == "ss0 u1 a2"
    assert spell(adapter.read({**row, "messages": turns_of("ss0 u1 a2")})) == "ss0 u1 a2"
    assert spell(adapter.read({**row, "messages": turns_of("s9 u1 a2")})) == "ss0|9 u1 a2"
    for blank in ({"system": ""}, {"system": None}, {}):
        assert spell(adapter.read({"messages": row["messages"], **blank})) == "u1 a2"


@pytest.mark.parametrize(
    ("content", "reasoning", "answer"),
    [
        ("<think>\n想\n</think>\n\n好", "想", "好"),
        ("想\n</think>\n\n好", "想", "好"),  # the prompt held the opening mark
        ("<think>\n\n</think>\n\n好", "", "好"),
        ("</think>好", "", "好"),
        ("<think>一</think>二<think>三</think>四", "一", "二<think>三</think>四"),  # once
        ("<think>一</think><think>二</think>三", "一", "<think>二</think>三"),
        ("<think>没有完", "", "<think>没有完"),
        ("好", "", "好"),
        ("写成 <think>…</think> 的样子", "", "写成 <think>…</think> 的样子"),
    ],
)
def test_reasoning_is_split_off_an_answer_once(content, reasoning, answer):
    assert split_reasoning(content) == (reasoning, answer)
    expected = (Message("user", "问"), Message("assistant", answer, reasoning))
    assert read([{"role": "user", "content": "问"}, {"role": "assistant", "content": content}]).messages == expected
    prompts = PromptAdapter(("prompt",), ("response",), reasoning=("think",))
    assert prompts.read({"prompt": "问", "response": content, "think": None}).messages == expected
    # In a column and in the answer: the same once, another after it.
    if reasoning:
        assert prompts.read({"prompt": "问", "response": content, "think": reasoning}).messages == expected
        both = prompts.read({"prompt": "问", "response": content, "think": "先"}).messages[-1]
        assert (both.reasoning, both.content) == (f"先\n{reasoning}", answer)


def test_only_an_answer_has_reasoning():
    marked = "<think>a</think>b"
    talk = read([{"role": "user", "content": marked, "reasoning": "c"}, {"role": "assistant", "content": "d"}])
    assert talk.messages == (Message("user", marked), Message("assistant", "d"))
    for key in ("reasoning", "reasoning_content", "think"):
        talk = read([*turns_of("u1"), {"role": "assistant", "content": "a", key: " r "}])
        assert talk.messages[-1] == Message("assistant", "a", "r")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "a", "response": ""}, "no answer"),
        ({"prompt": "a", "response": None}, "no answer"),
        ({"prompt": "a"}, "no answer"),
        ({"prompt": "a", "response": "<think>b</think>"}, "no answer"),
        ({"prompt": " ", "response": "b"}, "no question"),
        ({"response": "b"}, "no question"),
        ({"prompt": 5, "response": "b"}, "not a string"),
        ({"prompt": "a", "response": ["b"]}, "not a string"),
    ],
)
def test_a_prompt_without_its_answer_is_dropped_for_its_reason(row, reason):
    with pytest.raises(Dropped) as dropped:
        PromptAdapter(("prompt",), ("response",)).read(row)
    assert dropped.value.reason == reason


SPACE = st.sampled_from(["", " ", "\n", "\u3000"])
WORDS = st.text(alphabet="甲乙丙丁abc", max_size=6)
CONTENTS = st.one_of(st.none(), st.builds(lambda a, b, c: a + b + c, SPACE, WORDS, SPACE))
TURNS = st.lists(
    st.one_of(
        st.builds(lambda role, text: {"role": role, "content": text}, st.sampled_from(SPEAKING), CONTENTS),
        st.builds(lambda role, text: {"from": role, "value": text}, st.sampled_from(SPEAKING), CONTENTS),
        st.fixed_dictionaries({}, optional={"human": CONTENTS, "assistant": CONTENTS}),
    ),
    max_size=8,
)


@given(TURNS)
def test_whatever_the_turns_the_talk_is_in_order_and_no_loss_is_untold(turns):
    texts = [
        text.strip()
        for turn in turns
        for text in (
            [turn.get("content", turn.get("value"))]
            if "role" in turn or "from" in turn
            else map(turn.get, ("human", "assistant"))
        )
        if text and text.strip()
    ]
    try:
        talk = read(turns)
    except Dropped as dropped:
        assert dropped.reason in ("empty", "no answer", "no question")
        assert bool(texts) == (dropped.reason != "empty")
        return
    roles = [m.role for m in talk.messages]
    assert all(a != b for a, b in pairwise(roles))
    assert next(role for role in roles if role != "system") == "user" and roles[-1] == "assistant"
    assert all(m.content == m.content.strip() != "" for m in talk.messages)
    kept = [line for m in talk.messages for line in m.content.split("\n")]
    lost = [edit for edit in talk.edits if edit.startswith(("leading", "trailing"))]
    assert kept == texts if not lost else len(kept) < len(texts)
    # Putting in order what is in order changes nothing.
    again = read([{"role": m.role, "content": m.content} for m in talk.messages])
    assert again == Talk(talk.messages)
