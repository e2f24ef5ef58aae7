"""From rows to documents: the text columns found, scores judged, text cleaned, each document hashed.

Cleaning here is minimal and never changes what a text says: Unicode NFC, no white space around it, no end marker left
over at its end. Whatever is dropped is counted by reason, with the first place.
"""

from __future__ import annotations

import itertools
import math
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import xxhash

from buddygpt.data.readers import column_names, format_of, is_whole_document, place, read_rows
from buddygpt.data.sources import InputFile
from buddygpt.recipe.errors import BuddyError

TEXT_COLUMNS = ("text", "content", "raw_content", "article", "body", "document", "passage", "正文", "文本", "内容")
"""Names that a text column has where the recipe gives none."""
END_MARKERS = ("<|endoftext|>", "<|im_end|>", "</s>")
"""Left at the end of a document by other tools; here the end is a token of its own."""
SCORE = "score"
NO_COLUMN, NOT_TEXT, EMPTY, SURROGATE = "no text column", "not a string", "empty", "lone surrogate"
NO_SCORE, LOW_SCORE, DUPLICATE = "no score", "low score", "duplicate"
_PEEKED = 100


@dataclass
class Drop:
    """Rows dropped for one reason.

    Args:
        count: rows.
        first: where the first of them stands.
    """

    count: int
    first: str


@dataclass
class Intake:
    """What became of the rows of some files.

    Args:
        rows: read.
        dropped: by reason.
        stripped: documents that lost an end marker.
    """

    rows: int = 0
    dropped: dict[str, Drop] = field(default_factory=dict)
    stripped: int = 0

    def drop(self, reason: str, where: str, count: int = 1) -> None:
        """Count rows that are left out."""
        self.dropped.setdefault(reason, Drop(0, where)).count += count

    def add(self, other: Intake) -> None:
        """Count what comes after this."""
        self.rows += other.rows
        self.stripped += other.stripped
        for reason, drop in other.dropped.items():
            self.drop(reason, drop.first, drop.count)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Intake:
        """What `as_dict` gave."""
        return cls(data["rows"], {reason: Drop(**drop) for reason, drop in data["dropped"].items()}, data["stripped"])


@dataclass(frozen=True)
class Document:
    """One text that stays.

    Args:
        row: its number in the file, from 1.
        text: cleaned.
        data: the text in UTF-8.
        hash: xxh3_128 of `data`: two words, the higher first.
    """

    row: int
    text: str
    data: bytes
    hash: tuple[int, int]


def read_documents(
    file: InputFile, columns: Sequence[str] | None, min_score: float | None, intake: Intake
) -> Iterator[Document]:
    """The documents of one file; counts rows and what is dropped into `intake`.

    Raises:
        BuddyError: an unreadable file, no text column to be found, or no text in any row.
    """
    own = Intake()
    kept, seen = 0, set()
    rows = _rows(file, columns, min_score)
    peeked = list(itertools.islice(rows, _PEEKED))
    chosen = list(columns or _find_columns(file, [row for _, row in peeked if isinstance(row, dict)]))
    for number, row in itertools.chain(peeked, rows):
        own.rows += 1
        reason, text = _extract(row, chosen, min_score)
        if reason is None:
            text, stripped = clean(text)
            own.stripped += stripped
            reason = None if text else EMPTY
        if reason is None:
            try:
                data = text.encode()
            except UnicodeEncodeError:
                reason = SURROGATE
            else:
                kept += 1
                digest = xxhash.xxh3_128_intdigest(data)
                yield Document(number, text, data, (digest >> 64, digest & (2**64 - 1)))
                continue
        own.drop(reason, place_of(file, number))
        if reason in (NO_COLUMN, NO_SCORE) and isinstance(row, dict) and len(seen) < _PEEKED:
            seen.update(row)
    if not kept:
        _refuse(file, own, chosen, seen)
    intake.add(own)


def clean(text: str) -> tuple[str, bool]:
    """NFC, stripped of outer white space and of end markers; and whether there was a marker."""
    text = unicodedata.normalize("NFC", text).strip()
    stripped = False
    while text.endswith(END_MARKERS):
        stripped = True
        text = next(text.removesuffix(m) for m in END_MARKERS if text.endswith(m)).rstrip()
    return text, stripped


def _rows(file: InputFile, columns: Sequence[str] | None, min_score: float | None) -> Iterator[tuple[int, Any]]:
    if file.path is None:
        from buddygpt.data import demo

        assert file.demo is not None
        yield from enumerate(({"text": text} for text in demo.paragraphs(*file.demo)), 1)
        return
    needed = None
    if format_of(file.name) == ".parquet":  # rows of a wide table need not be read whole
        known = column_names(file.path, file.name)
        wanted = {*(columns or TEXT_COLUMNS), *([] if min_score is None else [SCORE])}
        needed = [c for c in known if c in wanted] or known[:1]
    yield from read_rows(file.path, file.name, needed)


def _find_columns(file: InputFile, rows: Sequence[dict[str, Any]]) -> list[str]:
    """The text column by its name."""
    candidates = [c for c in TEXT_COLUMNS if any(isinstance(row.get(c), str) for row in rows)]
    candidates = candidates or [c for c in TEXT_COLUMNS if any(c in row for row in rows)]  # null in the first rows
    if len(candidates) == 1:
        return candidates
    if candidates:
        raise BuddyError(
            f"{file.name}: {' and '.join(candidates)} may all be the text; say which with `columns: [{candidates[0]}]`"
        )
    if not rows:
        return [TEXT_COLUMNS[0]]
    raise BuddyError(f"{file.name}: no text column found among {_list(file, rows)}; name it with `columns: [...]`")


def _list(file: InputFile, rows: Sequence[dict[str, Any]]) -> str:
    names = column_names(file.path, file.name) if file.path and format_of(file.name) == ".parquet" else None
    return ", ".join(names or dict.fromkeys(key for row in rows for key in row)) or "no columns"


def _extract(row: Any, columns: Sequence[str], min_score: float | None) -> tuple[str | None, str]:
    """Why the row is dropped, or None and its text."""
    if not isinstance(row, dict):
        return NO_COLUMN, ""
    if min_score is not None:
        score = row.get(SCORE)
        if isinstance(score, bool) or not isinstance(score, int | float) or math.isnan(score):
            return NO_SCORE, ""
        if score < min_score:
            return LOW_SCORE, ""
    try:
        parts = [row[column] for column in columns]
    except KeyError:
        return NO_COLUMN, ""
    if not all(isinstance(part, str) for part in parts):
        return NOT_TEXT, ""
    return None, "\n".join(parts)


def _refuse(file: InputFile, intake: Intake, columns: Sequence[str], seen: set[str]) -> None:
    """See that a file without documents may be one: all its rows had low scores, or it is one of many blank texts."""
    if not intake.rows:
        raise BuddyError(f"{file.name}: empty; remove it or fetch it again")
    reasons = set(intake.dropped)
    names = column_names(file.path, file.name) if file.path and format_of(file.name) == ".parquet" else sorted(seen)
    if reasons == {NO_COLUMN}:
        wanted = ", ".join(columns)
        raise BuddyError(f"{file.name}: no row has the column {wanted}; there are {', '.join(names) or 'no columns'}")
    if reasons == {NO_SCORE}:
        raise BuddyError(
            f"{file.name}: no row has a number in the column {SCORE}, which `min_score` needs; "
            f"there are {', '.join(names)}"
        )
    if LOW_SCORE not in reasons and (file.named or not is_whole_document(file.name)):
        told = ", ".join(f"{d.count} {reason} (first {d.first})" for reason, d in intake.dropped.items())
        raise BuddyError(f"{file.name}: no text in any of {intake.rows} rows: {told}")


def place_of(file: InputFile, row: int) -> str:
    """Where a row of a source stands, for a reader's eyes."""
    return place(file.name, row) if file.path else f"{file.name}: paragraph {row}"
