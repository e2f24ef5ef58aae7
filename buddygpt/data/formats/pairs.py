"""Adapters of preference data: from one row to two answers to the same prompt.

A side is a string, one turn, or a list of turns that may hold the prompt as well: what both lists begin with. Of
several sides rejected, the first that makes a pair counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from buddygpt.data.formats.adapters import (
    Adapter,
    Columns,
    given,
    joined,
    number_of,
    system_turn,
    value_of,
    with_system,
)
from buddygpt.data.formats.turns import is_turn, order, read_turns, say, string_of, trim_start
from buddygpt.data.formats.values import (
    BROKEN,
    EQUAL,
    NO_ANSWER,
    NO_QUESTION,
    NO_REJECTED,
    OTHER_PROMPT,
    SAME_SCORE,
    SHORT_ANSWER,
    UNLIKE_LENGTHS,
    Dropped,
    Message,
    Pair,
)

MORE_TURNS = "turns after the answer"
QUESTION, ANSWER_LISTS = "question", ("chatgpt_answers", "human_answers")
MIN_CHARACTERS = 20
"""Of each of the two answers of an answer list; a shorter one is an aside."""
MAX_RATIO = 3
"""Of the lengths of two answers of answer lists: people write shorter than models, and length is easily learned."""


@dataclass(frozen=True)
class PairAdapter(Adapter):
    """Two answers, one better than the other.

    Args:
        chosen: column of the better one.
        rejected: columns of worse ones.
        prompt, input: columns of the question, joined by a line break; none where both sides hold it.
        messages: a column of turns before the answers.
        system: columns of a system turn.
        scores: columns of the two sides' scores, or none.
    """

    chosen: str
    rejected: Columns
    prompt: Columns = ()
    input: Columns = ()
    messages: str | None = None
    system: Columns = ()
    scores: Columns = ()

    @property
    def name(self) -> str:
        return "preference"

    @property
    def map(self) -> dict[str, Columns]:
        named = {
            "system": self.system,
            "prompt": self.prompt,
            "input": self.input,
            "messages": (self.messages,) if self.messages else (),
            "chosen": (self.chosen,),
            "rejected": self.rejected,
        }
        return given(named)

    @property
    def columns(self) -> Columns:
        return (*super().columns, *self.scores)

    def read(self, row: Any) -> Pair:
        """The row's pair."""
        if self.scores and _is_tie(*(value_of(row, column) for column in self.scores)):
            raise Dropped(SAME_SCORE)
        chosen = _sides(value_of(row, self.chosen))
        rejected = [side for column in self.rejected for side in _sides(value_of(row, column))]
        if not chosen:
            raise Dropped(NO_ANSWER)
        system, context = system_turn(row, self.system), self._context(row)
        reason = NO_REJECTED
        for side in rejected:
            try:
                return make_pair(context, chosen[0], side, system)
            except Dropped as dropped:
                reason = dropped.reason
        raise Dropped(reason)

    def _context(self, row: Any) -> list[Message]:
        if self.messages or len(self.prompt) == 1:
            value = value_of(row, self.messages or self.prompt[0])
            if self.messages or not isinstance(value, str):
                return read_turns(value) if value else []
        question = joined(row, self.prompt + self.input)
        return [Message("user", question)] if question else []


@dataclass(frozen=True)
class AnswersAdapter(Adapter):
    """Two lists of answers, as HC3 has them of people and of a model: the first of each, where they compare.

    Args:
        swap: take people's answer for the better one, not the model's.
    """

    swap: bool = False

    @property
    def name(self) -> str:
        return "answers"

    @property
    def map(self) -> dict[str, Columns]:
        chosen, rejected = reversed(ANSWER_LISTS) if self.swap else ANSWER_LISTS
        return {"prompt": (QUESTION,), "chosen": (chosen,), "rejected": (rejected,)}

    def read(self, row: Any) -> Pair:
        """The row's pair."""
        prompt, chosen, rejected = (value_of(row, *columns) for columns in self.map.values())
        better, worse = _sides(chosen), _sides(rejected)
        if not better or not worse:
            raise Dropped(NO_ANSWER if not better else NO_REJECTED)
        pair = make_pair([say("user", string_of(prompt))], better[0], worse[0], [])
        short, long = sorted((len(pair.chosen.content), len(pair.rejected.content)))
        if short < MIN_CHARACTERS:
            raise Dropped(SHORT_ANSWER)
        if long > MAX_RATIO * short:
            raise Dropped(UNLIKE_LENGTHS)
        return pair


def make_pair(context: list[Message], chosen: list[Message], rejected: list[Message], system: list[Message]) -> Pair:
    """A pair of two sides.

    Args:
        context: turns before both, where the sides do not hold them.
        chosen, rejected: the sides' turns, in their order.
        system: a turn that goes before all, or none.

    Raises:
        Dropped: a side without an answer, the same answer twice, or no prompt that both share.
    """
    edits: list[str] = []
    chosen, rejected = order(chosen, edits), order(rejected, edits)
    if chosen and chosen == rejected:
        raise Dropped(EQUAL)
    same = 0
    while same < min(len(chosen), len(rejected)) and chosen[same] == rejected[same]:
        same += 1
    shared, better, worse = chosen[:same], chosen[same:], rejected[same:]
    if not better or not worse:
        raise Dropped(NO_ANSWER if not better else NO_REJECTED)
    if better[0].role != "assistant" or worse[0].role != "assistant":
        raise Dropped(OTHER_PROMPT)
    context = order(context, edits)
    if not any(m.role == "user" for m in shared):
        shared += context
    elif context[-same:] == shared:  # the prompt's column says more than the sides
        shared = context
    prompt = trim_start(order(with_system(system, shared), edits), edits)
    if not any(m.role == "user" for m in prompt):
        raise Dropped(NO_QUESTION)
    if prompt[-1].role == "assistant":
        raise Dropped(BROKEN)
    if len(better) > 1 or len(worse) > 1:
        edits.append(MORE_TURNS)
    return Pair(tuple(prompt), better[0], worse[0], tuple(dict.fromkeys(edits)))


def _sides(value: Any) -> list[list[Message]]:
    """The sides that a column holds, without those that are blank: one, or several in a list."""
    several = isinstance(value, list | tuple) and not (any(map(is_turn, value)) and _is_talk(value))
    sides = [_read_side(each) for each in (value if several else [value])]
    return [side for side in sides if not all(m.empty for m in side)]


def _read_side(value: Any) -> list[Message]:
    if isinstance(value, str):
        return [say("assistant", value)]
    return read_turns(value) if value else []


def _is_talk(turns: Sequence[Any]) -> bool:
    """Whether turns follow each other; several answers without a question stand side by side."""
    return len(turns) == 1 or any(m.role != "assistant" for m in read_turns(turns))


def _is_tie(chosen: Any, rejected: Any) -> bool:
    score = number_of(chosen)
    return score is not None and score == number_of(rejected)
