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
`<tool_response>` marks, as there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import xxhash

from buddygpt.data.formats import Message


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
TOOL, TOOL_END = Control("<tool_response>"), Control("</tool_response>")

ANSWER_START: tuple[Segment, ...] = (START, "assistant\n")
"""What stands before an answer: in training as in the prompt of a chat."""


def answer_segments(answer: Message) -> list[Segment]:
    """What the assistant says, up to and with the mark that ends it: all that a model is to learn of the turn."""
    if not answer.reasoning:
        return [answer.content, END]
    return [THINK, f"\n{answer.reasoning}\n", THOUGHT, f"\n\n{answer.content}", END]


def chat_segments(messages: Sequence[Message]) -> list[Segment]:
    """A talk or a prompt, whole turns only; `ANSWER_START` after a prompt asks for the answer."""
    segments: list[Segment] = []
    for i, message in enumerate(messages):
        if message.role == "assistant":
            segments += [*ANSWER_START, *answer_segments(message), "\n"]
        elif message.role == "tool":  # what several tools say in a row is one turn
            first = i == 0 or messages[i - 1].role != "tool"
            last = i == len(messages) - 1 or messages[i + 1].role != "tool"
            segments += [START, "user\n"] if first else ["\n"]
            segments += [TOOL, f"\n{message.content}\n", TOOL_END]
            segments += [END, "\n"] if last else []
        else:
            segments += [START, f"{message.role}\n{message.content}", END, "\n"]
    return segments


def template_hash() -> str:
    """Hex digest of how the template renders: what is prepared with another template is something else."""
    talk = [
        Message("system", "s"),
        Message("user", "u"),
        Message("assistant", "a", "r"),
        Message("tool", "1"),
        Message("tool", "2"),
        Message("assistant", "b"),
    ]
    return xxhash.xxh3_64_hexdigest(repr(chat_segments(talk)).encode())
