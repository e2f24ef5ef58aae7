"""A data set looked at before it is used: its columns, three rows, the adapter that fits, lengths in tokens."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from buddygpt.data.formats import PEEKED, Adapter, Dropped, find_adapter, read_row
from buddygpt.data.readers import place, read_rows
from buddygpt.data.sample import Sample, find_sample
from buddygpt.data.survey import Survey, columns_of, show_row, show_value, spread, survey
from buddygpt.data.tokenizer import DocumentEncoder, load_tokenizer
from buddygpt.events import Emit, Note, Table, Text
from buddygpt.recipe.data import Mapping
from buddygpt.recipe.errors import BuddyError

_SHOWN = 3


def run(what: str, *, map: Mapping | None, file: str | None, tokenizer: str, emit: Emit) -> Survey:
    """Look at a data set and tell what it holds and what would become of its rows.

    Args:
        what: a file, folder or glob here; a name of the catalog; or an id on a hub.
        map: what its columns hold, where their names do not tell.
        file: glob of the file to look at, among several.
        tokenizer: a name, folder or hub id.
        emit: who is told.

    Raises:
        BuddyError: there is no such thing, it cannot be read, or no adapter fits; the columns are told before.
    """
    sample = find_sample(what, file, emit)
    rows = read_rows(sample.path, sample.name)
    peeked = list(itertools.islice(rows, PEEKED))
    if not peeked:
        raise BuddyError(f"{sample.name}: empty; there is nothing to look at")
    emit(_columns(sample, [row for _, row in peeked]))
    for number, row in peeked[:_SHOWN]:
        emit(Text(place(sample.name, number), show_row(row)))
    map = map or sample.map
    adapter = _choose(peeked, sample, map)
    holds = "; ".join(f"{meaning} in {' + '.join(columns)}" for meaning, columns in adapter.map.items())
    emit(Note(f"adapter: {adapter.name}, {'as the map says' if map else 'by names and values'}: {holds}"))
    if adapter.name != "text":  # the row has just been shown
        for number, row in peeked[:_SHOWN]:
            emit(Text(f"{place(sample.name, number)} becomes", _made(row, adapter, map, sample.min_score)))
    seen = survey(itertools.chain(peeked, rows), adapter, sample.name, map=map, min_score=sample.min_score)
    _account(seen, emit)
    if seen.texts:
        _measure(seen, adapter, tokenizer, emit)
    return seen


def _columns(sample: Sample, rows: Sequence[Any]) -> Table:
    columns = columns_of(rows)
    if not columns:
        raise BuddyError(f"{sample.name}: its rows have no columns; a row is a mapping such as {{text: ...}}")
    told = tuple((column.name, column.holds, f"{column.empty:,}") for column in columns)
    return Table(f"columns, as the first {len(rows):,} rows have them", ("column", "holds", "empty in"), told)


def _choose(peeked: Sequence[tuple[int, Any]], sample: Sample, map: Mapping | None) -> Adapter:
    """The adapter that fits; where none does by itself, the line also says how to try a map here."""
    try:
        return find_adapter([row for _, row in peeked], map=map, hint=sample.hint, where=sample.name)
    except BuddyError as error:
        if map:
            raise
        raise BuddyError(
            [*error.lines, "try it with --map text=COLUMN, --map messages=COLUMN, --map prompt=COLUMN,response=COLUMN "
             "or --map prompt=COLUMN,chosen=COLUMN,rejected=COLUMN"]
        ) from None  # fmt: skip


def _made(row: Any, adapter: Adapter, map: Mapping | None, min_score: float | None) -> str:
    try:
        return show_value(read_row(row, adapter, map, min_score))
    except Dropped as dropped:
        return f"nothing: {dropped.reason}"


def _account(seen: Survey, emit: Emit) -> None:
    """Tell how many rows stay, which do not and why, and what is changed."""
    of = f"{'all' if seen.ended else 'the first'} {seen.rows:,} rows"
    if seen.dropped:
        rows = [(reason, f"{n:,}", f"{n / seen.rows:.1%}", first) for reason, (n, first) in seen.dropped.items()]
        emit(Table(f"dropped of {of}", ("reason", "rows", "share", "the first at"), tuple(rows)))
    if seen.edits:
        emit(Table(f"changed of {of}", ("change", "rows"), tuple((edit, f"{n:,}") for edit, n in seen.edits.items())))
    emit(Note(f"{len(seen.texts):,} documents of {of}"))


def _measure(seen: Survey, adapter: Adapter, tokenizer: str, emit: Emit) -> None:
    """Tell how long the documents are."""
    encoder = DocumentEncoder(load_tokenizer(tokenizer))
    lengths = {
        "characters": [len(text) for text in seen.texts],
        "tokens": [len(ids) for ids in encoder.encode(seen.texts)],
    }
    rows = []
    for unit, counts in lengths.items():
        s = spread(counts)
        rows.append(
            (unit, f"{sum(counts):,}", f"{s.mean:,.1f}", f"{s.median:,.1f}", f"{s.p95:,}", f"{s.longest:,}")
        )  # fmt: skip
    emit(Table("lengths", ("of a document", "together", "mean", "median", "p95", "longest"), tuple(rows)))
    size = sum(len(text.encode()) for text in seen.texts)
    pairs = "; of a pair the prompt and the better answer are measured" if "rejected" in adapter.map else ""
    emit(Note(f"{size / max(sum(lengths['tokens']), 1):.2f} bytes a token of {tokenizer}{pairs}"))
