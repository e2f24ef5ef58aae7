"""The chat template: ChatML with Qwen3's marks, as segments in which marks and text cannot be taken for each other.

    <|im_start|>user
    2 + 2?<|im_end|>
    <|im_start|>assistant
    <think>
    Two pairs.
    </think>

    4<|im_end|>

Differs from Qwen3's own template in two ways, so that what is trained is what a chat sees: the reasoning of earlier
turns stays, and an answer without reasoning has no empty pair of marks. What a tool says is the user's turn, between
`<tool_response>` marks, as there, and so are the calls of tools at an answer's end, between `<tool_call>` marks.

`CHAT_TEMPLATE` says the same to transformers: it stands in the tokenizer of a chat model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import xxhash

from buddygpt.data.formats import Message, Pair
from buddygpt.data.formats.tools import OFFER


@dataclass(frozen=True, slots=True)
class Control:
    """An added token of the tokenizer. A string that spells it is text and never becomes it.

    Args:
        token: as the tokenizer names it, e.g. `<|im_end|>`.
    """

    token: str


Segment = str | Control
"""A piece of a rendered talk. Each string is encoded by itself, as plain text."""

START, END = Control("<|im_start|>"), Control("<|im_end|>")
THINK, THOUGHT = Control("<think>"), Control("</think>")
CALL, CALL_END = Control("<tool_call>"), Control("</tool_call>")
TOOL, TOOL_END = Control("<tool_response>"), Control("</tool_response>")

ANSWER_START: tuple[Segment, ...] = (START, "assistant\n")
"""What stands before an answer: in training as in the prompt of a chat."""

GIVEN, ANSWER, REJECTED = 0, 1, 2
"""What a token is to training: read only; learned, in a pair as the chosen answer; or of the rejected answer."""

Labelled = tuple[Segment, int]
"""A segment and what its tokens are: `GIVEN`, `ANSWER` or `REJECTED`."""

CHAT_TEMPLATE = """\
{%- macro said(content) -%}
  {%- if content is string -%}{{ content }}
  {%- else -%}
    {%- for part in content or [] -%}
      {%- if part.type != 'text' -%}{{ raise_exception('only text can be said, no ' ~ part.type) }}{%- endif -%}
      {{ part.text }}
    {%- endfor -%}
  {%- endif -%}
{%- endmacro -%}
{%- macro offer(tools) -%}
  {{ 'OFFER\\n<tools>\\n' }}
  {%- for tool in tools -%}{{ (tool.function or tool) | tojson ~ '\\n' }}{%- endfor -%}
  {{ '</tools>' }}
{%- endmacro -%}
{%- if tools and (not messages or messages[0].role != 'system') -%}
  {{ '<|im_start|>system\\n' ~ offer(tools) ~ '<|im_end|>\\n' }}
{%- endif -%}
{%- for message in messages -%}
  {%- set content = said(message.content) -%}
  {%- if message.role == 'assistant' -%}
    {%- set reasoning = message.reasoning_content or message.reasoning -%}
    {{ '<|im_start|>assistant\\n' }}
    {%- generation -%}
      {%- if reasoning -%}{{ '<think>\\n' ~ reasoning ~ '\\n</think>\\n\\n' }}{%- endif -%}
      {{ content }}
      {%- for item in message.tool_calls or [] -%}
        {%- if content or not loop.first -%}{{ '\\n' }}{%- endif -%}
        {{ '<tool_call>\\n' }}
        {%- if item is string -%}{{ item }}
        {%- else -%}
          {%- set call = item.function or item -%}
          {%- set arguments = call.arguments if call.arguments is string else (call.arguments or {}) | tojson -%}
          {{ '{"name": ' ~ call.name | tojson ~ ', "arguments": ' ~ arguments ~ '}' }}
        {%- endif -%}
        {{ '\\n</tool_call>' }}
      {%- endfor -%}
      {{ '<|im_end|>' }}
    {%- endgeneration -%}
    {{ '\\n' }}
  {%- elif message.role == 'tool' -%}
    {{ '<|im_start|>user\\n' if loop.first or loop.previtem.role != 'tool' else '\\n' }}
    {{- '<tool_response>\\n' ~ content ~ '\\n</tool_response>' }}
    {%- if loop.last or loop.nextitem.role != 'tool' -%}{{ '<|im_end|>\\n' }}{%- endif -%}
  {%- elif message.role in ('system', 'user') -%}
    {%- if tools and loop.first and message.role == 'system' -%}
      {%- set content = content ~ '\\n\\n' ~ offer(tools) -%}
    {%- endif -%}
    {{ '<|im_start|>' ~ message.role ~ '\\n' ~ content ~ '<|im_end|>\\n' }}
  {%- else -%}
    {{ raise_exception('role ' ~ message.role ~ ' is unknown; a turn is of system, user, assistant or tool') }}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}
""".replace("OFFER", OFFER)
"""In Jinja, as transformers' `apply_chat_template` takes it: the same text, its `generation` spans the answers."""


def answer_segments(answer: Message) -> list[Segment]:
    """What the assistant says, up to and with the mark that ends it: all that a model is to learn of the turn."""
    segments: list[Segment] = [THINK, f"\n{answer.reasoning}\n", THOUGHT] if answer.reasoning else []
    before = f"\n\n{answer.content}" if answer.reasoning else answer.content
    for i, call in enumerate(answer.tool_calls):
        apart = "\n" if answer.content or i else ""
        segments += [before + apart, CALL, f"\n{call}\n", CALL_END]
        before = ""
    return [*segments, before, END]


def chat_segments(messages: Sequence[Message]) -> list[Segment]:
    """A talk or a prompt, whole turns only; `ANSWER_START` after a prompt asks for the answer."""
    return [segment for segment, _ in _turns(messages)]


def labelled_segments(messages: Sequence[Message]) -> list[Labelled]:
    """A talk to learn from: each answer with its end mark is `ANSWER`, all else `GIVEN`; the last end mark ends it."""
    return _turns(messages)[:-1]  # without a line break that nobody would say


def pair_segments(pair: Pair) -> list[Labelled]:
    """A pair to learn from: the prompt `GIVEN`, then the chosen answer `ANSWER`, then the other one `REJECTED`."""
    prompt = [*chat_segments(pair.prompt), *ANSWER_START]
    parts = ((prompt, GIVEN), (answer_segments(pair.chosen), ANSWER), (answer_segments(pair.rejected), REJECTED))
    return [(segment, label) for segments, label in parts for segment in segments]


def template_hash() -> str:
    """Hex digest of how the template renders: what is prepared with another template is something else."""
    talk = [
        Message("system", "s"),
        Message("user", "u"),
        Message("assistant", "a", "r", ("c", "d")),
        Message("tool", "1"),
        Message("tool", "2"),
        Message("assistant", "b"),
        Message("user", "v"),
        Message("assistant", "", "", ("c", "d")),
    ]
    rendered = chat_segments(talk), labelled_segments(talk), CHAT_TEMPLATE
    return xxhash.xxh3_64_hexdigest(repr(rendered).encode())


def _turns(messages: Sequence[Message]) -> list[Labelled]:
    """The whole talk rendered once, each segment with its label."""
    turns: list[Labelled] = []

    def add(segments: Sequence[Segment], label: int = GIVEN) -> None:
        turns.extend((segment, label) for segment in segments)

    for i, message in enumerate(messages):
        if message.role == "assistant":
            add(ANSWER_START)
            add(answer_segments(message), ANSWER)
            add(["\n"])
        elif message.role == "tool":  # what several tools say in a row is one turn
            first = i == 0 or messages[i - 1].role != "tool"
            last = i == len(messages) - 1 or messages[i + 1].role != "tool"
            add([START, "user\n"] if first else ["\n"])
            add([TOOL, f"\n{message.content}\n", TOOL_END])
            add([END, "\n"] if last else [])
        else:
            add([START, f"{message.role}\n{message.content}", END, "\n"])
    return turns
