"""What becomes of talks and pairs that are longer than a window: no answer is lost, and what is cut is counted.

A talk is cut into pieces of whole exchanges, each with the system turn before it, as a chat goes on that has dropped
its oldest exchanges. Where one exchange alone is too long its prompt gives way from the left, behind the opening of its
turn; where that is not enough the answer is cut from its end, and what is left has no end mark: the model is not to
learn to stop in the middle of a sentence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from buddygpt.data.template import ANSWER, END, START
from buddygpt.data.tokenizer import DocumentEncoder

SPLIT, SHORTENED, CUT = "split into pieces", "prompt shortened", "answer cut"
"""What is counted, in talks."""

Piece = list[tuple[int, int]]
"""A piece as ranges of its talk's tokens, in order."""


@dataclass(frozen=True)
class Openings:
    """The ids by which the parts of a rendered talk are known.

    Args:
        system, user: of a turn's beginning, up to what is said.
        end: of the mark that ends a turn.
        apart: of the line break between turns.
    """

    system: list[int]
    user: list[int]
    end: int
    apart: list[int]

    @classmethod
    def of(cls, encoder: DocumentEncoder) -> Openings:
        """As the tokenizer spells them."""
        segments = [[START, "system\n"], [START, "user\n"], [END], ["\n"]]
        system, user, (end,), apart = encoder.encode_segments(segments)
        return cls(system, user, end, apart)

    def system_turn(self, ids: Sequence[int] | NDArray[np.integer]) -> int:
        """Tokens of the system turn that a talk begins with, the line break behind it included; 0 where it has none."""
        if list(ids[: len(self.system)]) != self.system:
            return 0
        return int(np.flatnonzero(np.asarray(ids) == self.end)[0]) + 1 + len(self.apart)


def share_room(prompt: int, answer: int, length: int, opening: int) -> tuple[int, int]:
    """How many tokens of a prompt and of its answer stay within `length`.

    The prompt gives way first, down to half of the length or to its opening; then the answer.
    """
    least = min(max(length // 2, opening), length - 1)
    kept = min(prompt, max(length - answer, least))
    return kept, min(answer, length - kept)


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
    learned = np.flatnonzero(np.diff(np.concatenate(([False], labels == ANSWER, [False]))))
    answers = learned.reshape(-1, 2).tolist()
    head = openings.system_turn(ids)
    if 2 * head > length:  # too long to be repeated; it gives way with the prompt that it stands before
        head = 0
    pieces: list[Piece] = []
    done: set[str] = set()
    first = 0
    while first < len(answers):
        start = head if first == 0 else answers[first - 1][1] + len(openings.apart)
        last = first
        while last < len(answers) and head + answers[last][1] - start <= length:
            last += 1
        if last > first:
            pieces.append(_joined((0, head), (start, answers[last - 1][1])))
            first = last
            continue
        (begin, end) = answers[first]
        opening = head + len(openings.user)
        kept, said = share_room(head + begin - start, end - begin, length, opening)
        if kept < head + begin - start:
            done.add(SHORTENED)
        if said < end - begin:
            done.add(CUT)
        fixed = min(opening, kept)
        front = [(0, min(head, fixed)), (start, start + max(0, fixed - head))]
        pieces.append(_joined(*front, (begin - (kept - fixed), begin), (begin, begin + said)))
        first += 1
    if len(pieces) > 1:
        done.add(SPLIT)
    counts.update(done)
    return pieces


def _joined(*ranges: tuple[int, int]) -> Piece:
    """Ranges without empty ones, neighbours that touch as one."""
    piece: Piece = []
    for start, stop in ranges:
        if start == stop:
            continue
        if piece and piece[-1][1] == start:
            piece[-1] = (piece[-1][0], stop)
        else:
            piece.append((start, stop))
    return piece
