"""What a page shows of fine-tuning and preference tuning beside the course of training.

What each stage changed, how pairs are judged, and cautions in plain words.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from buddygpt.report.curves import column, finite, recent_mean
from buddygpt.report.figures import sources
from buddygpt.report.reach import Context, context_cautions
from buddygpt.report.template import Headline
from buddygpt.report.words import CHINESE, NOTHING, spell_number

STOPS, REPEATS = "stops by itself", "repeats itself"
"""Figures whose getting worse is told."""
WORSE = 0.05
"""Share of the replies from which on that is more than chance."""
FALLEN = 1.0
"""Nats by which a chosen answer may become less probable untold: it is e times less probable then."""
FALLEN_REWARD = 0.1
"""The same as a reward, where no pairs are held out: a nat at trl's and our beta of 0.1."""
FIGURES: dict[str, tuple[str, str]] = {
    "facts asked for": (".1%", "facts of the demo world that training asked for, in new words: answered exactly"),
    "facts held out": (".1%", "facts of the demo world that training never asked for: answered exactly"),
    "true answer preferred": (".1%", "of a true and a false answer about a fact held out, the true one more probable"),
    "stops by itself": (".1%", "replies that end before the most tokens they may have"),
    "tokens of a reply": (".1f", "mean length"),
    "distinct 4-grams": (".2f", "within replies; 1 where nothing is repeated"),
    "repeats itself": (".1%", "replies that say a line twice or run in a loop"),
}
"""Name to format and meaning of each figure."""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Changes:
    """The table of what each stage changed.

    Args:
        heads: of the columns: names of stages and of what they are compared with.
        rows: name of a figure, then its value in each column, spelled; empty where it has none.
        meanings: name of a figure to what it means.
    """

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    meanings: Mapping[str, str]


@dataclass(frozen=True)
class Tuning:
    """What a tuning run adds to a page: plain data only.

    Args:
        chapter: which it is.
        changes: None where nothing was judged.
        before, after: figures of the model that it began with, and of the result; empty while it is unfinished.
        kl: distance to the reference in nats a reply and nats a token; None where it was not measured.
        first_loss: what the loss is while the model is its own reference, where that is known.
        context: how far the model reaches, where its context was extended.
    """

    chapter: Literal["sft", "dpo"]
    changes: Changes | None = None
    before: Mapping[str, float] = field(default_factory=dict)
    after: Mapping[str, float] = field(default_factory=dict)
    kl: tuple[float, float] | None = None
    first_loss: float | None = None
    context: Context | None = None


@dataclass(frozen=True)
class JudgedPairs:
    """Last evaluation on the pairs of one source, spelled."""

    source: str
    accuracy: str
    margin: str
    chosen: str
    rejected: str


def changes(columns: Mapping[str, Mapping[str, float]]) -> list[tuple[str, ...]]:
    """A row for each figure that some column has: its name, and how it is spelled in each column."""
    return [
        (name, *(format(column[name], spelling) if name in column else "" for column in columns.values()))
        for name, (spelling, _) in FIGURES.items()
        if any(name in column for column in columns.values())
    ]


def judged_pairs(metrics: Sequence[Row]) -> list[JudgedPairs]:
    """A row for each source of held-out pairs."""
    rows = []
    for name in sources(metrics, "margin"):
        accuracy, margin, chosen, rejected = _last(metrics, name)
        rows.append(
            JudgedPairs(
                name, spell_share(accuracy), spell_number(margin, 3), spell_signed(chosen), spell_signed(rejected)
            )
        )
    return rows


def pair_headlines(metrics: Sequence[Row]) -> Iterable[Headline]:
    """Share of held-out pairs whose chosen answer is preferred."""
    for row in judged_pairs(metrics):
        if row.accuracy != NOTHING:
            yield Headline(
                f"{CHINESE.get(row.source, row.source)} 偏好正确率",
                "held-out pairs judged right",
                row.accuracy,
                "训练前按定义为 50%",
                "50% before training, by definition",
            )


def distance_headline(tuning: Tuning) -> Iterable[Headline]:
    """How far the model went from its reference."""
    if tuning.kl is not None:
        reply, token = (spell_number(value, digits) for value, digits in zip(tuning.kl, (2, 4), strict=True))
        yield Headline(
            "与参考模型的距离",
            "KL to the reference",
            reply,
            f"每条回复，nat；每词元 {token}",
            f"nats a reply; {token} a token",
        )


def tuning_cautions(metrics: Sequence[Row], tuning: Tuning) -> Iterable[tuple[str, str]]:
    """What a reader must know of the result, in Chinese and in English."""
    if tuning.chapter == "dpo":
        yield from _fallen(metrics)
    yield from _ill(tuning)
    if tuning.context is not None:
        yield from context_cautions(tuning.context)


def _fallen(metrics: Sequence[Row]) -> Iterable[tuple[str, str]]:
    """Both answers less probable than before (likelihood displacement, arXiv 2410.08847)."""
    advice = ("常见的对策：加入 sft 损失，或调大 beta", "remedies: add the `sft` loss, or a larger beta")
    judged = sources(metrics, "margin")
    for name in judged:
        _, _, chosen, rejected = _last(metrics, name)
        if max(chosen, rejected) < -FALLEN:
            yield (
                f"{name}：不只是较差的回答，较好的回答也变得更不可能了（对数概率平均 {spell_signed(chosen)}，"
                f"较差的 {spell_signed(rejected)} nat）：模型可能改说别的话。{advice[0]}",
                f"{name}: not only rejected answers became less probable, chosen ones did too (log-probability "
                f"{spell_signed(chosen)} nats on average, rejected {spell_signed(rejected)}): the model may say "
                f"something else instead; {advice[1]}",
            )
    if not judged:
        chosen, rejected = (recent_mean(column(metrics, f"rewards/{side}"))[0] for side in ("chosen", "rejected"))
        if max(chosen, rejected) < -FALLEN_REWARD:
            yield (
                f"训练的偏好对中，较好的回答也变得更不可能了（奖励 {spell_signed(chosen)}，较差的 "
                f"{spell_signed(rejected)}）：模型可能改说别的话。{advice[0]}",
                f"of the pairs in training, chosen answers too became less probable (reward {spell_signed(chosen)}, "
                f"rejected {spell_signed(rejected)}): the model may say something else instead; {advice[1]}",
            )


def _ill(tuning: Tuning) -> Iterable[tuple[str, str]]:
    """Replies that repeat more or end less often than before."""
    told = {
        STOPS: (-1, "自己停下的回复变少了", "fewer replies end by themselves than before"),
        REPEATS: (1, "重复自己的回复变多了", "more replies repeat themselves than before"),
    }
    for name, (sign, chinese, english) in told.items():
        before, after = (finite(figures.get(name)) for figures in (tuning.before, tuning.after))
        if sign * (after - before) > WORSE:
            course = f"{spell_share(before)} → {spell_share(after)}"
            yield f"{chinese}：{course}", f"{english}: {course}"


def _last(metrics: Sequence[Row], name: str) -> tuple[float, float, float, float]:
    """Accuracy, margin, and both log-ratios of a source's last evaluation."""
    row = next((row for row in reversed(metrics) if f"eval/{name}/margin" in row), {})
    keys = ("accuracy", "margin", "chosen_log_ratio", "rejected_log_ratio")
    accuracy, margin, chosen, rejected = (finite(row.get(f"eval/{name}/{key}")) for key in keys)
    return accuracy, margin, chosen, rejected


def spell_share(value: float) -> str:
    """A share in per cent."""
    return f"{value:.1%}" if math.isfinite(value) else NOTHING


def spell_signed(value: float) -> str:
    """A change, with its sign."""
    return f"{value:+.2f}".replace("-", "−") if math.isfinite(value) else NOTHING
