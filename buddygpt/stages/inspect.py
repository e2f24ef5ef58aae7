"""A data set looked at before it is used: its columns, three rows, the adapter that fits, lengths in tokens."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from buddygpt.data.formats import PEEKED, Adapter, Dropped, Pair, as_pair, as_talk, find_adapter, read_row
from buddygpt.data.length_bias import compare_lengths
from buddygpt.data.readers import place, read_rows
from buddygpt.data.sample import Sample, find_sample
from buddygpt.data.survey import Survey, columns_of, show_row, show_value, spread, survey, visible
from buddygpt.data.template import ANSWER, GIVEN, REJECTED, labelled_segments, pair_segments
from buddygpt.data.tokenizer import DocumentEncoder, chat_ends, load_tokenizer, spell_tokens
from buddygpt.events import Caution, Emit, Note, Table, Text, Tokens
from buddygpt.recipe.data import Mapping
from buddygpt.recipe.errors import BuddyError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SHOWN = 3
_MOST = 1_000
"""Tokens of a row that are shown; of a longer one its first and its last."""
_WANTED = {"sft": as_talk, "dpo": as_pair}


def run(what: str, *, map: Mapping | None, file: str | None, tokenizer: str, stage: str, emit: Emit) -> Survey:
    """Look at a data set and tell what it holds and what would become of its rows.

    Args:
        what: a file, folder or glob here; a name of the catalog; or an id on a hub.
        map: what its columns hold, where their names do not tell.
        file: glob of the file to look at, among several.
        tokenizer: a name, folder or hub id.
        stage: `pretrain`; or `sft` or `dpo`, whose rows are shown as tokens, learned or not.
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
    rows, wanted = itertools.chain(peeked, rows), _WANTED.get(stage)
    seen = survey(rows, adapter, sample.name, map=map, min_score=sample.min_score, wanted=wanted)
    _account(seen, emit)
    if seen.texts and stage == "pretrain":
        _measure(seen, adapter, tokenizer, emit)
    elif seen.texts:
        _label(seen, sample.name, load_tokenizer(tokenizer), emit)
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
    emit(_lengths("of a document", lengths))
    size = sum(len(text.encode()) for text in seen.texts)
    pairs = "; of a pair the prompt and the better answer are measured" if "rejected" in adapter.map else ""
    emit(Note(f"{size / max(sum(lengths['tokens']), 1):.2f} bytes a token of {tokenizer}{pairs}"))


def _label(seen: Survey, name: str, tokenizer: PreTrainedTokenizerBase, emit: Emit) -> None:
    """Show the first rows as the tokens that training has of them, and tell how many of all are learned."""
    chat_ends(tokenizer)  # the marks are there
    ids, labels = DocumentEncoder(tokenizer).encode_labelled(
        [pair_segments(v) if isinstance(v, Pair) else labelled_segments(v.messages) for _, v in seen.values]
    )
    pairs = isinstance(seen.values[0][1], Pair)
    kinds = {"given": GIVEN, "chosen": ANSWER, "rejected": REJECTED} if pairs else {"given": GIVEN, "learned": ANSWER}
    counts = {kind: [int((row == label).sum()) for row in labels] for kind, label in kinds.items()}
    for i, (number, _) in enumerate(seen.values[:_SHOWN]):
        own = [(kind, count[i]) for kind, count in counts.items()]
        pieces = [(visible(text), int(k)) for text, k in zip(spell_tokens(tokenizer, ids[i]), labels[i], strict=True)]
        emit(Tokens(f"{place(name, number)}: {_shares(own)}", _shorten(pieces)))
    emit(_lengths("tokens of a row", counts))
    emit(Note(f"{_shares([(kind, sum(count)) for kind, count in counts.items()])}, in {len(ids):,} rows"))
    if pairs:
        bias = compare_lengths(counts["chosen"], counts["rejected"])
        emit(Note(f"the chosen answer is the longer one in {bias.longer:.1%} of the pairs, equal lengths as half"))
        if bias.warning:
            emit(Caution(bias.warning))


def _shares(counts: Sequence[tuple[str, int]]) -> str:
    """How many tokens there are of each kind but the first, which is given, and of all."""
    total = sum(count for _, count in counts)
    told = " and ".join(f"{count:,} {kind} ({count / total:.1%})" for kind, count in counts[1:])
    return f"{told} of {total:,} tokens"


def _shorten(pieces: list[tuple[str, int]]) -> tuple[tuple[str, int], ...]:
    if len(pieces) <= _MOST:
        return tuple(pieces)
    left_out = f" ... {len(pieces) - _MOST:,} tokens ... "
    return (*pieces[: _MOST // 2], (left_out, GIVEN), *pieces[-_MOST // 2 :])


def _lengths(of: str, counts: dict[str, list[int]]) -> Table:
    rows = []
    for kind, own in counts.items():
        s = spread(own)
        rows.append((kind, f"{sum(own):,}", f"{s.mean:,.1f}", f"{s.median:,.1f}", f"{s.p95:,}", f"{s.longest:,}"))
    return Table("lengths", (of, "together", "mean", "median", "p95", "longest"), tuple(rows))
