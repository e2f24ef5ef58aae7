"""What the user says, line by line: through a line editor on a terminal, plainly from a pipe or a dumb terminal."""

from __future__ import annotations

import os
import signal
import sys
import termios
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from buddygpt.cli.history import History

PROMPT = "> "
_DUMB = ("", "dumb", "unknown")
_HOW_TO_END = "(Ctrl-D or /quit ends)"
_REFUSED = "this line is neither UTF-8 nor GBK and was left out"


def decode(raw: bytes) -> str | None:
    """Text from bytes: UTF-8, or else GBK where it reads as such; None where it is neither.

    A line of UTF-8 with a damaged byte is not taken for GBK, though it might decode as that.
    """
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        forced = raw.decode("utf-8", "surrogateescape")
    wrong = sum("\udc80" <= char <= "\udcff" for char in forced)
    if wrong <= sum(char >= "\u2e80" for char in forced) - wrong:
        return None
    try:
        return raw.decode("gb18030")
    except UnicodeDecodeError:
        return None


class Keyboard:
    """Somebody who types. Use as a context manager.

    Ctrl-C gives up the line that is typed, or breaks off the reply that is heard, whenever it comes and however often:
    it ends neither the program nor what is being put in order.

    Args:
        commands: those that the tab key completes.
        tell: shows a line to the user.
    """

    def __init__(self, commands: Sequence[str], tell: Callable[[str], None]):
        self._commands, self._tell = commands, tell
        self._breakable = False
        self._before: Any = None

    def __enter__(self) -> Keyboard:
        self._before = signal.signal(signal.SIGINT, self._interrupt)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _interrupt(self, *_: object) -> None:
        if self._breakable:
            self._breakable = False  # once
            raise KeyboardInterrupt

    def lines(self) -> Iterator[str]:
        """What is typed, until Ctrl-D."""
        screen = next((stream for stream in (sys.stdout, sys.stderr) if stream.isatty()), None)
        if screen is None or os.environ.get("TERM", "") in _DUMB:
            read, history = self._plain, None
        else:
            history = History()
            read = _editor(screen, self._commands, history.texts)
        while True:
            try:
                text = decode(read())
            except EOFError:
                self._tell("")
                return
            except KeyboardInterrupt:
                self._tell(_HOW_TO_END)
                continue
            if text is None:
                self._tell(_REFUSED)
                continue
            if history is not None:
                history.add(text)
            yield text.strip()

    @contextmanager
    def hearing(self) -> Iterator[None]:
        """While a reply is heard: Ctrl-C breaks it off, and what is typed is not shown before the next prompt."""
        modes = termios.tcgetattr(sys.stdin)
        silent = [*modes[:3], modes[3] & ~termios.ECHO, *modes[4:]]
        termios.tcsetattr(sys.stdin, termios.TCSANOW, silent)
        self._breakable = True
        try:
            yield
        finally:
            self._breakable = False
            termios.tcsetattr(sys.stdin, termios.TCSANOW, modes)

    def _plain(self) -> bytes:
        sys.stderr.write(PROMPT)
        sys.stderr.flush()
        self._breakable = True
        try:
            raw = sys.stdin.buffer.readline()
        finally:
            self._breakable = False
        if not raw:
            raise EOFError
        return raw


def piped_lines(tell: Callable[[str], None]) -> Iterator[str]:
    """Each line of standard input."""
    for raw in () if sys.stdin is None else sys.stdin.buffer:
        text = decode(raw)
        if text is None:
            tell(_REFUSED)
        else:
            yield text.strip()


def _editor(screen: object, commands: Sequence[str], before: Sequence[str]) -> Callable[[], bytes]:
    """A line editor that knows how wide characters are: asks for one line, and gives the bytes that were typed.

    It draws where standard output is no terminal on standard error, asks the terminal nothing, and takes a paste of
    several lines as one text. Bytes that are no text come as surrogates, to be looked at when the line is finished.
    """
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import WordCompleter
    from prompt_toolkit.history import InMemoryHistory
    from prompt_toolkit.input.vt100 import Vt100Input
    from prompt_toolkit.key_binding import KeyBindings
    from prompt_toolkit.output.vt100 import Vt100_Output
    from prompt_toolkit.shortcuts import CompleteStyle

    try:
        "你".encode(sys.stdin.encoding)
    except UnicodeEncodeError:  # ASCII was declared; nobody types Chinese in that
        sys.stdin.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    output = Vt100_Output.from_pty(screen, term=os.environ.get("TERM"), enable_bell=False)  # type: ignore[arg-type]
    output.enable_cpr = False
    keys = KeyBindings()

    @keys.add("escape", "enter")
    def _(event) -> None:  # type: ignore[no-untyped-def]
        event.current_buffer.insert_text("\n")

    session: PromptSession[str] = PromptSession(
        PROMPT,
        completer=WordCompleter(list(commands), sentence=True),
        complete_style=CompleteStyle.READLINE_LIKE,
        complete_while_typing=False,
        reserve_space_for_menu=0,
        prompt_continuation=" " * len(PROMPT),
        history=InMemoryHistory(list(before)),
        key_bindings=keys,
        enable_suspend=True,
        input=Vt100Input(sys.stdin),
        output=output,
    )
    return lambda: session.prompt().encode(sys.stdin.encoding, "surrogateescape")
