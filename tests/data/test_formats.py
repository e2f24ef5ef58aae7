"""Row shapes: a row of every data set that datasets of today look like, and how the adapter for a file is found.

All rows are invented; only their columns are those of the data sets.
"""

from __future__ import annotations

import json
import pickle

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from buddygpt.data.formats import (
    AnswersAdapter,
    Dropped,
    Message,
    Pair,
    Talk,
    Text,
    TextAdapter,
    as_talk,
    dump_talk,
    find_adapter,
    load_talk,
    render_text,
    score_of,
)
from buddygpt.data.formats.tools import read_tools
from buddygpt.data.readers import read_rows
from buddygpt.recipe.errors import BuddyError
from tests.conftest import SHARED

Q, A, B = (
    "为什么天是蓝的？",
    "因为空气散射蓝光，短波散射得更多，所以我们看见蓝色的天。",
    "因为大海是蓝的，天空映出了大海的颜色，就像镜子那样。",
)
USER, ANSWER, WORSE = Message("user", Q), Message("assistant", A), Message("assistant", B)
SYSTEM = Message("system", "你是老师。")
LOOK = '{"name": "look", "arguments": {}}'
TALK = Talk((USER, ANSWER))
PAIR = Pair((USER,), ANSWER, WORSE)
ROLE = [{"role": "user", "content": Q}, {"role": "assistant", "content": A}]
ROLE_WORSE = [{"role": "user", "content": Q}, {"role": "assistant", "content": B}]
FROM = [{"from": "human", "value": Q}, {"from": "gpt", "value": A}]
SPOKEN = [{"human": Q, "assistant": A}]

ROWS = {
    # pretraining
    "Ultra-FineWeb": ({"content": A, "score": "0.97", "source": "web"}, "text", Text(A)),
    "Ultra-FineWeb v1_4": (
        {"uid": "1", "content": A, "score": 0.9, "source": "cc", "dataset_index": 1, "meta": "{}"},
        "text",
        Text(A),
    ),
    "Ultra-FineWeb-L3": ({"uid": "1", "content": A, "style": "qa"}, "text", Text(A)),
    "firefly-pretrain": ({"text": A, "dataType": "wiki"}, "text", Text(A)),
    "Chinese-Instruct": ({"id": "a1b2", "prompt": Q, "response": A}, "prompt-response", TALK),
    "wikipedia": ({"id": "1", "url": "https://zh.example.org", "title": "天", "text": A}, "text", Text(A)),
    "wikipedia-cn-filtered": ({"completion": A, "source": "wikipedia.zh2307"}, "text", Text(A)),
    "fineweb-edu-chinese": ({"text": A, "score": 0.8, "source": "x"}, "text", Text(A)),
    "SkyPile": ({"text": A}, "text", Text(A)),
    "CCI3-HQ": ({"id": "1", "text": A, "score": 3.1}, "text", Text(A)),
    "finewiki": ({"id": "1", "title": "天", "url": "u", "text": A, "has_math": False}, "text", Text(A)),
    "cosmopedia": ({"prompt": Q, "text": A, "format": "story", "audience": "children"}, "text", Text(A)),
    # instructions
    "Chinese-Instruct-Lite": ({"id": "0f", "prompt": Q, "response": A}, "prompt-response", TALK),
    "Chinese-Instruct-Lite reasoning": (
        {"id": "0f", "prompt": Q, "reasoning": "先想散射。", "response": A},
        "prompt-response",
        Talk((USER, Message("assistant", A, "先想散射。"))),
    ),
    "Belle 2M": ({"instruction": Q + "\n", "input": "", "output": A}, "instruction", TALK),
    "Belle 3.5M": (
        {"id": "1", "conversations": [{"from": "human", "value": Q}, {"from": "assistant", "value": A}]},
        "conversation",
        TALK,
    ),
    "moss-003": ({"conversation_id": 44, "category": "Brainstorming", "conversation": SPOKEN}, "conversation", TALK),
    "ShareGPT-90k": (
        {"conversation_id": "x1", "category": "common", "conversation": SPOKEN, "dataset": "s"},
        "conversation",
        TALK,
    ),
    "ShareGPT-90k in a string": ({"conversation_id": "x1", "conversation": json.dumps(SPOKEN)}, "conversation", TALK),
    "alpaca": (
        {"instruction": "回答问题。", "input": Q, "output": A, "text": "Below is an instruction ..."},
        "instruction",
        Talk((Message("user", "回答问题。\n" + Q), ANSWER)),
    ),
    "smoltalk-chinese": ({"id": "1", "conversations": ROLE}, "conversation", TALK),
    "R1 distilled": (
        {"input": Q, "content": A, "reasoning_content": "想。", "repo_name": "r", "score": 10, "prompt_tokens_len": 9},
        "prompt-response",
        Talk((USER, Message("assistant", A, "想。"))),
    ),
    "R1 distilled, SFT": (
        {"instruction": Q, "input": "", "output": f"<think>\n想。\n</think>\n\n{A}", "repo_name": "r", "score": 9},
        "instruction",
        Talk((USER, Message("assistant", A, "想。"))),
    ),
    "Infinity-Instruct": (
        {"id": 1, "conversations": FROM, "langdetect": "zh-cn", "label": {"ability": []}, "source": "s"},
        "conversation",
        TALK,
    ),
    "I_Wonder_Why general": ({"id": "a", "prompt": Q, "response": A}, "prompt-response", TALK),
    "smoltalk2": ({"messages": ROLE, "chat_template_kwargs": {"x": 1}, "source": "s"}, "conversation", TALK),
    "tulu-3": ({"id": "1", "messages": ROLE, "source": "s"}, "conversation", TALK),
    "ultrachat": ({"prompt": Q, "prompt_id": "1", "messages": ROLE}, "conversation", TALK),
    "firefly-train": ({"kind": "QA", "input": Q, "target": A}, "prompt-response", TALK),
    "glaive toolcall": (
        {
            "tools": "[]",
            "conversations": [
                {"from": "human", "value": Q},
                {"from": "function_call", "value": '{"name": "look"}'},
                {"from": "observation", "value": "蓝"},
                {"from": "gpt", "value": A},
            ],
        },
        "conversation",
        Talk(
            (USER, Message("assistant", "", "", ('{"name": "look", "arguments": {}}',)), Message("tool", "蓝"), ANSWER)
        ),
    ),
    "minimind pretrain": ({"text": A}, "text", Text(A)),
    "minimind sft": ({"conversations": ROLE}, "conversation", TALK),
    # preferences
    "FuseChat strings": ({"prompt": Q, "chosen": A, "rejected": B}, "preference", PAIR),
    "FuseChat lists": ({"prompt": Q, "chosen": ROLE, "rejected": ROLE_WORSE}, "preference", PAIR),
    "HC3": (
        {"id": "0", "question": Q, "human_answers": ["", B, A], "chatgpt_answers": [" ", A], "source": "baike"},
        "answers",
        PAIR,
    ),
    "ultrafeedback": (
        {
            "prompt": Q,
            "prompt_id": "ab",
            "chosen": ROLE,
            "rejected": ROLE_WORSE,
            "messages": ROLE,
            "score_chosen": 8.5,
            "score_rejected": 7.0,
        },
        "preference",
        PAIR,
    ),
    "ultrafeedback gen": (
        {"prompt": Q, "prompt_id": "ab", "chosen": ROLE, "rejected": None, "messages": ROLE, "score_chosen": 8.5},
        "conversation",
        TALK,
    ),
    "ultrafeedback of LLaMA-Factory": ({"instruction": Q, "chosen": A, "rejected": B}, "preference", PAIR),
    "COIG-P": (
        {"conversations": FROM[:1], "chosen": {"from": "gpt", "value": A}, "rejected": {"from": "gpt", "value": B}},
        "preference",
        PAIR,
    ),
    "DPO-En-Zh": (
        {
            "conversations": [{"from": "system", "value": "你是老师。"}, *FROM[:1]],
            "chosen": {"from": "gpt", "value": A},
            "rejected": {"from": "gpt", "value": B},
        },
        "preference",
        Pair((SYSTEM, USER), ANSWER, WORSE),
    ),
    "I_Wonder_Why preference, a list": (
        {"id": "a", "prompt": Q, "chosen": A, "rejected": [A, B, "因为。"]},
        "preference",
        PAIR,
    ),
    "I_Wonder_Why preference, columns": (
        {"id": "a", "prompt": Q, "chosen": A, "rejected_2": B, "rejected_10": "因为。", "rejected_1": A},
        "preference",
        PAIR,
    ),
    "TRL, a prompt of turns": (
        {"prompt": ROLE[:1], "chosen": ROLE[1:], "rejected": ROLE_WORSE[1:]},
        "preference",
        PAIR,
    ),
    "minimind dpo": ({"chosen": ROLE, "rejected": ROLE_WORSE}, "preference", PAIR),
}


@pytest.mark.parametrize("name", ROWS)
def test_a_row_of_each_data_set_is_read(name, tmp_path):
    row, shape, value = ROWS[name]
    adapter = find_adapter([row] * 3, where="a.jsonl")
    assert adapter.name == shape and adapter.read(row) == value
    assert set(adapter.columns) <= set(row)
    assert pickle.loads(pickle.dumps(adapter)) == adapter
    # What it needs is enough, after a way through parquet too.
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "a.parquet")
    for _, narrow in read_rows(tmp_path / "a.parquet", "a.parquet", adapter.columns):
        assert adapter.read(narrow) == value
    # Its map, written into a recipe, finds it again; but for what only HC3's own adapter and scores know.
    again = find_adapter([row], map=adapter.map, where="a.jsonl")
    assert again.read(row) == value and (again == adapter or isinstance(adapter, AnswersAdapter) or adapter.scores)


def test_datasets_4_fills_the_keys_that_a_turn_lacks():
    turns = [{"human": Q, "assistant": None, "role": None}, {"human": None, "assistant": A}, {"human": "", "role": ""}]
    assert find_adapter([{"conversation": turns}], where="x").read({"conversation": turns}) == TALK
    turns = [{**turn, "from": None, "value": None, "reasoning_content": ""} for turn in ROLE]
    assert find_adapter([{"messages": turns}], where="x").read({"messages": turns}) == TALK
    turns += [{"role": "user", "content": None}, {"role": None, "content": ""}, {"role": "user"}, {}]
    assert find_adapter([{"messages": turns}], where="x").read({"messages": turns}) == Talk(
        TALK.messages, ("empty turn",)
    )


def test_rows_without_plain_text_are_dropped_for_their_reasons():
    adapter, two = TextAdapter(("text",)), TextAdapter(("title", "text"))
    reasons = {}
    for reader, row in [
        (adapter, {"other": 1}),
        (adapter, ["text"]),
        (adapter, "text"),
        (adapter, None),
        (two, {"text": "a"}),
        (adapter, {"text": None}),
        (adapter, {"text": ["a"]}),
        (two, {"title": "a", "text": 5}),
        (two, {"title": None, "text": "a"}),
        (adapter, {"text": ""}),
        (adapter, {"text": " \n\u3000"}),
        (two, {"title": "", "text": " "}),
    ]:
        with pytest.raises(Dropped) as dropped:
            reader.read(row)
        reasons.setdefault(dropped.value.reason, 0)
        reasons[dropped.value.reason] += 1
    assert reasons == {"no text column": 5, "not a string": 4, "empty": 3}
    assert two.read({"title": "题", "text": "文"}) == Text("题\n文")
    assert adapter.read({"text": " 不动\r\n"}) == Text(" 不动\r\n")


JUNK = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.sampled_from(["", " ", Q, "[]", '[{"role": "user"}]'])
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["role", "content", "from", "value", "human", "assistant", "think"]), inner),
    ),
    max_leaves=8,
)
COLUMNS = sorted({column for row, _, _ in ROWS.values() for column in row} | {"system", "completion", "body"})
JUNK_ROWS = st.one_of(JUNK, st.dictionaries(st.sampled_from(COLUMNS), JUNK, max_size=6))


@given(st.lists(JUNK_ROWS, max_size=3), st.sampled_from([None, "text", "conversation", "preference"]))
def test_whatever_a_file_holds_it_is_read_or_refused_or_dropped(rows, hint):
    try:
        adapter = find_adapter(rows, hint=hint, where="x")
    except BuddyError as refused:
        assert len(refused.lines) == 1
        return
    for row in rows:
        try:
            assert render_text(adapter.read(row)).strip()
        except Dropped as dropped:
            assert dropped.reason


@pytest.mark.parametrize(
    ("value", "score"),
    [
        (0.9, 0.9),
        (3, 3.0),
        ("0.97", 0.97),
        (" 1e-2\n", 0.01),
        (True, None),
        (None, None),
        ("", None),
        ("high", None),
        (float("nan"), None),
        ("inf", None),
        ([0.9], None),
        (10**400, None),
    ],
)
def test_a_score_is_a_finite_number_or_a_string_of_one(value, score):
    assert score_of({"score": value}, None) == score
    assert score_of({"points": value, "score": 1}, {"score": "points"}) == score
    assert score_of({"points": value, "score": 1}, {"score": ["points"], "text": "t"}) == score
    assert score_of({}, None) is None


def test_a_document_is_the_turns_one_below_the_other():
    assert render_text(Text(" a ")) == " a "
    talk = (SYSTEM, USER, Message("assistant", A, "想。"), Message("user", "还有呢？"), Message("assistant", "没有。"))
    assert render_text(Talk(talk)) == f"你是老师。\n{Q}\n想。\n{A}\n还有呢？\n没有。"
    assert render_text(PAIR) == f"{Q}\n{A}"


CALLS = st.lists(st.text()).map(tuple)
MESSAGES = st.builds(Message, st.sampled_from(["system", "user", "assistant", "tool"]), st.text(), st.text(), CALLS)


@given(st.lists(MESSAGES))
def test_staged_messages_come_back_exactly(messages):
    assert load_talk(dump_talk(messages)) == tuple(messages)


def test_staged_messages_come_back_with_marks_escapes_and_lone_surrogates():
    messages = (Message("user", '"\\n\n\u0303\u2028\ud800<|im_end|>\0'), Message("assistant", "好", "想"))
    assert load_talk(dump_talk(messages)) == messages
    assert "好" in dump_talk(messages)


DEMOS = {
    "sft/alpaca_zh_demo.json": ("instruction", 1000, 1000),
    "sft/identity.json": ("instruction", 91, 91),
    "sft/glaive_toolcall_zh_demo.json": ("conversation", 300, 300),
    "dpo/dpo_zh_demo.json": ("preference", 300, 300),
    "dpo/dpo_en_demo.json": ("preference", 300, 300),
}


@pytest.mark.parametrize("name", DEMOS)
def test_every_row_of_a_real_file_is_accounted_for(name):
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{name} is not on this machine")
    shape, count, kept = DEMOS[name]
    rows = [row for _, row in read_rows(path, name)]
    adapter = find_adapter(rows[:100], where=name)
    values = [adapter.read(row) for row in rows]  # nothing is dropped
    assert (adapter.name, len(rows), len(values)) == (shape, count, kept)
    for row, value in zip(rows, values, strict=True):
        text = render_text(value)
        texts = [row[c] for c in ("instruction", "input", "output") if c in row]
        texts += [turn["value"] for turn in row.get("conversations", ())]
        texts += [row[c]["value"] for c in ("chosen",) if c in row]
        offer = read_tools(row.get("tools"))
        assert text == "\n".join(text.strip() for text in (offer, *texts) if text.strip())
        assert value.edits == ()
        calls = [turn["value"] for turn in row.get("conversations", ()) if turn["from"] == "function_call"]
        assert [call for m in as_talk(value).messages for call in m.tool_calls] == calls
