"""What data sets there are, and all that is known of one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from buddygpt.data.catalog import Entry, Kind, entries, find
from buddygpt.events import Emit, Note, Table, Text
from buddygpt.recipe.base import spell, spell_bytes

TITLES: dict[Kind, str] = {"pretrain": "for pretraining", "sft": "for fine-tuning", "dpo": "for preferences"}
NONE_STATED = "none stated"


def listing(kind: Kind | None, emit: Emit) -> None:
    """Tell all data sets, or those of one kind: a table a kind."""
    told = entries(kind)
    for each, title in TITLES.items():
        rows = tuple(_row(entry) for entry in told if entry.kind == each)
        if rows:
            columns = ("name", "size", "language", "shape", "licence", "huggingface", "modelscope", "mind")
            emit(Table(title, columns, rows))
    emit(Note("? recalled or reckoned, not seen on a hub's page; the size is that of the files taken by default"))
    emit(Note("`buddy data list NAME` tells all of one, and what to write into a recipe"))


def show(name: str, emit: Emit) -> None:
    """Tell all that is known of one data set, and the source to write into a recipe.

    Raises:
        BuddyError: there is none of this name.
    """
    entry = find(name)
    emit(Table(f"{entry.name}: {entry.about}", ("", ""), tuple(_facts(entry))))
    if entry.parts:
        parts = tuple(
            (f"{entry.name}/{part}", f"{p.rows:,}" if p.rows else "", ", ".join(p.files))
            for part, p in entry.parts.items()
        )
        emit(Table("parts, by names of their own", ("name", "rows", "files"), parts))
    emit(Text("as a source in a recipe", f"- {{kind: catalog, dataset: {yaml_string(entry.name)}}}"))


def yaml_string(text: str) -> str:
    """The text as YAML's flow style takes it."""
    plain = all(c.isalnum() or c in "-_./" for c in text)
    return text if plain else "'" + text.replace("'", "''") + "'"


def minded(entry: Entry) -> Sequence[str]:
    """What to mind, terms to accept first."""
    gate = [f"gated: accept its terms at https://huggingface.co/datasets/{entry.huggingface}"] if entry.gated else []
    return [*gate, *entry.warnings]


def _row(entry: Entry) -> tuple[str, ...]:
    def told(field: str, value: str) -> str:
        return f"{value}?" if value and field in entry.unsure else value

    mind = "; ".join(["gated", *entry.warnings] if entry.gated else entry.warnings)
    return (
        entry.name,
        told("size", spell_bytes(entry.size) if entry.size else ""),
        told("language", "+".join(entry.language)),
        told("shape", entry.shape),
        told("licence", entry.licence or NONE_STATED),
        entry.huggingface,
        told("modelscope", entry.modelscope or ""),
        mind,
    )


def _facts(entry: Entry) -> Iterator[tuple[str, str]]:
    columns = {meaning: [c] if isinstance(c, str) else c for meaning, c in (entry.map or {}).items()}
    facts: dict[str, str | None] = {
        "kind": entry.kind,
        "huggingface": entry.huggingface,
        "modelscope": entry.modelscope or "not known there",
        "files": ", ".join(entry.files),
        "exclude": ", ".join(entry.exclude),
        "config": entry.config,
        "split": entry.split,
        "shape": entry.shape,
        "map": ", ".join(f"{meaning}: {' + '.join(c)}" for meaning, c in columns.items()),
        "min_score": entry.min_score and f"{entry.min_score:g}",
        "licence": entry.licence or NONE_STATED,
        "size": entry.size and spell_bytes(entry.size),
        "rows": entry.rows and f"{entry.rows:,}",
        "tokens": entry.tokens and spell(entry.tokens),
        "language": ", ".join(entry.language),
    }
    for field, fact in facts.items():
        if fact:
            yield field, f"{fact} (recalled or reckoned, not seen)" if field in entry.unsure else fact
    for warning in minded(entry):
        yield "mind", warning
