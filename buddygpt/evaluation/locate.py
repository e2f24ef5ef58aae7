"""Which files hold a benchmark's rows, in a folder, an archive or a repository: they are known by their names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from buddygpt.data.archives import list_members
from buddygpt.data.readers import format_of, is_archive
from buddygpt.evaluation.catalog import Data, Place
from buddygpt.evaluation.rows import RowFile
from buddygpt.hub.wanted import HubFiles
from buddygpt.recipe.errors import BuddyError

Cells = Mapping[str, tuple[str, str | None]]
"""Names of files with the split that each holds, and the subject, or None where a column tells it."""


def local_names(data: Data) -> list[str]:
    """The names that are looked for in a user's folder, the best first."""
    split = next(iter(data.splits))
    return [name.format(split=(data.splits[split].names or [split])[0]) for name in data.local]


def in_folder(folder: Path, data: Data, subjects: Sequence[str]) -> tuple[Path | None, list[RowFile]]:
    """A benchmark's files in a user's folder, and in which archive or folder they lie; none where there are none.

    Raises:
        BuddyError: what has a benchmark's name is damaged, or has not all its files.
    """
    fault: BuddyError | None = None
    for name in data.local:
        if format_of(name) and not is_archive(name):
            names = [path.name for path in folder.glob(name.replace("{split}", "*")) if path.is_file()]
            for found in _match(names, data, subjects, name):
                if not _lost(found, data, subjects):
                    return folder / min(found), _row_files(folder, found)
        elif (folder / name).exists():
            files = _in_container(folder / name, data, subjects)
            if not (lost := _lost(files, data, subjects)):
                return folder / name, list(files.values())
            fault = fault or BuddyError(f"{folder / name}: has no {' and no '.join(lost[:2])}; fetch it again")
    if fault:
        raise fault
    if len(subjects) > 1:  # else a name such as test.jsonl may be anything's
        found = match_files(_listed(folder, data), data, subjects)
        if not _lost(found, data, subjects):
            return folder, _row_files(folder, found)
    return None, []


def match_files(names: Iterable[str], data: Data, subjects: Sequence[str]) -> Cells:
    """The files of the first of a benchmark's patterns that covers it; else those of the one that covers most."""
    names = sorted(names)
    groups = [found for pattern in data.files for found in _match(names, data, subjects, pattern)]
    whole = (found for found in groups if not _lost(found, data, subjects))
    return next(whole, None) or max(groups, key=len, default={})


def globs_in(place: Place, data: Data) -> tuple[str, ...]:
    """What to ask a hub for."""
    globs = [place.archive] if place.archive else _globs(data)
    return tuple(each for glob in globs for each in (glob, f"*/{glob}"))


def in_repository(answer: HubFiles, place: Place, data: Data, subjects: Sequence[str]) -> HubFiles:
    """The fewest of a repository's files that a benchmark needs.

    Raises:
        BuddyError: it has not all of them.
    """
    if place.archive:
        return replace(answer, files=answer.files[:1])
    found = match_files((file.name for file in answer.files), data, subjects)
    if lost := _lost(found, data, subjects):
        raise BuddyError(f"{answer.id} on {answer.hub} has no {' and no '.join(lost[:2])}")
    return replace(answer, files=tuple(file for file in answer.files if file.name in found))


def of_fetched(answer: HubFiles, paths: Sequence[Path], data: Data, subjects: Sequence[str]) -> list[RowFile]:
    """The files of a repository, as they lie on this machine.

    Raises:
        BuddyError: an archive that is damaged, or has not all of them.
    """
    (first, *_), named = paths, {file.name: path for file, path in zip(answer.files, paths, strict=True)}
    if is_archive(answer.files[0].name):
        files = _in_archive(first, f"{answer.id}/{answer.files[0].name}", data, subjects)
        if lost := _lost(files, data, subjects):
            raise BuddyError(f"{answer.id}/{answer.files[0].name}: has no {' and no '.join(lost[:2])}")
        return list(files.values())
    found = match_files(named, data, subjects)
    return [RowFile(named[name], f"{answer.id}/{name}", *cell) for name, cell in found.items()]


def _in_container(path: Path, data: Data, subjects: Sequence[str]) -> dict[str, RowFile]:
    if path.is_dir():
        names = [each.relative_to(path).as_posix() for each in path.rglob("*") if each.is_file()]
        found = match_files(names, data, subjects)
        return dict(zip(found, _row_files(path, found), strict=True))
    return _in_archive(path, str(path), data, subjects)


def _in_archive(path: Path, name: str, data: Data, subjects: Sequence[str]) -> dict[str, RowFile]:
    members = {member.name: member for member in list_members(path, name).members}
    found = match_files(members, data, subjects)
    return {each: RowFile(path, f"{name}/{each}", *cell, members[each]) for each, cell in found.items()}


def _row_files(folder: Path, found: Cells) -> list[RowFile]:
    return [RowFile(folder / name, str(folder / name), *cell) for name, cell in found.items()]


def _listed(folder: Path, data: Data) -> set[str]:
    """Files that lie in a folder as the patterns say, or one folder deeper: not all that it holds is searched."""
    globs = [each for glob in _globs(data) for each in (glob, f"*/{glob}")]
    return {path.relative_to(folder).as_posix() for glob in globs for path in folder.glob(glob) if path.is_file()}


def _globs(data: Data) -> list[str]:
    return list(dict.fromkeys(re.sub(r"(\{\w+\}|\*)+", "*", pattern) for pattern in data.files))


def _match(names: Iterable[str], data: Data, subjects: Sequence[str], pattern: str) -> list[Cells]:
    """Files that one pattern means, together those of one folder; the least deep folder first."""
    splits = {each: split for split, known in data.splits.items() for each in (split, *known.names)}
    spelt = {
        "{split}": f"(?P<split>{'|'.join(map(re.escape, splits))})",
        "{subject}": f"(?P<subject>{'|'.join(map(re.escape, subjects))})",
        "{same}": "(?P=split)",
        "*": "[^/]*",
    }
    once = re.sub(r"(\{split\}.*)\{split\}", r"\1{same}", pattern)
    pieces = re.split(r"(\{split\}|\{same\}|\{subject\}|\*)", once)
    regex = re.compile("(?P<folder>(?:.*/)?)" + "".join(spelt.get(piece, re.escape(piece)) for piece in pieces))
    only = next(iter(data.splits))
    groups: dict[str, dict[str, tuple[str, str | None]]] = {}
    for name in sorted(names):
        if (match := regex.fullmatch(name)) and format_of(name):
            cell = match.groupdict()
            found = groups.setdefault(cell["folder"], {})
            found[name] = splits[cell["split"]] if "split" in cell else only, cell.get("subject")
    return [groups[folder] for folder in sorted(groups, key=lambda folder: (folder.count("/"), folder))]


def _lost(found: Cells | Mapping[str, RowFile], data: Data, subjects: Sequence[str]) -> list[str]:
    """What a benchmark must have and these files do not hold, in words."""
    cells = {(each.split, each.subject) if isinstance(each, RowFile) else each for each in found.values()}
    wanted = [split for split, known in data.splits.items() if not known.optional]
    lost = [split for split in wanted if not any(held == split for held, _ in cells)]
    for split in (split for split in wanted if split not in lost and (split, None) not in cells):
        missing = [subject for subject in subjects if (split, subject) not in cells] if len(subjects) > 1 else []
        lost += [f"{split} of {subject}" for subject in missing]
    return lost
