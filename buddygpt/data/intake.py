"""What became of rows on their way to documents: counted by reason, with the first place and samples."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from buddygpt.data.samples import Samples


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
        bytes: of UTF-8 of their texts, before cleaning.
        dropped: by reason.
        edits: documents that were changed and stayed, by what was done to them.
        samples: of what was dropped or changed for what it says.
    """

    rows: int = 0
    bytes: int = 0
    dropped: dict[str, Drop] = field(default_factory=dict)
    edits: dict[str, int] = field(default_factory=dict)
    samples: Samples = field(default_factory=Samples)

    def drop(self, reason: str, where: str, count: int = 1) -> None:
        """Count rows that are left out."""
        self.dropped.setdefault(reason, Drop(0, where)).count += count

    def edit(self, name: str, count: int = 1) -> None:
        """Count documents that were changed."""
        self.edits[name] = self.edits.get(name, 0) + count

    def add(self, other: Intake) -> None:
        """Count what comes after this."""
        self.rows += other.rows
        self.bytes += other.bytes
        for reason, drop in other.dropped.items():
            self.drop(reason, drop.first, drop.count)
        for name, count in other.edits.items():
            self.edit(name, count)
        self.samples.merge(other.samples)

    def counts(self) -> dict[str, Any]:
        """All but the samples, as plain data."""
        dropped = {reason: vars(drop) for reason, drop in sorted(self.dropped.items(), key=lambda item: -item[1].count)}
        return {"rows": self.rows, "bytes": self.bytes, "dropped": dropped, "edits": dict(sorted(self.edits.items()))}

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain data for JSON."""
        return self.counts() | {"samples": self.samples.as_dict()}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Intake:
        """What `as_dict` gave."""
        dropped = {reason: Drop(**drop) for reason, drop in data["dropped"].items()}
        return cls(data["rows"], data["bytes"], dropped, data["edits"], Samples.from_dict(data["samples"]))
