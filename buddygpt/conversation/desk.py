"""Talks over one model at the same time: one for each tab of a browser, and what its buttons do."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace

from buddygpt.conversation.talk import Conversation
from buddygpt.events import Caution, Emit, Event, Note
from buddygpt.model.sampling import Sampling
from buddygpt.recipe.errors import BuddyError

REDRAWN = 0.05
"""Seconds between two looks at a reply that comes in."""
PATIENCE = 60.0
"""Seconds that one waits for a reply that was stopped: the step it is in may be the reading of a long prompt."""

Pairs = list[tuple[str, str]]
"""What was typed and what was answered. More than the talk has where its oldest turns were dropped."""


@dataclass
class _Seat:
    """One tab.

    Args:
        talk: its talk.
        cautions: what the talk told since somebody asked.
        pairs: as shown.
        retries: of the last reply, with which a seed moves on.
        busy: held while a reply comes in.
        stop: ends that reply.
    """

    talk: Conversation
    cautions: list[str]
    pairs: Pairs = field(default_factory=list)
    retries: int = 0
    busy: threading.Lock = field(default_factory=threading.Lock)
    stop: threading.Event = field(default_factory=threading.Event)


class Desk:
    """Seats by the name of their tab. The model decodes for one of them at a time, token by token in turns.

    A button pressed while a reply comes in stops that reply first; what was said of it stays.

    Args:
        new_talk: begins a talk.
    """

    def __init__(self, new_talk: Callable[[Emit], Conversation]):
        self._new_talk = new_talk
        self._seats: dict[str, _Seat] = {}
        self._taking = threading.Lock()
        self._decoding = threading.Lock()

    def send(self, tab: str, text: str, system: str, sampling: Sampling) -> Iterator[Pairs]:
        """Answer a text: what is to be shown, again and again until the reply has ended.

        Raises:
            BuddyError: the text is longer than the context; the talk is as it was.
        """
        with self._held(tab) as seat:
            seat.retries = 0
            _prepare(seat.talk, system, sampling, 0)
            yield from self._answer(seat, seat.talk.say(text), text, seat.pairs)

    def retry(self, tab: str, system: str, sampling: Sampling) -> Iterator[Pairs]:
        """Another reply to the last text, in place of the last one."""
        with self._held(tab) as seat:
            if not seat.pairs:
                return
            text = seat.pairs[-1][0]
            seat.retries += 1
            if seat.talk.converses:
                _prepare(seat.talk, system, sampling, seat.retries - 1)
                pieces = seat.talk.retry()  # which moves the seed on itself
            else:
                _prepare(seat.talk, system, sampling, seat.retries)
                pieces = seat.talk.say(text)
            yield from self._answer(seat, pieces, text, seat.pairs[:-1])

    def stop(self, tab: str) -> None:
        """End the reply that comes in, if one does."""
        if seat := self._seats.get(tab):
            seat.stop.set()

    def undo(self, tab: str) -> tuple[str, Pairs]:
        """Take the last exchange back: what had been typed, and what is to be shown."""
        with self._held(tab) as seat:
            if not seat.pairs:
                return "", []
            seat.talk.undo()
            text = seat.pairs[-1][0]
            seat.pairs, seat.retries = seat.pairs[:-1], 0
            return text, seat.pairs

    def clear(self, tab: str) -> None:
        """Forget the talk."""
        with self._held(tab) as seat:
            seat.talk.reset()
            seat.pairs = []

    def leave(self, tab: str) -> None:
        """The tab is closed: its reply ends, and the memory that the talk held is free."""
        with self._taking:
            seat = self._seats.pop(tab, None)
        if seat is not None:
            seat.stop.set()

    def shown(self, tab: str) -> Pairs:
        """What is to be shown now."""
        seat = self._seats.get(tab)
        return seat.pairs if seat else []

    def cautions(self, tab: str) -> list[str]:
        """What the talk told since the last call."""
        seat = self._seats.get(tab)
        told = seat.cautions if seat else []
        return [told.pop(0) for _ in range(len(told))]

    def _seat(self, tab: str) -> _Seat:
        with self._taking:
            if tab not in self._seats:
                told: list[str] = []
                self._seats[tab] = _Seat(self._new_talk(lambda event: told.append(_text(event))), told)
            return self._seats[tab]

    @contextmanager
    def _held(self, tab: str) -> Iterator[_Seat]:
        seat = self._seat(tab)
        seat.stop.set()
        if not seat.busy.acquire(timeout=PATIENCE):
            raise BuddyError("the reply before has not ended yet; try again")
        try:
            seat.stop.clear()
            yield seat
        finally:
            seat.busy.release()

    def _answer(self, seat: _Seat, pieces: Iterator[str], text: str, before: Pairs) -> Iterator[Pairs]:
        """What is to be shown while a reply comes in; the seat's pairs change with the talk."""
        messages, said, ended, drawn = seat.talk.messages, "", False, time.monotonic()
        with closing(pieces):  # type: ignore[type-var]  # a generator
            yield [*before, (text, "")]
            while not seat.stop.is_set():
                with self._decoding:
                    piece = next(pieces, None)
                if piece is None:
                    ended = True
                    break
                said += piece
                seat.pairs = [*before, (text, said)]
                if time.monotonic() - drawn >= REDRAWN:
                    yield seat.pairs
                    drawn = time.monotonic()
        if ended or seat.talk.messages is not messages:  # also an answer without a whole character
            seat.pairs = [*before, (text, said)]
        yield seat.pairs


def _prepare(talk: Conversation, system: str, sampling: Sampling, retries: int) -> None:
    """Take over what the page's fields say. Another system message keeps the turns."""
    moved = None if sampling.seed is None else sampling.seed + retries
    talk.sampling = replace(sampling, seed=moved)
    if system != talk.system:
        turns = [message for message in talk.messages if message.role != "system"]
        talk.set_system(system)
        talk.messages = [*talk.messages, *turns]


def _text(event: Event) -> str:
    return event.text if isinstance(event, Caution | Note) else ""
