"""The recipe's sources as lists of files, each known by its content."""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import xxhash

from buddygpt.data.fingerprints import FileIndex, hash_file, stamp_of
from buddygpt.data.readers import KNOWN, format_of
from buddygpt.events import Caution, Emit
from buddygpt.hub.fetch import check_space, fetch
from buddygpt.hub.resolve import resolve
from buddygpt.hub.wanted import HubFiles, Wanted, local_copy_remedy
from buddygpt.recipe.data import DataSection, DemoSource, FilesSource, HubSource, source_name
from buddygpt.recipe.errors import BuddyError, did_you_mean
from buddygpt.recipe.hub import HubSection
from buddygpt.recipe.runs import write_atomically


@dataclass(frozen=True)
class InputFile:
    """One file of a source, or the demo corpus, which needs none.

    Args:
        name: in messages and the manifest: the path as the recipe leads to it, or the path in the hub's repository.
        size: bytes; characters of a demo corpus.
        content: what its content is known by: `xxh3:...` of a local file, the hub's own hash, or the demo's code.
        path: where it lies; None for a demo corpus, and for a file of the hub not fetched yet.
        named: the recipe names this very file.
        stamp: size, modification time in ns and inode when `content` was taken; None where nobody changes the file.
        demo: seed and characters of a demo corpus.
    """

    name: str
    size: int
    content: str
    path: Path | None = None
    named: bool = True
    stamp: tuple[int, int, int] | None = None
    demo: tuple[int, int] | None = None


@dataclass(frozen=True)
class Source:
    """One source of the recipe, found.

    Args:
        name: unique in the recipe.
        kind: as in the recipe.
        files: in the order in which they are read.
        share: of the documents that is held out.
        columns, min_score: as in the recipe; None where not given.
        skipped: files of unknown kinds that were passed over.
        origin: where a hub's or demo's content comes from.
        answer: what a hub answered; None for other kinds.
    """

    name: str
    kind: str
    files: tuple[InputFile, ...]
    share: float
    columns: tuple[str, ...] | None = None
    min_score: float | None = None
    skipped: int = 0
    origin: dict[str, Any] = field(default_factory=dict)
    answer: HubFiles | None = None


def find_sources(
    data: DataSection, hubs: HubSection, cache: Path, emit: Emit, *, remember: bool = True
) -> list[Source]:
    """All sources of a recipe, each file with its content's hash; nothing is downloaded.

    Args:
        data: the recipe's section.
        hubs: the recipe's section of them.
        cache: holds `files.json`, the hashes known by path and time stamp, and `hub.json`, what the hub answered last.
        emit: who is told.
        remember: write what is new into them.

    Raises:
        BuddyError: a path that matches nothing, a file of an unknown kind, a hub that cannot be reached.
    """
    _check_names(data)
    hub = _ask_hub(data, hubs, cache, emit, remember)
    local = {i: _find_files(s) for i, s in enumerate(data.sources) if isinstance(s, FilesSource)}
    index = FileIndex(cache / "files.json")
    index.learn([path for files, _ in local.values() for path, _ in files], emit, remember=remember)
    sources = []
    for i, source in enumerate(data.sources):
        share = data.validation if source.validation is None else source.validation
        common = Source(source_name(source), source.kind, (), share)
        if isinstance(source, DemoSource):
            sources.append(replace(common, files=(_demo_file(source),)))
            continue
        text = (source.map or {}).get("text")
        columns = (text,) if isinstance(text, str) else tuple(text) if text else None
        common = replace(common, columns=columns, min_score=source.min_score)
        if isinstance(source, HubSource):
            answer = hub[i]
            if unknown := next((f.name for f in answer.files if format_of(f.name) is None), None):
                raise BuddyError(f"{answer.id}: {unknown}: unknown kind of file; known are {KNOWN}; see `exclude`")
            files = tuple(InputFile(f.name, f.size, f.content, named=False) for f in answer.files)
            sources.append(replace(common, files=files, origin=answer.origin(), answer=answer))
        else:
            found, skipped = local[i]
            files = tuple(_local_file(path, named, index) for path, named in found)
            sources.append(replace(common, files=files, skipped=skipped))
    return sources


def find_files(source: FilesSource) -> list[Path]:
    """The files of a source, in the order in which they are read.

    Raises:
        BuddyError: a path that matches nothing, or a file of an unknown kind.
    """
    return [path for path, _ in _find_files(source)[0]]


def fetch_sources(sources: Sequence[Source], hubs: HubSection, emit: Emit) -> list[Source]:
    """The sources with every file of a hub on this machine.

    Raises:
        BuddyError: a download fails, or the disk is full.
    """
    check_space([source.answer for source in sources if source.answer], hubs, emit)
    fetched = []
    for source in sources:
        if source.answer:
            paths, answer = fetch(source.answer, hubs, emit)
            files = tuple(replace(f, path=path) for f, path in zip(source.files, paths, strict=True))
            source = replace(source, files=files, origin=answer.origin(), answer=answer)
        fetched.append(source)
    return fetched


def check_unchanged(sources: Sequence[Source]) -> None:
    """See that no local file has changed since its hash was taken.

    Raises:
        BuddyError: one line for each file that has.
    """
    faults = []
    for file in (f for source in sources for f in source.files if f.stamp):
        assert file.path is not None
        try:
            same = stamp_of(file.path) == file.stamp or f"xxh3:{hash_file(file.path)}" == file.content
        except OSError as error:
            faults.append(f"{file.name}: gone while it was read ({error.strerror})")
            continue
        if not same:
            faults.append(f"{file.name}: changed while it was read; start again when nothing writes to it")
    if faults:
        raise BuddyError(faults)


def _check_names(data: DataSection) -> None:
    for i, source in enumerate(data.sources):
        if not source_name(source).strip("."):
            raise BuddyError(f"data.sources.{i}: '{source_name(source)}' cannot name a folder; give another `name`")


def _find_files(source: FilesSource) -> tuple[list[tuple[Path, bool]], int]:
    """Files, whether the recipe names each by itself, and how many others were passed over."""
    found: dict[Path, tuple[Path, bool]] = {}
    skipped = 0
    for text in source.paths:
        path = Path(text).expanduser()
        known = []
        if path.is_file():
            if format_of(path.name) is None:
                raise BuddyError(f"{path}: unknown kind of file; known are {KNOWN}")
            known = [(path, True)]
        else:
            matches = [path] if path.is_dir() else sorted(map(Path, glob.glob(str(path), recursive=True)))  # noqa: PTH207 - takes absolute globs
            if not matches:
                raise BuddyError(f"{path}: no such file or folder{_near(path)}")
            files = [file for match in matches for file in (_walk(match) if match.is_dir() else [match])]
            known = [(file, False) for file in files if format_of(file.name)]
            skipped += len(files) - len(known)
            if not known:
                raise BuddyError(f"{path}: no file in it of a known kind; known are {KNOWN}")
        for file, named in known:
            found.setdefault(file.resolve(), (file, named))
    return list(found.values()), skipped


def _walk(folder: Path) -> Iterator[Path]:
    """Files below a folder in a fixed order, hidden ones left out."""
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        yield from (Path(parent, f) for f in sorted(files) if not f.startswith("."))


def _near(path: Path) -> str:
    """The nearest name beside the first part of the path that does not exist."""
    for part in (*reversed(path.parents), path):
        if not part.exists() and not glob.has_magic(part.name):
            names = [p.name for p in part.parent.iterdir()] if part.parent.is_dir() else []
            return did_you_mean(part.name, names)
    return ""


def _local_file(path: Path, named: bool, index: FileIndex) -> InputFile:
    stamp, digest = index.describe(path)
    return InputFile(path.as_posix(), stamp[0], f"xxh3:{digest}", path, named, stamp)


def _demo_file(source: DemoSource) -> InputFile:
    content = f"demo:{_generator_hash()}:{source.seed}"
    return InputFile("demo", source.characters, content, demo=(source.seed, source.characters))


def _generator_hash() -> str:
    """The demo generator, known by its code: a changed one makes another corpus."""
    from buddygpt.data import demo

    digest = xxhash.xxh3_128()
    for path in sorted(Path(str(demo.__file__)).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _ask_hub(data: DataSection, hubs: HubSection, cache: Path, emit: Emit, remember: bool) -> dict[int, HubFiles]:
    """What the hubs hold for each of their sources; what they answered last time where none can be reached now."""
    wanted = {i: _wanted(i, s) for i, s in enumerate(data.sources) if isinstance(s, HubSource)}
    if not wanted:
        return {}
    memory = cache / "hub.json"
    try:
        known = json.loads(memory.read_text("utf-8"))
    except (OSError, ValueError):
        known = {}
    keys = {i: json.dumps(question.asked()) for i, question in wanted.items()}
    old = {i: HubFiles.from_dict(known[key], wanted[i]) for i, key in keys.items() if key in known}
    answers, cautions = resolve(wanted, hubs, old)
    for caution in cautions:
        emit(Caution(caution))
    new = {keys[i]: answer.as_dict() for i, answer in answers.items()}
    if remember and known | new != known:
        cache.mkdir(parents=True, exist_ok=True)
        write_atomically(memory, json.dumps(known | new))
    return answers


def _wanted(place: int, source: HubSource) -> Wanted:
    return Wanted(
        f"data.sources.{place}: {source_name(source)}",
        source.id,
        source.modelscope,
        tuple(source.files),
        tuple(source.exclude),
        source.revision,
        source.size,
        local_copy_remedy(place, source, source.files),
    )
