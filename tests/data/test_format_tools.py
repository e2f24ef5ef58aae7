"""Tools in talks: calls are the assistant's and learned, what may be called stands in the system turn."""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buddygpt.data.formats import Dropped, Message, Talk, as_pair, as_talk, find_adapter, read_row, render_text
from buddygpt.data.formats.pairs import PairAdapter
from buddygpt.data.formats.tools import read_calls, read_tools
from buddygpt.data.formats.values import Pair, Text
from buddygpt.data.readers import read_rows
from buddygpt.data.survey import show_value
from buddygpt.data.template import ANSWER, labelled_segments
from buddygpt.data.template import CALL as CALL_MARK
from tests.conftest import SHARED

U, A = Message("user", "问"), Message("assistant", "答")
CALL = '{"name": "查", "arguments": {"城": "京", "n": [1, 2.5]}}'
TOOL = {"name": "查", "parameters": {}}


def calling(*calls, content="", reasoning=""):
    return Message("assistant", content, reasoning, calls)


@pytest.mark.parametrize(
    ("value", "calls"),
    [
        (CALL, (CALL,)),
        (json.loads(CALL), (CALL,)),
        ({"id": "1", "type": "function", "function": json.loads(CALL)}, (CALL,)),
        (json.dumps([json.loads(CALL)] * 2), (CALL, CALL)),
        ({"arguments": '{"城":"京"}', "name": "查"}, ('{"name": "查", "arguments": {"城":"京"}}',)),
        ('{"name": "f"}', ('{"name": "f", "arguments": {}}',)),
        ('{"tool": "f"}', ('{"tool": "f"}',)),
        ("查(京)", ("查(京)",)),
        ("", ()),
        (None, ()),
        ([], ()),
    ],
)
def test_a_call_is_one_line_of_json_whatever_its_form(value, calls):
    assert read_calls(value) == calls


@pytest.mark.parametrize("value", [5, [5], ["a"], {"function": "f"}])
def test_what_is_no_call_drops_the_row(value):
    with pytest.raises(Dropped, match="broken conversation"):
        read_calls(value)


@pytest.mark.parametrize(
    "turn",
    [
        {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": json.loads(CALL)}]},
        {"from": "function_call", "value": CALL},
        {"from": " Function_Call ", "value": CALL + "\n"},
    ],
)
def test_a_call_is_what_the_assistant_says(turn):
    rows = [
        {"role": "user", "content": "问"},
        turn,
        {"role": "tool", "content": "晴"},
        {"role": "assistant", "content": "答"},
    ]
    adapter = find_adapter([{"messages": rows}], where="x")
    talk = adapter.read({"messages": rows})
    assert talk == Talk((U, calling(CALL), Message("tool", "晴"), A))
    assert render_text(talk) == f"问\n{CALL}\n晴\n答"
    assert f"assistant calls: {CALL}" in show_value(talk)
    assert adapter.read({"messages": rows[:2]}) == Talk((U, calling(CALL)))  # the last turn may be a call
    learned = [segment for segment, label in labelled_segments(talk.messages) if label == ANSWER]
    assert f"\n{CALL}\n" in learned


def test_calls_in_a_row_are_one_turn_and_reasoning_before_one_stays():
    rows = [
        {"from": "human", "value": "问"},
        {"from": "function_call", "value": f"<think>想</think>{CALL}"},
        {"from": "function_call", "value": CALL},
    ]
    talk = find_adapter([{"conversations": rows}], where="x").read({"conversations": rows})
    assert talk == Talk((U, calling(CALL, CALL, reasoning="想")), ("merged turns",))


def test_two_calls_make_a_pair():
    row = {"prompt": "问", "chosen": [{"role": "assistant", "content": "", "tool_calls": CALL}], "rejected": "不"}
    pair = PairAdapter("chosen", ("rejected",), ("prompt",)).read(row)
    assert pair == Pair((U,), calling(CALL), Message("assistant", "不"))


OFFERED = '可以调用的工具：\n<tools>\n{"name": "查", "parameters": {}}\n</tools>'


@pytest.mark.parametrize("tools", [[TOOL], TOOL, [{"type": "function", "function": TOOL}], json.dumps([TOOL])])
def test_tools_stand_in_the_system_turn(tools):
    turns = [{"role": "user", "content": "问"}, {"role": "assistant", "content": "答"}]
    row = {"messages": turns, "tools": tools}
    adapter = find_adapter([row], where="x")
    assert adapter.map == {"tools": ("tools",), "messages": ("messages",)}
    assert adapter.read(row) == Talk((Message("system", OFFERED), U, A))
    led = {**row, "messages": [{"role": "system", "content": "令"}, *turns]}
    assert adapter.read(led) == Talk((Message("system", f"令\n\n{OFFERED}"), U, A))
    for none in (None, "", " ", "[]", []):
        assert adapter.read({**row, "tools": none}) == Talk((U, A))
    named = find_adapter([{"m": turns, "t": tools}], map={"messages": "m", "tools": "t"}, where="x")
    assert named.read({"m": turns, "t": tools}) == Talk((Message("system", OFFERED), U, A))


def test_tools_that_cannot_be_read_drop_the_row_and_a_column_of_other_things_is_left_alone():
    turns = [{"role": "user", "content": "问"}, {"role": "assistant", "content": "答"}]
    good, bad = {"messages": turns, "tools": [TOOL]}, {"messages": turns, "tools": "not JSON"}
    with pytest.raises(Dropped, match="broken conversation"):
        find_adapter([good], where="x").read(bad)
    assert find_adapter([bad], where="x").read(bad) == Talk((U, A))


@given(
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.text()),
        lambda s: st.lists(s) | st.dictionaries(st.text(), s),
        max_leaves=8,
    )
)
def test_whatever_a_column_holds_it_is_read_or_dropped(value):
    for read in (read_calls, read_tools):
        with suppress(Dropped):
            assert read(value) is not None


def test_what_a_stage_wants_of_a_row():
    pair = Pair((U,), A, Message("assistant", "坏"), ("merged turns",))
    assert as_pair(pair) is pair and as_talk(pair) == Talk((U, A), ("merged turns",))
    assert as_talk(Talk((U, A))) == Talk((U, A))
    for want, value in ((as_talk, Text("a")), (as_pair, Text("a")), (as_pair, Talk((U, A)))):
        with pytest.raises(Dropped):
            want(value)


def test_a_real_file_of_calls_is_learned_whole():
    name = "sft/glaive_toolcall_zh_demo.json"
    if not (SHARED / name).exists():
        pytest.skip(f"{name} is not on this machine")
    rows = [row for _, row in read_rows(SHARED / name, name)]
    adapter = find_adapter(rows[:100], where=name)
    talks = [read_row(row, adapter, None, None) for row in rows]  # none is dropped
    assert len(talks) == 300 and {talk.edits for talk in talks} == {()}
    calls = [call for talk in talks for m in talk.messages for call in m.tool_calls]
    assert len(calls) == sum(turn["from"] == "function_call" for row in rows for turn in row["conversations"]) == 216
    assert (
        sum("<tools>" in talk.messages[0].content for talk in talks) == sum(row["tools"] != "[]" for row in rows) == 200
    )
    learned = [part for talk in talks for part, label in labelled_segments(talk.messages) if label == ANSWER]
    assert learned.count(CALL_MARK) == len(calls) and {f"\n{call}\n" for call in calls} <= set(learned)
