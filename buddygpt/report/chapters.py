"""A chapter's page, made from the files that the chapter leaves: while it trains, after a crash, at its end."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter

from buddygpt.recipe.errors import BuddyError
from buddygpt.recipe.loader import load_recipe
from buddygpt.recipe.runs import Run, write_atomically
from buddygpt.recipe.schema import Chapter
from buddygpt.report.normal import Size
from buddygpt.report.page import Report, load_rows, write_report
from buddygpt.report.tuning import Tuning

KEPT = "report.json"
"""In a chapter's folder: what its page shows that stands in no other file."""


@dataclass(frozen=True)
class Kept:
    """What a page shows that stands in no other file of the chapter: plain data only.

    Args:
        facts: heading to rows of label and value.
        baselines: bits per character of a 5-gram model, by source.
        epochs: how often the whole run reads each source.
        bytes_per_character: UTF-8 bytes of a held-out character, by source.
        tuning: what fine-tuning or preference tuning adds; None in pretraining.
    """

    facts: Mapping[str, Sequence[tuple[str, str]]]
    baselines: Mapping[str, float] = field(default_factory=dict)
    epochs: Mapping[str, float] = field(default_factory=dict)
    bytes_per_character: Mapping[str, float] = field(default_factory=dict)
    tuning: Tuning | None = None


_KEPT = TypeAdapter(Kept)


def keep(folder: Path, kept: Kept) -> None:
    """Write it down, so that the page can be made again from files alone."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / KEPT, _KEPT.dump_json(kept, indent=1).decode("utf-8"))


def write_chapter(run: Run, name: Chapter, finished: bool) -> Path:
    """Make a chapter's page anew from its files.

    Args:
        run: with a recipe.
        name: the chapter's.
        finished: its whole budget was trained.

    Returns:
        Where the page is.

    Raises:
        BuddyError: a file is damaged.
    """
    folder = run.chapter(name)
    recipe_file = run.path / "recipe.yaml"
    recipe = load_recipe(recipe_file)
    again = ("buddy", name, str(recipe_file), "--run", str(run.path), "--resume")
    try:
        kept = _KEPT.validate_json((folder / KEPT).read_bytes()) if (folder / KEPT).is_file() else Kept({})
    except ValueError:
        raise BuddyError(f"{folder / KEPT}: damaged; remove it, and the page is made without it") from None
    report = Report(
        title=run.name,
        facts=kept.facts,
        metrics=load_rows(folder / "metrics.jsonl"),
        samples=load_rows(folder / "samples.jsonl"),
        baselines=kept.baselines,
        command=shlex.join(("buddy", "chat", str(folder / "model")) if finished else again),
        finished=finished,
        tuning=kept.tuning,
        size=Size.of(recipe.model, kept.epochs, kept.bytes_per_character) if name == "pretrain" else None,
    )
    write_report(folder / "report.html", report)
    return folder / "report.html"


def is_finished(run: Run, name: Chapter) -> bool:
    """Whether a chapter has recorded its end."""
    return (run.chapter(name) / "done.json").is_file()


def step_of(run: Run, name: Chapter) -> int:
    """The last step of which a chapter's metrics tell; 0 where there are none."""
    rows = load_rows(run.chapter(name) / "metrics.jsonl")
    return max((row["step"] for row in rows), default=0)


def describe(run: Run, name: Chapter) -> str:
    """How far a chapter is, in words."""
    if is_finished(run, name):
        return f"finished at step {step_of(run, name):,}"
    return f"unfinished, at step {step_of(run, name):,}"
