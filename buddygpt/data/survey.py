"""A look at the first rows of a file: what its columns hold, what becomes of the rows, how long the texts are."""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from buddygpt.data.formats import Adapter, Dropped, Talk, Text, Value, read_row, render_text
from buddygpt.data.formats.values import SURROGATE
from buddygpt.data.readers import place

ROWS, BYTES = 1_000, 2_000_000
"""How much is read: so many rows, or rows that make so many bytes of text."""
_KEYS = 8
_SHOWN = 160


@dataclass(frozen=True)
class Column:
    """A column, as some rows have it.

    Args:
        name: as in the rows.
        holds: kinds of its values, in words.
        empty: rows in which it is missing, null or an empty string.
    """

    name: str
    holds: str
    empty: int


@dataclass
class Survey:
    """What became of some rows.

    Args:
        rows: read.
        texts: one for each row that stays; of a pair its prompt and the better answer.
        values: what those rows gave, with their numbers.
        dropped: rows by reason, with the place of the first.
        edits: rows that stay but were changed, by the kind of change.
        ended: whether these were all the rows there are.
    """

    rows: int = 0
    texts: list[str] = field(default_factory=list)
    values: list[tuple[int, Value]] = field(default_factory=list)
    dropped: dict[str, tuple[int, str]] = field(default_factory=dict)
    edits: dict[str, int] = field(default_factory=dict)
    ended: bool = True


@dataclass(frozen=True)
class Spread:
    """Lengths of texts.

    Args:
        mean, median, p95, longest: in whatever was counted; of 20 texts the 19th is at `p95`.
    """

    mean: float
    median: float
    p95: int
    longest: int


def columns_of(rows: Sequence[Any]) -> list[Column]:
    """The columns of some rows, in the order in which they are met; rows that have none are passed over."""
    mappings = [row for row in rows if isinstance(row, Mapping)]
    names = dict.fromkeys(name for row in mappings for name in row)
    columns = []
    for name in names:
        values = [value for row in mappings if (value := row.get(name)) not in (None, "")]
        columns.append(Column(str(name), _kinds(values), len(mappings) - len(values)))
    return columns


def survey(
    rows: Iterable[tuple[int, Any]],
    adapter: Adapter,
    name: str,
    *,
    map: Mapping[str, str | list[str]] | None = None,
    min_score: float | None = None,
    wanted: Callable[[Value], Value] | None = None,
) -> Survey:
    """Read rows until there are enough.

    Args:
        rows: with their numbers.
        adapter: the file's.
        name: the file's, for places.
        map: the recipe's, which may name a score.
        min_score: rows below it are dropped.
        wanted: `as_talk` or `as_pair`, where rows of another kind are to be dropped.
    """
    seen, size = Survey(), 0
    for number, row in rows:
        if seen.rows == ROWS or size >= BYTES:
            seen.ended = False
            break
        seen.rows += 1
        try:
            value = read_row(row, adapter, map, min_score)
            value = wanted(value) if wanted else value
            text = render_text(value)
            size += len(text.encode())
        except (Dropped, UnicodeEncodeError) as fault:
            reason = fault.reason if isinstance(fault, Dropped) else SURROGATE
            count, first = seen.dropped.get(reason, (0, place(name, number)))
            seen.dropped[reason] = count + 1, first
            continue
        seen.texts.append(text)
        seen.values.append((number, value))
        for edit in value.edits:
            seen.edits[edit] = seen.edits.get(edit, 0) + 1
    return seen


def spread(lengths: Sequence[int]) -> Spread:
    """How lengths are spread; there must be one."""
    ordered, n = sorted(lengths), len(lengths)
    median = (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
    return Spread(sum(ordered) / n, median, ordered[math.ceil(0.95 * n) - 1], ordered[-1])


def show_row(row: Any) -> str:
    """A row for a reader's eyes: a line a column, long ones shortened."""
    if not isinstance(row, Mapping):
        return shorten(row)
    return "\n".join(f"{name}: {shorten(value)}" for name, value in row.items())


def show_value(value: Value) -> str:
    """What a row gave, for a reader's eyes."""
    if isinstance(value, Text):
        return f"text: {shorten(value.text)}"
    told = value.messages if isinstance(value, Talk) else (*value.prompt, value.chosen, value.rejected)
    sides = ["chosen", "rejected"] if not isinstance(value, Talk) else []
    names = [m.role for m in told[: len(told) - len(sides)]] + sides
    lines = []
    for name, message in zip(names, told, strict=True):
        if message.reasoning:
            lines.append(f"{name} thinks: {shorten(message.reasoning)}")
        if message.content or not message.tool_calls:
            lines.append(f"{name}: {shorten(message.content)}")
        lines += [f"{name} calls: {shorten(call)}" for call in message.tool_calls]
    return "\n".join([*lines, *(f"changed: {edit}" for edit in value.edits)])


def shorten(value: Any) -> str:
    """A value on one line, its beginning only where it is long; what would steer a terminal is spelt out."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    shown = visible(text[:_SHOWN])
    return shown if len(text) <= _SHOWN else f"{shown} ... ({len(text):,} characters)"


def visible(text: str) -> str:
    """A text on one line; what would steer a terminal is spelt out."""
    return "".join(map(_visible, text))


def _visible(char: str) -> str:
    if char == "\n":
        return "\\n"
    hidden = unicodedata.category(char)[0] == "C" or unicodedata.category(char) in ("Zl", "Zp")
    return f"\\u{ord(char):04x}" if hidden else char


def _kinds(values: Sequence[Any]) -> str:
    """The kinds of some values, each once."""
    kinds: dict[str, None] = {}
    for value in values:
        match value:
            case bool():
                kinds["yes or no"] = None
            case int() | float():
                kinds["number"] = None
            case str():
                kinds["text"] = None
            case list() | tuple():
                kinds["list"] = None
            case Mapping():
                kinds["mapping"] = None
            case _:
                kinds[type(value).__name__] = None
    items = [item for value in values if isinstance(value, list | tuple) for item in value]
    keys = list(dict.fromkeys(str(key) for value in values if isinstance(value, Mapping) for key in value))
    words = {
        "list": f"list of {_kinds(items)}" if items else "empty list",
        "mapping": f"{{{', '.join([*keys[:_KEYS], *(['...'] if len(keys) > _KEYS else [])])}}}",
    }
    return " or ".join(words.get(kind, kind) for kind in kinds) or "nothing"
