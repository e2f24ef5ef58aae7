"""Large files in parts that can be read each alone, with row numbers that stay exact."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from buddygpt.data.files.arrays import are_lines
from buddygpt.data.files.names import split_name
from buddygpt.data.files.parquet import row_groups
from buddygpt.data.files.streams import Slice, told

PART_BYTES = 128 << 20
"""Bytes from which a part ends. Not a matter of workers, so that what is made of the parts is not either."""
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Part:
    """A stretch of a file.

    Args:
        start, stop: bytes of a file of JSON lines, from a line's start to another's; row groups of a parquet file.
        rows: lines, or rows, of the file before it.
    """

    start: int
    stop: int
    rows: int


class Borders:
    """Finds the parts of a file of JSON lines while its bytes pass by.

    Args:
        part_bytes: a part ends with the line in which it reaches as many.
    """

    def __init__(self, part_bytes: int = PART_BYTES):
        self._part_bytes = self._goal = part_bytes
        self._size, self._lines = 0, 0
        self._starts = [(0, 0)]

    def pass_block(self, block: bytes) -> None:
        """Look at the next bytes."""
        while self._goal <= self._size + len(block):
            feed = block.find(b"\n", max(self._goal - 1 - self._size, 0))
            if feed < 0:
                break
            start = self._size + feed + 1
            self._starts.append((start, self._lines + block.count(b"\n", 0, feed + 1)))
            self._goal = (start // self._part_bytes + 1) * self._part_bytes
        self._size += len(block)
        self._lines += block.count(b"\n")

    def parts(self) -> tuple[Part, ...]:
        """All parts, in order; none where there would be only one."""
        starts = [s for s in self._starts if s[0] < self._size]
        if len(starts) < 2:
            return ()
        stops = [start for start, _ in starts[1:]] + [self._size]
        return tuple(Part(start, stop, rows) for (start, rows), stop in zip(starts, stops, strict=True))


def borders_of(name: str, head: bytes, part_bytes: int = PART_BYTES) -> Borders | None:
    """Who finds the parts of a file, by its name and first bytes; None where lines are no borders."""
    form, compression = split_name(name)
    lines = form == ".jsonl" or (form == ".json" and are_lines(head))
    return Borders(part_bytes) if lines and not compression else None


def find_parts(path: Path, name: str, part_bytes: int = PART_BYTES) -> tuple[Part, ...]:
    """The parts of a file; none where it is read in one go, since it is small or of a kind that is not split.

    Args:
        path: the file.
        name: what messages call it; its suffix tells the format.
        part_bytes: of lines, or of compressed row groups, from which a part ends.

    Raises:
        BuddyError: it cannot be read.
    """
    if split_name(name) == (".parquet", ""):
        return _group(row_groups(path, name), part_bytes)
    with told(name), Slice(path, name) as file:
        head = file.read(_BLOCK)
        borders = borders_of(name, head, part_bytes)
        if borders is None:
            return ()
        borders.pass_block(head)
        for block in iter(partial(file.read, _BLOCK), b""):
            borders.pass_block(block)
        return borders.parts()


def _group(groups: list[tuple[int, int]], part_bytes: int) -> tuple[Part, ...]:
    """Row groups, each as bytes and rows, gathered."""
    parts: list[Part] = []
    start, before, size, rows = 0, 0, 0, 0
    for number, (group_bytes, group_rows) in enumerate(groups, 1):
        size, rows = size + group_bytes, rows + group_rows
        if size >= part_bytes or number == len(groups):
            parts.append(Part(start, number, before))
            start, before, size, rows = number, before + rows, 0, 0
    return tuple(parts) if len(parts) > 1 else ()
