"""The `data` section: where text comes from and how it is split."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from buddygpt.recipe.base import Count, FieldError, Number, Section

Share = Annotated[Number, Field(ge=0, le=1)]


class Source(Section):
    """What all sources have in common."""

    name: str | None = None
    """Name in reports; made from the paths, the id or the kind where left out."""
    weight: Annotated[Number, Field(gt=0)] = 1.0
    """Share of the training tokens, relative to the other sources' weights."""
    validation: Share | None = None
    """Share of this source's documents that is held out; 1 holds all of it out. `data.validation` where left out."""


class Rows(Source):
    """What sources of rows have in common."""

    columns: Annotated[list[str], Field(min_length=1)] | None = None
    """Text columns, joined by a line break; found by name (text, content, ...) where left out."""
    min_score: Number | None = None
    """Rows whose `score` column is lower, or not a number, are dropped and counted."""


class FilesSource(Rows):
    """Files on this machine: .jsonl .json .parquet .txt .md, also .gz or .zst; folders and globs."""

    kind: Literal["files"]
    """Local files."""
    paths: Annotated[list[str], Field(min_length=1)]
    """Files, folders (read recursively) or globs, relative to the working directory."""


class HubSource(Rows):
    """Files of a data set on the Hugging Face hub."""

    kind: Literal["hub"]
    """A data set on the hub."""
    id: str
    """Repository, `owner/name`."""
    files: Annotated[list[str], Field(min_length=1)]
    """Globs of the files to read."""
    exclude: list[str] = []
    """Globs of files to leave out."""
    revision: str = "main"
    """Branch, tag or commit."""
    size: Annotated[Count, Field(gt=0)] | None = None
    """Bytes that the files take; told before a download and when the hub cannot be reached."""


class DemoSource(Source):
    """The built-in demo corpus: a small Chinese world made by a deterministic generator."""

    kind: Literal["demo"]
    """Built in, no network."""
    characters: Annotated[Count, Field(ge=1000)] = 2_500_000
    """How much prose to make."""
    seed: Annotated[Count, Field(ge=0)] = 0
    """Which world."""


AnySource = Annotated[FilesSource | HubSource | DemoSource, Field(discriminator="kind")]


class DataSection(Section):
    """Text for pretraining."""

    sources: Annotated[list[AnySource], Field(min_length=1)]
    """What is read, in this order; the first copy of a duplicated text is the one that stays."""
    validation: Share = 0.01
    """Share of the documents that is held out, chosen by a hash of the text."""
    workers: Annotated[Count, Field(gt=0)] | None = None
    """Processes that prepare data; one for each processor where left out. Changes nothing in the result."""

    @model_validator(mode="after")
    def _trains(self) -> DataSection:
        shares = [self.validation if s.validation is None else s.validation for s in self.sources]
        if all(share == 1 for share in shares):
            raise FieldError("sources", "every source is held out for validation; nothing is left to train on")
        if not any(shares):
            raise FieldError("validation", "nothing is held out; give a share such as 0.01")
        names = [source_name(s) for s in self.sources]
        for i, name in enumerate(names):
            if name in names[:i]:
                raise FieldError(f"sources.{i}", f"a second source called '{name}'; give each its own `name`")
        return self


def source_name(source: FilesSource | HubSource | DemoSource) -> str:
    """The source's name in folders and reports."""
    if source.name:
        name = source.name
    elif isinstance(source, FilesSource):
        name = source.paths[0].rstrip("/").rsplit("/", 1)[-1].split(".", 1)[0].replace("*", "") or "files"
    elif isinstance(source, HubSource):
        name = source.id.rsplit("/", 1)[-1]
    else:
        name = "demo"
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in name)
