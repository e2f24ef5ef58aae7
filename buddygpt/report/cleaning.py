"""What became of the data, source by source, as one HTML page that needs nothing but itself: no network, no script."""

from __future__ import annotations

import difflib
import itertools
import math
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from markupsafe import Markup, escape

from buddygpt.recipe.base import spell_bytes
from buddygpt.report.template import Headline, fill, write_page
from buddygpt.report.words import NOTHING, spell_count, spell_number

LONGEST = 600
"""Characters of a sample that the page shows."""

_UNSEEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


@dataclass(frozen=True)
class Stage:
    """How much of a source there is at one point of its way."""

    name: str
    documents: int
    bytes: int


@dataclass(frozen=True)
class Drop:
    """Documents left out for one reason: how many, their share of all that were read, and where the first stands."""

    reason: str
    documents: int
    share: float
    first: str


@dataclass(frozen=True)
class SourceReport:
    """One source's way.

    Args:
        name: as in the recipe.
        facts: where it comes from, rows of label and value.
        stages: from what was read to what is trained on.
        drops: what was left out between them.
        edits: how many documents each edit changed.
        tokens: trained on, each once; None before tokenising.
        epochs: how often training sees them; None where no length of training is known.
    """

    name: str
    facts: Sequence[tuple[str, str]]
    stages: Sequence[Stage]
    drops: Sequence[Drop] = ()
    edits: Mapping[str, int] = field(default_factory=dict)
    tokens: int | None = None
    epochs: float | None = None


@dataclass(frozen=True)
class Sample:
    """A document that was left out or changed; `reason` is the filter or the edit, `after` what an edit made of it."""

    source: str
    reason: str
    place: str
    text: str
    detail: str = ""
    after: str | None = None


@dataclass(frozen=True)
class Pair:
    """A near duplicate: the text that stayed, the one that was removed, and where that stood."""

    kept: str
    removed: str
    place: str


@dataclass(frozen=True)
class DataReport:
    """What a page is made of: plain data only.

    Args:
        title: the run's or the recipe's name.
        sources: in the recipe's order.
        samples: of what filters removed and edits changed.
        pairs: of near duplicates.
        contamination: documents removed by evaluation set.
    """

    title: str
    sources: Sequence[SourceReport]
    samples: Sequence[Sample] = ()
    pairs: Sequence[Pair] = ()
    contamination: Mapping[str, int] = field(default_factory=dict)


def write_data_report(path: Path, report: DataReport) -> None:
    """Write the page, whole or not at all. The same report gives the same bytes."""
    write_page(path, render(report))


def render(report: DataReport) -> str:
    """The page as HTML text."""
    return fill(
        "cleaning.html.j2",
        kind=("数据报告", "data report"),
        report=report,
        headline_row=list(_headlines(report.sources)),
        sources=[_source(source) for source in report.sources],
        mixture=_mixture(report.sources),
        groups=_groups(report.samples),
        pairs=[_pair(pair) for pair in report.pairs],
        count="{:,}".format,
    )


def _headlines(sources: Sequence[SourceReport]) -> Iterable[Headline]:
    ends = [(source.stages[0], source.stages[-1]) for source in sources if source.stages]
    read, kept = (sum(pair[i].documents for pair in ends) for i in (0, 1))
    note, gloss = f"读入 {read:,}，保留 {kept:,}", f"{kept:,} of {read:,} read"
    yield Headline("保留的文档", "documents kept", _percent(kept, read), note, gloss)
    read, kept = (sum(pair[i].bytes for pair in ends) for i in (0, 1))
    note, gloss = f"读入 {spell_bytes(read)}，保留 {spell_bytes(kept)}", f"{spell_bytes(kept)} of {spell_bytes(read)}"
    yield Headline("保留的字节", "bytes kept", _percent(kept, read), note, gloss)
    changed = sum(sum(source.edits.values()) for source in sources)
    yield Headline("修改", "edits", spell_count(changed), "按文档和种类计", "counted by document and kind")
    tokens = [source.tokens for source in sources if source.tokens is not None]
    if tokens:
        note, gloss = f"{len(sources)} 个来源", f"{len(sources)} source{'s' * (len(sources) > 1)}"
        yield Headline("词元", "tokens", spell_count(sum(tokens)), note, gloss)


@dataclass(frozen=True)
class _Bar:
    """A stage as drawn: its figures, spelled, and its lengths in percent of the first stage's."""

    name: str
    documents: str
    bytes: str
    documents_percent: str
    bytes_percent: str


def _source(source: SourceReport) -> dict[str, object]:
    first = source.stages[0] if source.stages else Stage("", 0, 0)
    bars = [
        _Bar(
            stage.name,
            f"{stage.documents:,}",
            spell_bytes(stage.bytes),
            _length(stage.documents, first.documents),
            _length(stage.bytes, first.bytes),
        )
        for stage in source.stages
    ]
    drops = sorted(source.drops, key=lambda drop: -drop.documents)
    most = max((drop.documents for drop in drops), default=0)
    return {
        "name": source.name,
        "facts": source.facts,
        "bars": bars,
        "drops": [(d.reason, f"{d.documents:,}", _small(d.share), d.first, _length(d.documents, most)) for d in drops],
        "edits": [(name, f"{count:,}") for name, count in source.edits.items() if count],
    }


def _mixture(sources: Sequence[SourceReport]) -> list[tuple[str, str, str, str, str]]:
    """Name, tokens, share, length of the bar and epochs of each source that has tokens, by what training sees."""
    seen = {s.name: (s.tokens or 0) * (s.epochs or 1.0) for s in sources if s.tokens is not None}
    total = sum(seen.values())
    return [
        (
            source.name,
            spell_count(source.tokens or 0),
            _small(seen[source.name] / total if total else 0.0),
            _length(seen[source.name], total),
            NOTHING if source.epochs is None else spell_number(source.epochs, 2),
        )
        for source in sources
        if source.name in seen
    ]


@dataclass(frozen=True)
class _Shown:
    """A sample as the page shows it, with what an edit took out and put in marked."""

    source: str
    place: str
    detail: str
    text: Markup


def _groups(samples: Sequence[Sample]) -> list[tuple[str, list[_Shown]]]:
    """The samples by reason, in the order of their first."""
    groups: dict[str, list[_Shown]] = {}
    for sample in samples:
        if sample.after is None:
            text = _reveal(_shorten(sample.text))
        else:
            text = Markup("").join(itertools.chain.from_iterable(_compare(sample.text, sample.after)))
        groups.setdefault(sample.reason, []).append(_Shown(sample.source, sample.place, sample.detail, text))
    return list(groups.items())


def _pair(pair: Pair) -> tuple[str, Markup, Markup]:
    """Place, removed text and kept text; each with what the other lacks marked."""
    removed, kept = Markup(""), Markup("")
    for same, old, new in _compare(pair.removed, pair.kept):
        removed, kept = removed + same + old, kept + same + new
    return pair.place, removed, kept


def _compare(before: str, after: str) -> Iterable[tuple[Markup, Markup, Markup]]:
    """The texts in pieces: what both have, what only the first has and what only the second has."""
    cut = len(before) > LONGEST or len(after) > LONGEST
    before, after = before[:LONGEST], after[:LONGEST]
    for what, a, b, c, d in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        beyond = cut and d == len(after) and b == len(before)  # the first text goes on with it, out of sight
        same = _reveal(before[a:b]) if what == "equal" else Markup("")
        old = _mark("del", before[a:b]) if what in ("delete", "replace") else Markup("")
        new = _mark("ins", after[c:d]) if what in ("insert", "replace") and not beyond else Markup("")
        yield same, old, new
    if cut:
        yield Markup("…"), Markup(""), Markup("")


def _mark(tag: str, text: str) -> Markup:
    return Markup("<{0}>{1}</{0}>").format(tag, _reveal(text.replace("\n", "↵\n")))


def _reveal(text: str) -> Markup:
    """Escaped, with characters that cannot be seen named by their code points."""
    return Markup("").join(
        Markup("<i>U+{:04X}</i>").format(ord(character))
        if unicodedata.category(character) in _UNSEEN and character not in "\t\n"
        else escape(character)
        for character in text
    )


def _shorten(text: str) -> str:
    return text if len(text) <= LONGEST else text[:LONGEST] + "…"


def _percent(part: float, whole: float) -> str:
    """Never rounded up to all: 99.99 % is not 100 %."""
    if not whole:
        return NOTHING
    share = 100 * part / whole
    return "100%" if part == whole else f"{math.floor(share * 10) / 10:.1f}%"


def _small(share: float) -> str:
    """Never rounded down to nothing."""
    return f"{share:.2%}" if share >= 0.00005 or not share else "< 0.01%"


def _length(part: float, whole: float) -> str:
    """Of a bar, in percent."""
    return f"{100 * min(1.0, part / whole) if whole else 0:.2f}"
