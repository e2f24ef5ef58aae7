"""Turns read from a row in any of their forms, and put in order.

A turn is a mapping of `role` and `content`, of `from` and `value`, or of a question and its answer under the names of
who speaks, as `{"human": ..., "assistant": ...}`. A key that is missing, None and "" are alike.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from buddygpt.data.formats.tools import read_calls
from buddygpt.data.formats.values import BROKEN, EMPTY, NOT_TEXT, UNKNOWN_ROLE, Dropped, Message, Role

ROLES: dict[str, Role] = {
    "system": "system",
    **dict.fromkeys(("user", "human", "prompter", "问"), "user"),
    **dict.fromkeys(("assistant", "gpt", "bot", "model", "chatgpt", "答", "function_call"), "assistant"),
    **dict.fromkeys(("tool", "function", "observation"), "tool"),
}
"""What data sets call who speaks; what is said as `function_call` is a call of a tool."""
SPEAKERS: dict[str, Role] = {
    "system": "system",
    **dict.fromkeys(("user", "human", "问"), "user"),
    **dict.fromkeys(("assistant", "gpt", "bot", "答"), "assistant"),
}
"""Keys of a mapping that holds a question and its answer, in the order in which they speak."""
REASONING = ("reasoning", "reasoning_content", "think")
"""What data sets call the thought before an answer, as a column and as a turn's key."""
EMPTY_TURN, MERGED = "empty turn", "merged turns"
_OPEN, _CLOSE = "<think>", "</think>"


def is_turn(value: Any) -> bool:
    """Whether a mapping has the keys of a turn."""
    return isinstance(value, Mapping) and any(
        isinstance(key, str) and (key in ("role", "from") or key.lower() in SPEAKERS) for key in value
    )


def is_turns(value: Any) -> bool:
    """Whether a value is a list of turns, or such a list as JSON in a string."""
    if isinstance(value, str):
        try:
            value = parse_turns(value)
        except Dropped:
            return False
    if not isinstance(value, list | tuple) or not all(isinstance(turn, Mapping) for turn in value):
        return False
    return any(map(is_turn, value))


def parse_turns(text: str) -> Any:
    """A list of turns from JSON in a string.

    Raises:
        Dropped: not JSON.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise Dropped(BROKEN) from None


def read_turns(value: Any) -> list[Message]:
    """The messages of a list of turns, of one turn, or of either as JSON in a string; all of them, in the row's order.

    Raises:
        Dropped: nothing there, something else, a role that nobody knows, or a content that is no string.
    """
    if isinstance(value, str):
        value = parse_turns(value) if value.strip() else None
    if isinstance(value, Mapping):
        value = [value]
    if not value:
        raise Dropped(EMPTY)
    if not isinstance(value, list | tuple):
        raise Dropped(BROKEN)
    return [message for turn in value for message in _read_turn(turn)]


def string_of(value: Any) -> str:
    """A text that may be missing; "" where it is.

    Raises:
        Dropped: neither a string nor None.
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Dropped(NOT_TEXT)
    return value


def say(role: Role, content: str, reasoning: str = "") -> Message:
    """A message as rows have it: white space around it goes, and an answer's reasoning gets a place of its own."""
    content, reasoning = content.strip(), reasoning.strip()
    if role == "assistant":
        inner, content = split_reasoning(content)
        reasoning = inner if inner == reasoning else _join(reasoning, inner)
    return Message(role, content, reasoning)


def order(messages: Iterable[Message], edits: list[str]) -> list[Message]:
    """Messages without empty ones, neighbours of one role merged; `edits` takes the kinds of change."""
    kept: list[Message] = []
    for message in messages:
        if message.empty:
            edits.append(EMPTY_TURN)
        elif kept and (last := kept[-1]).role == message.role:
            content, reasoning = _join(last.content, message.content), _join(last.reasoning, message.reasoning)
            kept[-1] = Message(last.role, content, reasoning, last.tool_calls + message.tool_calls)
            edits.append(MERGED)
        else:
            kept.append(message)
    return kept


def trim_start(messages: Sequence[Message], edits: list[str]) -> list[Message]:
    """Ordered turns without what the assistant or a tool says before the user does."""
    first = next((i for i, m in enumerate(messages) if m.role == "user"), len(messages))
    early = [m.role for m in messages[:first] if m.role != "system"]
    if not early:
        return list(messages)
    edits.extend(f"leading {role} turn" for role in early)
    return order((m for i, m in enumerate(messages) if i >= first or m.role == "system"), edits)


def trim_end(messages: Sequence[Message], edits: list[str]) -> list[Message]:
    """Turns up to the assistant's last."""
    end = next((i for i in range(len(messages), 0, -1) if messages[i - 1].role == "assistant"), 0)
    edits.extend(f"trailing {m.role} turn" for m in messages[end:])
    return list(messages[:end])


def split_reasoning(content: str) -> tuple[str, str]:
    """Reasoning and the answer after it.

    Reasoning begins the content and is closed once; its opening mark may be missing, as where a prompt holds it. A
    mark that is never closed, and all that stand elsewhere, are text.
    """
    before, close, after = content.partition(_CLOSE)
    if not close:
        return "", content
    before = before.lstrip()
    if _OPEN in before and not before.startswith(_OPEN):
        return "", content
    return before.removeprefix(_OPEN).strip(), after.strip()


def _read_turn(turn: Any) -> Iterator[Message]:
    if not isinstance(turn, Mapping):
        raise Dropped(BROKEN)
    name = turn.get("role") or turn.get("from")
    content = string_of(turn.get("content") or turn.get("value") or None)
    reasoning = next((string_of(turn[key]) for key in REASONING if turn.get(key)), "")
    if name:
        role = ROLES.get(name.strip().lower()) if isinstance(name, str) else None
        if role is None and content.strip():
            raise Dropped(UNKNOWN_ROLE)
        message = say(role or "user", content, reasoning if role == "assistant" else "")
        if role == "assistant":
            called = name.strip().lower() == "function_call"
            calls = read_calls(message.content if called else turn.get("tool_calls"))
            message = replace(message, content="" if called else message.content, tool_calls=calls)
        yield message
    elif content.strip():
        raise Dropped(UNKNOWN_ROLE)
    else:
        said = {key.lower(): text for key, text in turn.items() if isinstance(key, str)}
        for key, role in SPEAKERS.items():
            if said.get(key):
                yield say(role, string_of(said[key]), reasoning if role == "assistant" else "")


def _join(*texts: str) -> str:
    return "\n".join(text for text in texts if text)
