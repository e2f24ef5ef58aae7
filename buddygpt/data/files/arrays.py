""".json files: an array of rows, read through a window, or JSON lines.

orjson reads no array by parts. But a run of whole rows, in brackets of its own, is an array again: the window is cut
where a row ends that looks like the others, and orjson's consent proves the cut right, since it would not take an open
string or bracket. Where it refuses, Python's slower parser goes row by row, and names the place of a fault.
"""

from __future__ import annotations

import json
import re
from io import BufferedReader
from typing import Any

import numpy as np
import orjson

from buddygpt.data.files.encodings import BOM, not_utf8, without_mark
from buddygpt.data.files.lines import Rows, load_fast, read_json_lines
from buddygpt.data.files.streams import CHUNK, LIMIT, LIMIT_WORDS
from buddygpt.recipe.errors import BuddyError

WINDOW = 1 << 22
_BLANK = b" \t\n\r"
_DECODER = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\n\r]*")
_OPENING = re.compile(r'\{[ \t\n\r]*"[^"\\]*"')
"""A row's beginning, with the name of its first column."""
_AROUND = re.compile(
    rb'\s*\{\s*(?:"[^"\\]*"\s*:\s*(?:"(?:[^"\\]|\\.)*"|[\w.+-]+)\s*,\s*)*"([^"\\]+)"\s*:\s*\[\s*(?:\{|$)'
)
"""An object that opens, after plain values, a list of objects."""
_TURN = {"role", "from", "human", "user"}
"""Columns of which a turn of a conversation has one: a list of turns is a row's own."""


def read_json(file: BufferedReader, name: str) -> Rows:
    """The rows of a .json file.

    Raises:
        BuddyError: no JSON, not UTF-8, a row longer than LIMIT, or an object around the rows.
    """
    head = without_mark(file.peek(CHUNK), name)
    if head.lstrip()[:1] == b"[":
        yield from _read_array(file, name)
    else:
        yield from _read_objects(file, name, head)


def are_lines(head: bytes) -> bool:
    """Whether a .json file that begins like this holds JSON lines."""
    line, feed, _ = head.removeprefix(BOM).lstrip().partition(b"\n")
    if not feed:  # a single row, or long ones
        return line[:1] != b"[" and not _AROUND.match(line)
    try:
        return not isinstance(orjson.loads(line), list)
    except orjson.JSONDecodeError:
        return False


def _read_objects(file: BufferedReader, name: str, head: bytes) -> Rows:
    """JSON lines; an object over several lines, or around the list of rows, is told as such."""
    rows = read_json_lines(file, name)
    try:
        first = next(rows, None)
    except BuddyError:
        line = head.lstrip().split(b"\n", 1)[0].rstrip()
        if line.endswith(b"}"):
            raise
        if around := _AROUND.match(head):
            raise _wrapped(name, around[1].decode("utf-8", "replace")) from None
        if line == b"{":
            told = f"{name}: one object over several lines; right is an array of rows, or one object a line"
            raise BuddyError(told) from None
        raise
    if first is None:
        return
    second = next(rows, None)
    if second is None and isinstance(first[1], dict):
        lists = [k for k, v in first[1].items() if isinstance(v, list) and v and isinstance(v[0], dict)]
        if len(lists) == 1 and not _TURN.intersection(first[1][lists[0]][0]):
            raise _wrapped(name, lists[0])
    yield first
    if second is not None:
        yield second
        yield from rows


def _wrapped(name: str, key: str) -> BuddyError:
    return BuddyError(
        f"{name}: one object around the list `{key}`; right is the list alone, or one row a line: "
        f"""`jq -c '."{key}"[]' OLD.json > NEW.jsonl`"""
    )


def _read_array(file: BufferedReader, name: str) -> Rows:
    window = _Window(file, name)
    number, joint = 0, b""
    while not window.closed:
        window.fill(WINDOW)
        rows = window.take_run(joint)
        if rows is None:
            rows, joint = window.take_rows(number)
        for row in rows:
            number += 1
            yield number, row
    window.check_end()


class _Window:
    """A stretch of an array's text, that begins where a row may begin.

    Args:
        file: the stream.
        name: what messages call it.
    """

    def __init__(self, file: BufferedReader, name: str):
        self._file, self._name, self._text = file, name, b""
        self._line, self._column = 1, 1
        self._last = False
        self.closed = False
        self.fill(CHUNK)
        self._text = self._text.removeprefix(BOM)
        self.drop(self._text.index(b"[") + 1)

    def drop(self, size: int) -> None:
        """Leave bytes behind, whole characters, and keep the count of lines and columns."""
        feeds, feed = self._text.count(b"\n", 0, size), self._text.rfind(b"\n", 0, size)
        self._line, self._column = self._line + feeds, 1 if feeds else self._column
        tail = np.frombuffer(self._text, np.int8, size - feed - 1, feed + 1)
        self._column += int(np.count_nonzero(tail >= -64))  # all bytes but those that continue a character
        self._text = self._text[size:]

    def fill(self, size: int) -> None:
        """Read on until the window holds so many bytes, or the last."""
        blocks, held = [self._text], len(self._text)
        while held < size and not self._last:
            block = self._file.read(max(size - held, CHUNK))
            self._last = not block
            blocks.append(block)
            held += len(block)
        self._text = b"".join(blocks)

    def take_run(self, joint: bytes) -> list[Any] | None:
        """As many rows at once as the window holds, by orjson; None where it cannot be.

        Args:
            joint: a row's end, the comma and the next one's beginning, as they were seen last.
        """
        if self._last:
            parts, used = [b"[", self._text], len(self._text)
        elif joint and (end := self._text.rfind(joint) + 1):
            parts, used = [b"[", memoryview(self._text)[:end], b"]"], end + joint.index(b",")
        else:
            return None
        try:
            rows = load_fast(b"".join(parts))
        except orjson.JSONDecodeError:
            return None
        if not rows:  # the array is empty, or ends in a comma
            return None
        self.closed = self._last
        self.drop(used)
        return rows

    def take_rows(self, before: int) -> tuple[list[Any], bytes]:
        """The window's whole rows one by one, at least one, and the joint between the last two of them.

        Args:
            before: rows before the window.
        """
        while True:
            rows, joint, used, fault = self._scan(before)
            if used:
                self.drop(used)
                return rows, joint
            if self._last:
                raise fault
            if len(self._text) > LIMIT:
                raise BuddyError(
                    f"{self._name}: row {before + 1}: more than {LIMIT_WORDS}, or without an end; split it"
                )
            self.fill(min(2 * len(self._text), LIMIT + 1))

    def check_end(self) -> None:
        """See that nothing but white space follows the array."""
        while self._text or not self._last:
            if extra := self._text.strip(_BLANK):
                raise self._fault("Extra data", self._text[: self._text.index(extra)].decode())
            self.drop(len(self._text))
            self.fill(CHUNK)

    def _scan(self, before: int) -> tuple[list[Any], bytes, int, BuddyError]:
        """The window's whole rows, the joint, the bytes they take, and what hinders the next row."""
        broken = None
        try:
            text = self._text.decode()
        except UnicodeDecodeError as error:
            text = self._text[: error.start].decode()
            if self._last or error.start < len(self._text) - 3:  # else a character cut by the window
                broken = not_utf8(f"{self._name}:{self._place(text)[0]}", self._text, error.start)
        rows: list[Any] = []
        joint, used, at = b"", 0, _skip(text, 0)
        message, spot = "Expecting value", at
        while at < len(text):
            if text[at] == "]" and not before and not rows:
                used, self.closed = at + 1, True
                break
            try:
                row, end = _DECODER.raw_decode(text, at)
            except json.JSONDecodeError as error:
                message, spot = error.msg, error.pos
                break
            except (RecursionError, ValueError) as error:  # nested without end, a number of thousands of digits
                where = f"{self._name}: row {before + len(rows) + 1}"
                raise BuddyError(f"{where}: JSON that cannot be read ({error}); remove the row") from None
            spot = _skip(text, end)
            message = "Expecting ',' delimiter"
            if text[spot : spot + 1] not in (",", "]"):
                break
            rows.append(row)
            used, self.closed = spot + 1, text[spot] == "]"
            if self.closed:
                break
            at = _skip(text, used)
            if text[end - 1] == "}" and (opening := _OPENING.match(text, at)):
                joint = text[end - 1 : opening.end()].encode()
            message, spot = "Expecting value", at
        if not used and broken:
            raise broken
        return rows, joint, len(text[:used].encode()), self._fault(message, text[:spot])

    def _fault(self, message: str, text: str) -> BuddyError:
        line, column = self._place(text)
        return BuddyError(f"{self._name}:{line}: not JSON: {message} at column {column}; mend or remove the line")

    def _place(self, text: str) -> tuple[int, int]:
        """Line and column after this beginning of the window."""
        feed = text.rfind("\n")
        return self._line + text.count("\n"), len(text) - feed if feed >= 0 else self._column + len(text)


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    assert match
    return match.end()
