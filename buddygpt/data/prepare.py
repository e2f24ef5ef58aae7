"""From a recipe's sources to token files: read and clean -> find duplicates -> split -> tokenise -> manifest.

The result is a function of the files' content, the tokenizer and the options named in the key: not of workers, and not
of how often the work was broken off and taken up again.
"""

from __future__ import annotations

import fcntl
import importlib.metadata
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datatrove.pipeline.base import PipelineStep

from buddygpt.data.accounts import account, sample_pairs
from buddygpt.data.clean import Cleaner
from buddygpt.data.contamination import Contamination
from buddygpt.data.duplicates import MatchStep, count_parts, settle_duplicates
from buddygpt.data.executor import execute
from buddygpt.data.fates import write_fates
from buddygpt.data.items import read_items
from buddygpt.data.job import Job, check_space, disk_full, plan_job
from buddygpt.data.minhash import MinHash
from buddygpt.data.prepared import FORMAT, Prepared, read_prepared
from buddygpt.data.shards import TokeniseStep
from buddygpt.data.sources import check_unchanged, find_sources
from buddygpt.data.staging import ReadStep, Staged, make_batches
from buddygpt.data.tokenizer import DocumentEncoder
from buddygpt.data.units import fetch_sources, open_sources
from buddygpt.data.vocabulary import settle_tokenizer
from buddygpt.events import Emit, Note, Progress, Table, silent
from buddygpt.recipe.errors import BrokenOff, BuddyError, is_disk_full
from buddygpt.recipe.runs import write_atomically
from buddygpt.recipe.schema import Chapter, Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["Prepared", "find_prepared", "prepare", "verify"]


def prepare(
    recipe: Recipe,
    cache: Path,
    emit: Emit,
    *,
    stage: Chapter = "pretrain",
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> Prepared:
    """Prepare the recipe's text below `cache/KEY/`, or find it prepared. What was broken off goes on.

    Args:
        recipe: with the stage's `data`.
        cache: folder shared by runs; made where it is missing.
        emit: who is told.
        stage: what the text is for.
        tokenizer: of the model that is tuned; None in pretraining.

    Raises:
        BuddyError: a source, the tokenizer or the disk; one line for each fault.
    """
    try:
        job = plan_job(recipe, cache, emit, stage=stage, tokenizer=tokenizer)
        if (found := read_prepared(job.path)) is not None and not job.work.exists():
            return found
        check_space(job)
        job.path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BuddyError(f"{error.filename or cache}: cannot be written: {error.strerror or error}") from error
    lock = cache / f"{job.key}.lock"
    try:
        with _locked(lock, emit):
            found = read_prepared(job.path) or _prepare(job, emit)
            shutil.rmtree(job.work, ignore_errors=True)
            return found
    except BrokenOff:
        raise
    except BuddyError:  # once the input is mended, it is prepared under another key
        shutil.rmtree(job.path, ignore_errors=True)
        lock.unlink(missing_ok=True)
        raise
    except OSError as error:
        if is_disk_full(error):
            raise disk_full(job) from error
        raise BuddyError(f"{error.filename or cache}: cannot be written: {error.strerror or error}") from error


def find_prepared(
    recipe: Recipe, cache: Path, *, stage: Chapter = "pretrain", tokenizer: PreTrainedTokenizerBase | None = None
) -> Prepared | None:
    """The recipe's text if it is prepared; writes nothing.

    Raises:
        BuddyError: a source or the tokenizer cannot be found.
    """
    return read_prepared(plan_job(recipe, cache, silent, remember=False, stage=stage, tokenizer=tokenizer).path)


def verify(prepared: Prepared, recipe: Recipe, stage: Chapter = "pretrain") -> list[str]:
    """Damaged files of prepared data, and source files that changed, appeared or vanished since; one line each."""
    data = recipe.rows(stage)
    assert data is not None
    faults = prepared.check()
    try:
        sources = find_sources(data, recipe.hub, prepared.path.parent, silent, remember=False, stage=stage)
    except BuddyError as error:
        return faults + list(error.lines)
    now = {(s.name, f.name): f.content for s in sources for f in s.files}
    then = {(n, f["name"]): f["content"] for n, s in prepared.manifest["sources"].items() for f in s["files"]}
    for key in dict.fromkeys((*then, *now)):
        if then.get(key) != now.get(key):
            state = "new" if key not in then else "gone" if key not in now else "changed"
            faults.append(f"{key[0]}: {key[1]}: {state} since the data were prepared; prepare again with `buddy data`")
    return faults


def _prepare(job: Job, emit: Emit) -> Prepared:
    data = job.data
    for end in ("", ".index", ".labels"):
        for stale in list(job.path.rglob(f"*.tmp{end}")):  # of a run that was killed
            stale.unlink()
    sources = open_sources(fetch_sources(job.sources, job.recipe.hub, emit))
    batches = make_batches(sources)
    staged, fates, logs = Staged(job.work / "staged"), job.work / "fates", job.path / "logs"

    def run(step: PipelineStep, tasks: int, name: str, workers: int | None = None) -> None:
        workers = workers or data.workers or os.cpu_count() or 1
        told = lambda done: emit(Progress(f"prepare: {name}", done, tasks, "parts"))  # noqa: E731
        execute(data, [step], tasks, workers, logs / name, told)

    minhash = None
    if near := data.near_duplicates:
        minhash = MinHash(near.threshold, near.ngram, near.min_ngrams)
        emit(Note(f"near duplicates: {minhash.describe()}"))
    guard, guarded = _guard(job, emit)
    cleaner = Cleaner(data.clean) if data.clean else None
    run(ReadStep(batches, staged.folder, job.recipe.hub, cleaner, minhash, guard), len(batches), "read")
    check_unchanged(sources)

    starts = staged.starts(len(batches))
    tables = 1 + (minhash.bands if minhash else 0)
    parts = count_parts(starts[-1])
    match = MatchStep(staged, starts, tables, parts, job.work / "matches")
    run(match, match.tasks, "match", workers=1 if parts == 1 else None)  # too little to start processes for
    duplicates = settle_duplicates(match)
    write_fates(sources, batches, staged, duplicates, fates)

    tokenizer, facts = settle_tokenizer(job, batches, staged, fates)
    encoder = DocumentEncoder(tokenizer)
    run(TokeniseStep(batches, staged, fates, job.path, encoder, facts["dtype"], facts["end"]), len(batches), "tokenise")

    accounts = {source.name: account(source, batches, staged, fates) for source in sources}
    samples = {name: own for name, (_, own) in accounts.items()}
    pairs = sample_pairs(duplicates, batches, staged, starts)
    told = json.dumps({"sources": samples, "near_duplicates": pairs}, ensure_ascii=False, indent=1)
    write_atomically(job.path / "samples.json", told.encode("utf-8", "backslashreplace").decode())
    manifest = {
        "format": FORMAT,
        "key": job.key,
        "covers": job.covers,
        "tokenizer": facts,
        "decontaminate": guarded,
        "near_duplicates": minhash and vars(minhash) | {"told": minhash.describe()},
        "sources": {name: counts for name, (counts, _) in accounts.items()},
        "versions": {name: importlib.metadata.version(name) for name in ("buddygpt", "datatrove", "tokenizers")},
    }
    write_atomically(job.path / "manifest.json", json.dumps(manifest, ensure_ascii=False, indent=1))
    prepared = read_prepared(job.path)
    assert prepared is not None
    return prepared


def _guard(job: Job, emit: Emit) -> tuple[Path, dict[str, Any]] | tuple[None, None]:
    """The pieces of evaluation sets that must not be trained on, in a file for all tasks; and how many there are."""
    data = job.data
    if data.decontaminate is None:
        return None, None
    path = job.work / "guard.npz"
    contamination = Contamination.build(read_items(job.guarded), data.decontaminate.ngram)
    rows = tuple((guard.name, f"{guard.items:,}", f"{guard.guarded:,}") for guard in contamination.guards)
    emit(Table("evaluation sets kept out", ("set", "items", "long enough to be found"), rows))
    job.work.mkdir(parents=True, exist_ok=True)
    contamination.save(path)
    sets = {guard.name: {"items": guard.items, "guarded": guard.guarded} for guard in contamination.guards}
    return path, {"ngram": contamination.ngram, "sets": sets}


@contextmanager
def _locked(path: Path, emit: Emit) -> Iterator[None]:
    """Hold a lock that ends with this process; a second process waits."""
    with path.open("a") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            emit(Note(f"{path.stem}: another process prepares the same data; waiting for it"))
            fcntl.lockf(file, fcntl.LOCK_EX)
        yield
