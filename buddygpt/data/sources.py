"""The recipe's sources as lists of files, each known by its content."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import xxhash

from buddygpt.data.archives import Member
from buddygpt.data.catalog import as_hub, find
from buddygpt.data.fingerprints import FileIndex, hash_file, stamp_of
from buddygpt.data.paths import match_files
from buddygpt.data.readers import KNOWN, Part, format_of
from buddygpt.events import Caution, Emit
from buddygpt.hub.resolve import resolve
from buddygpt.hub.wanted import HubFiles, Wanted, local_copy_remedy
from buddygpt.recipe.data import (
    CatalogSource,
    DataSection,
    DemoSource,
    FilesSource,
    HubSource,
    source_name,
)
from buddygpt.recipe.errors import BuddyError
from buddygpt.recipe.hub import HubSection
from buddygpt.recipe.runs import write_atomically
from buddygpt.recipe.schema import Chapter, where_data

RENDER: dict[str, str] = {"sft": "talk", "dpo": "pair"}
"""What rows become in tuning: labelled talks or pairs, where pretraining has plain text."""
RecipeSource = FilesSource | HubSource | DemoSource
"""A section of a recipe, those of the catalog as the hub's."""


@dataclass(frozen=True)
class InputFile:
    """One file of a source, or the demo corpus, which needs none.

    Args:
        name: in messages and the manifest: the path as the recipe leads to it, or the path in the hub's repository.
        size: bytes; characters of a demo corpus.
        content: what its content is known by: `xxh3:...` of a local file, the hub's own hash, or the demo's code.
        path: where it lies; None for a demo corpus, and for a file of the hub not fetched yet.
        parts: in which it can be read; none where in one go.
        part: the one that is read, where the file is read in several.
        member: of the archive at `path`, where the file lies in one.
        named: the recipe names this very file.
        stamp: size, modification time in ns and inode when `content` was taken; None where nobody changes the file.
        demo: seed and characters of a demo corpus.
    """

    name: str
    size: int
    content: str
    path: Path | None = None
    parts: tuple[Part, ...] = ()
    part: Part | None = None
    member: Member | None = None
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
        units: what is read in one go each: files, parts of large ones, members of archives; set by `open_sources`.
        share: of the documents that is held out.
        map, min_score, stream: as in the recipe.
        render: as in the recipe, in tuning by `RENDER`.
        hint: shape of the rows that the catalog tells.
        skipped: files of unknown kinds that were passed over.
        origin: where a hub's or demo's content comes from.
        answer: what a hub answered; None for other kinds.
    """

    name: str
    kind: str
    files: tuple[InputFile, ...]
    share: float
    map: dict[str, str | list[str]] | None = None
    render: str = "text"
    min_score: float | None = None
    stream: bool = False
    hint: str | None = None
    units: tuple[InputFile, ...] = ()
    skipped: int = 0
    origin: dict[str, Any] = field(default_factory=dict)
    answer: HubFiles | None = None


def find_sources(
    data: DataSection,
    hubs: HubSection,
    cache: Path,
    emit: Emit,
    *,
    remember: bool = True,
    stage: Chapter = "pretrain",
) -> list[Source]:
    """All sources of a recipe, each file with its content's hash; nothing is downloaded.

    Args:
        data: the recipe's section.
        hubs: the recipe's section of them.
        cache: holds `files.json`, the hashes known by path and time stamp, and `hub.json`, what the hub answered last.
        emit: who is told.
        remember: write what is new into them.
        stage: what the rows are for.

    Raises:
        BuddyError: a path that matches nothing, a file of an unknown kind, a hub that cannot be reached.
    """
    where = where_data(stage)
    _check_names(data, where)
    known = {i: find(s.dataset) for i, s in enumerate(data.sources) if isinstance(s, CatalogSource)}
    sections = [as_hub(known[i], s) if isinstance(s, CatalogSource) else s for i, s in enumerate(data.sources)]
    hub = _ask_hub(sections, hubs, cache, emit, remember, where)
    local = {i: match_files(s) for i, s in enumerate(sections) if isinstance(s, FilesSource)}
    index = FileIndex(cache / "files.json")
    index.learn([path for files, _ in local.values() for path, _ in files], emit, remember=remember)
    sources = []
    for i, source in enumerate(sections):
        share = data.validation if source.validation is None else source.validation
        render = RENDER.get(stage) or getattr(source, "render", "text")
        common = Source(source_name(source), data.sources[i].kind, (), share, render=render)
        if isinstance(source, DemoSource):
            sources.append(replace(common, files=(_demo_file(source),)))
            continue
        common = replace(common, map=source.map, min_score=source.min_score)
        if isinstance(source, HubSource):
            answer = hub[i]
            if unknown := next((f.name for f in answer.files if format_of(f.name) is None), None):
                raise BuddyError(f"{answer.id}: {unknown}: unknown kind of file; known are {KNOWN}; see `exclude`")
            files = tuple(InputFile(f.name, f.size, f.content, named=False) for f in answer.files)
            hint = known[i].shape if i in known else None
            common = replace(common, stream=source.stream, hint=hint, origin=answer.origin(), answer=answer)
            sources.append(replace(common, files=files))
        else:
            found, skipped = local[i]
            files = tuple(_local_file(path, named, index) for path, named in found)
            sources.append(replace(common, files=files, skipped=skipped))
    return sources


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


def _check_names(data: DataSection, where: str) -> None:
    for i, source in enumerate(data.sources):
        if not source_name(source).strip("."):
            raise BuddyError(f"{where}.sources.{i}: '{source_name(source)}' cannot name a folder; give another `name`")


def _local_file(path: Path, named: bool, index: FileIndex) -> InputFile:
    stamp, digest = index.describe(path)
    content = f"xxh3:{digest}"
    return InputFile(path.as_posix(), stamp[0], content, path.absolute(), index.parts(path), named=named, stamp=stamp)


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


def _ask_hub(
    sections: Sequence[RecipeSource], hubs: HubSection, cache: Path, emit: Emit, remember: bool, where: str
) -> dict[int, HubFiles]:
    """What the hubs hold for each of their sources; what they answered last time where none can be reached now."""
    wanted = {i: _wanted(f"{where}.sources.{i}", s) for i, s in enumerate(sections) if isinstance(s, HubSource)}
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


def _wanted(where: str, source: HubSource) -> Wanted:
    return Wanted(
        f"{where}: {source_name(source)}",
        source.id,
        source.modelscope,
        tuple(source.files),
        tuple(source.exclude),
        source.revision,
        source.size,
        local_copy_remedy(where, source, source.files),
    )
