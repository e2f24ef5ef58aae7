""".json files: arrays through a window of any size, and what else may be in them."""

from __future__ import annotations

import io
import json
import math
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buddygpt.data.files import arrays
from buddygpt.data.files.arrays import read_json
from buddygpt.data.files.lines import read_json_lines
from buddygpt.recipe.errors import BuddyError

edges = st.builds(int.__add__, st.sampled_from([-(1 << 64), -(1 << 63), 1 << 63, 1 << 64, 10**19]), st.integers(-2, 2))
"""Integers about which a parser of 64 bits may be wrong."""
scalars = st.one_of(st.text(max_size=9), st.integers(), edges, st.booleans(), st.none(), st.floats(allow_nan=False))
values = st.recursive(scalars, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=3), v, max_size=3))
objects = st.fixed_dictionaries({"id": st.integers(), "text": st.text()}, optional={"x": values})
arrays_of_rows = st.lists(objects | values, max_size=8) | st.lists(objects, max_size=12)
styles = st.fixed_dictionaries(
    {
        "ensure_ascii": st.booleans(),
        "indent": st.sampled_from([None, 0, 2]),
        "separators": st.sampled_from([(",", ":"), (" ,\t", ": ")]),
    }
)


def dump(rows: list, style: dict) -> bytes:
    return json.dumps(rows, **style).encode()


def read(data: bytes, window: int, chunk: int = 7) -> list:
    with patch.object(arrays, "WINDOW", window), patch.object(arrays, "CHUNK", chunk):
        rows = list(read_json(io.BufferedReader(io.BytesIO(data), chunk), "a.json"))
    assert [n for n, _ in rows] == list(range(1, len(rows) + 1))
    return [row for _, row in rows]


def read_lines(data: bytes) -> list:
    return [row for _, row in read_json_lines(io.BytesIO(data), "a.jsonl")]


def fault(data: bytes, window: int = 1 << 22, chunk: int = 1 << 18) -> str:
    with pytest.raises(BuddyError) as caught:
        read(data, window, chunk)
    (line,) = caught.value.lines
    assert "\n" not in line
    return line


@given(arrays_of_rows, styles, st.integers(1, 300))
def test_any_array_in_any_window_is_what_json_reads(rows, style, window):
    data = dump(rows, style)
    read_by_json = repr(json.loads(data))  # tells integers from floats
    assert repr(read(data, window)) == read_by_json
    assert repr(read(b"\xef\xbb\xbf\n " + data + b" \n", window)) == read_by_json


@pytest.mark.parametrize("digits", [18, 19, 20, 40, 400])
@pytest.mark.parametrize("sign", ["", "-"])
@pytest.mark.parametrize("row", ['{{"id":{}}}', "[{}]", "{}", '{{"a":[{{"b":{}}}],"text":"是"}}'])
def test_long_integers_stay_whole_in_arrays_and_lines(digits, sign, row):
    for first in "19":
        line = row.format(sign + first * digits)
        for rows in read(f"[{line},{line}]".encode(), 1 << 22), read_lines(f"{line}\n{line}\n".encode()):
            assert repr(rows) == repr([json.loads(line)] * 2)


@given(arrays_of_rows, styles, st.data(), st.integers(1, 300))
def test_a_broken_array_is_refused_at_the_place_that_json_names(rows, style, data, window):
    text = dump(rows, style).decode()
    at = data.draw(st.integers(1, len(text)))
    broken = (
        text[:at]
        + data.draw(st.sampled_from(["", ",", "}", "]", '"', "x", "\n"]))
        + ("" if data.draw(st.booleans()) else text[at + data.draw(st.integers(0, 2)) :])
    )
    try:
        expected = json.loads(broken)
    except json.JSONDecodeError as error:
        told = fault(broken.encode(), window, 7)
        if not error.msg.startswith("Illegal trailing comma"):  # which later Pythons name one sign earlier
            assert told.startswith(f"a.json:{error.lineno}: not JSON: {error.msg} at column {error.colno};")
    else:
        if isinstance(expected, list):
            assert read(broken.encode(), window) == expected


@pytest.mark.parametrize("window", [1, 5, 12, 99])
def test_a_comma_before_the_end_is_a_fault(window):
    assert fault(b'[{"a": 1},\n ]', window, 3).startswith("a.json:2: not JSON: Expecting value at column 2")
    assert read(b"[\n ]", window, 3) == []


def test_what_orjson_refuses_and_python_reads():
    rows = [{"text": "甲"}] * 20 + [{"text": "\ud800", "n": math.inf}] + [{"text": "乙"}] * 20
    assert read(json.dumps(rows).encode(), 100) == rows


def test_most_rows_are_read_by_orjson(monkeypatch):
    rows = [{"id": i, "turns": [{"from": "human"}, {"from": "gpt"}], "x": '}, {"id"'} for i in range(400)]
    data = json.dumps(rows).encode()
    slow = []
    scan = arrays._Window._scan
    monkeypatch.setattr(arrays._Window, "_scan", lambda self, before: slow.append(scan(self, before)) or slow[-1])
    assert read(data, 2000) == rows
    assert sum(len(rows) for rows, *_ in slow) < 60


def test_a_row_longer_than_the_limit(monkeypatch):
    monkeypatch.setattr(arrays, "LIMIT", 1000)
    assert read(json.dumps([{"text": "x" * 900}] * 5).encode(), 64) == [{"text": "x" * 900}] * 5
    assert fault(json.dumps([{"text": "x"}, {"text": "x" * 2000}, 3]).encode(), 64, 7).startswith("a.json: row 2: more")


def test_bytes_that_are_no_utf8_are_named_by_line():
    data = json.dumps([{"text": "春江潮水"}] * 30, ensure_ascii=False, indent=1).encode()
    lines = data.split(b"\n")
    lines[41] = lines[41].decode().encode("gb18030")
    assert fault(b"\n".join(lines), 200, 7).startswith(
        "a.json:42: not UTF-8, it reads as GB18030; convert the file: `iconv"
    )
    lines[41] = b'"\xe6\x98"'
    assert fault(b"\n".join(lines), 200, 7).startswith("a.json:42: not UTF-8")


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("around", [{}, {"version": "1.1", "n": 3, "ok": True}])
def test_an_object_around_the_rows_is_told_as_such(indent, around):
    rows = [{"text": "甲"}, {"text": "乙"}]
    told = fault(json.dumps(around | {"data": rows}, indent=indent).encode())
    assert told.startswith("a.json: one object around the list `data`; right is the list alone")
    assert """`jq -c '."data"[]'""" in told


def test_an_object_around_the_rows_that_is_longer_than_a_line_may_be(monkeypatch):
    monkeypatch.setattr("buddygpt.data.files.lines.LIMIT", 1000)
    told = fault(json.dumps({"data": [{"text": "甲"}] * 999}).encode(), chunk=100)
    assert told.startswith("a.json: one object around the list `data`")


def test_objects_that_are_rows():
    one = {"messages": [{"role": "user", "content": "问"}, {"role": "assistant", "content": "答"}]}
    assert read(json.dumps(one).encode(), 9) == [one]
    assert read(b'{"text": "x"}', 9) == [{"text": "x"}]
    answers = {"question": "q", "human_answers": ["a", "b"]}
    assert read(json.dumps(answers).encode() + b"\n", 9) == [answers]
    wide = {"data": [{"text": "x"}]}
    assert read(b"\n".join([json.dumps(wide).encode()] * 2), 9) == [wide] * 2
    assert fault(b'{"text": "x",\n "n": 1}').startswith("a.json:1: not JSON")
    assert fault(b'{\n"text": "x"\n}').startswith("a.json: one object over several lines; right is an array")
    assert fault(b'{"messages": [{"role" "user"}]}\n{}').startswith("a.json:1: not JSON")
