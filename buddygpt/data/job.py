"""What is to be prepared: the sources found, the tokenizer, and the key that both make."""

from __future__ import annotations

import importlib.metadata
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xxhash

from buddygpt.data.fingerprints import FileIndex
from buddygpt.data.paths import find_files
from buddygpt.data.prepared import FORMAT
from buddygpt.data.sources import Source, find_sources
from buddygpt.data.template import template_hash
from buddygpt.data.tokenizer import largest_id, load_tokenizer, tokenizer_hash
from buddygpt.data.vocabulary import SAMPLE_BYTES, check_tokenizer
from buddygpt.events import Emit
from buddygpt.recipe.base import spell_bytes
from buddygpt.recipe.data import DataSection, FilesSource
from buddygpt.recipe.errors import BrokenOff, BuddyError
from buddygpt.recipe.runs import free_bytes
from buddygpt.recipe.schema import Chapter, Recipe, where_data

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_EXPANSION = {".gz": 4.0, ".zst": 4.0, ".parquet": 2.5}
"""Bytes of text in a byte of a compressed file, roughly."""


@dataclass(frozen=True)
class Job:
    """All that decides the result.

    Args:
        recipe: as given.
        data: the section that tells what is prepared.
        sources: found, their files known by content.
        base: the tokenizer, where the recipe names one; the whole of it, where some of it is to be kept.
        entries: of a tokenizer that is still to be trained, or cut down; None for one that is taken as it is.
        covers: what the key is the hash of.
        cache: the folder of all prepared data.
        guarded: files of the evaluation sets that must not be trained on.
    """

    recipe: Recipe
    data: DataSection
    sources: list[Source]
    base: PreTrainedTokenizerBase | None
    entries: int | None
    covers: dict[str, Any]
    cache: Path
    guarded: list[Path]

    @cached_property
    def key(self) -> str:
        """16 hex digits."""
        return xxhash.xxh3_64_hexdigest(json.dumps(self.covers, sort_keys=True).encode())

    @property
    def path(self) -> Path:
        """The prepared folder."""
        return self.cache / self.key

    @property
    def work(self) -> Path:
        """Intermediate files, gone when all is done."""
        return self.path / "work"


def plan_job(
    recipe: Recipe,
    cache: Path,
    emit: Emit,
    *,
    remember: bool = True,
    stage: Chapter = "pretrain",
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> Job:
    """Find the sources and the tokenizer of a recipe.

    Args:
        recipe: with the stage's `data`.
        cache: the folder of all prepared data.
        emit: who is told.
        remember: keep hashes of files and answers of the hub in the cache.
        stage: what the text is for.
        tokenizer: of the model that is tuned; None in pretraining, where the recipe tells.

    Raises:
        BuddyError: a source or the tokenizer cannot be found, or its vocabulary is larger than the model's.
    """
    data = recipe.rows(stage)
    if data is None:
        raise BuddyError(f"{recipe.name}: the recipe has no `{'data' if stage == 'pretrain' else stage}` section")
    sources = find_sources(data, recipe.hub, cache, emit, remember=remember, stage=stage)
    base, entries = tokenizer, None
    if base is None:
        base = load_tokenizer(recipe.tokenizer.base, hubs=recipe.hub) if recipe.tokenizer.base else None
        entries = recipe.tokenizer.entries
    if base is not None:
        told: dict[str, Any] = {"hash": tokenizer_hash(base), "end": base.eos_token_id}
        told["template"] = base.chat_template  # saved with the shards, so a changed one is another result
        if entries is not None:
            told |= {"keep": entries, "sample_bytes": SAMPLE_BYTES}
        elif tokenizer is None:
            check_tokenizer(recipe, base)
    else:
        told = {
            "train": entries,
            "sample_bytes": SAMPLE_BYTES,
            "trainer": importlib.metadata.version("tokenizers"),
        }
    covers = {"format": FORMAT, "tokenizer": told, "sources": [_deciding(source) for source in sources]}
    guarded: list[Path] = []
    for name, section in (("clean", data.clean), ("near_duplicates", data.near_duplicates)):
        if section is not None:
            covers[name] = section.model_dump(mode="json")
    if data.decontaminate is not None:
        files = _guarded_files(data.decontaminate.paths, cache, emit, remember, where_data(stage))
        covers["decontaminate"] = {"ngram": data.decontaminate.ngram, "files": list(files.values())}
        guarded = list(files)
    if any(source.render != "text" for source in sources):
        covers["template"] = template_hash()
    return Job(recipe, data, sources, base, entries, covers, cache, guarded)


def _guarded_files(paths: list[str], cache: Path, emit: Emit, remember: bool, where: str) -> dict[Path, str]:
    """Files of evaluation sets, each with its content's hash."""
    try:
        files = [path.absolute() for path in find_files(FilesSource(kind="files", paths=paths))]
    except BuddyError as error:
        raise BuddyError(f"{where}.decontaminate: {line}" for line in error.lines) from None
    index = FileIndex(cache / "files.json")
    index.learn(files, emit, remember=remember)
    return {path: index.describe(path)[1] for path in files}


def _deciding(source: Source) -> dict[str, Any]:
    """What of a source decides the tokens; its weight, for one, does not."""
    return {
        "name": source.name,
        "share": source.share,
        "map": source.map,
        "render": source.render,
        "min_score": source.min_score,
        "stream": source.stream,  # its large files are not read in parts, so shards are others
        "files": [(file.name, file.size, file.content) for file in source.files],
    }


def check_space(job: Job) -> None:
    """See that intermediate and token files will fit.

    Raises:
        BrokenOff: they will not; names both figures.
    """
    text, need, free = *_needed(job), free_bytes(job.path)
    if free < need:
        raise BrokenOff(
            f"{job.path}: about {spell_bytes(need)} are needed to prepare {spell_bytes(text)} of text, "
            f"{spell_bytes(free)} are free; free some, or choose a run folder on a larger disk with --run"
        )


def disk_full(job: Job) -> BrokenOff:
    """What is told when the disk is full in the midst of the work."""
    return BrokenOff(
        f"{job.path}: no space left; about {spell_bytes(_needed(job)[1])} more are needed, "
        f"{spell_bytes(free_bytes(job.path))} are free; free some and start again to go on from here"
    )


def _needed(job: Job) -> tuple[float, float]:
    """Bytes of text that the sources hold, and of files still to be written, by a rough guess."""
    text = sum(
        file.size * (3 if file.demo else _EXPANSION.get(Path(file.name).suffix.lower(), 1))
        for source in job.sources
        for file in source.files
    )
    bytes_per_token = 3 if job.base is not None else 2
    entries = job.entries or (largest_id(job.base) + 1 if job.base is not None else 0)
    width = 4 if entries > 2**16 else 2
    done = sum(path.stat().st_size for path in job.path.rglob("*") if path.is_file())
    return text, max(0.0, text * (0.5 + width / bytes_per_token) - done)  # texts, compressed; tokens
