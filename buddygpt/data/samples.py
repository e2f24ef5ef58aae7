"""A few of the documents that each filter removed or changed, the same ones for any order, worker count and run.

Of all documents offered for a reason those with the smallest hash of their text are kept, so that parts of a job keep
theirs and a merge gives what one process would have kept.
"""

from __future__ import annotations

import bisect
import itertools
from dataclasses import asdict, dataclass, field
from typing import Any

import xxhash

KEPT = 6
"""Samples of each reason."""
LONGEST = 700
"""Characters of a sample that are kept."""
_BEFORE = 80  # characters that lead up to the first difference


@dataclass(frozen=True)
class Taken:
    """One document, shortened.

    Args:
        key: xxh3_64 of the whole text.
        place: where it stands.
        text: as it was; "…" marks what is left out.
        detail: the figure that decided, or nothing.
        after: what an edit made of it, cut like `text`; None for a document that was removed.
    """

    key: int
    place: str
    text: str
    detail: str
    after: str | None


@dataclass
class Samples:
    """Samples by reason, each list by key; at most `KEPT` of `LONGEST` characters, so memory is bounded."""

    taken: dict[str, list[Taken]] = field(default_factory=dict)

    def add(self, reason: str, place: str, text: str, detail: str = "", after: str | None = None) -> None:
        """Offer a document. A text that is there several times is one sample, of its least place."""
        key = xxhash.xxh3_64_intdigest(text.encode("utf-8", "surrogatepass"))
        kept = self.taken.setdefault(reason, [])
        if len(kept) < KEPT or key <= kept[-1].key:
            before, after = _shorten(text, after)
            _insert(kept, Taken(key, place, before, detail, after))

    def merge(self, other: Samples) -> None:
        """Offer all of the other's samples."""
        for reason, samples in other.taken.items():
            for sample in samples:
                _insert(self.taken.setdefault(reason, []), sample)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Samples:
        """What `as_dict` gave."""
        return cls({reason: [Taken(**sample) for sample in samples] for reason, samples in data["taken"].items()})


def _insert(kept: list[Taken], sample: Taken) -> None:
    at = bisect.bisect_left(kept, sample.key, key=lambda taken: taken.key)
    if at < len(kept) and kept[at].key == sample.key:
        kept[at] = min(kept[at], sample, key=lambda taken: taken.place)
    else:
        kept.insert(at, sample)
        del kept[KEPT:]


def _shorten(text: str, after: str | None) -> tuple[str, str | None]:
    """The beginning of the text; of a changed one the neighbourhood of the first change."""
    if after is None:
        return _cut(text, 0), None
    start = 0
    if len(text) > LONGEST:
        same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(text, after, strict=False))
        start = max(0, sum(1 for _ in same) - _BEFORE)
    return _cut(text, start), _cut(after, start)


def _cut(text: str, start: int) -> str:
    piece = text[start : start + LONGEST]
    return "…" * (start > 0) + piece + "…" * (start + LONGEST < len(text))
