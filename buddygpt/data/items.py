"""The items of evaluation sets, as texts that training documents are searched for."""

from __future__ import annotations

import csv
import io
import re
import string
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from buddygpt.data.archives import Member, list_members, open_member
from buddygpt.data.files.streams import LIMIT, told
from buddygpt.data.readers import format_of, is_archive, is_whole_document, read_rows
from buddygpt.recipe.errors import BuddyError

_TITLES = {"question", "problem", "prompt", "text", "input", "instruction"}
"""Names of columns by one of which a first line of CSV is known to hold names."""


def read_items(paths: Iterable[Path]) -> Iterator[tuple[str, list[str]]]:
    """One item for each row of the files, and of those in archives.

    Yields:
        The set's name, which is its file's, and the forms of the item's text.

    Raises:
        BuddyError: a file that cannot be read, or is of another kind.
    """
    for path in paths:
        name = path.name.split(".", 1)[0]
        try:
            yield from ((name, spell_item(row)) for row in _read_file(path))
        except OSError as error:
            raise BuddyError(f"{path.name}: cannot be read: {error.strerror or error}") from None


def spell_item(row: Any) -> list[str]:
    """The forms that a row may take in print: its strings in their order, a line each, answers and explanations too.

    Choices (columns named A, B, C …, or a list of strings) carry their letter in one form and none in another. One
    letter is a unit, so that `A. yes (B) no` matches however it is set. What is no text is left out: single characters
    and whole numbers that are no choice.
    """
    cells = [(label, text) for label, text in _walk(row, "") if label or not _is_mark(text)]
    bare = "\n".join(text for _, text in cells)
    if not any(label for label, _ in cells):
        return [bare]
    return ["\n".join(f"{label} {text}".lstrip() for label, text in cells), bare]


def _walk(value: Any, label: str) -> Iterator[tuple[str, str]]:
    """Every string of a row with its letter, or "" where it is no choice."""
    if isinstance(value, str):
        yield label, value
    elif isinstance(value, dict):
        for key, below in value.items():
            yield from _walk(below, key if re.fullmatch("[A-Z]", key) else "")
    elif isinstance(value, list):
        choices = len(value) > 1 and all(isinstance(v, str) for v in value)
        for number, below in enumerate(value):
            yield from _walk(below, string.ascii_uppercase[number : number + 1] if choices else "")


def _is_mark(text: str) -> bool:
    return len(text) <= 1 or text.isdigit()


def _read_file(path: Path) -> Iterator[Any]:
    members: list[Member | None] = [None]
    if is_archive(path.name):
        rows = [m for m in list_members(path, path.name).members if not is_whole_document(m.name)]
        if not rows:
            raise BuddyError(f"{path.name}: no file with rows in it; give the files of an evaluation set")
        members = sorted(rows, key=lambda member: member.name)
    for member in members:
        name = f"{path.name}/{member.name}" if member else path.name
        if format_of(name) == ".csv":
            with told(name), open_member(path, name, member) if member else path.open("rb") as file:
                yield from _read_csv(file, name)
        else:
            yield from (row for _, row in read_rows(path, name, member=member))


def _read_csv(file: BinaryIO | Any, name: str) -> Iterator[dict[str, str]]:
    """Rows as mappings; MMLU's files have no names of columns: question, choices, the letter of the right one."""
    csv.field_size_limit(LIMIT)  # its own is 128 KiB
    rows = csv.reader(io.TextIOWrapper(file, "utf-8-sig", newline=""), strict=True)
    header: list[str] | None = None
    try:
        for row in rows:
            if header is None:
                header = row
                if _TITLES.intersection(cell.strip().lower() for cell in row):
                    continue
                header = ["question", *string.ascii_uppercase[: len(row) - 2], "answer"]
            yield dict(zip(header, row, strict=False))
    except UnicodeDecodeError:
        raise BuddyError(f"{name}: not UTF-8; convert the file, e.g. with `iconv -f GB18030 -t UTF-8`") from None
    except csv.Error as error:
        raise BuddyError(f"{name}:{rows.line_num}: not CSV: {error}; mend or remove the line") from None
