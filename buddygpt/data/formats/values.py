"""What a row can be: a text, a talk, or a pair of answers; and a talk as one text, for pretraining and for staging."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

Role = Literal["system", "user", "assistant", "tool"]

# Why a row gives nothing.
NO_COLUMN, NOT_TEXT, EMPTY = "no text column", "not a string", "empty"
NO_QUESTION, NO_ANSWER, NO_REJECTED = "no question", "no answer", "no rejected answer"
EQUAL, SAME_SCORE, OTHER_PROMPT = "chosen equals rejected", "same score", "different prompts"
SHORT_ANSWER, UNLIKE_LENGTHS = "answer too short", "lengths too different"
UNKNOWN_ROLE, BROKEN = "unknown role", "broken conversation"
NO_TALK, NO_PAIR = "text, not a conversation", "not a pair of answers"
NO_SCORE, LOW_SCORE, SURROGATE = "no score", "low score", "lone surrogate"


class Dropped(Exception):
    """A row that gives nothing.

    Args:
        reason: one of the constants of this module, to count by.
    """

    def __init__(self, reason: str):
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Message:
    """One turn.

    Args:
        role: whose.
        content: what is said, stripped by all adapters; "" where an assistant only calls tools.
        reasoning: thought before an answer is given, without its `<think>` marks.
        tool_calls: the assistant's after what it says, each `{"name": ..., "arguments": ...}` as JSON.
    """

    role: Role
    content: str
    reasoning: str = ""
    tool_calls: tuple[str, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether nothing is said and no tool is called."""
        return not self.content and not self.tool_calls


@dataclass(frozen=True, slots=True)
class Text:
    """A row of plain text, as the row has it."""

    text: str
    edits: ClassVar[tuple[str, ...]] = ()


@dataclass(frozen=True, slots=True)
class Talk:
    """A row of turns.

    Args:
        messages: no two neighbours of one role; the first that is not the system's is the user's, the last the
            assistant's.
        edits: kinds of change to the row's turns, each once.
    """

    messages: tuple[Message, ...]
    edits: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Pair:
    """A row of two answers to one prompt.

    Args:
        prompt: as a talk's messages, but the last is not the assistant's.
        chosen, rejected: the assistant's; they differ.
        edits: kinds of change to the row's turns, each once.
    """

    prompt: tuple[Message, ...]
    chosen: Message
    rejected: Message
    edits: tuple[str, ...] = ()


Value = Text | Talk | Pair


def render_text(value: Value) -> str:
    """One document of plain text: turns one below the other, each its reasoning first and its calls of tools last; of a
    pair the chosen answer."""
    if isinstance(value, Text):
        return value.text
    messages = value.messages if isinstance(value, Talk) else (*value.prompt, value.chosen)
    return "\n".join(part for m in messages for part in (m.reasoning, m.content, *m.tool_calls) if part)


def as_talk(value: Value) -> Talk:
    """What a model may learn to answer from a row: of a pair its prompt and the better answer.

    Raises:
        Dropped: a row of plain text.
    """
    if isinstance(value, Text):
        raise Dropped(NO_TALK)
    return value if isinstance(value, Talk) else Talk((*value.prompt, value.chosen), value.edits)


def as_pair(value: Value) -> Pair:
    """A row's two answers.

    Raises:
        Dropped: it does not have two.
    """
    if not isinstance(value, Pair):
        raise Dropped(NO_PAIR)
    return value


def dump_talk(messages: Sequence[Message]) -> str:
    """Messages as JSON, to stand in a column of texts; `load_talk` gives them back exactly.

    Clean messages before, never their dump: NFC would compose the `n` of an escaped line break with an accent that
    follows it.
    """
    fields = [[m.role, m.content, m.reasoning, m.tool_calls] for m in messages]
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":"))


def load_talk(dump: str) -> tuple[Message, ...]:
    """What `dump_talk` was given."""
    return tuple(Message(role, content, thought, tuple(calls)) for role, content, thought, calls in json.loads(dump))
