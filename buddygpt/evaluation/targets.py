"""The models that are evaluated: where they lie, what tables call them, where their results go."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from buddygpt.events import Emit, Note
from buddygpt.hub.presence import see_model
from buddygpt.recipe.errors import BuddyError
from buddygpt.recipe.runs import Run, find_model


@dataclass(frozen=True)
class Target:
    """A model that is asked.

    Args:
        source: its folder or hub id.
        name: in tables.
        folder: where its results go.
        run: the run that it comes from, if any.
    """

    source: Path | str
    name: str
    folder: Path
    run: Run | None


def find_targets(names: Sequence[str], runs: Path, output: Path | None, emit: Emit) -> list[Target]:
    """The models that the user means, each with a name of its own and a place for its results.

    Raises:
        BuddyError: one is not there, or is meant twice.
    """
    found: list[Target] = []
    for name in names or (None,):
        source = find_model(name, runs)
        if isinstance(source, str):
            see_model(source)
        if name is None:
            emit(Note(f"model: {source}"))
        found.append(_target(source, runs))
    places = [target.source.resolve() if isinstance(target.source, Path) else target.source for target in found]
    for target, place in zip(found, places, strict=True):
        if places.count(place) > 1:
            raise BuddyError(f"{target.name}: given twice; name each model once")
    slugs = [_slug(target.name) for target in found]
    for number, (target, slug) in enumerate(zip(found, slugs, strict=True)):
        if slugs.count(slug) > 1:
            target, slug = replace(target, name=str(target.source)), f"{slug}-{_mark(target.source)}"
        folder = target.folder if output is None else output / slug if len(found) > 1 else output
        found[number] = replace(target, folder=folder)
    return found


def see_writable(folders: Sequence[Path]) -> None:
    """See that results can be written, before a model is asked for hours.

    Raises:
        BuddyError: they cannot.
    """
    for folder in folders:
        place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        if not place.is_dir() or not os.access(place, os.W_OK):
            what = "cannot be written into" if place.is_dir() else "is no folder"
            raise BuddyError(f"{folder}: cannot be written: {place} {what}; choose another with --output")


def _target(source: Path | str, runs: Path) -> Target:
    if isinstance(source, str):
        return Target(source, source, runs / "eval" / _slug(source), None)
    folder = source.absolute()
    root = folder.parent.parent
    if root.is_relative_to(Path.cwd()):
        root = root.relative_to(Path.cwd())  # paths are told as one types them
    if folder.name == "model" and (root / "recipe.yaml").is_file():
        chapter = folder.parent.name
        return Target(source, f"{folder.parent.parent.name}/{chapter}", root / "eval" / chapter, Run(root))
    if folder.parent.name == "export" and (root / "recipe.yaml").is_file():
        name = f"export-{folder.name}"
        return Target(source, f"{folder.parent.parent.name}/{name}", root / "eval" / name, Run(root))
    name = folder.name if folder.name not in ("model", "export") else f"{folder.parent.name}/{folder.name}"
    return Target(source, name, runs / "eval" / f"{_slug(name)}-{_mark(source)}", None)


def _mark(source: Path | str) -> str:
    """Tells folders of one name apart."""
    return hashlib.blake2b(str(Path(source).absolute()).encode(), digest_size=3).hexdigest()


def _slug(name: str) -> str:
    return re.sub(r"[^0-9A-Za-z._-]+", "-", name).strip("-.") or "model"
