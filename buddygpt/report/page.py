"""A training run as one HTML page that needs nothing but itself: no network, no script."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from buddygpt.report.curves import column, finite, recent_mean
from buddygpt.report.experts import layer_loads, load_figure
from buddygpt.report.figures import BITS, make_figures, some, sources
from buddygpt.report.normal import Size, checks
from buddygpt.report.preferences import preference_figures
from buddygpt.report.reach import context_figures, context_rows, context_verdict
from buddygpt.report.template import Headline, fill, write_page
from buddygpt.report.tuning import Tuning, distance_headline, judged_pairs, pair_headlines, tuning_cautions
from buddygpt.report.usage import skipped_steps, time_parts, usage_figure, usage_headlines
from buddygpt.report.words import NOTHING, spell_count, spell_duration, spell_number, spell_steps

OLDER = 24
"""Most earlier evaluations whose samples the page shows, evenly spread; the file beside it has all."""

LONGEST = 2000
"""Characters of a sample that the page shows."""

KINDS = {
    None: ("训练报告", "training report"),
    "sft": ("微调报告", "fine-tuning report"),
    "dpo": ("偏好调优报告", "preference tuning report"),
}


@dataclass(frozen=True)
class Report:
    """What a page is made of: plain data only.

    Args:
        title: the run's name.
        facts: heading to rows of label and value.
        metrics: rows as in metrics.jsonl, of steps and of evaluations; None, NaN and infinity are gaps.
        samples: rows as in samples.jsonl.
        baselines: bits per character of a 5-gram Kneser-Ney model, by source.
        command: what to type next.
        finished: whether the whole budget was trained.
        tuning: what fine-tuning or preference tuning adds; None in pretraining.
        size: of a run of pretraining, by which its loss is judged; None: it is not judged.
    """

    title: str
    facts: Mapping[str, Sequence[tuple[str, str]]]
    metrics: Sequence[Mapping[str, Any]]
    samples: Sequence[Mapping[str, Any]]
    baselines: Mapping[str, float]
    command: str
    finished: bool
    tuning: Tuning | None = None
    size: Size | None = None


@dataclass(frozen=True)
class HeldOut:
    """Last evaluation on one source, spelled; `gain` is the difference to the 5-gram model in bits per character.

    `against` is the size of that difference alone.
    """

    source: str
    bits: str
    ngram: str
    gain: str
    against: str
    loss: str
    perplexity: str
    better: bool


def load_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a JSON-lines file; none where there is no file.

    A line that is no row of metrics or samples is left out: a crash cuts the last line short, and a resumed run writes
    on after it.
    """
    return read_rows(path)[0]


def read_rows(path: Path) -> tuple[list[dict[str, Any]], int]:
    """As `load_rows`, and how many lines were left out; a last one that has no end yet is not counted."""
    rows, damaged = [], 0
    # Split at newlines in bytes: str.splitlines also splits at U+2028, which a sample may hold, and the cut may lie
    # within a character.
    *lines, last = path.read_bytes().split(b"\n") if path.is_file() else (b"",)
    for line in lines:
        row = _row(line)
        if row is not None:
            rows.append(row)
        elif line.strip():
            damaged += 1
    row = _row(last)
    return rows if row is None else [*rows, row], damaged


def _row(line: bytes) -> dict[str, Any] | None:
    """A row that has what all readers of its file ask of it: a step, and tokens or a prompt with its text."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    if not isinstance(row, dict) or not isinstance(row.get("step"), int):
        return None
    sample = isinstance(row.get("prompt"), str) and isinstance(row.get("text"), str)
    return row if sample or isinstance(row.get("tokens"), (int, float)) else None


def write_report(path: Path, report: Report) -> None:
    """Write the page, whole or not at all. The same report gives the same bytes."""
    write_page(path, render(report))


def render(report: Report) -> str:
    """The page as HTML text."""
    metrics, tuning = report.metrics, report.tuning
    chapter = tuning.chapter if tuning else None
    held_out = _held_out(metrics, report.baselines)
    latest, older, left_out = _samples(report)
    more = some(usage_figure(metrics), load_figure(metrics))
    if chapter == "dpo":
        assert tuning is not None
        figures = preference_figures(metrics, tuning.first_loss)
        judged = [*pair_headlines(metrics), *distance_headline(tuning)]
    else:
        figures = make_figures(metrics, report.baselines, answers=chapter == "sft")
        judged = list(_bits(held_out, answers=chapter == "sft"))
    context = tuning.context if tuning else None
    return fill(
        "page.html.j2",
        kind=KINDS[chapter],
        chapter=chapter,
        report=report,
        steps=_last_step(metrics),
        cautions=[*_cautions(metrics), *(tuning_cautions(metrics, tuning) if tuning else ())],
        headline_rows=[judged, list(_totals(metrics))],
        held_out=held_out,
        pairs=judged_pairs(metrics),
        evaluated=any(key.startswith("eval/") for row in metrics for key in row),
        figures=figures + more,
        time_parts=time_parts(metrics),
        checks=checks(metrics, report.size, report.baselines) if report.size and metrics else (),
        layer_loads=layer_loads(metrics),
        changes=tuning.changes if tuning else None,
        context=context,
        context_rows=context_rows(context) if context else (),
        context_figures=context_figures(context) if context else (),
        context_verdict=context_verdict(context) if context else None,
        latest=latest,
        older=older,
        left_out=left_out,
    )


def _last_step(metrics: Sequence[Mapping[str, Any]]) -> int:
    return max((row["step"] for row in metrics), default=0)


def _cautions(metrics: Sequence[Mapping[str, Any]]) -> Iterable[tuple[str, str]]:
    """What went wrong, in Chinese and in English."""
    lost = [row["step"] for row in metrics if "loss" in row and math.isnan(finite(row["loss"]))]
    if lost:
        steps = spell_steps(lost)
        yield (
            f"损失在 {len(lost):,} 步不是有限数（NaN 或无穷大）：第 {steps} 步",
            f"the loss was not finite at {len(lost):,} step{'s' * (len(lost) > 1)}: {steps}",
        )
    for reason, skipped in skipped_steps(metrics).items():
        steps, several = spell_steps(skipped), "s" * (len(skipped) > 1)
        yield (
            f"跳过了 {len(skipped):,} 步，权重和动量保持不变：第 {steps} 步（{reason}）",
            f"{len(skipped):,} step{several} skipped, weights and moments unchanged: {steps} ({reason})",
        )
    for figure in (BITS, "margin"):
        for name in sources(metrics, figure):
            key = f"eval/{name}/{figure}"
            lost = [row["step"] for row in metrics if key in row and math.isnan(finite(row[key]))]
            if lost:
                steps = spell_steps(lost)
                yield f"{name} 的评估不是有限数：第 {steps} 步", f"evaluation on {name} was not finite at step {steps}"


def _held_out(metrics: Sequence[Mapping[str, Any]], baselines: Mapping[str, float]) -> list[HeldOut]:
    rows = []
    for name in dict.fromkeys([*sources(metrics), *baselines]):
        last = next((row for row in reversed(metrics) if f"eval/{name}/{BITS}" in row), {})
        loss, perplexity, bits = (finite(last.get(f"eval/{name}/{key}")) for key in ("loss", "perplexity", BITS))
        ngram = finite(baselines.get(name)) or math.nan  # zero bits cannot be compared with
        gain = bits - ngram
        rows.append(
            HeldOut(
                source=name,
                bits=spell_number(bits, 3),
                ngram=spell_number(ngram, 3),
                against=f"{abs(gain):.3f} ({abs(gain / ngram):.1%})",
                gain=NOTHING if math.isnan(gain) else f"{gain:+.3f} ({gain / ngram:+.1%})".replace("-", "−"),
                loss=spell_number(loss, 4),
                perplexity=spell_number(perplexity, 2),
                better=gain < 0,
            )
        )
    return rows


def _bits(held_out: Sequence[HeldOut], answers: bool) -> Iterable[Headline]:
    for row in held_out:
        if row.bits != NOTHING:
            known = row.gain != NOTHING
            yield Headline(
                f"{row.source} 留出回答的每字符比特" if answers else f"{row.source} 每字符比特",
                "bits per character of held-out answers" if answers else "bits per character",
                row.bits,
                f"比 5-gram {'低' if row.better else '高'} {row.against}" if known else "",
                f"{'below' if row.better else 'above'} a 5-gram model's {row.ngram}" if known else "",
            )


def _totals(metrics: Sequence[Mapping[str, Any]]) -> Iterable[Headline]:
    loss = column(metrics, "loss")
    if not len(loss):
        return
    mean, count = recent_mean(loss)
    last, end = f"{count:,}", spell_number(mean, 3)
    yield Headline("训练损失", "training loss", end, f"最后 {last} 步平均", f"mean of the last {last} steps")
    step, tokens = _last_step(metrics), float(loss.x.max())
    yield Headline("词元", "tokens", spell_count(tokens), f"{step:,} 步", f"{step:,} steps")
    seconds = column(metrics, "seconds").finite
    if len(seconds):
        time = spell_duration(float(seconds.sum()))
        yield Headline("训练用时", "training time", time, "不含评估和保存", "without evaluation and saving")
    speed = column(metrics, "tokens_per_second").finite
    if len(speed):
        middle = spell_count(float(np.median(speed)))
        yield Headline("速度", "tokens per second", middle, "各步的中位数", "median of steps")
    yield from usage_headlines(metrics)


Samples = list[Mapping[str, Any]]


def _samples(report: Report) -> tuple[tuple[int, Samples] | None, list[tuple[int, Samples]], int]:
    """The latest step's samples, those of earlier ones (latest first), and how many earlier steps are left out."""
    # A run that went on from a checkpoint writes some steps twice, and may end before those of an earlier try.
    end = _last_step(report.metrics) if report.metrics else math.inf
    by_step: dict[int, dict[str, Mapping[str, Any]]] = {}
    for row in report.samples:
        if row["step"] <= end:
            by_step.setdefault(row["step"], {})[row["prompt"]] = _short(row)
    steps = sorted(by_step, reverse=True)
    if not steps:
        return None, [], 0
    kept = steps[1:]
    if len(kept) > OLDER:
        kept = [kept[i] for i in np.linspace(0, len(kept) - 1, OLDER).round().astype(int)]
    groups = [(step, list(by_step[step].values())) for step in (steps[0], *kept)]
    return groups[0], groups[1:], len(steps) - len(groups)


def _short(row: Mapping[str, Any]) -> Mapping[str, Any]:
    text = str(row["text"])
    return {
        "prompt": row["prompt"],
        "text": text if len(text) <= LONGEST else text[:LONGEST] + "…",
        "distinct": spell_number(finite(row.get("distinct_4grams")), 2),
    }
