"""Scores in words: cells of the page's table, the same table as Markdown for a model card, and for the terminal."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from buddygpt.events import Table
from buddygpt.report.scores import Measured, Score, asked_tasks
from buddygpt.report.words import NOTHING, spell_number

NAMED = 4
"""Subjects that a footnote names; it counts the others."""
GUESSING = ("不高于随机", "not above chance")

Words = tuple[str, str]
"""In Chinese and in English."""


@dataclass(frozen=True)
class Cell:
    """A score as a table shows it.

    Args:
        value: the score, in per cent without the sign or in bits.
        margin: two standard errors, or the 95 % interval where an error of 0 would mislead.
        n: items asked.
        shots: worked examples; empty where they have no meaning.
        chat: whether the chat template was used.
        subjects: mean over subjects; empty without them.
        guessing: not above chance.
        notes: numbers of footnotes.
    """

    value: str
    margin: str
    n: str
    shots: str
    chat: bool
    subjects: str
    guessing: bool
    notes: tuple[int, ...]


class Footnotes:
    """What must be known of some scores, numbered as it comes; said twice it has one number."""

    def __init__(self) -> None:
        self.words: list[Words] = []

    def numbers(self, notes: Iterable[Words]) -> tuple[int, ...]:
        """Those of the notes."""
        found = []
        for note in notes:
            if note not in self.words:
                self.words.append(note)
            found.append(self.words.index(note) + 1)
        return tuple(found)


def cell(score: Score, footnotes: Footnotes) -> Cell:
    """The words for one score; what is unusual about it goes to the footnotes."""
    mean = score.subject_mean
    return Cell(
        value=spell_score(score.value, score.share),
        margin=spell_margin(score),
        n=f"{score.n:,}",
        shots="" if score.shots is None else f"{score.shots}-shot",
        chat=score.chat,
        subjects="" if mean is None else spell_score(mean, score.share),
        guessing=score.above_chance is False,
        notes=footnotes.numbers(remarks(score)),
    )


def spell_score(value: float, share: bool) -> str:
    """A share in per cent, as tables of benchmarks have it; else three decimals."""
    return spell_number(100 * value, 2) if share else spell_number(value, 3)


def spell_margin(score: Score) -> str:
    """Two standard errors; the interval where all or nothing is right, for the error is 0 then."""
    if score.share and score.value in (0, 1):
        return f"{100 * score.low:.2f}–{100 * score.high:.2f}"
    if score.stderr is None or not math.isfinite(score.stderr):
        return NOTHING
    return f"± {spell_score(2 * score.stderr, score.share)}"


def spell_metric(metric: str) -> str:
    """lm-eval's key as one reads it: without a filter that does nothing."""
    return metric.removesuffix(",none").replace("_", " ").replace(",", ", ")


def remarks(score: Score) -> Iterable[Words]:
    """What sets a score apart from the task as it is meant."""
    if score.fewer_shots:
        if list(score.fewer_shots) == [score.task] or not score.subjects:
            got = next(iter(score.fewer_shots.values()))
            yield (
                f"上下文放不下 {score.shots} 个示例，只用了 {got} 个",
                f"{got} shots, for the context has no room for {score.shots}",
            )
        else:
            names = _named(score.fewer_shots)
            count = len(score.fewer_shots)
            yield (
                f"上下文放不下 {score.shots} 个示例的科目有 {count} 个，用得较少：{names}",
                f"fewer than {score.shots} shots in {_counted(count, 'subject')}, for want of context: {names}",
            )
    if score.cut:
        yield f"{score.cut:,} 个提示放不下，被截短", f"{_counted(score.cut, 'prompt')} cut to fit the context"
    if score.n < score.total:
        yield f"{score.total:,} 题中只测了 {score.n:,} 题", f"{score.n:,} of {score.total:,} items asked"
    if score.contaminated:
        yield (
            f"训练数据中有 {score.contaminated:,} 篇文档含有其中题目的片段，已去掉",
            f"{_counted(score.contaminated, 'training document')} with pieces of its items, left out of training",
        )


def markdown_table(rows: Sequence[Measured]) -> str:
    """The measured scores as Markdown for a model card, with the footnotes below; empty without rows."""
    tasks = asked_tasks(rows)
    if not tasks:
        return ""
    footnotes = Footnotes()
    lines = ["| model | " + " | ".join(tasks) + " |", "| --- |" + " ---: |" * len(tasks)]
    for row in rows:
        cells = [_markdown(score, footnotes) if (score := row.score(task)) else NOTHING for task in tasks]
        lines.append(f"| {_escape(row.model)}{_template(row)} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "Shares in per cent; ± is two standard errors, a range the 95 % interval; no chat template unless named.",
        "",
    ]
    lines += [f"- {_setting(task, rows)}" for task in tasks]
    lines += [""]
    lines += [f"<sup>{number}</sup> {english}.  " for number, (_, english) in enumerate(footnotes.words, 1)]
    return "\n".join(lines).rstrip() + "\n"


def terminal_table(rows: Sequence[Measured], title: str = "") -> Table:
    """A line for each model and task; the last column says what is to be known of the score."""
    lines = []
    for task in asked_tasks(rows):
        for row in rows:
            if (score := row.score(task)) is None:
                continue
            one = cell(score, Footnotes())
            words = [GUESSING[1]] if one.guessing else []
            if one.subjects:
                words.append(f"mean over subjects {one.subjects}")
            if score.chat:
                words.append("chat template")
            words += [english for _, english in remarks(score)]
            line = (task, row.model, one.value, one.margin, one.n, one.shots or NOTHING, "; ".join(words))
            lines.append(line if len(rows) > 1 else (line[0], *line[2:]))
    heads = ("task", "model", "score", "2 s.e.", "n", "shots", "")
    return Table(title, heads if len(rows) > 1 else (heads[0], *heads[2:]), tuple(lines))


def _markdown(score: Score, footnotes: Footnotes) -> str:
    one = cell(score, footnotes)
    note = "".join(f"<sup>{number}</sup>" for number in one.notes)
    margin = one.margin if one.margin.startswith("±") else f"({one.margin})"
    text = f"{one.value}{note} {margin}"
    return f"{text} ({GUESSING[1]})" if one.guessing else text


def _template(row: Measured) -> str:
    """Which of a model's tasks were asked with the chat template."""
    tasks = [score.task for score in row.scores if score.chat]
    if not tasks:
        return ""
    others = [score.task for score in row.scores if not score.chat]
    if len(others) > len(tasks):
        return f" (chat template in {', '.join(tasks)})"
    return f" (chat template{' but in ' + ', '.join(others) if others else ''})"


def _setting(task: str, rows: Sequence[Measured]) -> str:
    """How a task was asked: metric, items, shots and chance, each once; and the means over subjects."""
    scores = [score for row in rows if (score := row.score(task))]
    parts = list(dict.fromkeys(spell_metric(score.metric) for score in scores))
    parts += dict.fromkeys(f"n = {score.n:,}" for score in scores)
    parts += dict.fromkeys(f"{score.shots}-shot" for score in scores if score.shots is not None)
    parts += dict.fromkeys(f"chance {100 * score.chance:g}" for score in scores if score.chance is not None)
    means = [spell_score(mean, score.share) for score in scores if (mean := score.subject_mean) is not None]
    if means:
        parts.append(f"mean over subjects {' / '.join(means)}")
    return f"{task}: " + ", ".join(parts)


def _named(fewer: Mapping[str, int]) -> str:
    names = [f"{name.replace('_', ' ')} {fewer[name]}" for name in list(fewer)[:NAMED]]
    return ", ".join(names) + (f" + {len(fewer) - NAMED}" if len(fewer) > NAMED else "")


def _counted(count: int, thing: str) -> str:
    return f"{count:,} {thing}{'s' * (count != 1)}"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
