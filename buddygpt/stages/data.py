"""Preparing a recipe's text, and telling what became of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from buddygpt.data.prepare import find_prepared, prepare
from buddygpt.data.prepare import verify as changes_since
from buddygpt.data.prepared import Prepared, read_prepared
from buddygpt.data.sources import find_sources
from buddygpt.data.staging import CONTAMINATED
from buddygpt.data.tokenizer import is_hub_id
from buddygpt.data.units import fetch_sources
from buddygpt.events import Emit, Note, Table, Text
from buddygpt.hub.bundling import make_bundle
from buddygpt.hub.tokenizers import tokenizer_folder
from buddygpt.recipe.base import spell_bytes
from buddygpt.recipe.data import source_name
from buddygpt.recipe.errors import BuddyError
from buddygpt.recipe.runs import Run
from buddygpt.recipe.schema import Chapter, Recipe
from buddygpt.report.cleaning import DataReport, Drop, Pair, Sample, SourceReport, Stage, write_data_report

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SECTIONS = ("tokenizer", "data")
"""Sections of a recipe that decide what is prepared."""


def run(recipe: Recipe, run: Run, *, cache: Path, stage: Chapter, emit: Emit) -> Prepared:
    """Tokenise and pack; report documents and bytes in, what was dropped and why, tokens out, a decoded sample each.

    Raises:
        BuddyError: something the user can mend; nothing half-done counts as prepared.
    """
    tokenizer = _tokenizer(recipe, run, stage)
    prepared = prepare(recipe, cache, emit, stage=stage, tokenizer=tokenizer)
    run.link_data(prepared.path, stage)
    report(prepared, emit)
    return prepared


def fetch(recipe: Recipe, *, cache: Path, to: Path | None, emit: Emit) -> None:
    """Download what the recipe takes from hubs: into the caches, or into a bundle for a machine without network.

    Raises:
        BuddyError: something cannot be had, or the disk is full; what has come stays.
    """
    sections = {stage: data for stage in get_args(Chapter) if (data := recipe.rows(stage)) is not None}
    if not sections:
        recipe.require("data fetch", "data")
    hubs = recipe.hub.model_copy(update={"bundle": ""}) if to else recipe.hub
    sources = [
        source for stage, data in sections.items() for source in find_sources(data, hubs, cache, emit, stage=stage)
    ]
    base = recipe.tokenizer.base
    if to:
        answers = [source.answer for source in sources if source.answer]
        make_bundle(answers, to, hubs, emit, tokenizers=[base] if base and is_hub_id(base) else [])
        return
    fetched = fetch_sources(sources, hubs, emit)
    if base and is_hub_id(base):
        tokenizer_folder(base, hubs)
    files = [file.path for source in fetched if source.answer for file in source.files if file.path]
    emit(Note(f"fetched: {len(files):,} files, {spell_bytes(sum(path.stat().st_size for path in files))}"))


def report(prepared: Prepared, emit: Emit) -> None:
    """Tell what lies in a prepared folder."""
    sources = prepared.manifest["sources"]
    emit(
        Table(
            "read",
            ("source", "files", "bytes", "rows", "dropped"),
            tuple(_read_row(name, source) for name, source in sources.items()),
        )
    )
    drops = tuple(row for name, source in sources.items() for row in _drop_rows(name, source))
    if drops:
        emit(Table("dropped", ("source", "reason", "rows", "the first at"), drops))
    edits = tuple((name, edit, f"{n:,}") for name, source in sources.items() for edit, n in source["edits"].items())
    if edits:
        emit(Table("changed and kept", ("source", "what was done", "documents"), edits))
    packed = tuple(row for name, source in sources.items() for row in _packed_rows(name, source))
    emit(Table("packed", ("source", "split", "documents", "tokens", "of them learned", "bytes a token"), packed))
    for name in sources:
        emit(Text(f"{name}: decoded from its tokens", prepared.sample(name)))
    tokenizer = prepared.manifest["tokenizer"]
    emit(
        Note(f"tokenizer: {tokenizer['name']}, {tokenizer['entries']:,} entries, tokens stored as {tokenizer['dtype']}")
    )
    emit(Note(f"prepared: {prepared.path}"))


def write_page(recipe: Recipe, run: Run, *, cache: Path, stage: Chapter, emit: Emit) -> Path:
    """Tell what became of the recipe's text, and write it down as one HTML page with samples of what was removed.

    Raises:
        BuddyError: nothing is prepared for this recipe, or the page cannot be written.
    """
    tokenizer, page = _tokenizer(recipe, run, stage), run.data_report(stage)
    prepared = _known(recipe, cache, find_prepared(recipe, cache, stage=stage, tokenizer=tokenizer))
    report(prepared, emit)
    try:
        write_data_report(page, _page(recipe, prepared, stage))
    except OSError as error:
        raise BuddyError(f"{page}: cannot be written: {error.strerror}") from None
    emit(Note(f"page: {page}"))
    return page


def verify(recipe: Recipe, run: Run, *, cache: Path, stage: Chapter, emit: Emit) -> list[str]:
    """Compare the shards with their checksums and the sources with what was read.

    Returns:
        What differs, a line each.

    Raises:
        BuddyError: nothing is prepared for this recipe.
    """
    tokenizer = _tokenizer(recipe, run, stage)
    own = read_prepared(run.data(stage))  # which knows what has changed since
    prepared = _known(recipe, cache, own or find_prepared(recipe, cache, stage=stage, tokenizer=tokenizer))
    faults = changes_since(prepared, recipe, stage)
    if not faults:
        shards = sum(
            len(s["shards"]) for source in prepared.manifest["sources"].values() for s in source["splits"].values()
        )
        emit(Note(f"ok: {shards} shard(s) are as they were written, no source has changed; {prepared.path}"))
    return faults


def _tokenizer(recipe: Recipe, run: Run, stage: Chapter) -> PreTrainedTokenizerBase | None:
    """That of the model that is tuned; None in pretraining, where the recipe tells.

    Raises:
        BuddyError: the recipe has no data for the stage, the run is another recipe's, or there is no model yet.
    """
    if stage == "pretrain":
        recipe.require("data", "data")
        run.check(recipe, *SECTIONS)
        return None
    recipe.require(f"data --stage {stage}", stage)
    from buddygpt.training.base import find_base  # torch, which pretraining's text needs not

    section = recipe.sft if stage == "sft" else recipe.dpo
    assert section is not None
    return find_base(section, run, stage).tokenizer


def _known(recipe: Recipe, cache: Path, prepared: Prepared | None) -> Prepared:
    if prepared is None:
        raise BuddyError(f"{recipe.name}: nothing is prepared below {cache}; run `buddy data` with this recipe first")
    return prepared


def _page(recipe: Recipe, prepared: Prepared, stage: Chapter) -> DataReport:
    """The prepared folder as the page shows it."""
    samples = prepared.samples()
    sources = prepared.manifest["sources"]
    leaks = {
        reason.removeprefix(CONTAMINATED).strip(): sum(
            source["dropped"].get(reason, {"count": 0})["count"] for source in sources.values()
        )
        for reason in dict.fromkeys(r for source in sources.values() for r in source["dropped"])
        if reason.startswith(CONTAMINATED)
    }
    return DataReport(
        recipe.name,
        [_source_report(recipe, name, source, stage) for name, source in sources.items()],
        [
            Sample(name, reason, taken.place, taken.text, taken.detail, taken.after)
            for name, own in samples.items()
            for reason, all_taken in own.taken.items()
            for taken in all_taken
        ],
        [Pair(pair["kept"][1], pair["removed"][1], pair["removed"][0]) for pair in prepared.pairs()],
        leaks,
    )


def _source_report(recipe: Recipe, name: str, source: dict[str, Any], stage: Chapter) -> SourceReport:
    rows, cleaned, splits = source["documents_in"], source["cleaned"], source["splits"]
    origin = [(label, str(value)) for label, value in source["origin"].items() if isinstance(value, str)]
    tokens = splits["train"]["tokens"]
    return SourceReport(
        name,
        [("kind", source["kind"]), *origin, ("files", f"{len(source['files']):,}")],
        [
            Stage("read", rows, source["text_bytes_in"]),
            Stage("cleaned", cleaned["documents"], cleaned["bytes"]),
            Stage("without duplicates", source["documents_out"], sum(split["bytes"] for split in splits.values())),
        ],
        [
            Drop(reason, drop["count"], drop["count"] / rows, drop["first"])
            for reason, drop in source["dropped"].items()
        ],
        source["edits"],
        tokens=tokens,
        epochs=_epochs(recipe, name, tokens) if stage == "pretrain" else None,
    )


def _epochs(recipe: Recipe, name: str, tokens: int) -> float | None:
    """How often training reads a source; None where the recipe has no training, or nothing of it is trained on."""
    if recipe.pretrain is None or recipe.data is None or not tokens:
        return None
    trained = [s for s in recipe.data.sources if s.validation != 1]
    (weight,) = (s.relative_weight for s in trained if source_name(s) == name)
    return recipe.pretrain.tokens * weight / sum(s.relative_weight for s in trained) / tokens


def _read_row(name: str, source: dict[str, Any]) -> tuple[str, ...]:
    files = f"{len(source['files']):,}"
    if source["files_skipped"]:
        files += f" (+ {source['files_skipped']:,} of other kinds)"
    dropped = source["documents_in"] - source["documents_out"]
    return name, files, f"{source['bytes_in']:,}", f"{source['documents_in']:,}", f"{dropped:,}"


def _drop_rows(name: str, source: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for reason, drop in source["dropped"].items():
        yield name, reason, f"{drop['count']:,}", drop["first"]


def _packed_rows(name: str, source: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for split, counts in source["splits"].items():
        if counts["documents"]:
            yield (
                name, split, f"{counts['documents']:,}", f"{counts['tokens']:,}",
                f"{counts['learned']:,}" if counts.get("learned") else "", f"{counts['bytes_per_token']:.2f}",
            )  # fmt: skip
