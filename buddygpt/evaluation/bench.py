"""The rows of a benchmark on this machine: from a folder of the user's, from an earlier time, or from the hubs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import xxhash

from buddygpt.evaluation.catalog import Benchmark, Data, Place, data_of, subjects_of
from buddygpt.evaluation.locate import globs_in, in_folder, in_repository, local_names, of_fetched
from buddygpt.evaluation.needs import lacking
from buddygpt.evaluation.rows import RowFile
from buddygpt.evaluation.rowstore import RowStore
from buddygpt.events import Caution, Emit, Note
from buddygpt.hub.fetch import check_space, fetch
from buddygpt.hub.resolve import resolve
from buddygpt.hub.settings import read_settings
from buddygpt.hub.wanted import Wanted
from buddygpt.recipe.base import spell_bytes
from buddygpt.recipe.errors import BuddyError
from buddygpt.recipe.hub import HubSection
from buddygpt.recipe.runs import write_atomically


@dataclass(frozen=True)
class Ready:
    """A benchmark whose rows lie on this machine.

    Args:
        benchmark: which.
        files: JSON lines, by subject and split.
        counts: rows of all subjects, by split.
        source: where they come from: a path, or a hub's repository at a commit.
    """

    benchmark: Benchmark
    files: Mapping[str, Mapping[str, Path]]
    counts: Mapping[str, int]
    source: str


def find(benchmark: Benchmark, data_dir: Path | None, hub: HubSection, cache: Path, emit: Emit) -> Ready:
    """The rows of a benchmark: of `data_dir` where it has them, else as they were found last, else of the hubs.

    Args:
        benchmark: which.
        data_dir: a folder with its files, in any of the usual forms.
        hub: which hubs are asked.
        cache: folder of the rows, written once for each content.
        emit: who is told.

    Raises:
        BuddyError: the rows cannot be had, or are not those that the benchmark has; packages are not installed.
        BrokenOff: the disk is full.
    """
    if lack := lacking(benchmark.needs):
        raise BuddyError(f"{benchmark.name}: {lack}")
    return find_rows(benchmark, data_dir, hub, cache, emit)


def find_rows(benchmark: Benchmark, data_dir: Path | None, hub: HubSection, cache: Path, emit: Emit) -> Ready:
    """As `find`, whether or not what judges them is installed."""
    name, data = data_of(benchmark)
    assert data is not None, f"{name} is built in: `make` makes its rows"
    store = RowStore(name, data, subjects_of(benchmark), cache / name)
    searched = ""
    if data_dir is not None:
        where, files = in_folder(see_folder(data_dir), data, store.subjects)
        if files:
            return _ready(benchmark, store, files, str(where), emit)
        searched = f"{data_dir} has none of {', '.join(local_names(data))}"
    if before := store.last():
        if searched:
            emit(Note(f"{name}: {searched}; rows as found before in {before['source']}"))
        return _found(benchmark, store, before)
    return _from_hubs(benchmark, store, hub, searched, emit)


def make(benchmark: Benchmark, seed: int, cache: Path) -> Ready:
    """The rows of a benchmark that is built in, as a seed gives them."""
    assert benchmark.built_in is not None
    path = cache / benchmark.name / f"{benchmark.name}-{seed}.test.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in resolve_name(benchmark.built_in)(seed)]
    text = "".join(lines)
    if not path.is_file() or path.read_text("utf-8") != text:  # `datasets` keeps another table for each time of a file
        write_atomically(path, text)
    return Ready(benchmark, {benchmark.name: {"test": path.absolute()}}, {"test": len(lines)}, "built in")


def readiness(benchmark: Benchmark, data_dir: Path | None, hub: HubSection, cache: Path) -> tuple[bool, str]:
    """Whether a benchmark can be run without a network, and a line on what is there or what lacks."""
    name, data = data_of(benchmark)
    lack = lacking(benchmark.needs)
    if data is None:
        return lack is None, lack or "built in"
    try:
        where = _whereabouts(RowStore(name, data, subjects_of(benchmark), cache / name), data_dir)
    except BuddyError as error:
        return False, str(error)
    if where is None:
        size = f", {spell_bytes(data.size)}" if data.size else ""
        ids = " or ".join(dict.fromkeys(_ids(place) for place in _in_order(data, hub)))
        terms = "".join(f"; for {place.huggingface}: {place.terms}" for place in data.places if place.terms)
        here = f"to fetch from {ids}{size}; or --data-dir with {' or '.join(local_names(data)[:2])}{terms}"
        return False, f"{lack}; {here}" if lack else here
    if lack:
        return False, f"{lack}; its rows: {where}"
    left_out = [f"{h.task} is left out: {line}" for h in benchmark.harness if (line := lacking(h.needs))]
    return True, "; ".join([where, *left_out])


def select(ready: Ready, keep: Callable[[dict[str, Any]], bool], folder: Path) -> Ready:
    """The same benchmark with some of its rows only, e.g. those of IFEval that need no file of nltk.

    Args:
        ready: all its rows.
        keep: tells whether a row stays.
        folder: in which the rows that stay are written, under a name that depends on them.
    """
    kept = {
        (subject, split): [line for line in path.read_text("utf-8").split("\n") if line and keep(json.loads(line))]
        for subject, splits in ready.files.items()
        for split, path in splits.items()
    }
    place = folder / xxhash.xxh3_128(json.dumps(list(kept.items())).encode()).hexdigest()[:16]
    place.mkdir(parents=True, exist_ok=True)
    counts: dict[str, int] = dict.fromkeys(ready.counts, 0)
    files: dict[str, dict[str, Path]] = {}
    for (subject, split), lines in kept.items():
        target = place / ready.files[subject][split].name
        write_atomically(target, "".join(line + "\n" for line in lines))
        files.setdefault(subject, {})[split] = target.absolute()
        counts[split] += len(lines)
    return replace(ready, files=files, counts=counts, source=f"a part of {ready.source}")


def _ready(benchmark: Benchmark, store: RowStore, files: Sequence[RowFile], source: str, emit: Emit) -> Ready:
    manifest = store.keep(files, source)
    rows = ", ".join(f"{split} {count:,}" for split, count in manifest["counts"].items())
    emit(Note(f"{store.name}: rows of {source}: {rows}"))
    return replace(_found(benchmark, store, manifest), source=source)


def _found(benchmark: Benchmark, store: RowStore, manifest: Mapping[str, Any]) -> Ready:
    return Ready(benchmark, store.paths(manifest), manifest["counts"], manifest["source"])


def _from_hubs(benchmark: Benchmark, store: RowStore, hub: HubSection, searched: str, emit: Emit) -> Ready:
    """The rows of the first repository that has them all."""
    faults: list[str] = []
    for place in _in_order(store.data, hub):
        wanted = _wanted(store.name, store.data, place)
        try:
            answers, cautions = resolve({0: wanted}, hub)
            answer = in_repository(answers[0], place, store.data, store.subjects)
        except BuddyError as error:
            faults += [_with_terms(line.removeprefix(f"{store.name}: "), place) for line in error.lines]
            continue
        for caution in cautions:
            emit(Caution(caution))
        check_space([answer], hub, emit)
        paths, served = fetch(answer, hub, emit)
        files = of_fetched(served, paths, store.data, store.subjects)
        return _ready(benchmark, store, files, f"{served.hub}: {served.id} @ {served.commit[:20]}", emit)
    remedy = f"give --data-dir with {' or '.join(local_names(store.data))}"
    raise BuddyError(f"{store.name}: {'; '.join([*filter(None, [searched]), *faults, remedy])}")


def _in_order(data: Data, hub: HubSection) -> list[Place]:
    """The repositories, those first that the preferred hub has."""
    order = read_settings(hub).order

    def rank(place: Place) -> int:
        ids = {"modelscope": place.modelscope, "huggingface": place.huggingface, "mirror": place.huggingface}
        return next((number for number, name in enumerate(order) if ids[name]), len(order))

    return sorted(data.places, key=rank)


def _wanted(name: str, data: Data, place: Place) -> Wanted:
    return Wanted(name, place.huggingface, place.modelscope, globs_in(place, data), size=data.size)


def _with_terms(line: str, place: Place) -> str:
    return f"{line}; {place.terms}" if place.terms and "consent" in line else line


def _whereabouts(store: RowStore, data_dir: Path | None) -> str | None:
    """Where a benchmark's rows are on this machine; None where they are not."""
    if data_dir is not None:
        where, files = in_folder(see_folder(data_dir), store.data, store.subjects)
        if files:
            return f"in {where}"
    if before := store.last():
        return f"fetched before, from {before['source']}"
    return None


def see_folder(data_dir: Path) -> Path:
    """The folder of `--data-dir`.

    Raises:
        BuddyError: it is none.
    """
    if not data_dir.is_dir():
        what = "a file, not a folder; give the folder in which it lies" if data_dir.exists() else "no such folder"
        raise BuddyError(f"--data-dir {data_dir}: {what}")
    return data_dir


def _ids(place: Place) -> str:
    hubs = {"Hugging Face": place.huggingface, "ModelScope": place.modelscope}
    return " or ".join(f"{id} on {name}" for name, id in hubs.items() if id)
