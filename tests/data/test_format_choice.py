"""How the adapter for a file is found: by columns, by their values, by a hint, by the recipe's map."""

from __future__ import annotations

import pytest

from buddygpt.data.formats import Dropped, Message, Pair, Talk, Text, TextAdapter, find_adapter
from buddygpt.recipe.errors import BuddyError

Q, A, B = "为什么天是蓝的？", "空气散射蓝光。", "大海是蓝的。"
USER, ANSWER, SYSTEM = Message("user", Q), Message("assistant", A), Message("system", "你是老师。")
TALK = Talk((USER, ANSWER))
PAIR = Pair((USER,), ANSWER, Message("assistant", B))
FROM = [{"from": "human", "value": Q}, {"from": "gpt", "value": A}]


def error_of(rows: list, **arguments) -> str:
    with pytest.raises(BuddyError) as caught:
        find_adapter(rows, where="a.jsonl", **arguments)
    assert len(caught.value.lines) == 1 and "\n" not in caught.value.lines[0]
    return caught.value.lines[0]


def test_a_hint_decides_between_shapes_that_fit_and_nothing_else():
    row = {"instruction": Q, "output": A, "text": "t", "conversations": FROM}
    names = {hint: find_adapter([row], hint=hint, where="x").name for hint in ("text", "instruction", "conversation")}
    assert names == {"text": "text", "instruction": "prompt-response", "conversation": "conversation"}
    assert find_adapter([row], where="x").name == "conversation"
    for wrong in ("preference", "answers", "no shape"):
        assert find_adapter([row], hint=wrong, where="x") == find_adapter([row], where="x")


def test_columns_count_by_their_values_not_by_their_names_alone():
    prose = {"dialogue": "甲：你好\n乙：你好", "text": A}
    assert find_adapter([prose], where="x") == TextAdapter(("text",))
    numbers = {"prompt": 5, "response": 6, "content": A}
    assert find_adapter([numbers], where="x") == TextAdapter(("content",))
    assert find_adapter([{"text": None, "content": A}], where="x") == TextAdapter(("content",))


def test_columns_that_are_null_in_the_first_rows_count_by_name():
    assert find_adapter([{"text": None, "id": 1}] * 100, where="x") == TextAdapter(("text",))
    late = find_adapter([{"prompt": Q, "response": A, "reasoning": None, "system": None}], where="x")
    row = {"prompt": Q, "response": A, "reasoning": "想。", "system": "你是老师。"}
    assert late.read(row) == Talk((SYSTEM, USER, Message("assistant", A, "想。")))
    assert find_adapter([], where="x") == find_adapter([1, "a", None], where="x") == TextAdapter(("text",))


def test_a_column_with_values_comes_before_one_without():
    row = {"prompt": Q, "response": A, "reasoning": None, "reasoning_content": "想。", "think": True}
    assert find_adapter([row], where="x").read(row).messages[-1].reasoning == "想。"
    row = {"instruction": Q, "input": "", "context": "天", "output": A}
    assert find_adapter([row], where="x").read(row).messages[0].content == f"{Q}\n天"


def test_two_columns_for_one_meaning_matter_only_where_the_shape_is_whole():
    for more in ({"prompt": Q, "question": Q}, {"answer": A, "target": A}, {"chosen": 0, "rejected": 1}):
        assert find_adapter([{"text": A, **more}], where="x") == TextAdapter(("text",))


def test_what_fits_twice_or_not_at_all_is_one_line_with_the_remedy():
    both = error_of([{"text": "a", "content": "b"}])
    assert both == "a.jsonl: text and content may all be the text; say which with `map: {text: text}`"
    assert "prompt and question may all be the prompt" in error_of([{"prompt": Q, "question": Q, "answer": A}])
    none = error_of([{"body_text": "x", "n": 1}])
    assert none.startswith("a.jsonl: no text column found among body_text, n;") and "`map: {text: body_text}`" in none
    assert "no columns" in error_of([{}])
    assert "no column among id, chosen, rejected is known" in error_of([{"id": 1, "chosen": A, "rejected": B}])


def test_a_map_rules_over_names_and_may_join_columns():
    row = {"text": "t", "q": Q, "about": "天", "a": A, "why": "想。", "who": "你是老师。", "no": B, "turns": FROM}
    rows = [row]
    assert find_adapter(rows, map={"text": ["q", "a"]}, where="x").read(row) == Text(f"{Q}\n{A}")
    told = {"prompt": "q", "input": "about", "response": ["a"], "reasoning": "why", "system": "who", "score": "no"}
    expected = Talk((SYSTEM, Message("user", f"{Q}\n天"), Message("assistant", A, "想。")))
    assert find_adapter(rows, map=told, where="x").read(row) == expected
    assert find_adapter(rows, map={"messages": "turns"}, where="x").read(row) == TALK
    pair = find_adapter(rows, map={"prompt": "q", "chosen": "a", "rejected": ["a", "no"]}, where="x")
    assert pair.read(row) == PAIR
    pair = find_adapter(rows, map={"messages": "turns", "chosen": "a", "rejected": "no"}, where="x")
    with pytest.raises(Dropped, match="broken conversation"):  # the turns already end with an answer
        pair.read(row)
    # A score alone says nothing of the shape.
    assert find_adapter(rows, map={"score": "no"}, where="x") == find_adapter(rows, where="x")


@pytest.mark.parametrize(
    ("told", "fault"),
    [
        (
            {"text": "bodi"},
            "text is in the column bodi, which is not there; did you mean 'body'?; there are body, a, b",
        ),
        ({"score": "points"}, "score is in the column points"),
        ({"chosen": "a"}, "`map` with chosen describes no row"),
        ({"prompt": "a"}, "`map` with prompt describes no row"),
        ({"text": "body", "prompt": "a", "response": "b"}, "`map` with text + prompt + response describes no row"),
        ({"messages": "a", "prompt": "b"}, "`map` with messages + prompt describes no row"),
        ({"input": "a"}, "`map` with input describes no row"),
        ({"messages": ["a", "b"]}, "`map` takes one column for messages, not 2"),
        ({"chosen": ["a", "b"], "rejected": "b"}, "`map` takes one column for chosen, not 2"),
    ],
)
def test_a_wrong_map_is_one_line(told, fault):
    assert fault in error_of([{"body": "x", "a": "x", "b": "x"}], map=told)
