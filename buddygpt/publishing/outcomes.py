"""What a card says of what came out: what each stage changed, and scores on benchmarks, as rows of tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from buddygpt.publishing.facts import STAGES, Row, Words, plain
from buddygpt.publishing.story import Stage, Story
from buddygpt.report.scores import Score, asked_tasks
from buddygpt.report.scoretable import GUESSING, remarks, spell_margin, spell_metric, spell_score
from buddygpt.report.tuning import FIGURES, changes
from buddygpt.report.words import CHINESE, NOTHING

_METRICS = {"acc,none": "正确率", "bits_per_character,none": "每字符比特数"}
"""Chinese of lm-eval's keys; others stand as they are."""


_BUILT_IN: dict[str, Words] = {
    "demo": (
        "关于虚构小镇的四选一：训练文本讲过、但从没问过的事实",
        "four choices about the invented town: facts that its texts tell and training never asks for",
    ),
    "bits-zh": ("16 段真实的中文散文，越低越好", "16 passages of real Chinese prose; fewer are better"),
}
"""What the benchmarks are that nobody else has."""


def change_rows(stages: Sequence[Stage]) -> tuple[list[Words], list[Row]]:
    """What each stage changed: the stages, and a row for each figure."""
    columns: dict[str, Any] = {}
    for stage in stages:
        for name, figures in stage.columns().items():
            columns[name] = {**columns.get(name, {}), **figures}
    heads = [STAGES.get(name, (CHINESE.get(name, name), name)) for name in columns]
    rows: list[Row] = []
    for name, *values in changes(columns):
        meaning = FIGURES[name][1]
        rows.append(((CHINESE[name], name), *values, (CHINESE[meaning], meaning)))
    return heads, rows


def score_rows(story: Story) -> list[Row]:
    """Each task: score, error, chance, how it was asked, what to mind."""
    if story.measured is None:
        return []
    scores = {score.task: score for score in story.measured.scores}
    return [_score(scores[task]) for task in asked_tasks([story.measured])]


def _score(score: Score) -> Row:
    about = [_BUILT_IN[score.task]] if score.task in _BUILT_IN else []
    mind = [*about, *([GUESSING] if score.above_chance is False else []), *remarks(score)]
    if (mean := score.subject_mean) is not None:
        told = spell_score(mean, score.share)
        mind.append((f"各科目平均 {told}", f"mean over subjects {told}"))
    return (
        plain(score.task),
        (_METRICS.get(score.metric, spell_metric(score.metric)), spell_metric(score.metric)),
        spell_score(score.value, score.share),
        spell_margin(score),
        NOTHING if score.chance is None else f"{100 * score.chance:g}",
        f"{score.n:,}",
        NOTHING if score.shots is None else str(score.shots),
        ("是", "yes") if score.chat else ("否", "no"),
        ("；".join(one[0] for one in mind), "; ".join(one[1] for one in mind)),
    )


def score_settings(story: Story) -> Iterable[str]:
    """What the scores were made with, each once."""
    scores = story.measured.scores if story.measured else ()
    for name, spelling in (("lm_eval", "lm-eval {}"), ("dtype", "{}"), ("device", "{}"), ("date", "{}")):
        found = [score.settings[name] for score in scores if name in score.settings]
        days = [value[:10] if name == "date" else value for value in found]
        yield from map(spelling.format, dict.fromkeys(days))
