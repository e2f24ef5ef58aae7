"""What a stage tells while it works: plain values that the command line draws, and a notebook may read.

A stage takes `emit`, calls it with these, and never prints.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Note:
    """Something worth a line: a choice made, a place written to."""

    text: str


@dataclass(frozen=True)
class Caution:
    """Something that went otherwise than asked, and what was done about it."""

    text: str


@dataclass(frozen=True)
class Table:
    """Facts laid out in rows; `columns` name the fields, all cells are text already."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Progress:
    """How far a piece of work is. `done == total` ends it.

    Args:
        task: name of the work; one bar a name.
        done, total: in `unit`.
        values: figures to show beside the bar, ready to print.
    """

    task: str
    done: int
    total: int
    unit: str
    values: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Text:
    """A piece of text from a model or a corpus: shown as it is, never read as markup."""

    title: str
    text: str


@dataclass(frozen=True)
class Tokens:
    """A row of training, token by token.

    Args:
        title: which row it is.
        pieces: the text of each token, on one line whatever it holds, and what the token is to training: 0 given,
            1 learned, 2 of a rejected answer.
    """

    title: str
    pieces: tuple[tuple[str, int], ...]


Event = Note | Caution | Table | Progress | Text | Tokens
Emit = Callable[[Event], None]


def silent(event: Event) -> None:
    """An `emit` that tells nobody."""
