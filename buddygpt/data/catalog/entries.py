"""The entries of the catalog, read from the YAML files beside this one when they are asked for."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import Field

from buddygpt.recipe.base import Count, Number, Positive, Section
from buddygpt.recipe.data import CatalogSource, HubSource, Mapping, source_name
from buddygpt.recipe.errors import BuddyError, did_you_mean

Kind = Literal["pretrain", "sft", "dpo"]
Shape = Literal["text", "instruction", "prompt-response", "conversation", "preference", "answers"]
Globs = Annotated[list[str], Field(min_length=1)]


class Part(Section):
    """A part of a data set, asked for as `NAME/PART`."""

    files: Globs
    """Globs of its files."""
    rows: Count | None = None
    """How many."""


class Entry(Section):
    """A data set. What is not known is left out."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]+([.-][a-z0-9]+)*(/.+)?$")]
    """What recipes and commands call it."""
    kind: Kind
    """What it is for."""
    about: str
    """What it holds, in one line."""
    huggingface: str
    """Repository on Hugging Face, `owner/name`."""
    modelscope: str | None = None
    """The same files' repository on ModelScope."""
    files: Globs
    """Globs of the files to read, on either hub; `*` crosses folders."""
    exclude: list[str] = []
    """Globs of files to leave out, also where a recipe gives its own `files`."""
    config: str | None = None
    """What the hub's loader calls this choice of files."""
    split: str | None = None
    """What the hub's loader calls these rows."""
    shape: Shape
    """What a row looks like; a hint, the columns decide."""
    map: Mapping | None = None
    """Columns by what they hold, where their names do not tell."""
    min_score: Number | None = None
    """Rows with a lower score are dropped, unless a recipe says otherwise."""
    licence: str | None
    """As stated; None where none is."""
    size: Positive | None = None
    """Bytes of `files`."""
    rows: Positive | None = None
    """Rows of `files`."""
    tokens: Positive | None = None
    """Tokens of `files`, as others have counted them."""
    language: Annotated[list[Literal["zh", "en"]], Field(min_length=1)]
    """The most of it first."""
    gated: bool = False
    """Whether its terms must be accepted on its page before a download."""
    parts: dict[str, Part] = {}
    """Other choices of files; `find` takes `NAME/PART`."""
    warnings: list[str] = []
    """What to mind."""
    unsure: list[str] = []
    """Fields above that were recalled or reckoned, not seen on a hub's page."""


def entries(kind: Kind | None = None) -> tuple[Entry, ...]:
    """All entries, or those of one kind, in the order of the files."""
    kinds: tuple[Kind, ...] = (kind,) if kind else get_args(Kind)
    return tuple(entry for each in kinds for entry in _load(each).values())


def find(name: str) -> Entry:
    """The data set of this name; for `NAME/PART` with that part's files.

    Raises:
        BuddyError: there is none; names the nearest.
    """
    stem, _, part = name.partition("/")
    entry = next((_load(kind)[stem] for kind in get_args(Kind) if stem in _load(kind)), None)
    if entry is None:
        near = did_you_mean(stem, [e.name for e in entries()])
        raise BuddyError(f"{name}: no data set of this name{near}; `buddy data list` shows them all")
    if not part:
        return entry
    if part not in entry.parts:
        parts = ", ".join(entry.parts) or "none"
        raise BuddyError(f"{name}: {stem} has no such part{did_you_mean(part, entry.parts)}; its parts: {parts}")
    chosen = entry.parts[part]
    whole = {"size": None, "rows": chosen.rows, "tokens": None, "config": part if entry.config else None, "parts": {}}
    return entry.model_copy(update={"name": name, "files": chosen.files} | whole)


def as_hub(entry: Entry, source: CatalogSource) -> HubSource:
    """A recipe's source as one of the hub's: what the recipe says goes before what the entry says.

    The entry's exclusions stay with a recipe's own `files`; its size, which is that of its own files, does not.
    """
    own = source.model_dump(include={"weight", "validation", "render", "stream"})
    return HubSource(
        kind="hub",
        name=source_name(source),
        id=entry.huggingface,
        modelscope=entry.modelscope,
        files=source.files or entry.files,
        exclude=entry.exclude,
        size=None if source.files else entry.size,
        map=source.map or entry.map,
        min_score=entry.min_score if source.min_score is None else source.min_score,
        **own,
    )


@cache
def _load(kind: Kind) -> dict[str, Entry]:
    from ruamel.yaml import YAML

    text = Path(__file__).with_name(f"{kind}.yaml").read_text("utf-8")
    loaded = [Entry.model_validate(data) for data in YAML(typ="safe", pure=True).load(text)]
    return {entry.name: entry for entry in loaded}
