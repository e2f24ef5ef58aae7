"""Replies on the screen: one as it comes, two side by side or one after the other."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field

import typer

from buddygpt.cli.render import Renderer
from buddygpt.conversation.columns import Columns, visible
from buddygpt.conversation.talk import Conversation, Reply
from buddygpt.recipe.errors import BuddyError

WIDE = 80
"""Cells of a terminal from which on two replies stand side by side."""


@dataclass
class Speaker:
    """A model in the talk.

    Args:
        name: as the user called it.
        talk: with this model.
        replies: figures of all its replies.
    """

    name: str
    talk: Conversation
    replies: list[Reply] = field(default_factory=list)


Begin = Callable[[Speaker], Generator[str, None, None]]
"""How a speaker is asked."""


class Hearing:
    """Where the speakers are heard: replies go to standard output, all else to standard error.

    Args:
        speakers: one or two.
        figures: whether the pace of a reply is told, where both are terminals.
    """

    def __init__(self, speakers: Sequence[Speaker], *, figures: bool):
        self.speakers = speakers
        self._live = sys.stdout.isatty()
        self._figures = figures and self._live and sys.stderr.isatty()

    def hear(self, begin: Begin) -> None:
        """Let each speaker reply, as `begin` asks it to. A fault of one is told and does not end the other.

        Raises:
            KeyboardInterrupt: after what was said is shown and kept.
        """
        width = shutil.get_terminal_size().columns
        if len(self.speakers) > 1 and self._live and width >= WIDE:
            self._beside(begin, width)
            return
        for speaker in self.speakers:
            if len(self.speakers) > 1:
                self._write(f"-- {speaker.name}\n")
            self._stream(speaker, begin)

    def _stream(self, speaker: Speaker, begin: Begin) -> None:
        said = len(speaker.replies)
        with closing(_reply(speaker, begin)) as pieces:
            try:
                for piece in pieces:
                    self._write(piece)
            finally:
                pieces.close()
                if len(speaker.replies) > said:
                    self._write("\n")
                    self._tell_figures(figures(speaker.replies[-1]))

    def _beside(self, begin: Begin, width: int) -> None:
        """A row at a time, when both have it; the models decode in turn."""
        columns = Columns(len(self.speakers), width, " │ " if _writes("│") else " | ")
        said = [len(speaker.replies) for speaker in self.speakers]
        Renderer().aside(columns.beside([speaker.name for speaker in self.speakers]))
        with ExitStack() as stack:
            replies = [stack.enter_context(closing(_reply(speaker, begin))) for speaker in self.speakers]
            running = list(range(len(replies)))
            try:
                while running:
                    for i in tuple(running):
                        piece = next(replies[i], None)
                        if piece is None:
                            running.remove(i)
                        self._rows(columns.end(i) if piece is None else columns.push(i, piece))
            finally:
                for i in running:
                    replies[i].close()
                    self._rows(columns.end(i))
                new = [speaker.replies[before:] for speaker, before in zip(self.speakers, said, strict=True)]
                self._tell_figures(columns.beside([figures(heard[0]) if heard else "" for heard in new]))

    def _rows(self, rows: Iterator[str]) -> None:
        for row in rows:
            self._write(f"{row}\n")

    def _write(self, text: str) -> None:
        sys.stdout.write(visible(text) if self._live else text)
        sys.stdout.flush()

    def _tell_figures(self, line: str) -> None:
        if self._figures:
            Renderer(stderr=True).aside(line)


def tell(line: str) -> None:
    """A line that no model said."""
    typer.echo(visible(line), err=True)


def _reply(speaker: Speaker, begin: Begin) -> Generator[str, None, None]:
    """One reply; its figures are kept, and a fault is told."""
    before = speaker.talk.reply
    try:
        with closing(begin(speaker)) as pieces:
            yield from pieces
    except BuddyError as error:  # one text too long does not end the talk
        for line in error.lines:
            tell(f"buddy: {line}")
    finally:
        if (reply := speaker.talk.reply) is not None and reply is not before:
            speaker.replies.append(reply)


def figures(reply: Reply) -> str:
    """Length, pace and end of a reply."""
    pace = f", {reply.pace:.1f} tokens/s" if reply.pace else ""
    end = {"stop": "", "length": ", cut off", "interrupted": ", broken off"}[reply.end]
    return f"{reply.tokens:,} tokens{pace}{end}"


def _writes(char: str) -> bool:
    try:
        char.encode(sys.stdout.encoding)
    except UnicodeEncodeError:
        return False
    return True
