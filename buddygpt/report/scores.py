"""Scores as plain data: what a page, a model card and the terminal are written from. Nothing here is computed anew."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

COLUMNS = ("cmmlu", "mmlu", "ceval", "gpqa", "ifeval", "aime24", "math-500", "livecodebench")
"""Tasks that come first, in this order."""
REAL = 0.05
"""A difference that luck brings about more seldom than this counts as real."""


class Subject(NamedTuple):
    """One subject of a task: its score, how many items, and the 95 % interval."""

    value: float
    n: int
    low: float
    high: float


@dataclass(frozen=True)
class Score:
    """What a model reached in a task. Shares are 0 to 1.

    Args:
        task: as asked for.
        metric: lm-eval's key, such as `acc,none`.
        value: over all items of all subjects, each item with the same weight; NaN where it is not a number.
        stderr: its standard error; None where there are too few items.
        n: items that were asked.
        low, high: 95 % interval.
        chance: what guessing gives; None where that is not known.
        above_chance: by more than two standard errors; None where chance is not known.
        shots: worked examples before each question; None where that has no meaning.
        chat: whether the chat template was used.
        subjects: name to its score; empty where there is one only.
        cut: prompts that were cut to fit the context.
        fewer_shots: subject to the examples that it got, where they are fewer.
        total: items there are; more than `n` where a limit was set.
        contaminated: training documents that held pieces of the task's items and were left out; None where unknown.
        extra: further metrics by name.
        settings: what else it hangs on by name: device, dtype, version of lm-eval, date.
    """

    task: str
    metric: str
    value: float
    stderr: float | None
    n: int
    low: float
    high: float
    chance: float | None = None
    above_chance: bool | None = None
    shots: int | None = None
    chat: bool = False
    subjects: Mapping[str, Subject] = field(default_factory=dict)
    cut: int = 0
    fewer_shots: Mapping[str, int] = field(default_factory=dict)
    total: int = 0
    contaminated: int | None = None
    extra: Mapping[str, float] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def share(self) -> bool:
        """Whether it is a share; else bits, of which fewer are better."""
        return is_share(self.metric)

    @property
    def subject_mean(self) -> float | None:
        """Mean over subjects, each with the same weight, as C-Eval's paper counts; None without subjects."""
        values = [subject.value for subject in self.subjects.values()]
        return sum(values) / len(values) if values else None


@dataclass(frozen=True)
class Measured:
    """One model and all that was measured of it."""

    model: str
    scores: Sequence[Score]

    def score(self, task: str) -> Score | None:
        """That of a task, if it was asked."""
        return next((score for score in self.scores if score.task == task), None)


@dataclass(frozen=True)
class Comparison:
    """Two models on the same items of one task.

    Args:
        task, metric: as of a `Score`.
        first, second: names of the models.
        n: items that both were asked.
        difference: first less second, over these items.
        stderr: its standard error; None below two items.
        p: how often luck alone parts two equal models as far, two-sided; None without common items.
        only_first, only_second: items that only this one has right; None where items are not right or wrong.
        alone: items left out: only one of the models was asked, or has a number for it.
    """

    task: str
    metric: str
    first: str
    second: str
    n: int
    difference: float
    stderr: float | None
    p: float | None
    only_first: int | None = None
    only_second: int | None = None
    alone: int = 0

    @property
    def better(self) -> str | None:
        """The model that is really better; None where the difference may be chance."""
        if self.p is None or self.p >= REAL:
            return None
        return self.first if (self.difference > 0) == is_share(self.metric) else self.second

    @property
    def verdict(self) -> tuple[str, str]:
        """In Chinese and in English."""
        if self.p is None:
            return "没有共同的题目", "no items in common"
        if self.better is None:
            return "可能只是运气", "may be chance"
        return f"差别是真的：{self.better} 更好", f"the difference is real: {self.better} is better"


def is_share(metric: str) -> bool:
    """Whether a metric counts right answers; those in bits count what is left to guess."""
    return not metric.startswith("bits_per")


def asked_tasks(rows: Sequence[Measured]) -> list[str]:
    """All tasks of the rows: those with a place of their own first, then the others as they come."""
    asked = dict.fromkeys(score.task for row in rows for score in row.scores)
    return [*(task for task in COLUMNS if task in asked), *(task for task in asked if task not in COLUMNS)]


def plain(value: Measured | Comparison) -> dict[str, Any]:
    """For JSON: what is no number becomes null."""
    return _finite(asdict(value))


def measured_from(data: Mapping[str, Any]) -> Measured:
    """What `plain` gave."""
    return Measured(data["model"], tuple(_score_from(score) for score in data["scores"]))


def measured_in(file: Path, weights: str) -> Measured | None:
    """All that a `results.json` tells of the model that has these weights; None where it is not there, or of others."""
    try:
        data = json.loads(file.read_text("utf-8"))["buddygpt"]
        return measured_from(data) if data["weights"] == weights else None
    except (OSError, ValueError, LookupError):
        return None


def _score_from(data: Mapping[str, Any]) -> Score:
    known = {f.name for f in fields(Score)}
    numbers = {name: _number(data[name]) for name in ("value", "low", "high")}
    subjects = {name: Subject(_number(v), n, _number(a), _number(b)) for name, (v, n, a, b) in data["subjects"].items()}
    extra = {name: _number(value) for name, value in data["extra"].items()}
    return Score(**{k: v for k, v in data.items() if k in known} | numbers | {"subjects": subjects, "extra": extra})


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
