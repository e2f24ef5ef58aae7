"""From rows to documents: the adapter found, scores judged, text cleaned, each document hashed.

Whatever is dropped is counted by reason, with the first place; so is what cleaning changes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import xxhash

from buddygpt.data.clean import Cleaner, normalise
from buddygpt.data.formats import (
    PEEKED,
    Adapter,
    Dropped,
    Message,
    Pair,
    Talk,
    Text,
    Value,
    as_pair,
    as_talk,
    dump_talk,
    find_adapter,
    read_row,
    render_text,
)
from buddygpt.data.formats.adapters import SCORE
from buddygpt.data.formats.values import EMPTY, EQUAL, NO_COLUMN, NO_PAIR, NO_SCORE, NO_TALK, NOT_TEXT, SURROGATE
from buddygpt.data.intake import Intake
from buddygpt.data.readers import format_of, is_whole_document, place, read_rows
from buddygpt.data.sources import InputFile, Source
from buddygpt.recipe.errors import BuddyError

_WANTED: dict[str, Callable[[Value], Value]] = {"talk": as_talk, "pair": as_pair}
"""What a row has to be in tuning, by how it is rendered."""
_UNREADABLE = {NO_SCORE, NO_COLUMN, NOT_TEXT, EMPTY, SURROGATE, NO_TALK, NO_PAIR}
"""Reasons that say a file is read wrongly, where they are all there is."""


@dataclass(frozen=True)
class Document:
    """One text that stays.

    Args:
        row: its number in the file, from 1.
        text: cleaned; what is compared with others and, but for a talk, tokenised.
        talk: the messages as `dump_talk` writes them, where the source is rendered through the chat template.
        size: of the text, in bytes of UTF-8.
        hash: xxh3_128 of the text in UTF-8, of a talk or pair to tune on that of its messages: two words, the higher
            first.
        split: what decides whether the document is held out: the hash's higher word; of a talk or pair to tune on a
            hash of its first question, so that one question never stands on both sides.
    """

    row: int
    text: str
    talk: str | None
    size: int
    hash: tuple[int, int]
    split: int


def read_documents(file: InputFile, source: Source, cleaner: Cleaner | None, intake: Intake) -> Iterator[Document]:
    """The documents of one file; counts rows and what is dropped or changed into `intake`.

    Args:
        file: on this machine.
        source: how its rows are read.
        cleaner: filters of quality; none where the recipe has none.
        intake: counts.

    Raises:
        BuddyError: an unreadable file, no adapter for its columns, or no text in any row.
    """
    own = Intake()
    kept = 0
    adapter, rows = _open(file, source)
    for number, row in rows:
        own.rows += 1
        document = _read(row, number, file, source, adapter, cleaner, own)
        if document is not None:
            kept += 1
            yield document
    if not kept:
        _refuse(file, own)
    intake.add(own)


def _read(
    row: Any,
    number: int,
    file: InputFile,
    source: Source,
    adapter: Adapter | None,
    cleaner: Cleaner | None,
    intake: Intake,
) -> Document | None:
    """The document of one row, or None where it is dropped."""
    try:
        value = row if adapter is None else read_row(row, adapter, source.map, source.min_score)
        if source.render in _WANTED:
            value = _WANTED[source.render](value)
    except Dropped as drop:
        return _drop(intake, drop.reason, file, number)
    talk, changed = None, list(value.edits)
    if source.render == "pair" or (source.render != "text" and isinstance(value, Talk)):
        messages = _normalise(_messages(value), changed)
        if any(message.empty for message in messages):
            return _drop(intake, EMPTY, file, number)
        if source.render == "pair" and messages[-1] == messages[-2]:  # were they not, before they were normalised
            return _drop(intake, EQUAL, file, number)
        talk, value = dump_talk(messages), Talk(messages)
    raw = render_text(value)
    text, edits = normalise(raw)
    if not text:
        return _drop(intake, EMPTY, file, number)
    try:
        data = text.encode()
    except UnicodeEncodeError:
        return _drop(intake, SURROGATE, file, number)
    intake.bytes += len(data) if text is raw else len(raw.encode())
    if cleaner is not None:
        cleaned = cleaner.clean(text)
        if cleaned.reason is not None:
            where = place_of(file, number)
            intake.samples.add(cleaned.reason, where, text, cleaned.detail)
            return _drop(intake, cleaned.reason, file, number)
        if cleaned.text != text and talk is None:  # within a talk, whole messages stay as they are
            for edit in cleaned.edits:
                intake.samples.add(edit, place_of(file, number), text, after=cleaned.text)
            text, data, edits = cleaned.text, cleaned.text.encode(), (*edits, *cleaned.edits)
    for edit in dict.fromkeys((*changed, *edits)):
        intake.edit(edit)
    if talk is not None and source.render in _WANTED:  # the same words may be said by others
        digest = xxhash.xxh3_128_intdigest(talk.encode())
        split = xxhash.xxh3_64_intdigest(next(m.content for m in messages if m.role == "user").encode())
    else:
        digest = xxhash.xxh3_128_intdigest(data)
        split = digest >> 64
    return Document(number, text, talk, len(data), (digest >> 64, digest & (2**64 - 1)), split)


def _messages(value: Talk | Pair) -> Sequence[Message]:
    """All that is said; the two answers of a pair come last, the chosen one first."""
    return value.messages if isinstance(value, Talk) else (*value.prompt, value.chosen, value.rejected)


def _normalise(said: Sequence[Message], edits: list[str]) -> tuple[Message, ...]:
    """What `normalise` makes of each message by itself."""
    messages = []
    for message in said:
        (content, first), (reasoning, second) = normalise(message.content), normalise(message.reasoning)
        calls = [normalise(call) for call in message.tool_calls]
        edits += (*first, *second, *(edit for _, changes in calls for edit in changes))
        called = tuple(call for call, _ in calls)
        messages.append(replace(message, content=content, reasoning=reasoning, tool_calls=called))
    return tuple(messages)


def _drop(intake: Intake, reason: str, file: InputFile, number: int) -> None:
    intake.drop(reason, place_of(file, number))


def _open(file: InputFile, source: Source) -> tuple[Adapter | None, Iterator[tuple[int, Any]]]:
    """The adapter that the file's first rows ask for, and the rows of the file or of the part of it.

    The demo world needs no adapter: its rows are values already.
    """

    def adapter_of(rows: Sequence[tuple[int, Any]]) -> Adapter:
        known = [row for _, row in rows if isinstance(row, dict)]
        return find_adapter(known, map=source.map, hint=source.hint, where=file.name)

    if file.path is None:
        from buddygpt.data import demo

        assert file.demo is not None
        seed, characters = file.demo
        if source.render == "talk":
            return None, enumerate(demo.talks(seed), 1)
        if source.render == "pair":
            return None, enumerate(demo.pairs(seed), 1)
        return None, enumerate(map(Text, demo.paragraphs(seed, characters)), 1)
    head = list(itertools.islice(read_rows(file.path, file.name, member=file.member), PEEKED))
    adapter = adapter_of(head)
    columns = None
    if format_of(file.name) == ".parquet":  # columns of a wide table need not be read whole
        score = (source.map or {}).get("score", SCORE)
        columns = [*adapter.columns, *([score] if isinstance(score, str) else score)]
    return adapter, read_rows(file.path, file.name, columns, part=file.part, member=file.member)


def _refuse(file: InputFile, intake: Intake) -> None:
    """See that a file without documents may be one: its rows were filtered, or it is one of many blank texts."""
    if not intake.rows:
        raise BuddyError(f"{file.name}: empty; remove it or fetch it again")
    told = ", ".join(f"{drop.count} {reason} (first {drop.first})" for reason, drop in intake.dropped.items())
    if set(intake.dropped) <= _UNREADABLE and (file.named or not is_whole_document(file.name)):
        remedy = "; `min_score` needs numbers, see `map: {score: ...}`" if NO_SCORE in intake.dropped else ""
        raise BuddyError(f"{file.name}: no text in any of {intake.rows} rows: {told}{remedy}")


def place_of(file: InputFile, row: int) -> str:
    """Where a row of a source stands, for a reader's eyes."""
    return place(file.name, row) if file.path else f"{file.name}: paragraph {row}"
