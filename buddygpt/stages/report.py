"""Reports made anew from a run's files, and several runs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from buddygpt.events import Caution, Emit, Note
from buddygpt.recipe.errors import BuddyError
from buddygpt.recipe.loader import load_recipe
from buddygpt.recipe.runs import Run, find_run
from buddygpt.recipe.schema import Chapter
from buddygpt.report.chapters import describe, is_finished, write_chapter
from buddygpt.report.comparison import CHAPTERS, Side, shared_chapters, write_comparison
from buddygpt.report.page import read_rows


def run(targets: Sequence[str], runs: Path, out: Path | None, emit: Emit) -> list[Path]:
    """Write the pages of one run, or one page of several.

    Args:
        targets: names or folders of runs.
        runs: where runs lie.
        out: where the page of several runs goes; `report.html` beside the runs where left out.
        emit: who is told.

    Returns:
        What was written.

    Raises:
        BuddyError: there is no such run, nothing was trained in it, or the runs have no chapter in common.
    """
    found = {one.path.resolve(): one for one in (_find(target, runs) for target in targets)}
    if len(found) == 1:
        if out is not None:
            raise BuddyError("--out: is for a page of several runs; one run's pages lie in its own folder")
        return _pages(next(iter(found.values())), emit)
    sides = [_side(one, list(found.values()), emit) for one in found.values()]
    if not shared_chapters(sides):
        told = "; ".join(f"{side.name} has {' and '.join(side.metrics)}" for side in sides)
        raise BuddyError(f"the runs have no chapter in common to lay side by side: {told}")
    page = out or runs / "report.html"
    try:
        write_comparison(page, sides)
    except OSError as error:
        raise BuddyError(f"{page}: cannot be written: {error.strerror}; choose another place with --out") from None
    emit(Note(f"report: {page}"))
    return [page]


def _find(target: str, runs: Path) -> Run:
    path = Path(target)
    if (path / "recipe.yaml").is_file():
        return Run(path if path.name else path.resolve())
    if path.is_dir():
        raise BuddyError(f"{target}: is not a run (no recipe.yaml in it)")
    return find_run(runs, target.removeprefix(f"{runs}/"))


def _trained(run: Run, emit: Emit) -> dict[Chapter, list[dict[str, Any]]]:
    """Chapters that have metrics, with their rows; damaged lines are told.

    Raises:
        BuddyError: none has.
    """
    found: dict[Chapter, list[dict[str, Any]]] = {}
    for name in get_args(Chapter):
        metrics, samples = (run.chapter(name) / file for file in ("metrics.jsonl", "samples.jsonl"))
        rows, damaged = read_rows(metrics)
        if rows:
            found[name] = rows
            for file, count in ((metrics, damaged), (samples, read_rows(samples)[1])):
                if count:
                    emit(Caution(f"{file}: {count:,} damaged line{'s' * (count > 1)} left out"))
    if not found:
        raise BuddyError(
            f"{run.path}: nothing was trained in this run yet; begin with `buddy pretrain {run.path / 'recipe.yaml'}`"
        )
    return found


def _pages(run: Run, emit: Emit) -> list[Path]:
    written = []
    for name in _trained(run, emit):
        try:
            written.append(write_chapter(run, name, is_finished(run, name)))
        except OSError as error:
            raise BuddyError(f"{run.chapter(name)}: cannot be written: {error.strerror}") from None
        emit(Note(f"{CHAPTERS[name][1]}, {describe(run, name)}: {written[-1]}"))
    return written


def _side(run: Run, all_runs: Sequence[Run], emit: Emit) -> Side:
    alone = sum(one.name == run.name for one in all_runs) == 1
    return Side(
        run.name if alone else str(run.path),
        load_recipe(run.path / "recipe.yaml"),
        _trained(run, emit),
        frozenset(name for name in get_args(Chapter) if is_finished(run, name)),
    )
