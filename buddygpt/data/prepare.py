"""From a recipe's sources to token files: read -> clean -> remove duplicates -> split -> tokenise -> manifest.

The result is a function of the files' content, the tokenizer and the options named in the key: not of workers, and not
of how often the work was broken off and taken up again.
"""

from __future__ import annotations

import fcntl
import importlib.metadata
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from buddygpt.data.accounts import account
from buddygpt.data.dedup import TRAIN, Held, decide
from buddygpt.data.executor import Executor
from buddygpt.data.job import Job, check_space, plan_job
from buddygpt.data.prepared import FORMAT, Prepared, read_prepared
from buddygpt.data.shards import TokeniseStep
from buddygpt.data.sources import Source, check_unchanged, fetch_sources, find_sources
from buddygpt.data.staging import Batch, ReadStep, Staged, make_batches, whole_file
from buddygpt.data.tokenizer import DocumentEncoder
from buddygpt.data.vocabulary import settle_tokenizer
from buddygpt.events import Emit, Note, Progress, silent
from buddygpt.recipe.errors import BrokenOff, BuddyError, is_disk_full
from buddygpt.recipe.runs import write_atomically
from buddygpt.recipe.schema import Recipe

__all__ = ["Prepared", "find_prepared", "prepare", "verify"]


def prepare(recipe: Recipe, cache: Path, emit: Emit) -> Prepared:
    """Prepare the recipe's text below `cache/KEY/`, or find it prepared. What was broken off goes on.

    Args:
        recipe: with a `data` section.
        cache: folder shared by runs; made where it is missing.
        emit: who is told.

    Raises:
        BuddyError: a source, the tokenizer or the disk; one line for each fault.
    """
    try:
        job = plan_job(recipe, cache, emit)
        if (found := read_prepared(job.path)) is not None and not job.work.exists():
            return found
        check_space(job)
        job.path.mkdir(parents=True, exist_ok=True)
        lock = cache / f"{job.key}.lock"
        with _locked(lock, emit):
            found = read_prepared(job.path)
            if found is None:
                try:
                    found = _prepare(job, emit)
                except BrokenOff:
                    raise
                except BuddyError:  # once the input is mended, it is prepared under another key
                    shutil.rmtree(job.path, ignore_errors=True)
                    lock.unlink(missing_ok=True)
                    raise
            shutil.rmtree(job.work, ignore_errors=True)
            return found
    except OSError as error:
        if is_disk_full(error):
            raise BrokenOff(f"{cache}: no space left; free some and start again to go on from here") from error
        raise BuddyError(f"{error.filename or cache}: cannot be written: {error.strerror or error}") from error


def find_prepared(recipe: Recipe, cache: Path) -> Prepared | None:
    """The recipe's text if it is prepared; writes nothing.

    Raises:
        BuddyError: a source or the tokenizer cannot be found.
    """
    return read_prepared(plan_job(recipe, cache, silent, remember=False).path)


def verify(prepared: Prepared, recipe: Recipe) -> list[str]:
    """Damaged files of prepared data, and source files that changed, appeared or vanished since; one line each."""
    assert recipe.data is not None
    faults = prepared.check()
    try:
        sources = find_sources(recipe.data, recipe.hub, prepared.path.parent, silent, remember=False)
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
    data = job.recipe.data
    assert data is not None
    for stale in (*job.path.rglob("*.tmp"), *job.path.rglob("*.tmp.index")):  # of a run that was killed
        stale.unlink()
    sources = fetch_sources(job.sources, job.recipe.hub, emit)
    batches = make_batches(sources)
    workers = data.workers or os.cpu_count() or 1
    staged, fates, logs = Staged(job.work / "staged"), job.work / "fates", job.path / "logs"

    steps = [ReadStep(batches, staged.folder)]
    Executor(steps, len(batches), workers, logs / "read", _teller(emit, "read", batches)).run()
    check_unchanged(sources)
    _judge(sources, batches, staged, fates)

    tokenizer, facts = settle_tokenizer(job, batches, staged, fates)
    step = TokeniseStep(batches, staged, fates, job.path, DocumentEncoder(tokenizer), facts["dtype"], facts["end"])
    Executor([step], len(batches), workers, logs / "tokenise", _teller(emit, "tokenise", batches)).run()

    manifest = {
        "format": FORMAT,
        "key": job.key,
        "covers": job.covers,
        "tokenizer": facts,
        "sources": {source.name: account(source, batches, staged, fates) for source in sources},
        "versions": {name: importlib.metadata.version(name) for name in ("buddygpt", "datatrove", "tokenizers")},
    }
    write_atomically(job.path / "manifest.json", json.dumps(manifest, ensure_ascii=False, indent=1))
    prepared = read_prepared(job.path)
    assert prepared is not None
    return prepared


def _judge(sources: Sequence[Source], batches: Sequence[Batch], staged: Staged, fates: Path) -> None:
    """Decide what becomes of every document, and write that down batch by batch."""
    high, low = [], []
    for number in range(len(batches)):
        index = staged.index(number)
        high.append(index["high"].copy())
        low.append(index["low"].copy())
    sizes = [len(part) for part in high]
    held, start = [], 0
    for source in sources:
        stop = start + sum(size for size, batch in zip(sizes, batches, strict=True) if batch.source.name == source.name)
        if start == stop:
            raise BuddyError(f"{source.name}: no text is left of it; see its `min_score`")
        held.append(Held(source.name, start, stop, source.share))
        start = stop
    decided = decide(np.concatenate(high), np.concatenate(low), held)
    if not np.any(decided == TRAIN):
        raise BuddyError("every document is held out; lower `data.validation`, or add a source to train on")
    for number, fate in enumerate(np.split(decided, np.cumsum(sizes)[:-1])):
        with whole_file(fates / f"{number:05d}.npy") as file:
            np.save(file, fate)


def _teller(emit: Emit, task: str, batches: Sequence[Batch]) -> Callable[[int], None]:
    files = [0, *np.cumsum([len(batch.files) for batch in batches]).tolist()]
    return lambda done: emit(Progress(f"prepare: {task}", files[done], files[-1], "files"))


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
