"""Rows of benchmarks in any of the usual columns, written in those that lm-eval's prompts expect."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from buddygpt.data.archives import Member, open_member
from buddygpt.data.files.streams import Slice, told, unpacked
from buddygpt.data.files.tables import read_csv
from buddygpt.data.readers import format_of, place, read_rows
from buddygpt.evaluation.catalog import Choice, Column, Data
from buddygpt.recipe.errors import BuddyError

LETTERS = "ABCD"
_SUBJECT_COLUMNS = ("subject", "category")
_LABEL = re.compile(r"\(([A-D])\)\s*")
"""What stands before a choice in some files: `(A) `."""
_ANSWER = re.compile(r"([A-D])|\(([A-D])\).*", re.DOTALL)
"""How files spell the answer to a choice: `A`, `(A)`, `(A) the choice again`."""

_BOXED = re.compile(r"\\boxed\{(.+)\}")


@dataclass(frozen=True)
class RowFile:
    """A file of a benchmark's rows.

    Args:
        path: the file, or the archive that it is in.
        name: what messages call it.
        split: whose rows it holds, as lm-eval calls them.
        subject: whose rows it holds; None where a column tells.
        member: its place in the archive.
    """

    path: Path
    name: str
    split: str
    subject: str | None
    member: Member | None = None


def read_file(file: RowFile, data: Data, subjects: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """A file's rows, each with its subject, in the columns that lm-eval's prompts expect.

    Raises:
        BuddyError: a file that cannot be read; a row without a column, or without such an answer; names the line.
    """
    for number, row in _read(file, data):
        where = place(file.name, number)
        if not isinstance(row, Mapping):
            raise BuddyError(f"{where}: not a row with columns, but {type(row).__name__}")
        subject = file.subject or _subject_of(row, subjects, where)
        if data.choice:
            yield subject, _choice_row(row, data.choice, where)
        else:
            yield subject, {name: _value(row, name, column, where) for name, column in data.columns.items()}


def _read(file: RowFile, data: Data) -> Iterator[tuple[int, Any]]:
    if data.header and format_of(file.name) == ".csv":
        opened = open_member(file.path, file.name, file.member) if file.member else Slice(file.path, file.name)
        with told(file.name), opened as raw, unpacked(raw, file.name) as stream:  # type: ignore[arg-type]
            yield from read_csv(stream, file.name, data.header)
    else:
        yield from read_rows(file.path, file.name, member=file.member)


def _subject_of(row: Mapping[str, Any], subjects: Sequence[str], where: str) -> str:
    if len(subjects) == 1:
        return subjects[0]
    told_ = next((row[column] for column in _SUBJECT_COLUMNS if row.get(column)), None)
    if told_ is None:
        raise BuddyError(f"{where}: no column tells the subject: {' or '.join(_SUBJECT_COLUMNS)}")
    subject = str(told_).strip().replace(" ", "_")
    if subject not in subjects:
        raise BuddyError(f"{where}: '{told_}' is no subject; there are {', '.join(subjects[:3])} ...")
    return subject


def _choice_row(row: Mapping[str, Any], choice: Choice, where: str) -> dict[str, Any]:
    question = _value(row, "question", Column(names=["Question"]), where)
    choices = _choices(row, where)
    answer = _answer(row, where)
    if choice.form == "list":
        return {choice.question: question, "choices": choices, choice.answer: answer}
    return {choice.question: question, **dict(zip(LETTERS, choices, strict=True)), choice.answer: LETTERS[answer]}


def _choices(row: Mapping[str, Any], where: str) -> list[str]:
    listed = row.get("choices")
    found = listed if isinstance(listed, list) else [row.get(letter) for letter in LETTERS]
    if len(found) != len(LETTERS) or not all(isinstance(text, (str, int, float)) for text in found):
        raise BuddyError(f"{where}: not four choices, in columns A to D or in a list `choices`")
    choices = [str(text) for text in found]
    labels = [_LABEL.match(text) for text in choices]
    if isinstance(listed, list) and "".join(label[1] if label else "?" for label in labels) == LETTERS:
        choices = [text[label.end() :] for text, label in zip(choices, labels, strict=True) if label]
    return choices


def _answer(row: Mapping[str, Any], where: str) -> int:
    """The place of the right choice, from 0."""
    answer = _value(row, "answer", Column(names=["Answer"], type="any"), where)
    if isinstance(answer, int) and not isinstance(answer, bool) and answer in range(len(LETTERS)):
        return answer
    letter = _ANSWER.fullmatch(answer.strip()) if isinstance(answer, str) else None
    if letter is None:
        raise BuddyError(f"{where}: no answer among A, B, C and D: {_brief(answer)}")
    return LETTERS.index(letter[1] or letter[2])


def _value(row: Mapping[str, Any], name: str, column: Column, where: str) -> Any:
    """What a row has in a column, under whichever of its names."""
    present = next((each for each in (name, *column.names) if row.get(each) is not None), None)
    if present is None:
        also = f", also called {', '.join(column.names)}" if column.names else ""
        raise BuddyError(f"{where}: no column '{name}'{also}; there are {', '.join(map(str, row)) or 'none'}")
    value = row[present]
    if column.type == "number":
        value = _number(value)
    fits = {
        "text": isinstance(value, str) and bool(value.strip()),
        "number": isinstance(value, int),
        "list": isinstance(value, list) and bool(value),
        "any": True,
    }
    if not fits[column.type]:
        raise BuddyError(f"{where}: column '{present}' holds no {column.type}: {_brief(row[present])}")
    return value


def _number(value: Any) -> Any:
    """A whole number, from text too, in a box or not; what is none stays."""
    if isinstance(value, str) and (boxed := _BOXED.fullmatch(value.strip())):
        value = boxed[1]
    try:
        return int(value) if not isinstance(value, float) or value == int(value) else value
    except (TypeError, ValueError, OverflowError):
        return value


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
