"""Tools in talks: those that an assistant may call, in the system turn, and its calls, each as one line of JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from buddygpt.data.formats.values import BROKEN, Dropped, Message

OFFER = "可以调用的工具："
"""Stands above the list of tools."""


def read_calls(value: Any) -> tuple[str, ...]:
    """Calls of tools: one or several, as mappings or as JSON in a string; a string that is not JSON is one call.

    A mapping may hold the call as its `function`, as in OpenAI's format.

    Raises:
        Dropped: something else.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.strip() else None
        except (ValueError, RecursionError):
            return (value.strip(),)
    return tuple(_spell_call(call) for call in _several(value))


def read_tools(value: Any) -> str:
    """What the system turn says of the tools that a row offers; "" where it offers none.

    Raises:
        Dropped: neither a mapping, a list of them, nor either as JSON in a string.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.strip() else None
        except (ValueError, RecursionError):
            raise Dropped(BROKEN) from None
    tools = [_spell(_function(tool)) for tool in _several(value)]
    return "\n".join([OFFER, "<tools>", *tools, "</tools>"]) if tools else ""


def with_tools(messages: Sequence[Message], offer: str) -> list[Message]:
    """Messages whose system turn also says what `read_tools` gave; it is made where there is none."""
    if not offer:
        return list(messages)
    if messages and messages[0].role == "system":
        return [Message("system", f"{messages[0].content}\n\n{offer}"), *messages[1:]]
    return [Message("system", offer), *messages]


def _several(value: Any) -> Sequence[Any]:
    if value is None:
        return ()
    return value if isinstance(value, list | tuple) else (value,)


def _function(value: Any) -> Mapping[str, Any]:
    inner = value.get("function", value) if isinstance(value, Mapping) else None
    if not isinstance(inner, Mapping):
        raise Dropped(BROKEN)
    return inner


def _spell_call(call: Any) -> str:
    function = _function(call)
    if "name" not in function:
        return _spell(function)
    arguments = function.get("arguments")
    if not isinstance(arguments, str):  # a string is JSON already
        arguments = _spell(arguments or {})
    return f'{{"name": {_spell(function["name"])}, "arguments": {arguments}}}'


def _spell(value: Any) -> str:
    """As `tojson` in a template of transformers."""
    return json.dumps(value, ensure_ascii=False, default=str)
