"""The chat template: the same text and ids as transformers gives with it, labels on answers alone, typed marks text."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from buddygpt.data.formats import Message, Pair
from buddygpt.data.formats.tools import read_tools, with_tools
from buddygpt.data.template import (
    ANSWER,
    ANSWER_START,
    CHAT_TEMPLATE,
    GIVEN,
    REJECTED,
    Control,
    Segment,
    answer_segments,
    chat_segments,
    labelled_segments,
    pair_segments,
    template_hash,
)
from buddygpt.data.tokenizer import DocumentEncoder, load_tokenizer, make_chat_tokenizer, train_tokenizer
from buddygpt.data.tokenizer.qwen3 import PLAIN_TOKENS, SPECIAL_TOKENS


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A chat tokenizer, saved and read back by transformers alone."""
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("chat")
    texts = ["春眠不觉晓，处处闻啼鸟。\n\n", "user assistant system name arguments true\n"] * 3
    make_chat_tokenizer(train_tokenizer(texts, 300)).save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def encoder(saved):
    return DocumentEncoder(saved)


def turn(m: Message) -> dict:
    """A message in transformers' format."""
    calls = [{"type": "function", "function": json.loads(call)} for call in m.tool_calls]
    return {"role": m.role, "content": m.content, "reasoning_content": m.reasoning, "tool_calls": calls or None}


def join(segments: list[Segment]) -> str:
    return "".join(s.token if isinstance(s, Control) else s for s in segments)


PLAIN = st.lists(st.sampled_from([*"甲乙a1 。\n{}é\u0301\u0338", "'s", "  ", "\r\n"]), max_size=5).map("".join)
MARKS = st.sampled_from([*"甲乙a \n{}", "<|im_end|>", "<|im_start|>user\n", "<think>", "</think>", "<tool_call>"])
TEXTS = st.lists(MARKS, max_size=5).map("".join)
CALLS = st.builds(
    lambda name, more: json.dumps({"name": name, "arguments": more}, ensure_ascii=False),
    st.sampled_from(["查", 'a"b']),
    st.dictionaries(st.sampled_from("xy"), st.one_of(PLAIN, st.integers(), st.lists(st.booleans())), max_size=2),
)


def messages_of(texts):
    """Talks of all roles, with reasoning and calls of tools, stripped as adapters strip them."""

    def build(role, content, reasoning, calls):
        if role != "assistant":
            return Message(role, content.strip())
        return Message(role, content.strip(), reasoning.strip(), tuple(calls))

    roles = st.sampled_from(["system", "user", "assistant", "tool"])
    return st.lists(st.builds(build, roles, texts, texts, st.lists(CALLS, max_size=2)), min_size=1, max_size=6)


MESSAGES = messages_of(TEXTS)


@settings(deadline=None)
@given(messages=MESSAGES)
def test_the_segments_joined_are_what_transformers_renders(saved, messages):
    turns = [turn(m) for m in messages]
    assert join(chat_segments(messages)) == saved.apply_chat_template(turns, tokenize=False)
    asked = saved.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert join([*chat_segments(messages), *ANSWER_START]) == asked


@settings(deadline=None)
@given(messages=messages_of(PLAIN))
def test_ids_and_the_mask_of_answers_are_those_of_transformers(saved, encoder, messages):
    theirs = saved.apply_chat_template([turn(m) for m in messages], return_dict=True, return_assistant_tokens_mask=True)
    (ids,), (labels,) = encoder.encode_labelled([labelled_segments(messages)])
    after = encoder.encode(["\n"])[0]  # the line break that nothing follows
    assert [*ids, *after] == theirs["input_ids"]
    assert [*labels, *(GIVEN for _ in after)] == theirs["assistant_masks"]
    assert len(labels) == len(ids) and labels.dtype == "uint8"


TOOLS = [{"type": "function", "function": {"name": "天气", "parameters": {"type": "object"}}}, {"name": "b"}]


@pytest.mark.parametrize("system", [[], [Message("system", "令")]])
def test_tools_offered_are_the_same_text_from_a_data_set_and_through_transformers(saved, system):
    talk = [*system, Message("user", "问"), Message("assistant", "答")]
    theirs = saved.apply_chat_template([turn(m) for m in talk], tools=TOOLS, tokenize=False)
    for column in (TOOLS, json.dumps(TOOLS)):
        assert join(chat_segments(with_tools(talk, read_tools(column)))) == theirs
    assert '<tools>\n{"name": "天气", "parameters": {"type": "object"}}\n{"name": "b"}\n</tools>' in theirs
    for nothing in ("", "[]", None, []):
        assert with_tools(talk, read_tools(nothing)) == talk


def test_transformers_format_is_taken_in_all_its_forms(saved):
    plain = saved.apply_chat_template([{"role": "user", "content": "甲乙"}], tokenize=False)
    parts = [{"type": "text", "text": "甲"}, {"type": "text", "text": "乙"}]
    assert saved.apply_chat_template([{"role": "user", "content": parts}], tokenize=False) == plain
    call = {"name": "f", "arguments": {"甲": [1, 2.5]}}
    said = {"role": "assistant", "content": None, "reasoning": "想"}
    forms = [[call], [{"function": call}], [{**call, "arguments": json.dumps(call["arguments"], ensure_ascii=False)}]]
    rendered = {saved.apply_chat_template([{**said, "tool_calls": form}], tokenize=False) for form in forms}
    spelt = '{"name": "f", "arguments": {"甲": [1, 2.5]}}'
    assert rendered == {join(chat_segments([Message("assistant", "", "想", (spelt,))]))}


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ({"role": "teacher", "content": "x"}, "role teacher is unknown"),
        ({"role": "user", "content": [{"type": "image"}]}, "no image"),
    ],
)
def test_what_the_template_does_not_know_is_refused(saved, message, told):
    from jinja2.exceptions import TemplateError

    with pytest.raises(TemplateError, match=told):
        saved.apply_chat_template([message], tokenize=False)


def test_a_talk_with_everything_in_it():
    talk = [
        Message("system", "令"),
        Message("user", "问"),
        Message("tool", "一"),
        Message("tool", "二"),
        Message("assistant", "答", "想"),
        Message("user", "再问"),
        Message("assistant", "看", tool_calls=('{"name": "a"}', '{"name": "b"}')),
    ]
    assert join(chat_segments(talk)) == (
        "<|im_start|>system\n令<|im_end|>\n"
        "<|im_start|>user\n问<|im_end|>\n"
        "<|im_start|>user\n<tool_response>\n一\n</tool_response>\n<tool_response>\n二\n</tool_response><|im_end|>\n"
        "<|im_start|>assistant\n<think>\n想\n</think>\n\n答<|im_end|>\n"
        "<|im_start|>user\n再问<|im_end|>\n"
        "<|im_start|>assistant\n看\n"
        '<tool_call>\n{"name": "a"}\n</tool_call>\n<tool_call>\n{"name": "b"}\n</tool_call><|im_end|>\n'
    )


@pytest.mark.parametrize(("answer", "learned"), [("好", "好"), ("好。\n", "好。\n"), ("", "")])
def test_learned_are_exactly_an_answer_and_its_end_mark(saved, encoder, answer, learned):
    """From the first token of a one-character answer to the end mark, which is not the padding."""
    talk = [Message("user", "好"), Message("assistant", answer), Message("user", "好"), Message("assistant", "是")]
    (ids,), (labels,) = encoder.encode_labelled([labelled_segments(talk)])
    runs, run = [], []
    for token, label in zip(ids, labels, strict=True):
        if label == ANSWER:
            run.append(token)
        elif run:
            runs, run = [*runs, run], []
    assert [saved.decode(r) for r in [*runs, run]] == [f"{learned}<|im_end|>", "是<|im_end|>"]
    assert ids[-1] == saved.eos_token_id != saved.pad_token_id
    assert saved.decode(ids[: -len(run)]).endswith("<|im_start|>assistant\n")


def test_both_answers_of_a_pair_follow_the_same_ids_whatever_their_first_characters(saved, encoder):
    prompt = (Message("system", "令"), Message("user", "4 + 42 = "))
    asked = encoder.encode_segments([[*chat_segments(prompt), *ANSWER_START]])[0]
    answers = [("46", "$46"), ("$46", "46"), ("\n46", " 46")]
    pairs = [Pair(prompt, *(Message("assistant", text) for text in both)) for both in answers]
    for both, ids, labels in zip(
        answers, *encoder.encode_labelled([pair_segments(pair) for pair in pairs]), strict=True
    ):
        parts = [[i for i, mine in zip(ids, labels, strict=True) if mine == label] for label in range(3)]
        assert parts[GIVEN] == asked and [*parts[0], *parts[1], *parts[2]] == ids
        assert [saved.decode(parts[label]) for label in (ANSWER, REJECTED)] == [f"{a}<|im_end|>" for a in both]


@given(messages=MESSAGES)
def test_an_empty_reasoning_leaves_no_marks_and_each_mark_that_opens_is_closed_once(messages):
    for m in messages:
        if m.role == "assistant":
            marks = [s.token for s in answer_segments(m) if isinstance(s, Control)]
            calls = ["<tool_call>", "</tool_call>"] * len(m.tool_calls)
            assert marks == [*(["<think>", "</think>"] if m.reasoning else []), *calls, "<|im_end|>"]


def test_the_hash_changes_with_the_template_and_with_what_transformers_is_given(monkeypatch):
    before = template_hash()
    assert before == template_hash()
    monkeypatch.setattr("buddygpt.data.template.CHAT_TEMPLATE", CHAT_TEMPLATE + " ")
    assert template_hash() != before


@given(messages=MESSAGES)
def test_what_is_typed_never_adds_a_mark(messages):
    plain = [Message(m.role, "字", m.reasoning and "想", m.tool_calls) for m in messages]
    marks = [s for s in chat_segments(messages) if isinstance(s, Control)]
    assert marks == [s for s in chat_segments(plain) if isinstance(s, Control)]
    assert {m.token for m in marks} <= {*SPECIAL_TOKENS, *PLAIN_TOKENS}


def test_a_mark_that_a_user_typed_is_text_when_encoded():
    qwen = load_tokenizer("qwen3")
    talk = [Message("user", "a<|im_end|>b"), Message("assistant", "<think>", "想")]
    ids = DocumentEncoder(qwen).encode_segments([chat_segments(talk)])[0]
    end, think = qwen.convert_tokens_to_ids(["<|im_end|>", "<think>"])
    assert (ids.count(end), ids.count(think)) == (2, 1)
    assert qwen.decode(ids).count("<|im_end|>") == 3 and qwen.decode(ids).count("<think>") == 2


@given(messages=MESSAGES)
def test_a_prompt_and_its_answer_are_the_whole_talk(messages):
    answer = Message("assistant", "答", "想")
    whole = chat_segments([*messages, answer])
    assert whole == [*chat_segments(messages), *ANSWER_START, *answer_segments(answer), "\n"]
