"""Lines, JSON lines and whole texts, out of a stream of bytes.

Lines end at line feeds and nowhere else: U+2028 and U+0085 inside a JSON string are text.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from typing import Any, BinaryIO

import orjson

from buddygpt.data.files.encodings import not_utf8, without_mark
from buddygpt.data.files.streams import CHUNK, LIMIT, LIMIT_WORDS
from buddygpt.recipe.errors import BuddyError

Rows = Iterator[tuple[int, Any]]
"""Row numbers and rows; a row is a mapping of columns, or whatever else the file holds in its place."""
_DIGITS_AS_0 = bytes.maketrans(b"123456789", b"0" * 9)
_WIDE = b"0" * len(str(1 << 63))
"""The fewest digits of an integer that 64 bits may not hold."""


def split_lines(file: BinaryIO, name: str, before: int = 0) -> Iterator[tuple[int, bytes]]:
    """Numbered lines with their line feeds; the first line of a file loses its byte order mark.

    Args:
        file: the stream, buffered.
        name: what messages call it.
        before: lines of the file that come before the stream.

    Raises:
        BuddyError: a line longer than LIMIT, or UTF-16.
    """
    for number, line in enumerate(iter(partial(file.readline, LIMIT + 1), b""), before + 1):
        if len(line) > LIMIT and not line.endswith(b"\n"):
            raise BuddyError(
                f"{name}:{number}: a line of more than {LIMIT_WORDS}; right is one row a line; remove or split it"
            )
        yield number, line if number > 1 else without_mark(line, name)


def read_json_lines(file: BinaryIO, name: str, before: int = 0) -> Rows:
    """One row a line; blank lines are none, but count.

    Raises:
        BuddyError: a line that is no JSON, or as `split_lines`.
    """
    for number, line in split_lines(file, name, before):
        try:
            row = load_fast(line)
        except orjson.JSONDecodeError:
            if not line or line.isspace():
                continue
            row = _parse_otherwise(line, f"{name}:{number}")
        yield number, row


def load_fast(text: bytes) -> Any:
    """What Python's parser makes of it, by orjson.

    orjson reads integers outside of 64 bits as floats: an id of twenty digits would change without a word.

    Raises:
        orjson.JSONDecodeError: no JSON, or nothing that orjson reads as Python does.
    """
    if _WIDE in text.translate(_DIGITS_AS_0):
        raise orjson.JSONDecodeError("as many digits as an integer beyond 64 bits", "", 0)
    return orjson.loads(text)


def read_text(file: BinaryIO, name: str) -> Rows:
    """The whole stream as one row.

    Raises:
        BuddyError: longer than LIMIT, or not UTF-8.
    """
    blocks, size = [], 0
    for block in iter(partial(file.read, CHUNK), b""):
        blocks.append(block)
        size += len(block)
        if size > LIMIT:
            raise BuddyError(
                f"{name}: more than {LIMIT_WORDS} in one document; split it, or give one document a line as .jsonl"
            )
    data = without_mark(b"".join(blocks), name)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise not_utf8(f"{name}:{line}: byte {size - len(data) + error.start}", data, error.start) from None
    yield 1, {"text": text.replace("\r\n", "\n")}


def _parse_otherwise(line: bytes, where: str) -> Any:
    """What `load_fast` refuses: Python's own parser takes or explains it."""
    try:
        return json.loads(line.decode("utf-8"))  # lone surrogates and NaN
    except UnicodeDecodeError as error:
        raise not_utf8(where, line, error.start) from None
    except json.JSONDecodeError as error:
        raise BuddyError(f"{where}: not JSON: {error.msg} at column {error.colno}; mend or remove the line") from None
    except (RecursionError, ValueError) as error:  # nested without end, a number of thousands of digits
        raise BuddyError(f"{where}: JSON that cannot be read ({error}); remove the row") from None
