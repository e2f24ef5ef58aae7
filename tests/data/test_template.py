"""The chat template: the same text as a template of transformers gives, and no text that turns into a mark."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from buddygpt.data.formats import Message
from buddygpt.data.template import ANSWER_START, Control, Segment, answer_segments, chat_segments
from buddygpt.data.tokenizer.qwen3 import PLAIN_TOKENS, SPECIAL_TOKENS

CHATML = """
{%- for m in messages -%}
{%- if m.role == 'tool' -%}
{%- if loop.first or loop.previtem.role != 'tool' -%}{{ '<|im_start|>user' }}{%- endif -%}
{{ '\n<tool_response>\n' + m.content + '\n</tool_response>' }}
{%- if loop.last or loop.nextitem.role != 'tool' -%}{{ '<|im_end|>\n' }}{%- endif -%}
{%- else -%}
{{ '<|im_start|>' + m.role + '\n' }}
{%- if m.role == 'assistant' and m.reasoning_content -%}
{{ '<think>\n' + m.reasoning_content + '\n</think>\n\n' }}
{%- endif -%}
{{ m.content + '<|im_end|>\n' }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}
"""


@pytest.fixture(scope="module")
def tokenizer():
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, "a")))
    tokenizer.chat_template = CHATML
    return tokenizer


def join(segments: list[Segment]) -> str:
    return "".join(s.token if isinstance(s, Control) else s for s in segments)


PIECES = st.sampled_from([*"甲乙a \n{}", "<|im_end|>", "<|im_start|>user\n", "<think>", "</think>"])
TEXTS = st.lists(PIECES, max_size=5).map("".join)
MESSAGES = st.lists(
    st.builds(
        lambda role, content, reasoning: Message(role, content, reasoning if role == "assistant" else ""),
        st.sampled_from(["system", "user", "assistant", "tool"]),
        TEXTS,
        TEXTS,
    ),
    min_size=1,
    max_size=6,
)


@settings(deadline=None)
@given(messages=MESSAGES)
def test_the_segments_joined_are_what_transformers_renders(tokenizer, messages):
    turns = [{"role": m.role, "content": m.content, "reasoning_content": m.reasoning} for m in messages]
    assert join(chat_segments(messages)) == tokenizer.apply_chat_template(turns, tokenize=False)
    asked = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert join([*chat_segments(messages), *ANSWER_START]) == asked


def test_a_talk_with_everything_in_it():
    talk = [
        Message("system", "令"),
        Message("user", "问"),
        Message("tool", "一"),
        Message("tool", "二"),
        Message("assistant", "答", "想"),
    ]
    assert join(chat_segments(talk)) == (
        "<|im_start|>system\n令<|im_end|>\n"
        "<|im_start|>user\n问<|im_end|>\n"
        "<|im_start|>user\n<tool_response>\n一\n</tool_response>\n<tool_response>\n二\n</tool_response><|im_end|>\n"
        "<|im_start|>assistant\n<think>\n想\n</think>\n\n答<|im_end|>\n"
    )


@given(messages=MESSAGES)
def test_what_is_typed_never_adds_a_mark(messages):
    plain = [Message(m.role, "字", m.reasoning and "想") for m in messages]
    marks = [s for s in chat_segments(messages) if isinstance(s, Control)]
    assert marks == [s for s in chat_segments(plain) if isinstance(s, Control)]
    assert {m.token for m in marks} <= {*SPECIAL_TOKENS, *PLAIN_TOKENS}


def test_a_mark_that_a_user_typed_is_text_when_encoded():
    from buddygpt.data.tokenizer import DocumentEncoder, load_tokenizer

    qwen = load_tokenizer("qwen3")
    encoder, ids = DocumentEncoder(qwen), []
    for segment in chat_segments([Message("user", "a<|im_end|>b"), Message("assistant", "<think>", "想")]):
        ids += (
            [qwen.convert_tokens_to_ids(segment.token)]
            if isinstance(segment, Control)
            else encoder.encode([segment])[0]
        )
    end, think = qwen.convert_tokens_to_ids(["<|im_end|>", "<think>"])
    assert (ids.count(end), ids.count(think)) == (2, 1)
    assert qwen.decode(ids).count("<|im_end|>") == 3 and qwen.decode(ids).count("<think>") == 2


@given(messages=MESSAGES)
def test_a_prompt_and_its_answer_are_the_whole_talk(messages):
    answer = Message("assistant", "答", "想")
    whole = chat_segments([*messages, answer])
    assert whole == [*chat_segments(messages), *ANSWER_START, *answer_segments(answer), "\n"]
