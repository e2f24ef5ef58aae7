"""Sources on this machine, cut into what is read in one go each: files, parts of large ones, members of archives."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import xxhash

from buddygpt.data.archives import list_members
from buddygpt.data.readers import find_parts, is_archive
from buddygpt.data.sources import InputFile, Source
from buddygpt.events import Emit
from buddygpt.hub.fetch import check_space, fetch, fetch_one
from buddygpt.recipe.hub import HubSection


def fetch_sources(sources: Sequence[Source], hubs: HubSection, emit: Emit) -> list[Source]:
    """The sources with every file of a hub on this machine, but those of sources that are streamed.

    Raises:
        BuddyError: a download fails, or the disk is full.
    """
    check_space([source.answer for source in sources if source.answer and not source.stream], hubs, emit)
    fetched = []
    for source in sources:
        if source.answer and not source.stream:
            paths, answer = fetch(source.answer, hubs, emit)
            files = tuple(replace(f, path=path) for f, path in zip(source.files, paths, strict=True))
            source = replace(source, files=files, origin=answer.origin(), answer=answer)
        fetched.append(source)
    return fetched


def open_sources(sources: Sequence[Source]) -> list[Source]:
    """The sources with their units: large files in parts, archives as the files in them.

    Raises:
        BuddyError: an archive that is damaged or made to do harm.
    """
    opened = []
    for source in sources:
        units: list[InputFile] = []
        skipped = source.skipped
        for file in source.files:
            found, passed_over = _units(file)
            units += found
            skipped += passed_over
        opened.append(replace(source, units=tuple(units), skipped=skipped))
    return opened


@contextmanager
def fetched(source: Source, file: InputFile, folder: Path, hubs: HubSection) -> Iterator[InputFile]:
    """A unit of a source on this machine; of a source that is streamed only while it is read.

    Args:
        source: whose unit it is.
        file: the unit.
        folder: where a streamed file lies meanwhile.
        hubs: the recipe's section.

    Raises:
        BuddyError: a download fails.
    """
    if file.path is not None or source.answer is None:
        yield file
        return
    (wanted,) = (f for f in source.answer.files if f.name == file.name)
    scratch = folder / f"stream-{xxhash.xxh3_64_hexdigest(f'{source.name}/{file.name}'.encode())}"
    scratch.mkdir(parents=True, exist_ok=True)  # after a kill it is there, with what had come
    yield replace(file, path=fetch_one(source.answer, wanted, scratch, hubs))
    shutil.rmtree(scratch)


def _units(file: InputFile) -> tuple[list[InputFile], int]:
    """What is read of a file, each in one go, and how many files of an archive are passed over."""
    if file.path is None:
        return [file], 0
    if not is_archive(file.name):
        parts = file.parts or (() if file.stamp else find_parts(file.path, file.name))
        size = file.size // max(1, len(parts))
        return [replace(file, size=size, part=part) for part in parts] or [file], 0
    contents = list_members(file.path, file.name)
    if any(member.offset is None for member in contents.members):  # a compressed .tar is read from its start
        return [file], contents.others + contents.links
    members = [
        replace(file, name=f"{file.name}/{member.name}", size=member.size, member=member, named=False)
        for member in contents.members
    ]
    return members, contents.others + contents.links
