"""Making a bundle: files into a folder, from the caches or the hubs, each checked by its hash."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from buddygpt.events import Emit, Note, Progress
from buddygpt.hub.bundle import FORMAT, folder_of, read_index
from buddygpt.hub.fetch import check_space, fetch
from buddygpt.hub.tokenizers import find_tokenizers
from buddygpt.hub.wanted import HubFile, HubFiles, check_file
from buddygpt.recipe.base import spell_bytes
from buddygpt.recipe.errors import BrokenOff, BuddyError, is_disk_full
from buddygpt.recipe.hub import HubSection
from buddygpt.recipe.runs import write_atomically


def make_bundle(
    answers: Sequence[HubFiles], folder: Path, section: HubSection, emit: Emit, tokenizers: Sequence[str] = ()
) -> None:
    """Write a bundle, or complete one: of files that lie there already, none is written or fetched again.

    Args:
        answers: of data.
        folder: made where it is missing; what a bundle there holds for other recipes stays.
        section: the recipe's.
        emit: who is told.
        tokenizers: ids of models whose tokenizers are wanted.

    Raises:
        BuddyError: a file cannot be had, or the disk is full; the bundle counts once bundle.json is written.
    """
    section = section.model_copy(update={"bundle": ""})  # made from the hubs, not from itself
    every = [*answers, *find_tokenizers(tokenizers, section)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = read_index(folder) if (folder / "bundle.json").is_file() else []
        missing = [replace(a, files=tuple(f for f in a.files if not _lies(folder_of(folder, a), f))) for a in every]
        check_space(missing, section, emit, copied_to=folder)
        for place, answer in enumerate(missing):
            paths, served = fetch(answer, section, emit) if answer.files else ([], answer)
            for done, (path, file) in enumerate(zip(paths, served.files, strict=True), 1):
                _place(path, file, folder_of(folder, answer) / file.name, answer)
                emit(Progress(f"bundle {answer.id}", done, len(paths), "files"))
            known = {file.name: file for file in served.files}
            every[place] = replace(every[place], files=tuple(known.get(f.name, f) for f in every[place].files))
        entries = {json.dumps(entry["asked"], sort_keys=True): entry for entry in held}
        entries |= {json.dumps(answer.wanted.asked(), sort_keys=True): answer.as_dict() for answer in every}
        index = {"format": FORMAT, "answers": list(entries.values())}
        write_atomically(folder / "bundle.json", json.dumps(index, ensure_ascii=False, indent=1))
    except OSError as error:
        if is_disk_full(error):
            raise BrokenOff(f"{folder}: no space left; free some and start again to go on from here") from None
        raise BuddyError(f"{error.filename or folder}: cannot be written: {error.strerror or error}") from None
    emit(
        Note(
            f"bundle: {folder}, {sum(len(a.files) for a in every):,} files, {spell_bytes(sum(a.size for a in every))}; "
            f"copy it and give `hub.bundle: FOLDER`, or BUDDY_BUNDLE=FOLDER, there"
        )
    )


def _lies(folder: Path, file: HubFile) -> bool:
    path = folder / file.name
    return path.is_file() and path.stat().st_size == file.size


def _place(source: Path, file: HubFile, target: Path, answer: HubFiles) -> None:
    """Link or copy a file to its place, under its name only when it is whole and right."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".incomplete")
    partial.unlink(missing_ok=True)
    source = source.resolve()
    try:
        os.link(source, partial)
    except OSError:  # another disk, or one without links
        shutil.copyfile(source, partial)
    if wrong := check_file(partial, file):
        partial.unlink()
        with suppress(OSError):
            source.unlink()
        raise BrokenOff(
            f"{answer.id}: {file.name}: the copy in the cache is not what {answer.hub} lists ({wrong}); it is removed; "
            "start again"
        )
    partial.replace(target)
