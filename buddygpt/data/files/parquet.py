"""Parquet files, page by page: neither a row group nor a column of it is ever held whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from buddygpt.data.files.lines import Rows
from buddygpt.data.files.streams import check_regular, told
from buddygpt.recipe.errors import BuddyError

_BATCH_BYTES = 4 << 20
_BATCH_ROWS = 512
_BUFFER = 1 << 20


def read_parquet(
    source: Path | BinaryIO,
    name: str,
    columns: Sequence[str] | None = None,
    groups: range | None = None,
    before: int = 0,
) -> Rows:
    """Rows of a parquet file.

    Args:
        source: the file, or a stream of it that can be sought in.
        name: what messages call it.
        columns: the only ones needed; those that are missing stay missing.
        groups: row groups to read; all where not given.
        before: rows before the first of them.

    Raises:
        BuddyError: no whole parquet file, or a text in it that is not UTF-8; names the row.
    """
    row = before
    with _opened(source, name) as file:
        groups = range(file.num_row_groups) if groups is None else groups
        present = [c for c in (columns or file.schema_arrow.names) if c in file.schema_arrow.names]
        widths = [group.total_byte_size / max(group.num_rows, 1) for group in map(file.metadata.row_group, groups)]
        size = int(min(max(_BATCH_BYTES / max([1.0, *widths]), 1), _BATCH_ROWS))
        for batch in file.iter_batches(batch_size=size, row_groups=list(groups), columns=present):
            try:
                values = batch.to_pylist()
            except UnicodeDecodeError:
                raise _not_utf8(batch, name, row) from None
            for value in values or [{}] * batch.num_rows:
                row += 1
                yield row, value


def column_names(source: Path | BinaryIO, name: str) -> list[str]:
    """Columns of a parquet file, without reading its rows.

    Raises:
        BuddyError: not a parquet file.
    """
    with _opened(source, name) as file:
        return list(file.schema_arrow.names)


def row_groups(source: Path | BinaryIO, name: str) -> list[tuple[int, int]]:
    """Compressed bytes and rows of every row group, without reading them.

    Raises:
        BuddyError: not a parquet file.
    """
    with _opened(source, name) as file:
        groups = [file.metadata.row_group(i) for i in range(file.num_row_groups)]
        return [(sum(g.column(i).total_compressed_size for i in range(g.num_columns)), g.num_rows) for g in groups]


@contextmanager
def _opened(source: Path | BinaryIO, name: str) -> Iterator[Any]:
    """The file, read through a small buffer: Arrow would else read whole columns of a row group ahead."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with told(name):
        if isinstance(source, Path):
            check_regular(source, name)
        try:
            stream = source if isinstance(source, Path) else pa.PythonFile(source, mode="r")
            with pq.ParquetFile(stream, pre_buffer=False, buffer_size=_BUFFER) as file:
                yield file
        except pa.ArrowInvalid as error:
            raise BuddyError(f"{name}: not a whole parquet file ({_first_line(error)}); fetch it again") from None
        except (pa.ArrowException, ValueError) as error:  # a type that Python has not, two fields of one name
            raise BuddyError(f"{name}: cannot be read as rows ({_first_line(error)}); write it again") from None


def _first_line(error: Exception) -> str:
    return str(error).split("\n", 1)[0]


def _not_utf8(batch: Any, name: str, before: int) -> BuddyError:
    for number in range(batch.num_rows):
        for column, values in zip(batch.schema.names, batch.columns, strict=True):
            try:
                values.slice(number, 1).to_pylist()
            except UnicodeDecodeError:
                return BuddyError(
                    f"{name}: row {before + number + 1}: {column}: not UTF-8; write the file again as UTF-8"
                )
    raise AssertionError("a text that is not UTF-8 was seen")
