"""Events on the screen: a live bar on a terminal, plain lines elsewhere. The only file that imports rich."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table as Grid
from rich.text import Text as Styled

from buddygpt.events import Caution, Event, Note, Progress, Table, Text

PLAIN_SECONDS = 10.0
"""Seconds between two lines of the same task where there is no terminal."""


class Renderer:
    """Draws events. Use as a context manager, so that the bars end with the work.

    Args:
        stderr: draw on standard error, where standard output belongs to a model's words.
    """

    def __init__(self, stderr: bool = False):
        self.console = Console(stderr=stderr, highlight=False, soft_wrap=True)
        self._live = self.console.is_terminal and not self.console.is_dumb_terminal
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            TextColumn("{task.fields[values]}"),
            TimeRemainingColumn(),
            console=self.console,
        )
        self._tasks: dict[str, int] = {}
        self._told: dict[str, tuple[float, int]] = {}

    def __enter__(self) -> Renderer:
        if self._live:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._bars.stop()

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
                self.console.print(_grid(event))

    def _bar(self, event: Progress) -> None:
        values = "  ".join(f"{k} {v}" for k, v in event.values.items())
        if event.task not in self._tasks:
            self._tasks[event.task] = self._bars.add_task(event.task, total=event.total, unit=event.unit, values="")
        self._bars.update(self._tasks[event.task], completed=event.done, total=event.total, values=values)  # type: ignore[arg-type]

    def _line(self, event: Progress) -> None:
        now = time.monotonic()
        last, done = self._told.get(event.task, (0.0, -1))
        finished = event.done >= event.total
        if (now - last < PLAIN_SECONDS and not finished) or event.done == done:
            return
        self._told[event.task] = (now, event.done)
        values = "".join(f"  {k} {v}" for k, v in event.values.items())
        self.console.print(Styled(f"{event.task} {event.done:,}/{event.total:,} {event.unit}{values}"))


def _grid(event: Table) -> Grid:
    headed = any(event.columns)
    grid = Grid(
        title=event.title or None,
        title_justify="left",
        title_style="bold",
        box=None,
        pad_edge=False,
        show_header=headed,
    )
    numbers = [all(row[i][:1].isdigit() for row in event.rows) for i in range(len(event.columns))]
    for column, number in zip(event.columns, numbers, strict=True):
        justify = "right" if headed and number else "left"
        grid.add_column(column, justify=justify, overflow="fold", header_style="dim")
    for row in event.rows:
        grid.add_row(*(Styled(cell) for cell in row))
    return grid
