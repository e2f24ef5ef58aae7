"""An evaluation as one HTML page that needs nothing but itself: scores, how sure they are, and what others report."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from buddygpt.events import Table
from buddygpt.report.published import Published, published
from buddygpt.report.scores import COLUMNS, REAL, Comparison, Measured, Score, asked_tasks, is_share
from buddygpt.report.scoretable import GUESSING, Cell, Footnotes, cell, spell_metric, spell_score
from buddygpt.report.subjects import subject_bars
from buddygpt.report.template import fill, write_page
from buddygpt.report.words import NOTHING

ACROSS = 8
"""Most tasks that stand side by side: the origin's table has as many."""


_Published = tuple[Published, Sequence[tuple[str, bool]]]


@dataclass(frozen=True)
class Evaluation:
    """What a page is made of: plain data only.

    Args:
        title: the run's or the model's name.
        rows: models in the order of the table.
        comparisons: of pairs of them, item by item.
        facts: heading to rows of label and value: how it was run, on which data.
    """

    title: str
    rows: Sequence[Measured]
    comparisons: Sequence[Comparison] = ()
    facts: Mapping[str, Sequence[tuple[str, str]]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Head:
    """A task above its column; `shots` is empty where they differ or have no meaning."""

    task: str
    metric: str
    chance: str
    shots: str


@dataclass(frozen=True)
class _Row:
    """A model's cells; `chat` says whether the template was used where that is the same in all of them, else None."""

    model: str
    chat: bool | None
    cells: Sequence[Cell | None]


@dataclass(frozen=True)
class _Block:
    """Tasks that fit side by side."""

    heads: Sequence[_Head]
    rows: Sequence[_Row]


def write_evaluation(path: Path, evaluation: Evaluation) -> None:
    """Write the page, whole or not at all. The same evaluation gives the same bytes."""
    write_page(path, render(evaluation))


def render(evaluation: Evaluation) -> str:
    """The page as HTML text."""
    tasks = asked_tasks(evaluation.rows)
    footnotes = Footnotes()
    blocks = [_block(evaluation.rows, some, footnotes) for some in _blocks(tasks)]
    scored = [score for row in evaluation.rows for score in row.scores]
    return fill(
        "evaluation.html.j2",
        kind=("评测报告", "evaluation report"),
        report=evaluation,
        blocks=blocks,
        guessing=GUESSING,
        guessed=sum(score.above_chance is False for score in scored),
        known=sum(score.above_chance is not None for score in scored),
        footnotes=footnotes.words,
        comparisons=_by_models(evaluation.comparisons),
        by_luck=f"{REAL * len(evaluation.comparisons):.1g}",
        bars=[
            subject_bars(row.model, score) for row in evaluation.rows for score in row.scores if _can_be_drawn(score)
        ],
        extra=list(_extra(evaluation.rows)),
        others=[_others(some) for some in _blocks(tasks) if published(some)],
    )


def comparison_table(comparisons: Sequence[Comparison], title: str = "") -> Table:
    """A line for each pair of models and task, for the terminal."""
    lines = []
    for one in comparisons:
        told = _comparison(one)
        cells = (one.task, one.first, one.second, told["difference"], told["error"], told["n"], told["p"])
        lines.append((*map(str, cells), one.verdict[1]))
    return Table(title, ("task", "model", "beside", "difference", "2 s.e.", "n", "p", ""), tuple(lines))


def _blocks(tasks: Sequence[str]) -> list[Sequence[str]]:
    """The origin's columns together, then the others."""
    own = [task for task in tasks if task in COLUMNS]
    more = [task for task in tasks if task not in COLUMNS]
    return [some[i : i + ACROSS] for some in (own, more) for i in range(0, len(some), ACROSS)]


def _block(rows: Sequence[Measured], tasks: Sequence[str], footnotes: Footnotes) -> _Block:
    drawn = []
    for row in rows:
        scores = [row.score(task) for task in tasks]
        templates = {score.chat for score in scores if score}
        if templates:
            chat = templates.pop() if len(templates) == 1 else None
            drawn.append(_Row(row.model, chat, [cell(score, footnotes) if score else None for score in scores]))
    return _Block([_head(rows, task) for task in tasks], drawn)


def _head(rows: Sequence[Measured], task: str) -> _Head:
    score = next(score for row in rows if (score := row.score(task)))
    shots = {score.shots for row in rows if (score := row.score(task)) and score.shots is not None}
    chance = "" if score.chance is None else f"{100 * score.chance:g}"
    return _Head(task, spell_metric(score.metric), chance, f"{shots.pop()}-shot" if len(shots) == 1 else "")


def _by_models(comparisons: Sequence[Comparison]) -> list[tuple[tuple[str, str], list[dict[str, object]]]]:
    """Both models and the rows about them."""
    found: dict[tuple[str, str], list[dict[str, object]]] = {}
    for one in comparisons:
        found.setdefault((one.first, one.second), []).append(_comparison(one))
    return list(found.items())


def _can_be_drawn(score: Score) -> bool:
    """Whether it has subjects, all of which have a number."""
    return bool(score.subjects) and all(math.isfinite(subject.value) for subject in score.subjects.values())


def _comparison(one: Comparison) -> dict[str, object]:
    share = is_share(one.metric)
    sign = spell_score(abs(one.difference), share)
    minus = "−" if one.difference < 0 else "+" if one.difference > 0 else ""
    error = NOTHING if one.stderr is None else f"± {spell_score(2 * one.stderr, share)}"
    return {
        "task": one.task,
        "difference": sign if sign == NOTHING else minus + sign,
        "error": error,
        "n": f"{one.n:,}",
        "alone": f"{one.alone:,}" if one.alone else "",
        "apart": NOTHING if one.only_first is None else f"{one.only_first:,} : {one.only_second:,}",
        "p": _spell_p(one.p),
        "verdict": one.verdict,
        "real": one.better is not None,
    }


def _spell_p(p: float | None) -> str:
    if p is None:
        return NOTHING
    return "< 0.0001" if p < 1e-4 else f"{p:.2g}" if p < 0.1 else f"{p:.2f}"


def _extra(rows: Sequence[Measured]) -> Iterable[tuple[str, str, Sequence[tuple[str, str]]]]:
    """Model, task, and its further metrics with their values."""
    for row in rows:
        for score in row.scores:
            if score.extra:
                yield (
                    row.model,
                    score.task,
                    [
                        (spell_metric(name), spell_score(v, is_share(name) and 0 <= v <= 1))
                        for name, v in score.extra.items()
                    ],
                )


def _others(tasks: Sequence[str]) -> tuple[Sequence[str], Sequence[tuple[tuple[str, str], Sequence[_Published]]]]:
    """Tasks that others have published scores of, and the models by source and setting.

    Each score comes as spelled, and with whether it is recalled.
    """
    rows = published(tasks)
    heads = [task for task in tasks if any(task in row.scores for row in rows)]
    groups: dict[tuple[str, str], list[_Published]] = {}
    for row in rows:
        cells = [(row.scores.get(task, NOTHING), task in row.recalled) for task in heads]
        groups.setdefault((row.source, row.setting), []).append((row, cells))
    return heads, list(groups.items())
