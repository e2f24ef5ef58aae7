"""A talk as it is held in a terminal or a pipe: texts go to the models, lines with a slash are commands."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import nullcontext

from buddygpt.cli.lines import Keyboard
from buddygpt.cli.render import Renderer
from buddygpt.cli.speech import Begin, Hearing, Speaker, figures, tell
from buddygpt.conversation import params
from buddygpt.conversation.columns import visible
from buddygpt.conversation.talk import Conversation
from buddygpt.events import Table
from buddygpt.recipe.errors import BuddyError, did_you_mean

COMMANDS = {
    "/help": "this list",
    "/reset": "forget the talk, keep the system message",
    "/undo": "take the last exchange back",
    "/retry": "another reply to the last text, in place of the last one; a seed moves on by one",
    "/system": "show the system message; /system TEXT sets it, /system - removes it, and the talk begins anew",
    "/params": "show how replies are drawn; /params temperature=0.5 seed=1 changes it, seed=none draws afresh",
    "/stats": "tokens, pace, context",
    "/quit": "end, as Ctrl-D does",
}
_KEYS = (("//TEXT", "say /TEXT to the model"), ("Alt-Enter", "a new line within a text; a paste may have several"))
_SHOWN = 30
"""Characters of a text that was taken back."""
_COMMAND = re.compile(r"/[A-Za-z]+\Z")


class Session:
    """One or two models that are asked the same.

    Args:
        speakers: the models.
        hearing: where they are heard.
        renderer: of standard error, for tables.
        keyboard: of the one who types; None for a pipe or a single text.
    """

    def __init__(
        self, speakers: Sequence[Speaker], hearing: Hearing, renderer: Renderer, keyboard: Keyboard | None = None
    ):
        self._speakers, self._hearing, self._renderer, self._keyboard = speakers, hearing, renderer, keyboard
        self._turns: list[tuple[str, list[Speaker]]] = []  # each text with those whose talk has it
        self._commands: dict[str, Callable[[str], None]] = {
            "/help": self._help,
            "/reset": self._reset,
            "/undo": self._undo,
            "/retry": self._retry,
            "/system": self._system,
            "/params": self._params,
            "/stats": self._stats,
        }

    def run(self, lines: Iterator[str]) -> None:
        """Take lines until they end, or one says so."""
        for line in lines:
            if line in ("/quit", "/exit"):
                return
            try:
                self._take(line)
            except BuddyError as error:
                for told in error.lines:
                    tell(f"buddy: {told}")
            except KeyboardInterrupt:
                if not self._keyboard:
                    raise

    def _take(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        if not line:
            return
        if line.startswith("//"):
            self.say(line[1:])
        elif word in self._commands:
            self._commands[word](rest.strip())
        elif _COMMAND.match(word):
            near = did_you_mean(word.lower(), COMMANDS)
            tell(f"{word}: no such command; /help lists them, //{word[1:]} says it to the model{near}")
        else:
            self.say(line)

    def say(self, text: str) -> None:
        """Ask every model."""
        self._ask(text, lambda speaker: speaker.talk.say(text))

    def _ask(self, text: str, begin: Begin, had: Sequence[Speaker] = ()) -> None:
        before = [speaker.talk.messages for speaker in self._speakers]
        try:
            with self._keyboard.hearing() if self._keyboard else nullcontext():
                self._hearing.hear(begin)
        finally:
            asked = zip(self._speakers, before, strict=True)
            heard = [speaker for speaker, old in asked if speaker in had or speaker.talk.messages is not old]
            if heard or not self._chats:
                self._turns.append((text, heard))

    def _help(self, rest: str) -> None:
        self._renderer.emit(Table("", ("", ""), (*COMMANDS.items(), *_KEYS)))

    def _reset(self, rest: str) -> None:
        for speaker in self._speakers:
            speaker.talk.reset()
        self._turns.clear()
        tell("the talk is forgotten" if self._chats else "a base model keeps no talk: there was nothing to forget")

    def _undo(self, rest: str) -> None:
        if not self._chats:
            tell("a base model keeps no talk: there is nothing to take back")
            return
        text, heard = self._turns.pop() if self._turns else ("", [])
        if [speaker for speaker in heard if speaker.talk.undo()]:
            tell(f"taken back: {_short(text)}")
        else:
            tell("there is nothing to take back")

    def _retry(self, rest: str) -> None:
        if not self._turns:
            raise BuddyError("nothing was said yet")
        text, heard = self._turns.pop()
        if all(speaker.talk.sampling.temperature == 0 for speaker in self._speakers):
            tell("temperature is 0, the reply will be the same; /params temperature=0.8 draws another")

        def begin(speaker: Speaker) -> Generator[str, None, None]:
            again = speaker in heard or not speaker.talk.converses
            return speaker.talk.retry() if again else speaker.talk.say(text)

        self._ask(text, begin, heard)

    def _system(self, rest: str) -> None:
        chats = self._chats
        if not chats:
            tell("a base model has no system message")
        elif not rest:
            tell(f"system message: {chats[0].system}" if chats[0].system else "there is no system message")
        else:
            for talk in chats:
                talk.set_system("" if rest == "-" else rest)
            self._turns.clear()
            tell(f"the system message is {'removed' if rest == '-' else 'set'}, the talk begins anew")

    def _params(self, rest: str) -> None:
        if rest:
            sampling = params.change(self._speakers[0].talk.sampling, rest)
            for speaker in self._speakers:
                speaker.talk.sampling = sampling
        tell(params.describe(self._speakers[0].talk.sampling))

    def _stats(self, rest: str) -> None:
        columns = [_stats(speaker) for speaker in self._speakers]
        rows = [(key, *(column[key] for column in columns)) for key in columns[0]]
        if len(columns) > 1:
            rows.insert(0, ("model", *(visible(speaker.name) for speaker in self._speakers)))
        self._renderer.emit(Table("", ("",) * len(rows[0]), tuple(rows)))

    @property
    def _chats(self) -> list[Conversation]:
        return [speaker.talk for speaker in self._speakers if speaker.talk.converses]


def _stats(speaker: Speaker) -> dict[str, str]:
    """What /stats shows of one model."""
    replies, seconds = speaker.replies, sum(reply.seconds for reply in speaker.replies)
    pace = sum(reply.pace * reply.seconds for reply in replies) / seconds if seconds else 0.0
    last = replies[-1] if replies else None
    return {
        "last reply": figures(last) if last else "none yet",
        "its prompt": f"{last.read + last.reused:,} tokens, {last.reused:,} of them held from before" if last else "",
        "context": f"{last.held if last else 0:,} of {speaker.talk.context:,} tokens",
        "all replies": f"{len(replies):,}, {sum(r.tokens for r in replies):,} tokens, {pace:.1f} tokens/s",
        "all prompts": f"{sum(r.read for r in replies):,} tokens read, {sum(r.reused for r in replies):,} held",
    }


def _short(text: str) -> str:
    first, *more = text.splitlines() or [""]
    return first if len(first) <= _SHOWN and not more else f"{first[:_SHOWN]}…"
