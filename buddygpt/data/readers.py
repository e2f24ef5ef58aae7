"""Files of text as rows: .jsonl .json .parquet .txt .md, all but parquet also as .gz or .zst.

Text is UTF-8, with or without a byte order mark. Lines end at line feeds and nowhere else: U+2028 and U+0085 inside a
JSON string are text. Each row comes with its number, counted from 1, so that a fault can be named: `file.jsonl:3`.
Rows are read one by one; only a text file and a .json array are read whole.
"""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import orjson
import zstandard

from buddygpt.recipe.errors import BuddyError

Rows = Iterator[tuple[int, Any]]
"""Row numbers and rows; a row is a mapping of columns, or whatever else the file holds in its place."""
FORMATS = (".jsonl", ".json", ".parquet", ".txt", ".md")
COMPRESSIONS = (".gz", ".zst")
KNOWN = f"{', '.join(FORMATS)}, also with {' or '.join(COMPRESSIONS)}"
"""The formats, in words."""
_BOM = b"\xef\xbb\xbf"
_CHUNK = 1 << 18
_PARQUET_ROWS = 512


def format_of(name: str) -> str | None:
    """The format that a file's name promises, `.jsonl` for `a.jsonl.gz`; None for any other name."""
    stem, _, compression = _split(name)
    suffix = Path(stem).suffix.lower()
    return suffix if suffix in FORMATS and not (compression and suffix == ".parquet") else None


def is_whole_document(name: str) -> bool:
    """Whether the file is one document, as .txt and .md are."""
    return format_of(name) in (".txt", ".md")


def place(name: str, row: int) -> str:
    """Where a row stands, for a reader's eyes: `a.jsonl:3`, `b.parquet: row 3`, `c.txt`."""
    if is_whole_document(name):
        return name
    return f"{name}:{row}" if format_of(name) == ".jsonl" else f"{name}: row {row}"


def read_rows(path: Path, name: str, columns: Sequence[str] | None = None) -> Rows:
    """The rows of one file.

    Args:
        path: the file.
        name: what messages call it; its suffix tells the format.
        columns: the only ones needed, where the format can leave out others; those that are missing stay missing.

    Raises:
        BuddyError: unreadable, cut short, not UTF-8, or broken JSON; names the line.
    """
    form = format_of(name)
    if form is None:
        raise BuddyError(f"{name}: unknown kind of file; known are {KNOWN}")
    with _told(name):
        if form == ".parquet":
            yield from _read_parquet(path, name, columns)
        else:
            with _open(path, name) as file:
                yield from _READERS[form](file, name)


def column_names(path: Path, name: str) -> list[str]:
    """Columns of a parquet file, without reading its rows.

    Raises:
        BuddyError: not a parquet file.
    """
    import pyarrow.parquet as pq

    with _told(name):
        return list(pq.read_schema(path).names)


def _split(name: str) -> tuple[str, str, str]:
    for compression in COMPRESSIONS:
        if name.lower().endswith(compression):
            return name[: -len(compression)], ".", compression
    return name, "", ""


@contextmanager
def _told(name: str) -> Iterator[None]:
    """Faults of decompression and of the file system, in one line with the file's name."""
    import pyarrow as pa

    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile, zstandard.ZstdError) as error:
        raise BuddyError(f"{name}: cut short or damaged ({error}); fetch it again") from None
    except pa.ArrowInvalid as error:
        raise BuddyError(f"{name}: not a whole parquet file ({str(error).splitlines()[0]}); fetch it again") from None
    except OSError as error:
        raise BuddyError(f"{name}: cannot be read: {error.strerror or error}") from None


def _open(path: Path, name: str) -> Any:
    compression = _split(name)[2]
    if compression == ".gz":
        return gzip.open(path, "rb")
    if compression == ".zst":
        return io.BufferedReader(_ZstdFile(path), _CHUNK)
    return path.open("rb", buffering=_CHUNK)


class _ZstdFile(io.RawIOBase):
    """A .zst file, read frame after frame; unlike zstandard's own reader it notices a file that was cut short."""

    def __init__(self, path: Path):
        self._file = path.open("rb")
        self._frame: Any = None
        self._ready = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            data = (self._frame.unused_data if self._frame and self._frame.eof else b"") or self._file.read(_CHUNK)
            if not data:
                if self._frame and not self._frame.eof:
                    raise EOFError("the last frame has no end")
                return 0
            if self._frame is None or self._frame.eof:
                self._frame = zstandard.ZstdDecompressor(max_window_size=1 << 31).decompressobj()
            self._ready = self._frame.decompress(data)
        size = min(len(buffer), len(self._ready))
        buffer[:size], self._ready = self._ready[:size], self._ready[size:]
        return size

    def close(self) -> None:
        self._file.close()
        super().close()


def _read_lines(file: BinaryIO, name: str) -> Rows:
    for number, line in enumerate(file, 1):
        if number == 1 and line.startswith(_BOM):
            line = line[len(_BOM) :]
        if not line.isspace() and line:
            yield number, _parse(line, f"{name}:{number}")


def _read_json(file: io.BufferedReader, name: str) -> Rows:
    """An array of rows, or else JSON lines."""
    if not file.peek(64).removeprefix(_BOM).lstrip().startswith(b"["):
        yield from _read_lines(file, name)
        return
    yield from enumerate(_parse(file.read().removeprefix(_BOM), name), 1)


def _read_text(file: BinaryIO, name: str) -> Rows:
    data = file.read().removeprefix(_BOM)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _not_utf8(f"{name}: byte {error.start}") from None
    yield 1, {"text": text.replace("\r\n", "\n")}


_READERS: dict[str, Callable[[Any, str], Rows]] = {
    ".jsonl": _read_lines,
    ".json": _read_json,
    ".txt": _read_text,
    ".md": _read_text,
}


def _parse(data: bytes, where: str) -> Any:
    """One JSON value. orjson is fast and strict; what it refuses, Python's own parser takes or explains."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        pass
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start)
        raise _not_utf8(f"{where}:{line + 1}" if b"\n" in data.rstrip() else where) from None
    try:
        return json.loads(text)  # lone surrogates and NaN
    except json.JSONDecodeError as error:
        several = "\n" in text.rstrip()
        spot = f"{where}:{error.lineno}" if several else where
        raise BuddyError(f"{spot}: not JSON: {error.msg} at column {error.colno}; mend or remove the line") from None
    except (RecursionError, ValueError) as error:  # nested without end, a number of thousands of digits
        raise BuddyError(f"{where}: JSON that cannot be read ({error}); remove the row") from None


def _not_utf8(where: str) -> BuddyError:
    return BuddyError(f"{where}: not UTF-8; convert the file, e.g. with `iconv -f GB18030 -t UTF-8`")


def _read_parquet(path: Path, name: str, columns: Sequence[str] | None) -> Rows:
    import pyarrow.parquet as pq

    row = 0
    with pq.ParquetFile(path) as file:
        present = [c for c in (columns or file.schema_arrow.names) if c in file.schema_arrow.names]
        for batch in file.iter_batches(batch_size=_PARQUET_ROWS, columns=present):
            try:
                values = batch.to_pylist()
            except UnicodeDecodeError:
                raise _not_utf8(f"{name}: a row in {row + 1}-{row + batch.num_rows}") from None
            for value in values or [{}] * batch.num_rows:
                row += 1
                yield row, value
