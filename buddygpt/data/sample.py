"""One file to look at: of a data set here, from the catalog, or on a hub; of a hub's no more is fetched than that."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

from buddygpt.data.catalog import find
from buddygpt.data.paths import find_files
from buddygpt.data.readers import KNOWN, format_of, is_whole_document
from buddygpt.events import Caution, Emit, Note, Table
from buddygpt.hub.fetch import check_space, fetch
from buddygpt.hub.resolve import resolve
from buddygpt.hub.wanted import Wanted
from buddygpt.recipe.base import spell_bytes
from buddygpt.recipe.data import FilesSource, Mapping
from buddygpt.recipe.errors import BuddyError
from buddygpt.recipe.hub import HubSection

_LISTED = 20
_ABOUT = ("dataset_infos.json", "dataset_info.json", "dataset_dict.json", "state.json")
"""Files that tell of a data set, beside its rows."""
_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Sample:
    """The file that is looked at.

    Args:
        path: where it lies.
        name: what messages call it.
        map, min_score, hint: the catalog's map, threshold and shape, where the file comes from there.
    """

    path: Path
    name: str
    map: Mapping | None = None
    min_score: float | None = None
    hint: str | None = None


def find_sample(what: str, file: str | None, emit: Emit) -> Sample:
    """The file that a user means.

    Args:
        what: a path, folder or glob; a name of the catalog; or an id on a hub.
        file: glob of the file, among several; the first of a known kind where left out.
        emit: who is told what there is, and which was taken.

    Raises:
        BuddyError: there is no such thing, or no file of a known kind in it; a hub does not have it.
    """
    path = Path(what).expanduser()
    spelt = path.is_absolute() or what.startswith((".", "~")) or any(c in "*?" for c in what) or format_of(path.name)
    if spelt or path.exists():
        return _find_here(what, file, emit)
    try:
        entry = find(what)
    except BuddyError as error:
        if not _ID.fullmatch(what):
            raise BuddyError(f"{error}; there is no file {what} either, and a hub's ids are owner/name") from None
        remedy = f"there is no file or folder {what} here either"
        return _fetch(Wanted(what, what, what, (file or "*",), remedy=remedy), emit)
    files, exclude = ((file,), ()) if file else (tuple(entry.files), tuple(entry.exclude))
    remedy = "if you have a copy, give its path"
    got = _fetch(Wanted(what, entry.huggingface, entry.modelscope, files, exclude, remedy=remedy), emit)
    return replace(got, map=entry.map, min_score=entry.min_score, hint=entry.shape)


def _find_here(what: str, file: str | None, emit: Emit) -> Sample:
    files = {path.as_posix(): path for path in find_files(FilesSource(kind="files", paths=[what]))}
    sizes = [(name, path.stat().st_size) for name, path in files.items()]
    name, size = _choose(what, sizes, file, emit)
    emit(Note(f"looking at {name}, {spell_bytes(size)}"))
    return Sample(files[name], name)


def _fetch(wanted: Wanted, emit: Emit) -> Sample:
    section = HubSection()
    answers, cautions = resolve({0: wanted}, section)
    for caution in cautions:
        emit(Caution(caution))
    answer = answers[0]
    name, size = _choose(answer.id, [(f.name, f.size) for f in answer.files], None, emit)
    emit(Note(f"looking at {name} of {answer.id} on {answer.hub}, {spell_bytes(size)}"))
    one = replace(answer, files=tuple(f for f in answer.files if f.name == name))
    check_space([one], section, emit)
    paths, _ = fetch(one, section, emit)
    return Sample(paths[0], name)


def _choose(what: str, files: Sequence[tuple[str, int]], glob: str | None, emit: Emit) -> tuple[str, int]:
    """The first file of a known kind that the glob names; all of them are told where there are several."""
    if len(files) > 1:
        rows = [(name, f"{size:,}") for name, size in files[:_LISTED]]
        more = [(f"... {len(files) - _LISTED:,} more", "")] if len(files) > _LISTED else []
        total = spell_bytes(sum(size for _, size in files))
        emit(Table(f"{what}: {len(files):,} files, {total}", ("file", "bytes"), (*rows, *more)))
    known = [(name, size) for name, size in files if format_of(name)]
    known.sort(key=lambda file: is_whole_document(file[0]) or file[0].endswith(_ABOUT))  # stable: rows come first
    if not known:
        raise BuddyError(f"{what}: none of its {len(files):,} files is of a known kind; known are {KNOWN}")
    for name, size in known:
        if glob is None or fnmatchcase(name, glob) or fnmatchcase(name.rsplit("/", 1)[-1], glob):
            return name, size
    raise BuddyError(f"{what}: none of its {len(known):,} files matches --file {glob}; the first is {known[0][0]}")
