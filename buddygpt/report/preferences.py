"""The plots of preference tuning: accuracy, loss, rewards, and log-probabilities of both answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from buddygpt.report.curves import Series, column, reach, smooth, thin
from buddygpt.report.figures import NARROW, WIDE, Figure, Key, course, course_figures, level, noisy, some, sources
from buddygpt.report.plots import LINES, Curve, Scale, draw
from buddygpt.report.tuning import Row
from buddygpt.report.words import spell_number

CHOSEN, REJECTED = "较好的 chosen", "较差的 rejected"


@dataclass(frozen=True)
class _Line:
    """One figure over training.

    Args:
        name: what the legend says.
        series: of steps, which are smoothed, or of evaluations.
        line: colour, from 0.
        dashed: whether it is.
        steps: whether it is of steps.
    """

    name: str
    series: Series
    line: int
    dashed: bool = False
    steps: bool = False


def preference_figures(metrics: Sequence[Row], first_loss: float | None) -> list[Figure]:
    """The plots for which there is something to draw.

    Args:
        metrics: rows of steps and evaluations.
        first_loss: where the loss begins, if that is known.
    """
    begin = None if first_loss is None else (first_loss, f"起点 at first {first_loss:.3f}")
    loss, margins = column(metrics, "loss"), column(metrics, "rewards/margins")
    rewards = ("beta × 对参考模型的对数比", "beta times the log-ratio to the reference")
    return some(
        _accuracy(metrics),
        noisy("loss", "训练损失", "training loss", loss, begin=begin),
        noisy("margins", "奖励差", "reward margin", margins, Scale(), ("较好的减较差的", "chosen less rejected")),
        _both_sides(metrics, "rewards", "奖励", "rewards", rewards),
        _both_sides(metrics, "logps", "对数概率", "log-probabilities", ("整条回答，单位 nat", "whole answers, nats")),
        _log_ratios(metrics),
        *course_figures(metrics),
    )


def _accuracy(metrics: Sequence[Row]) -> Figure | None:
    lines = [
        _Line(name, column(metrics, f"eval/{name}/accuracy"), n) for n, name in enumerate(sources(metrics, "accuracy"))
    ]
    training = column(metrics, "rewards/accuracies")
    lines.append(_Line(f"训练 training, mean of ±{reach(training):,} steps", training, LINES - 1, steps=True))
    note = (
        "较好的回答得到更高奖励的比例；粗线是留出的偏好对",
        "share of pairs whose chosen answer has the higher reward; held-out pairs in bold",
    )
    chance = (0.5, "碰运气 chance 0.5")
    return _lines("accuracy", "偏好正确率", "preference accuracy", lines, note, chance, across=True)


def _both_sides(metrics: Sequence[Row], kind: str, chinese: str, english: str, note: tuple[str, str]) -> Figure | None:
    sides = ((CHOSEN, "chosen", 0), (REJECTED, "rejected", 1))
    lines = [_Line(name, column(metrics, f"{kind}/{side}"), line, steps=True) for name, side, line in sides]
    return _lines(kind, chinese, english, lines, note)


def _log_ratios(metrics: Sequence[Row]) -> Figure | None:
    lines = [
        _Line(f"{name} {side}", column(metrics, f"eval/{name}/{key}_log_ratio"), n, dashed)
        for n, name in enumerate(sources(metrics, "chosen_log_ratio"))
        for side, key, dashed in ((CHOSEN, "chosen", False), (REJECTED, "rejected", True))
    ]
    note = (
        "留出的偏好对，相对参考模型，单位 nat；低于 0 是变得更不可能",
        "held-out pairs, to the reference, nats; below 0 is less probable than before",
    )
    return _lines("ratios", "对数概率的变化", "change of log-probabilities", lines, note)


def _lines(
    name: str,
    chinese: str,
    english: str,
    lines: Sequence[_Line],
    note: tuple[str, str],
    begin: tuple[float, str] | None = None,
    across: bool = False,
) -> Figure | None:
    """Several lines in one plot; the legend tells each one's last value."""
    drawn = [one for one in lines if len(one.series.finite)]
    if not drawn:
        return None
    curves, keys, told = [], [], []
    for one in drawn:
        series = smooth(one.series) if one.steps else thin(one.series)
        width = 1.2 if one.steps and across else 1.8
        curves.append(Curve(series, one.line, width=width, dashed=one.dashed))
        last = spell_number(series.finite[-1], 3).replace("-", "−")
        keys.append(Key(f"{one.name} {last}", one.line % LINES + 1, "dashed" if one.dashed else "solid"))
        told.append(f"{one.name} {course(series)}")
    if begin is not None:
        end = max(float(one.series.x.max()) for one in drawn)
        curves.append(level(begin[0], end, LINES - 1))
        keys.append(Key(begin[1], LINES, "dashed"))
    label = f"{chinese} {english}: " + "; ".join(told)
    gaps = np.unique(np.concatenate([one.series.x[np.isnan(one.series.y)] for one in drawn]))
    narrow = draw(f"{name}-{NARROW[0]}", label, curves, NARROW, Scale(), gaps)
    wide = draw(f"{name}-{WIDE[0]}", label, curves, WIDE, Scale(), gaps) if across else None
    return Figure(chinese, english, note, narrow, wide, keys)
