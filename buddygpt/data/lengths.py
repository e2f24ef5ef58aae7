"""What becomes of talks and pairs that are longer than a window: no answer is lost, and what is cut is counted.

A talk is cut into pieces of whole exchanges, each with the system turn before it, as a chat goes on that has dropped
its oldest exchanges. An exchange is what is said up to the next question; where the calls of tools in it do not fit
together, a later piece begins with the question again and what came since is read only. Where one answer's prompt alone
is too long it gives way from the left, behind the opening of the turn that is cut; where that is not enough the answer
is cut from its end, and what is left has no end mark: the model is not to learn to stop in the middle of a sentence.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from buddygpt.data.template import ANSWER, ANSWER_START, END, START, TOOL
from buddygpt.data.tokenizer import DocumentEncoder

SPLIT, SHORTENED, CUT = "split into pieces", "prompt shortened", "answer cut"
"""What is counted, in talks."""

Ids = Sequence[int] | NDArray[np.integer]
Ranges = tuple[tuple[int, int], ...]
"""Parts of a talk's tokens, in order, none empty."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a talk, to be learned by itself.

    Args:
        ranges: its tokens, in those of the talk.
        learned: answers before this token of the talk are read only: another piece has them.
    """

    ranges: Ranges
    learned: int

    @property
    def size(self) -> int:
        """Tokens."""
        return sum(stop - start for start, stop in self.ranges)


@dataclass(frozen=True)
class Openings:
    """The ids by which the parts of a rendered talk are known.

    Args:
        system, user, assistant: of a turn's beginning, up to what is said.
        end: of the mark that ends a turn.
        apart: of the line break between turns.
        tool: of the mark before what a tool says; None where the tokenizer has none, as then no talk has.
    """

    system: list[int]
    user: list[int]
    assistant: list[int]
    end: int
    apart: list[int]
    tool: int | None

    @classmethod
    def of(cls, encoder: DocumentEncoder) -> Openings:
        """As the tokenizer spells them."""
        segments = [[START, "system\n"], [START, "user\n"], ANSWER_START, [END], ["\n"]]
        system, user, assistant, (end,), apart = encoder.encode_segments(segments)
        return cls(system, user, assistant, end, apart, encoder.token_id(TOOL))

    @property
    def frame(self) -> int:
        """Tokens of the shortest prompt: a turn in which nothing is said, and the opening of the answer."""
        return max(len(self.system), len(self.user)) + 1 + len(self.apart) + len(self.assistant)

    def system_turn(self, ids: Ids) -> int:
        """Tokens of the system turn that a talk begins with, the line break behind it included; 0 where it has none."""
        if not self._at(self.system, ids, 0):
            return 0
        return int(np.flatnonzero(np.asarray(ids) == self.end)[0]) + 1 + len(self.apart)

    def turns(self, ids: Ids) -> list[int]:
        """Where turns begin."""
        return np.flatnonzero(np.asarray(ids) == self.user[0]).tolist()

    def is_answer(self, ids: Ids, turn: int) -> bool:
        """Whether the turn is the assistant's."""
        return self._at(self.assistant, ids, turn)

    def opening(self, ids: Ids, turn: int) -> int:
        """Tokens before what is said in a turn that is not the assistant's."""
        return len(self.system if self._at(self.system, ids, turn) else self.user)

    def exchanges(self, ids: Ids) -> list[int]:
        """Where exchanges begin: behind the system turn, and behind each answer that no tool's turn follows."""
        starts, answered, system = [], False, self.system_turn(ids)
        for turn in self.turns(ids):
            said = turn + len(self.user)
            by_tool = self.tool is not None and said < len(ids) and ids[said] == self.tool
            if turn == system or (answered and not by_tool):
                starts.append(turn)
            answered = self.is_answer(ids, turn)
        return starts

    @staticmethod
    def _at(opening: list[int], ids: Ids, place: int) -> bool:
        return list(ids[place : place + len(opening)]) == opening


def share_room(prompt: int, answer: int, length: int, frame: int) -> int:
    """How many tokens of a prompt stay, so that it and its answer are within `length`.

    The prompt gives way first, down to half of the length or to its frame; then the answer, down to one token.
    """
    least = min(max(length // 2, frame), length - 1)
    return min(prompt, max(length - answer, least))


def shorten_prompt(ids: Ids, room: int, openings: Openings) -> Ranges:
    """What stays of a prompt that is too long: the oldest exchanges go first, whole; then the last one's beginning.

    The system turn stays before what is left, where it takes no more than half of the room; a longer one gives way like
    what follows it. A turn that is cut keeps its opening and its end.

    Args:
        ids: of the prompt, the answer's opening at its end.
        room: most tokens; where it is less than a frame the prompt's last ones stay.
        openings: how turns begin.
    """
    size = len(ids)
    if size <= room:
        return ((0, size),)
    if room < openings.frame:
        return ((size - room, size),)
    system = openings.system_turn(ids)
    head = system if system <= min(room // 2, room - openings.frame) else 0
    cut = size - (room - head)
    unsaid = len(openings.apart) + 1  # at the end of a turn
    if cut < system and cut + len(openings.system) < system - unsaid:
        return _joined((0, len(openings.system)), (cut + len(openings.system), size))
    exchanges = openings.exchanges(ids)
    for start in exchanges:
        if start >= cut:
            return _joined((0, head), (start, size))
    turns = [turn for turn in openings.turns(ids) if turn >= exchanges[-1]]
    for turn, after in itertools.pairwise(turns):
        if openings.is_answer(ids, turn):
            continue
        if turn >= cut:
            return _joined((0, head), (turn, size))
        opening = openings.opening(ids, turn)
        last = _joined((0, head), (turn, turn + opening), (min(cut + opening, after - unsaid), size))
        if cut + opening < after - unsaid:
            return last
    return last


def cut_talk(
    ids: NDArray[np.integer], labels: NDArray[np.uint8], length: int, openings: Openings, counts: Counter[str]
) -> list[Piece]:
    """The pieces of a talk that is longer than a window.

    Args:
        ids, labels: of the whole talk.
        length: most tokens of a piece, at least 2.
        openings: how turns begin.
        counts: takes what was done, a talk once for each.
    """
    edges = np.flatnonzero(np.diff(np.concatenate(([False], labels == ANSWER, [False]))))
    begins, ends = edges[::2], edges[1::2]
    exchanges = openings.exchanges(ids)
    owners = np.searchsorted(exchanges, begins, side="right") - 1
    system = openings.system_turn(ids)
    pieces: list[Piece] = []
    done: set[str] = set()
    first = 0
    while first < len(begins):
        start, begin, end = exchanges[owners[first]], int(begins[first]), int(ends[first])
        head = system if not pieces or 2 * system <= length else 0
        after = int(np.searchsorted(ends, length - head + start, side="right"))  # the first answer that does not fit
        if after > first:
            if after < len(ends):  # not in the midst of an exchange, if another ends before
                whole = int(np.searchsorted(owners, owners[after]))
                after = whole if whole > first else after
            pieces.append(Piece(_joined((0, head), (start, int(ends[after - 1]))), begin))
            first = after
            continue
        prompt = np.concatenate((ids[:head], ids[start:begin]))
        kept = shorten_prompt(prompt, share_room(len(prompt), end - begin, length, openings.frame), openings)
        room = length - sum(stop - start for start, stop in kept)
        if kept != ((0, len(prompt)),):
            done.add(SHORTENED)
        if room < end - begin:
            done.add(CUT)
        away = start - head  # from the prompt to the talk
        front = [(min(a, head), min(b, head)) for a, b in kept]
        rest = [(max(a, head) + away, max(b, head) + away) for a, b in kept]
        pieces.append(Piece(_joined(*front, *rest, (begin, min(end, begin + room))), begin))
        first += 1
    if len(pieces) > 1:
        done.add(SPLIT)
    counts.update(done)
    return pieces


def _joined(*ranges: tuple[int, int]) -> Ranges:
    """Ranges without empty ones, neighbours that touch as one."""
    joined: list[tuple[int, int]] = []
    for start, stop in ranges:
        if start == stop:
            continue
        if joined and joined[-1][1] == start:
            start = joined.pop()[0]
        joined.append((start, stop))
    return tuple(joined)
