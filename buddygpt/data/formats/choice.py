"""Which adapter reads a file: chosen by its columns and their values, or said by the recipe's `map`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from buddygpt.data.formats.adapters import Adapter, Columns, PromptAdapter, TalkAdapter, TextAdapter
from buddygpt.data.formats.pairs import ANSWER_LISTS, QUESTION, AnswersAdapter, PairAdapter
from buddygpt.data.formats.tools import read_tools
from buddygpt.data.formats.turns import REASONING, is_turn, is_turns
from buddygpt.data.formats.values import Dropped
from buddygpt.recipe.errors import BuddyError, did_you_mean

PEEKED = 100
"""Rows at the start of a file by which its adapter is chosen."""
TEXT_COLUMNS = ("text", "content", "raw_content", "article", "body", "document", "passage", "正文", "文本", "内容")
"""Names that a text column has."""
PROMPT_COLUMNS = ("prompt", "question", "query", "instruction", "问题", "指令")
RESPONSE_COLUMNS = ("response", "answer", "output", "completion", "target", "回答", "答案", "回复")
MESSAGE_COLUMNS = ("messages", "conversations", "conversation", "dialogue", "dialog", "对话")
SYSTEM_COLUMNS = ("system", "system_prompt")
TOOLS = ("tools",)
SCORE_COLUMNS = ("score_chosen", "score_rejected")
_REJECTED = re.compile(r"rejected[_-]?(\d*)")
_SHAPES: tuple[tuple[Columns, Columns], ...] = (
    (("text",), ()),
    (("messages",), ("system", "tools")),
    (("prompt", "response"), ("input", "reasoning", "system")),
    (("chosen", "rejected"), ("prompt", "input", "system")),
    (("messages", "chosen", "rejected"), ("system",)),
)
"""What a map must name together, and what it may name besides."""


def find_adapter(
    rows: Sequence[Any],
    *,
    map: Mapping[str, str | Sequence[str]] | None = None,
    hint: str | None = None,
    where: str,
) -> Adapter:
    """The adapter for a file.

    Columns that are null in all of these rows count by their names, where no other column fits.

    Args:
        rows: the first of the file, say 100; what is no mapping is passed over.
        map: the recipe's; its `score` says nothing of the shape.
        hint: a shape's name from the catalog, preferred where the columns fit several.
        where: the file's name, for messages.

    Raises:
        BuddyError: nothing fits, two columns fit alike, or the map is wrong; one line.
    """
    mappings = [row for row in rows if isinstance(row, Mapping)]
    named = {k: (v,) if isinstance(v, str) else tuple(v) for k, v in (map or {}).items()}
    table = _Table(where, mappings, tuple(dict.fromkeys(str(column) for row in mappings for column in row)))
    if mappings:
        _check_columns(table, named)
    if named.keys() - {"score"}:
        return _follow(table, named)
    if not mappings:
        return TextAdapter(TEXT_COLUMNS[:1])
    finders = sorted(_FINDERS, key=lambda shapes: hint not in shapes)  # stable: the others keep their order
    for known in (table, _Table(where, mappings, table.names, by_name=True)):
        for shapes in finders:
            if adapter := _FINDERS[shapes](known):
                return adapter
    example = next((c for c in table.names if table.fits(c, _is_text)), "...")
    raise BuddyError(
        f"{where}: no text column found among {table.listed()}; say what they hold with "
        f"`map: {{text: {example}}}` or `map: {{prompt: ..., response: ...}}`"
    )


@dataclass(frozen=True)
class _Table:
    """The first rows of a file.

    Args:
        where: the file's name.
        rows: at least one, but for a map.
        names: all their columns.
        by_name: columns without values fit everything.
    """

    where: str
    rows: Sequence[Mapping[str, Any]]
    names: Columns
    by_name: bool = False

    def listed(self) -> str:
        """The columns, for messages."""
        return ", ".join(self.names) or "no columns"

    def fits(self, column: str, test: Callable[[Any], bool]) -> bool:
        """Whether some value of a column passes."""
        values = self._values(column)
        return any(map(test, values)) or (self.by_name and column in self.names and not values)

    def one(self, columns: Columns, test: Callable[[Any], bool], meaning: str) -> str | None:
        """The only one of some columns that fits; None where none does."""
        found = [column for column in columns if self.fits(column, test)]
        if len(found) > 1:
            raise BuddyError(
                f"{self.where}: {' and '.join(found)} may all be the {meaning}; say which with "
                f"`map: {{{meaning}: {found[0]}}}`{'' if meaning in ('text', 'messages') else ' and the other columns'}"
            )
        return found[0] if found else None

    def optional(self, columns: Columns) -> Columns:
        """One of some columns that holds nothing but text, rather one with some than one with none; or no column."""
        found = [c for c in columns if c in self.names and all(map(_is_text, self._values(c)))]
        return tuple(sorted(found, key=lambda c: not any(self._values(c)))[:1])

    def _values(self, column: str) -> Sequence[Any]:
        return [value for row in self.rows if (value := row.get(column)) is not None]


def _find_answers(table: _Table) -> Adapter | None:
    lists = all(table.fits(column, _is_list) for column in ANSWER_LISTS)
    return AnswersAdapter() if lists and table.fits(QUESTION, _is_text) else None


def _find_pair(table: _Table) -> Adapter | None:
    rejected = [(m[1], name) for name in table.names if (m := _REJECTED.fullmatch(name)) and table.fits(name, _is_side)]
    if not rejected or not table.fits("chosen", _is_side):
        return None
    prompt, more = _question(table, lambda value: _is_text(value) or is_turns(value))
    messages = None if prompt else table.one(MESSAGE_COLUMNS, is_turns, "messages")
    if not prompt and not messages and not table.fits("chosen", _holds_prompt):
        raise BuddyError(
            f"{table.where}: chosen and rejected are answers, but no column among {table.listed()} is known to hold "
            "their question; name it with `map: {prompt: ..., chosen: chosen, rejected: rejected}`"
        )
    return PairAdapter(
        chosen="chosen",
        rejected=tuple(name for _, name in sorted(rejected, key=lambda r: int(r[0] or 0))),
        prompt=prompt,
        input=more,
        messages=messages,
        system=table.optional(SYSTEM_COLUMNS),
        scores=SCORE_COLUMNS if set(SCORE_COLUMNS) <= set(table.names) else (),
    )


def _find_talk(table: _Table) -> Adapter | None:
    messages = table.one(MESSAGE_COLUMNS, is_turns, "messages")
    tools = TOOLS if messages and table.fits(TOOLS[0], _is_offer) else ()
    return TalkAdapter(messages, table.optional(SYSTEM_COLUMNS), tools) if messages else None


def _find_prompt(table: _Table) -> Adapter | None:
    reasoning = table.optional(REASONING)
    responses = RESPONSE_COLUMNS
    if reasoning and table.fits("input", _is_text):
        responses = (*responses, "content")  # as DeepSeek-R1's distillates have it
    for columns in (("input", *PROMPT_COLUMNS), responses):
        if not any(table.fits(column, _is_text) for column in columns):
            return None  # before two columns that may be the other can matter
    prompt, more = _question(table, _is_text)
    response = table.one(responses, _is_text, "response")
    assert response is not None
    return PromptAdapter(prompt, (response,), more, reasoning, table.optional(SYSTEM_COLUMNS))


def _find_text(table: _Table) -> Adapter | None:
    text = table.one(TEXT_COLUMNS, (lambda value: True) if table.by_name else _is_text, "text")
    if not text and table.fits("completion", _is_text):
        text = "completion"
    return TextAdapter((text,)) if text else None


_FINDERS: dict[Columns, Callable[[_Table], Adapter | None]] = {
    ("answers",): _find_answers,
    ("preference",): _find_pair,
    ("conversation",): _find_talk,
    ("instruction", "prompt-response"): _find_prompt,
    ("text",): _find_text,
}
"""By the shapes' names; where the columns fit several the first is taken, as the richest."""


def _question(table: _Table, test: Callable[[Any], bool]) -> tuple[Columns, Columns]:
    """Columns of the question, and of what it is about."""
    prompt = table.one(PROMPT_COLUMNS, test, "prompt")
    if prompt == "instruction":
        return (prompt,), table.optional(("input", "context"))
    if not prompt and table.fits("input", test):
        prompt = "input"
    return ((prompt,) if prompt else ()), ()


def _check_columns(table: _Table, named: Mapping[str, Columns]) -> None:
    for meaning, columns in named.items():
        for column in columns:
            if column not in table.names:
                raise BuddyError(
                    f"{table.where}: `map` says that {meaning} is in the column {column}, which is not there"
                    f"{did_you_mean(column, table.names)}; there are {table.listed()}"
                )


def _follow(table: _Table, named: Mapping[str, Columns]) -> Adapter:
    """The adapter that a map describes."""
    given = named.keys() - {"score"}
    if not any(set(need) <= given <= {*need, *may} for need, may in _SHAPES):
        known = ", or ".join(" + ".join(need) + "".join(f" [+ {m}]" for m in may) for need, may in _SHAPES)
        listed = " + ".join(meaning for meaning in named if meaning in given)
        raise BuddyError(f"{table.where}: `map` with {listed} describes no row; it takes {known}")
    for meaning in ("messages", "tools", "chosen"):
        if len(named.get(meaning, ())) > 1:
            raise BuddyError(f"{table.where}: `map` takes one column for {meaning}, not {len(named[meaning])}")
    more = {
        meaning: named[meaning] for meaning in ("prompt", "input", "system", "tools", "reasoning") if meaning in given
    }
    if "text" in given:
        return TextAdapter(named["text"])
    if "chosen" in given:
        messages = named.get("messages", (None,))[0]
        return PairAdapter(named["chosen"][0], named["rejected"], messages=messages, **more)
    if "messages" in given:
        return TalkAdapter(named["messages"][0], **more)
    return PromptAdapter(response=named["response"], **more)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _is_side(value: Any) -> bool:
    return isinstance(value, str) or is_turn(value) or (_is_list(value) and bool(value))


def _is_offer(value: Any) -> bool:
    try:
        read_tools(value)
    except Dropped:
        return False
    return True


def _holds_prompt(value: Any) -> bool:
    return is_turns(value) and not isinstance(value, str) and len(value) > 1
