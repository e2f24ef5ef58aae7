"""The `data` section: where text comes from, what is left out of it, and how it is split."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from buddygpt.recipe.base import Count, FieldError, Number, Positive, PositiveNumber, Section, Share
from buddygpt.recipe.clean import CleanSection, Decontaminate, NearDuplicates
from buddygpt.recipe.executor import AnyExecutor, LocalExecutor


class Source(Section):
    """What all sources have in common."""

    name: str | None = None
    """Name in reports; made from the paths, the id or the kind where left out."""
    weight: PositiveNumber | None = None
    """Share of the training tokens, relative to the other sources' weights; 1 where left out. In `sft` and `dpo`, where
    no source has one, their sizes decide."""
    validation: Share | None = None
    """Share of this source's documents that is held out; 1 holds all of it out. `data.validation` where left out."""

    @property
    def relative_weight(self) -> float:
        """The weight, 1 where none is given."""
        return 1.0 if self.weight is None else self.weight


Meaning = Literal[
    "text", "prompt", "input", "response", "reasoning", "system", "tools", "messages", "chosen", "rejected", "score"
]
"""What a column may hold."""
Mapping = Annotated[dict[Meaning, str | list[str]], Field(min_length=1)]


class Rows(Source):
    """What sources of rows have in common."""

    map: Mapping | None = None
    """Columns by what they hold, e.g. `{text: body}` or `{prompt: question, response: answer}`; several for one are
    joined by a line break; found by their names and values where left out."""
    render: Literal["text", "chat"] = "text"
    """How a row of instructions becomes one document: prompt, line break, response; or through the chat template."""
    min_score: Number | None = None
    """Rows whose score is lower, or not a number, are dropped and counted."""


class FilesSource(Rows):
    """Files on this machine: .jsonl .json .csv .tsv .parquet .txt .md, all but .parquet also as .gz or .zst.

    Archives of them (.zip .tar .tar.gz .tar.zst), folders and globs, too.
    """

    kind: Literal["files"]
    """Local files."""
    paths: Annotated[list[str], Field(min_length=1)]
    """Files, folders (read recursively) or globs, relative to the working directory."""


class HubRows(Rows):
    """What sources from a hub have in common."""

    stream: bool = False
    """Fetch each file when its turn comes and remove it when it is read: no full copy lies on this machine."""


class HubSource(HubRows):
    """Files of a data set on a hub."""

    kind: Literal["hub"]
    """A data set on a hub."""
    id: str
    """Repository on Hugging Face, `owner/name`."""
    modelscope: str | None = None
    """The same data set's repository on ModelScope, `owner/name`; it is not looked for there where left out."""
    files: Annotated[list[str], Field(min_length=1)]
    """Globs of the files to read."""
    exclude: list[str] = []
    """Globs of files to leave out."""
    revision: str = "main"
    """Branch, tag or commit on Hugging Face; ModelScope's is its default branch."""
    size: Positive | None = None
    """Bytes that the files take; told before a download and when the hub cannot be reached."""


class CatalogSource(HubRows):
    """A data set that buddygpt knows; `buddy data list` shows them all."""

    kind: Literal["catalog"]
    """A data set by its short name."""
    dataset: str
    """Its name in `buddy data list`."""
    files: Annotated[list[str], Field(min_length=1)] | None = None
    """Globs of the files to read, where not those of the catalog."""


class DemoSource(Source):
    """The built-in demo corpus: a small Chinese world made by a deterministic generator."""

    kind: Literal["demo"]
    """Built in, no network."""
    characters: Annotated[Count, Field(ge=1000)] = 2_500_000
    """How much prose to make."""
    seed: Annotated[Count, Field(ge=0)] = 0
    """Which world."""


AnySource = Annotated[FilesSource | HubSource | CatalogSource | DemoSource, Field(discriminator="kind")]


class DataSection(Section):
    """What is trained on: text in pretraining, rows of talks or pairs in `sft` and `dpo`."""

    sources: Annotated[list[AnySource], Field(min_length=1)]
    """What is read, in this order; the first copy of a duplicated text is the one that stays."""
    validation: Share = 0.01
    """Share of the documents that is held out, chosen by a hash of the text."""
    clean: CleanSection | None = None
    """Filters of quality, `{}` for the defaults; none where left out."""
    near_duplicates: NearDuplicates | None = None
    """Removal of near duplicates, `{}` for the defaults; only exact ones where left out."""
    decontaminate: Decontaminate | None = None
    """Evaluation sets that must not be trained on."""
    executor: AnyExecutor = LocalExecutor(kind="local")
    """On which machines text is prepared. Changes nothing in the result."""
    workers: Positive | None = None
    """Tasks at the same time; one for each processor of this machine where left out. Changes nothing in the result."""

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


def source_name(source: FilesSource | HubSource | CatalogSource | DemoSource) -> str:
    """The source's name in folders and reports."""
    if source.name:
        name = source.name
    elif isinstance(source, FilesSource):
        name = source.paths[0].rstrip("/").rsplit("/", 1)[-1].split(".", 1)[0].replace("*", "") or "files"
    elif isinstance(source, CatalogSource):
        name = source.dataset
    elif isinstance(source, HubSource):
        name = source.id.rsplit("/", 1)[-1]
    else:
        name = "demo"
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in name)
