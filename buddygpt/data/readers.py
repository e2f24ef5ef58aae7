"""Files of text as rows: .jsonl .json .parquet .txt .md .csv .tsv, compressed, or in archives.

Text is UTF-8, with or without a byte order mark. Each row comes with its number, counted from 1, so that a fault can be
named: `file.jsonl:3`, `archive.zip/member.jsonl:3`. Rows are read one by one, in memory that does not grow with the
file; a large file can be read in parts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from io import BufferedReader
from pathlib import Path
from typing import Any

from buddygpt.data.archives import Member, list_members, open_member, stream_members
from buddygpt.data.files import parquet
from buddygpt.data.files.arrays import read_json
from buddygpt.data.files.lines import Rows, read_json_lines, read_text
from buddygpt.data.files.names import KNOWN, format_of, is_archive, is_whole_document, place, split_name
from buddygpt.data.files.parts import PART_BYTES, Part, find_parts
from buddygpt.data.files.streams import CHUNK, Slice, told, unpacked
from buddygpt.data.files.tables import read_csv, read_tsv
from buddygpt.recipe.errors import BuddyError

__all__ = [
    "KNOWN",
    "PART_BYTES",
    "Part",
    "column_names",
    "find_parts",
    "format_of",
    "is_archive",
    "is_whole_document",
    "place",
    "read_members",
    "read_rows",
]

_READERS: dict[str, Callable[[Any, str], Rows]] = {
    ".jsonl": read_json_lines,
    ".json": read_json,
    ".txt": read_text,
    ".md": read_text,
    ".csv": read_csv,
    ".tsv": read_tsv,
}


def read_rows(
    path: Path, name: str, columns: Sequence[str] | None = None, part: Part | None = None, member: Member | None = None
) -> Rows:
    """The rows of one file.

    Args:
        path: the file.
        name: what messages call it; its suffix tells the format. Of a member: `archive.zip/member.jsonl`.
        columns: the only ones needed, where the format can leave out others; those that are missing stay missing.
        part: the only one of the file's parts to read.
        member: the only file to read of an archive. The rows of a whole archive are counted on from member to member.

    Raises:
        BuddyError: unreadable, cut short, not UTF-8, or broken JSON; names the line.
    """
    form = format_of(name)
    if form is None:
        raise BuddyError(f"{name}: unknown kind of file; known are {KNOWN}")
    if is_archive(name):
        rows = (row for _, rows in read_members(path, name, columns) for _, row in rows)
        yield from enumerate(rows, 1)
        return
    with told(name):
        if member is not None:
            with open_member(path, name, member) as raw:
                yield from _read(raw, name, columns)
        elif form == ".parquet":
            groups, before = (range(part.start, part.stop), part.rows) if part else (None, 0)
            yield from parquet.read_parquet(path, name, columns, groups, before)
        elif part is not None:
            with BufferedReader(Slice(path, name, part.start, part.stop), CHUNK) as lines:
                yield from read_json_lines(lines, name, part.rows)
        else:
            with Slice(path, name) as raw:
                yield from _read(raw, name, columns)


def read_members(path: Path, name: str, columns: Sequence[str] | None = None) -> Iterator[tuple[str, Rows]]:
    """Every member of an archive: what messages call it, and its rows, to be read before the next is asked for.

    Raises:
        BuddyError: as `read_rows`; a damaged or harmful archive; none of its files is of a known kind.
    """
    found = False
    if split_name(name)[1]:
        for member, raw in stream_members(path, name):
            found = True
            yield f"{name}/{member.name}", _told_rows(raw, f"{name}/{member.name}", columns)
    else:
        for member in list_members(path, name).members:
            found = True
            yield f"{name}/{member.name}", read_rows(path, f"{name}/{member.name}", columns, member=member)
    if not found:
        raise BuddyError(f"{name}: no file in it of a known kind; known are {KNOWN}")


def column_names(path: Path, name: str, member: Member | None = None) -> list[str]:
    """Columns of a parquet file, without reading its rows.

    Raises:
        BuddyError: not a parquet file.
    """
    if member is None:
        return parquet.column_names(path, name)
    with told(name), open_member(path, name, member) as raw:
        return parquet.column_names(raw, name)


def _read(raw: Any, name: str, columns: Sequence[str] | None) -> Rows:
    form = format_of(name)
    assert form is not None
    if form == ".parquet":
        yield from parquet.read_parquet(raw, name, columns)
    else:
        with unpacked(raw, name) as file:
            yield from _READERS[form](file, name)


def _told_rows(raw: Any, name: str, columns: Sequence[str] | None) -> Rows:
    with told(name):
        yield from _read(raw, name, columns)
