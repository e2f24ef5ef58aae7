"""Two texts side by side, laid out by terminal cells while they grow: rows are only ever added, never redrawn."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

from wcwidth import wcwidth

_PICTURES = {code: chr(0x2400 + code) for code in range(32)} | {
    0x7F: "␡",
    **{c: f"\\x{c:02x}" for c in range(128, 160)},
}
_SHOWN = {code: picture for code, picture in _PICTURES.items() if chr(code) not in "\n\t"}
_NEVER_FIRST = frozenset("，。、；：？！）》」』】〕〉”’…—%,.;:?!)]}")
"""Marks that do not begin a line."""
_NEVER_LAST = frozenset("（《「『【〔〈“‘([{")
"""Marks that do not end one."""


def visible(text: str) -> str:
    """Text that a terminal only shows and never obeys: ESC becomes ␛, other control characters likewise."""
    return text.translate(_SHOWN)


def cells(text: str) -> int:
    """Columns of a terminal that a text takes, character by character."""
    return sum(max(wcwidth(char), 0) for char in text)


def shorten(text: str, width: int) -> str:
    """The end of a text, in so many cells."""
    if cells(text) <= width:
        return text
    while text and cells(text) > width - 1:
        text = text[1:]
    return f"…{text}"


class Column:
    """One text, broken into lines of `width` cells: at spaces, and anywhere between wide characters."""

    def __init__(self, width: int):
        self.width = width
        self.lines: deque[str] = deque()
        self.ended = False
        self._open = ""

    def push(self, text: str) -> None:
        """Go on with the text; lines that are full go to `lines`."""
        for char in visible(text).replace("\t", "    "):
            if char == "\n":
                self._close(len(self._open))
            elif cells(self._open) + cells(char) <= self.width:
                self._open += char
            elif char == " ":
                self._close(len(self._open))
            else:
                self._open += char
                self._close(self._place())

    def end(self) -> None:
        """No more comes: the line that is not full is one too."""
        if self._open:
            self._close(len(self._open))
        self.ended = True

    def _close(self, place: int) -> None:
        self.lines.append(self._open[:place].rstrip())
        self._open = self._open[place:]

    def _place(self) -> int:
        """Where to break an open line that is one character too long."""
        last = len(self._open) - 1
        for place in range(last, 0, -1):
            before, after = self._open[place - 1], self._open[place]
            near = before == " " or wcwidth(before) == 2 or wcwidth(after) == 2
            if near and before not in _NEVER_LAST and after not in _NEVER_FIRST and wcwidth(after) > 0:
                return place
        return max(last, 1)


class Columns:
    """Several growing texts in one row each: a row is ready when every text has that line complete, or has ended.

    Args:
        number: of texts.
        width: cells of the terminal; its last one stays free.
        bar: stands between two columns.
    """

    def __init__(self, number: int, width: int, bar: str = " │ "):
        self._bar = bar
        self._width = (width - 1 - cells(bar) * (number - 1)) // number
        self._columns = [Column(self._width) for _ in range(number)]

    def beside(self, parts: Sequence[str]) -> str:
        """One row of short texts; of those that are too long the end."""
        short = [shorten(visible(part), self._width) for part in parts]
        filled = [part + " " * (self._width - cells(part)) for part in short]
        return self._bar.join(filled).rstrip()

    def push(self, index: int, text: str) -> Iterator[str]:
        """Go on with one text; the rows that are ready now."""
        self._columns[index].push(text)
        return self._ready()

    def end(self, index: int) -> Iterator[str]:
        """One text has ended; the rows that are ready now."""
        self._columns[index].end()
        return self._ready()

    def _ready(self) -> Iterator[str]:
        while any(c.lines for c in self._columns) and all(c.lines or c.ended for c in self._columns):
            yield self.beside([c.lines.popleft() if c.lines else "" for c in self._columns])
