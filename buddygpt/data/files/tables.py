""".csv and .tsv: rows of strings below a header, quoted as RFC 4180 says."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from buddygpt.data.files.encodings import not_utf8
from buddygpt.data.files.lines import Rows, split_lines
from buddygpt.data.files.streams import LIMIT, LIMIT_WORDS
from buddygpt.recipe.errors import BuddyError


def read_csv(file: BinaryIO, name: str, header: Sequence[str] = ()) -> Rows:
    """Rows of a .csv file, each with the number of the line on which it begins.

    Args:
        file: the stream.
        name: what messages call it.
        header: names of the columns, where the first line is a row like the others.

    Raises:
        BuddyError: a row that has not as many fields as the header, a quote without an end, a NUL byte, not UTF-8.
    """
    return _read_table(file, name, ",", header)


def read_tsv(file: BinaryIO, name: str) -> Rows:
    """Rows of a .tsv file, as `read_csv`."""
    return _read_table(file, name, "\t")


def _read_table(file: BinaryIO, name: str, delimiter: str, header: Sequence[str] = ()) -> Rows:
    csv.field_size_limit(2 * LIMIT)  # for 128 KiB; what bounds a field is the bound of its row
    lines = _Lines(file, name)
    table = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        lines.begin()
        try:
            fields = next(table, None)
        except csv.Error as error:
            raise BuddyError(f"{name}:{lines.start}: not a row of a table: {error}; see RFC 4180 for quotes") from None
        if fields is None:
            return
        if not fields:  # a blank line
            continue
        if not header:
            header = fields
            if twice := next((f for i, f in enumerate(header) if f in header[:i]), None):
                raise BuddyError(f"{name}:{lines.start}: two columns are called '{twice}'; give each its own name")
        elif len(fields) != len(header):
            raise BuddyError(
                f"{name}:{lines.start}: {len(fields)} fields where the header has {len(header)}; "
                "quote a field that holds separators, or mend the row"
            )
        else:
            yield lines.start, dict(zip(header, fields, strict=True))


class _Lines:
    """The lines that make up one row after another, as text.

    Args:
        file: the stream.
        name: what messages call it.
    """

    def __init__(self, file: BinaryIO, name: str):
        self._lines, self._name = split_lines(file, name), name
        self._number, self._held = 0, 0
        self.start = 1

    def begin(self) -> None:
        """A row begins with the next line."""
        self.start, self._held = self._number + 1, 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        self._number, line = next(self._lines)
        self._held += len(line)
        if self._held > LIMIT:
            raise BuddyError(f"{self._name}:{self.start}: a row of more than {LIMIT_WORDS}; has a quote there no end?")
        if b"\0" in line:
            raise BuddyError(f"{self._name}:{self._number}: a NUL byte; remove it, or fetch the file again")
        try:
            return line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise not_utf8(f"{self._name}:{self._number}", line, error.start) from None
