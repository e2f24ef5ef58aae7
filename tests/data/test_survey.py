"""A look at the first rows: kinds of values, what is dropped and where, lengths."""

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buddygpt.data.formats import find_adapter
from buddygpt.data.survey import BYTES, ROWS, columns_of, shorten, show_row, show_value, spread, survey


def look(rows, **more):
    numbered = list(enumerate(rows, 1))
    return survey(iter(numbered), find_adapter(rows[:100], where="a.jsonl", map=more.get("map")), "a.jsonl", **more)


@pytest.mark.parametrize(
    ("values", "holds", "empty"),
    [
        (["a", "b"], "text", 0),
        ([1, 2.5], "number", 0),
        ([True, None], "yes or no", 1),
        (["a", 1, ""], "text or number", 1),
        ([None, ""], "nothing", 2),
        ([[{"role": "user", "content": "x"}], [{"role": "user", "tools": 1}]], "list of {role, content, tools}", 0),
        ([["a"], [1]], "list of text or number", 0),
        ([[], []], "empty list", 0),
        ([{"from": "human", "value": "x"}], "{from, value}", 0),
        ([dict.fromkeys("abcdefghij")], "{a, b, c, d, e, f, g, h, ...}", 0),
    ],
)
def test_what_a_column_holds_is_said_from_its_values(values, holds, empty):
    (column,) = columns_of([{"x": value} for value in values])
    assert (column.name, column.holds, column.empty) == ("x", holds, empty)


def test_a_column_that_comes_late_is_empty_before_and_rows_of_another_kind_are_passed_over():
    first, second = columns_of([{"a": 1}, "no mapping", {"a": 1, "b": "x"}])
    assert (first.name, first.empty, second.name, second.empty) == ("a", 0, "b", 1)


def test_every_row_stays_or_is_counted_with_the_first_place():
    rows = [
        {"text": "一", "score": "0.9"},
        {"text": "二", "score": 0.1},
        {"text": "", "score": 1},
        {"text": "三", "score": "high"},
        {"text": "四", "score": 0.2},
        {"text": "\ud800", "score": 1},
    ]
    seen = look(rows, min_score=0.5)
    assert seen.texts == ["一"]
    assert seen.dropped == {
        "low score": (2, "a.jsonl:2"),
        "empty": (1, "a.jsonl:3"),
        "no score": (1, "a.jsonl:4"),
        "lone surrogate": (1, "a.jsonl:6"),
    }
    assert seen.rows == len(seen.texts) + sum(count for count, _ in seen.dropped.values())


def test_a_score_of_another_name_is_the_maps():
    rows = [{"text": "一", "quality": 1}, {"text": "二", "quality": 0}]
    assert look(rows, map={"text": "text", "score": "quality"}, min_score=0.5).texts == ["一"]


def test_what_is_changed_in_rows_that_stay_is_counted():
    talk = [{"role": "assistant", "content": "先说"}, {"role": "user", "content": "问"}]
    seen = look([{"messages": [*talk, {"role": "assistant", "content": "答"}]}] * 3)
    assert seen.texts == ["问\n答"] * 3
    assert set(seen.edits.values()) == {3}


@pytest.mark.parametrize(("text", "rows"), [("短", ROWS), ("长" * (BYTES // 30 + 1), 10)], ids=["rows", "bytes"])
def test_it_ends_after_so_many_rows_or_bytes(text, rows):
    seen = look([{"text": text}] * (ROWS + 5))
    assert (seen.rows, seen.ended) == (rows, False)
    assert look([{"text": text}] * 3).ended


def test_no_more_rows_are_taken_than_are_counted():
    taken = 0

    def rows():
        nonlocal taken
        for number in range(1, 10**9):
            taken = number
            yield number, {"text": "x"}

    survey(rows(), find_adapter([{"text": "x"}], where="a"), "a.jsonl")
    assert taken == ROWS + 1


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=200))
def test_the_spread_of_lengths_is_that_of_the_statistics_books(lengths):
    found = spread(lengths)
    assert found.mean == pytest.approx(statistics.fmean(lengths))
    assert found.median == statistics.median(lengths)
    assert found.longest == max(lengths)
    below = sum(length <= found.p95 for length in lengths)
    assert below >= 0.95 * len(lengths)  # the smallest length with that share at or below it
    assert sum(length < found.p95 for length in lengths) < 0.95 * len(lengths)


@given(st.text(max_size=400))
def test_a_shown_value_is_one_line_that_steers_no_terminal(text):
    shown = shorten(text)
    assert shown.isprintable() or all(c.isprintable() or c in "\u3000\u00a0" or c.isspace() for c in shown)
    assert not set(shown) & set("\n\r\x1b\u2028\u2029\u202e\x07")
    assert len(shown) <= 160 * 6 + 40


def test_long_values_are_shortened_and_say_how_long_they_were():
    assert shorten("山" * 160) == "山" * 160
    assert shorten("山" * 1161) == "山" * 160 + " ... (1,161 characters)"
    assert show_row({"a": None, "b": [{"c": "值"}], "d": "x\ny"}) == 'a: null\nb: [{"c": "值"}]\nd: x\\ny'
    assert show_row("no mapping") == "no mapping"


def test_what_a_row_became_is_shown_turn_by_turn():
    pair = find_adapter([{"prompt": "问", "chosen": "好", "rejected": "坏"}], where="a")
    assert (
        show_value(pair.read({"prompt": "问", "chosen": "好", "rejected": "坏"}))
        == "user: 问\nchosen: 好\nrejected: 坏"
    )
    row = {"prompt": "问", "response": "答", "reasoning": "想"}
    assert show_value(find_adapter([row], where="a").read(row)) == "user: 问\nassistant thinks: 想\nassistant: 答"
