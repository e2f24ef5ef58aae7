"""Events on the screen: a live bar on a terminal, plain lines elsewhere. The only file that imports rich."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType

from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.text import Text as Styled

from buddygpt.events import Caution, Event, Note, Progress, Table, Text, Tokens
from buddygpt.report.words import spell_duration

PLAIN_SECONDS = 10.0
"""Seconds between two lines of the same task where there is no terminal."""
_GAP, _INDENT, _NARROWEST, _BAR, _CLOCK = 2, 4, 24, 24, 9
"""Cells between columns, before what is folded under a row, the least that a wrapped column gets; of a bar and
of the time that is left."""
_COLOURS, _BRACKETS = ("dim", "green", "red"), (("", ""), ("[", "]"), ("{", "}"))
"""How tokens are shown by what they are to training; brackets around them where there are no colours."""


class _Bars(Bars):
    """Bars whose figures stand below them where a line does not hold all: nothing is cut, nor how far the work is."""

    def __init__(self, console: Console):
        self._drawn = BarColumn(bar_width=_BAR)
        super().__init__(
            TextColumn("{task.description}"),
            self._drawn,
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            TextColumn("{task.fields[values]}"),
            TimeRemainingColumn(),
            console=console,
            speed_estimate_period=600,  # seconds that the time left is guessed from: a step may take a minute
        )

    def get_renderables(self) -> Iterable[RenderableType]:
        """The bars, a line each, then what stands below them."""
        if not self.tasks:
            return
        columns = [
            max(cell_len(task.description) for task in self.tasks),
            max(1 + 2 * len(f"{task.total:.0f}") for task in self.tasks),
            max(cell_len(task.fields["unit"]) for task in self.tasks),
            _CLOCK,
        ]
        room = self.console.width - _across(columns, 1) - 2  # for bar and figures
        self._drawn.bar_width = max(1, min(_BAR, room))
        room -= _BAR
        below: list[str] = []
        for task in self.tasks:
            pairs = [f"{key} {value}" for key, value in task.fields["figures"].items()]
            fits = _across([cell_len(pair) for pair in pairs]) <= room
            task.fields["values"] = (" " * _GAP).join(pairs) if fits else ""
            below += () if fits else _fill(pairs, self.console.width - _INDENT)
        yield self.make_tasks_table(self.tasks)
        yield from (Styled(" " * _INDENT + line, no_wrap=True, overflow="ellipsis") for line in below)


class Renderer:
    """Draws events. Use as a context manager, so that the bars end with the work.

    Args:
        stderr: draw on standard error, where standard output belongs to a model's words.
    """

    def __init__(self, stderr: bool = False):
        self.console = Console(stderr=stderr, highlight=False, soft_wrap=True)
        self._live = self.console.is_terminal and not self.console.is_dumb_terminal
        self._bars = _Bars(self.console)
        self._tasks: dict[str, int] = {}
        self._told: dict[str, tuple[float, int]] = {}
        self._began: dict[str, tuple[float, int]] = {}
        self._legend = True

    def __enter__(self) -> Renderer:
        if self._live:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._bars.stop()

    def confirm(self, question: str) -> bool:
        """Whether the user says yes; the bars wait."""
        if self._live:
            self._bars.stop()
        try:
            self.console.print(Styled(f"{question} [y/N] "), end="")
            return input().strip().lower() in ("y", "yes")
        except EOFError:
            return False
        finally:
            if self._live:
                self._bars.start()

    def emit(self, event: Event) -> None:
        """Draw one event. Text from models and corpora is never read as markup."""
        match event:
            case Progress():
                self._bar(event) if self._live else self._line(event)
            case Note(text):
                self.console.print(Styled(text))
            case Caution(text):
                self.console.print(Styled(f"! {text}", style="yellow"))
            case Text(title, text):
                self.console.print(Styled(f"-- {title}", style="dim"))
                self.console.print(Styled(text))
            case Table():
                for line in self._table(event):
                    self.console.print(line)
            case Tokens():
                for line in self._tokens(event):
                    self.console.print(line)

    def aside(self, line: str) -> None:
        """A line for whoever wants to know: dim."""
        self.console.print(Styled(line, style="dim"))

    def _tokens(self, event: Tokens) -> Iterator[Styled]:
        """A row of tokens with their boundaries."""
        coloured = self.console.color_system is not None and not self.console.no_color
        if self._legend:
            self._legend = False
            colours = "green tokens are learned, red ones are of a rejected answer, dim ones are only given"
            brackets = "tokens in [ ] are learned, those in { } are of a rejected answer, all others are only given"
            yield Styled(colours if coloured else brackets)
        yield Styled(f"-- {event.title}", style="dim")
        bar = Styled.assemble(("│", "dim"))
        for line in _lines(event.pieces):
            runs = []
            for kind, run in itertools.groupby(line, key=lambda piece: piece[1]):
                drawn = bar.join(Styled(text, style=_COLOURS[kind]) for text, _ in run)
                left, right = ("", "") if coloured else _BRACKETS[kind]
                runs.append(Styled.assemble(left, drawn, right))
            yield bar.join(runs)

    def _bar(self, event: Progress) -> None:
        if event.task not in self._tasks:
            known = {"unit": event.unit, "values": "", "figures": {}}
            self._tasks[event.task] = self._bars.add_task(event.task, total=event.total, **known)
        self._bars.update(self._tasks[event.task], completed=event.done, total=event.total, figures=event.values)  # type: ignore[arg-type]

    def _line(self, event: Progress) -> None:
        now = time.monotonic()
        if event.done < self._began.setdefault(event.task, (now, event.done))[1]:
            self._began[event.task] = (now, event.done)
        last, done = self._told.get(event.task, (0.0, -1))
        finished = event.done >= event.total
        if (now - last < PLAIN_SECONDS and not finished) or event.done == done:
            return
        self._told[event.task] = (now, event.done)
        values = "".join(f"  {k} {v}" for k, v in event.values.items())
        left = "" if finished else _time_left(now, event, *self._began[event.task])
        self.console.print(Styled(f"{event.task} {event.done:,}/{event.total:,} {event.unit}{values}{left}"))

    def _table(self, event: Table) -> Iterator[Styled]:
        """The lines of a table: one a row where there is no terminal.

        On a terminal too narrow for it the last column wraps; where that is not enough, the columns that do not fit
        stand below their row, each with its name.
        """
        headed = any(event.columns)
        numbers = [
            bool(name) and all(row[i][:1].isdigit() for row in event.rows) for i, name in enumerate(event.columns)
        ]
        widths = [max(map(cell_len, column)) for column in zip(event.columns, *event.rows, strict=True)]
        room = self.console.width if self.console.is_terminal else sum(widths) + _GAP * len(widths)
        before_last = sum(widths[:-1]) + _GAP * (len(widths) - 1)
        shown, last = len(widths), min(widths[-1], max(room - before_last, 1))
        if last < min(widths[-1], _NARROWEST):
            shown = next(n for n in range(len(widths) - 1, 0, -1) if n == 1 or _across(widths[:n]) <= room)
            last = widths[shown - 1]
        if event.title:
            yield Styled(event.title, style="bold")
        for row, style in ((event.columns, "dim"), *((row, "") for row in event.rows))[0 if headed else 1 :]:
            cells = [_pad(*cell) for cell in zip(row[: shown - 1], widths, numbers, strict=False)]
            start = (" " * _GAP).join([*cells, ""])
            end = _pad(row[shown - 1], last, numbers[shown - 1])
            for i, part in enumerate(Styled(end, style=style).wrap(self.console, max(last, 1)) or [Styled()]):
                line = Styled(start if i == 0 else " " * cell_len(start), style=style).append_text(part)
                line.rstrip()
                yield line
            if style:
                continue
            below = [" ".join(cell) for cell in zip(event.columns[shown:], row[shown:], strict=True) if cell[1]]
            for text in below:
                for part in Styled(text).wrap(self.console, max(room - _INDENT, 1)):
                    part.rstrip()
                    yield Styled(" " * _INDENT).append_text(part)


def _lines(pieces: Sequence[tuple[str, int]]) -> Iterator[list[tuple[str, int]]]:
    """Tokens line by line, broken after their own line breaks and before a rejected answer."""
    line: list[tuple[str, int]] = []
    for text, kind in pieces:
        if line and kind == 2 != line[-1][1]:
            yield line
            line = []
        line.append((text, kind))
        if text.endswith("\\n"):
            yield line
            line = []
    if line:
        yield line


def _time_left(now: float, event: Progress, began: float, done: int) -> str:
    """What the work still takes at the pace at which it went since it was first told of; empty where none is known."""
    if event.done == done or now <= began:
        return ""
    return f"  {spell_duration((event.total - event.done) * (now - began) / (event.done - done))} left"


def _across(widths: Sequence[int], gap: int = _GAP) -> int:
    return sum(widths) + gap * (len(widths) - 1)


def _fill(words: Sequence[str], width: int) -> Iterator[str]:
    """Lines that hold as many words each as fit, and no word in parts."""
    line: list[str] = []
    for word in words:
        if line and _across([cell_len(one) for one in (*line, word)]) > width:
            yield (" " * _GAP).join(line)
            line = []
        line.append(word)
    if line:
        yield (" " * _GAP).join(line)


def _pad(cell: str, width: int, right: bool) -> str:
    space = " " * (width - cell_len(cell))
    return space + cell if right else cell + space
