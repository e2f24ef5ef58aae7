"""Adapters: from one row to a text or a talk. One is found for a file by `find_adapter` and reads each of its rows."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from buddygpt.data.formats.tools import read_tools, with_tools
from buddygpt.data.formats.turns import order, read_turns, say, string_of, trim_end, trim_start
from buddygpt.data.formats.values import (
    EMPTY,
    LOW_SCORE,
    NO_ANSWER,
    NO_COLUMN,
    NO_QUESTION,
    NO_SCORE,
    NOT_TEXT,
    Dropped,
    Message,
    Talk,
    Text,
    Value,
)

Columns = tuple[str, ...]
SCORE = "score"
"""Column of a row's quality where the recipe names none."""


class Adapter(ABC):
    """Reads the rows of a file; frozen, and picklable to the processes that read."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The shape: text, instruction, prompt-response, conversation, preference or answers."""

    @property
    @abstractmethod
    def map(self) -> dict[str, Columns]:
        """What its columns hold, in the words of a recipe's `map`."""

    @property
    def columns(self) -> Columns:
        """Those it needs, as a wide table need not be read whole."""
        return tuple(dict.fromkeys(column for names in self.map.values() for column in names))

    @abstractmethod
    def read(self, row: Any) -> Value:
        """What a row gives.

        Raises:
            Dropped: nothing.
        """


@dataclass(frozen=True)
class TextAdapter(Adapter):
    """Plain text.

    Args:
        text: columns, all of them strings in every row; several are joined by a line break.
    """

    text: Columns

    @property
    def name(self) -> str:
        return "text"

    @property
    def map(self) -> dict[str, Columns]:
        return {"text": self.text}

    def read(self, row: Any) -> Text:
        """The row's text, not stripped: it is seen again by what cleans it."""
        try:
            text = row[self.text[0]]
            if len(self.text) > 1:
                text = "\n".join([row[column] for column in self.text])
        except (KeyError, IndexError):
            raise Dropped(NO_COLUMN) from None
        except TypeError:  # a row that is no mapping, or a column that cannot be joined
            raise Dropped(NOT_TEXT if isinstance(row, Mapping) else NO_COLUMN) from None
        if not isinstance(text, str):
            raise Dropped(NOT_TEXT)
        if not text or text.isspace():
            raise Dropped(EMPTY)
        return Text(text)


@dataclass(frozen=True)
class PromptAdapter(Adapter):
    """A question and its answer.

    Args:
        prompt, input, response: columns; those with text are joined by a line break.
        reasoning: columns of the thought before the answer.
        system: columns of a system turn.
    """

    prompt: Columns
    response: Columns
    input: Columns = ()
    reasoning: Columns = ()
    system: Columns = ()

    @property
    def name(self) -> str:
        return "instruction" if self.input else "prompt-response"

    @property
    def map(self) -> dict[str, Columns]:
        named = {
            "system": self.system,
            "prompt": self.prompt,
            "input": self.input,
            "reasoning": self.reasoning,
            "response": self.response,
        }
        return given(named)

    def read(self, row: Any) -> Talk:
        """The row as a talk of two turns, or three with the system's."""
        question = joined(row, self.prompt + self.input)
        if not question:
            raise Dropped(NO_QUESTION)
        answer = say("assistant", joined(row, self.response), joined(row, self.reasoning))
        messages = order([*system_turn(row, self.system), Message("user", question), answer], edits=[])
        if messages[-1].role != "assistant":  # the only turn that may be empty
            raise Dropped(NO_ANSWER)
        return Talk(tuple(messages))


@dataclass(frozen=True)
class TalkAdapter(Adapter):
    """A conversation.

    Args:
        messages: the column of its turns.
        system: columns of a system turn that goes before.
        tools: the column of the tools that the assistant may call, or none; the system turn lists them.
    """

    messages: str
    system: Columns = ()
    tools: Columns = ()

    @property
    def name(self) -> str:
        return "conversation"

    @property
    def map(self) -> dict[str, Columns]:
        return given({"system": self.system, "tools": self.tools, "messages": (self.messages,)})

    def read(self, row: Any) -> Talk:
        """The row's turns from the user's first to the assistant's last."""
        edits: list[str] = []
        turns = read_turns(value_of(row, self.messages))
        said = order(with_system(system_turn(row, self.system), order(turns, edits)), edits)
        messages = trim_end(trim_start(said, edits), edits)
        if not messages:
            raise Dropped(_lacking(said))
        offer = read_tools(value_of(row, self.tools[0])) if self.tools else ""
        return Talk(tuple(with_tools(messages, offer)), tuple(dict.fromkeys(edits)))


def given(named: dict[str, Columns]) -> dict[str, Columns]:
    """A map without the meanings that no column has."""
    return {meaning: columns for meaning, columns in named.items() if columns}


def value_of(row: Any, column: str) -> Any:
    """What a row has in a column; None where it has none.

    Raises:
        Dropped: the row is no mapping of columns.
    """
    if not isinstance(row, Mapping):
        raise Dropped(NO_COLUMN)
    return row.get(column)


def joined(row: Any, columns: Columns) -> str:
    """The texts that a row has in some columns, one below the other.

    Raises:
        Dropped: one is neither a string nor None.
    """
    texts = [string_of(value_of(row, column)).strip() for column in columns]
    return "\n".join(text for text in texts if text)


def system_turn(row: Any, columns: Columns) -> list[Message]:
    """The system turn that a row has in columns of its own, or none."""
    text = joined(row, columns)
    return [Message("system", text)] if text else []


def with_system(system: list[Message], messages: list[Message]) -> list[Message]:
    """Messages after a system turn, unless they begin with it."""
    return messages if messages[:1] == system else system + messages


def number_of(value: Any) -> float | None:
    """A finite number, given as one or as a string."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def score_of(row: Any, map: Mapping[str, str | Sequence[str]] | None) -> float | None:
    """The row's score, from the column that the recipe's `map` names or else `score`; None where it is no number."""
    column = (map or {}).get("score", SCORE)
    return number_of(value_of(row, column if isinstance(column, str) else column[0]))


def read_row(
    row: Any, adapter: Adapter, map: Mapping[str, str | Sequence[str]] | None, min_score: float | None
) -> Value:
    """What a row gives, if its score is high enough.

    Raises:
        Dropped: it gives nothing.
    """
    if min_score is not None:
        score = score_of(row, map)
        if score is None or score < min_score:
            raise Dropped(NO_SCORE if score is None else LOW_SCORE)
    return adapter.read(row)


def _lacking(said: list[Message]) -> str:
    """What a talk without a single exchange lacks."""
    if not said:
        return EMPTY
    return NO_ANSWER if any(m.role == "user" for m in said) else NO_QUESTION
