"""Several runs side by side on one page: curves over each other, what differs between their recipes, final figures."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from buddygpt.recipe.base import spell_bytes
from buddygpt.recipe.geometry import count_parameters
from buddygpt.recipe.schema import Chapter, Recipe
from buddygpt.report.curves import Series, column, finite, recent_mean, smooth, thin
from buddygpt.report.figures import BITS, LONG, NARROW, WIDE, Figure, Key, falling, sources
from buddygpt.report.plots import LINES, Curve, draw
from buddygpt.report.template import fill, write_page
from buddygpt.report.words import NOTHING, spell_count, spell_duration, spell_number

CHAPTERS = {
    "pretrain": ("预训练", "pretraining"),
    "sft": ("微调", "fine-tuning"),
    "dpo": ("偏好调优", "preference tuning"),
}
AXES = {"tokens": ("按词元", "over tokens"), "flops": ("按运算量", "over FLOPs"), "seconds": ("按时间", "over time")}


@dataclass(frozen=True)
class Side:
    """One run.

    Args:
        name: unlike that of the others.
        recipe: the run's.
        metrics: rows as in metrics.jsonl, by chapter.
        finished: chapters whose whole budget was trained.
    """

    name: str
    recipe: Recipe
    metrics: Mapping[Chapter, Sequence[Mapping[str, Any]]]
    finished: frozenset[str]


@dataclass(frozen=True)
class Line:
    """A row of a table: what it is of, and a spelled value for each run; `best` are the columns that are best."""

    chinese: str
    english: str
    values: Sequence[str]
    best: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Part:
    """What is shown of one chapter that all runs have."""

    heading: tuple[str, str]
    lines: Sequence[Line]
    figures: Sequence[Figure]


def shared_chapters(sides: Sequence[Side]) -> list[Chapter]:
    """Chapters of which every run has metrics."""
    return [name for name in CHAPTERS if all(side.metrics.get(name) for side in sides)]


def same_tokens(sides: Sequence[Side]) -> bool:
    """Whether all runs read text in the same tokens: only then can losses be compared."""
    return len({json.dumps(side.recipe.as_dict("tokenizer")) for side in sides}) == 1


def write_comparison(path: Path, sides: Sequence[Side]) -> None:
    """Write the page, whole or not at all. The same runs give the same bytes."""
    write_page(path, render(sides))


def render(sides: Sequence[Side]) -> str:
    """The page as HTML text, of at least one chapter that all runs have."""
    names = [side.name for side in sides]
    return fill(
        "comparison.html.j2",
        kind=("训练对比", "runs side by side"),
        report={"title": " · ".join(names)},
        names=names,
        parts=[_part(sides, chapter) for chapter in shared_chapters(sides)],
        same_tokens=same_tokens(sides),
        differences=differences([side.recipe.as_dict() for side in sides]),
    )


def differences(recipes: Sequence[Mapping[str, Any]]) -> list[Line]:
    """Fields that are not the same in all recipes, but for their names."""
    flat = [dict(_flatten(recipe)) for recipe in recipes]
    keys = dict.fromkeys(key for one in flat for key in one)
    found = []
    for key in keys:
        values = [one.get(key, NOTHING) for one in flat]
        if key != "name" and len(set(values)) > 1:
            found.append(Line(key, "", values))
    return found


def _flatten(value: Any, path: str = "") -> Iterable[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _flatten(inner, f"{path}.{key}" if path else str(key))
    else:
        yield path, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _part(sides: Sequence[Side], chapter: Chapter) -> Part:
    rows = [side.metrics[chapter] for side in sides]
    states = [chapter in side.finished for side in sides]
    return Part(CHAPTERS[chapter], list(_lines(sides, rows, states)), list(_figures(sides, rows, chapter)))


Rows = Sequence[Mapping[str, Any]]


def _lines(sides: Sequence[Side], rows: Sequence[Rows], finished: Sequence[bool]) -> Iterable[Line]:
    yield Line("状态", "state", ["完成 finished" if done else "未完成 unfinished" for done in finished])
    yield Line("参数量", "parameters", [spell_count(count_parameters(side.recipe.model).total) for side in sides])
    yield Line("步数", "steps", [f"{max(row['step'] for row in one):,}" for one in rows])
    yield Line("词元", "tokens", [spell_count(max(row["tokens"] for row in one)) for one in rows])
    losses, best = [recent_mean(column(one, "loss"))[0] for one in rows], min if same_tokens(sides) else None
    yield _figure_line("训练损失", "training loss", losses, lambda v: spell_number(v, 3), best)
    for name in dict.fromkeys(name for one in rows for name in sources(one)):
        found = [_last(one, f"eval/{name}/{BITS}") for one in rows]
        yield _figure_line(f"{name} 每字符比特", "bits per character", found, lambda v: spell_number(v, 3), min)
    for name in dict.fromkeys(name for one in rows for name in sources(one, "accuracy")):
        found = [_last(one, f"eval/{name}/accuracy") for one in rows]
        yield _figure_line(f"{name} 正确率", "accuracy", found, "{:.1%}".format, max)
    for key, chinese, english, spell in (
        ("seconds", "训练用时", "training time", spell_duration),
        ("tokens_per_second", "词元每秒", "tokens per second", spell_count),
        ("mfu", "算力利用率", "MFU", "{:.1%}".format),
        ("flops_per_second", "有用运算每秒", "useful FLOP/s", spell_count),
        ("peak_bytes", "内存峰值", "peak memory", spell_bytes),
    ):
        of = {"seconds": np.sum, "peak_bytes": np.max}.get(key, np.median)
        found = [float(of(values)) if len(values := column(one, key).finite) else math.nan for one in rows]
        if any(map(math.isfinite, found)):
            yield _figure_line(chinese, english, found, spell)
    skipped = [sum(1 for row in one if row.get("skipped")) for one in rows]
    if any(skipped):
        yield Line("跳过的步", "skipped steps", [f"{count:,}" for count in skipped])


def _figure_line(
    chinese: str,
    english: str,
    values: Sequence[float],
    spell: Callable[[float], str],
    best: Callable[[Iterable[float]], float] | None = None,
) -> Line:
    known = [value for value in values if math.isfinite(value)]
    top = best(known) if best and len(known) > 1 else None
    spelled = [spell(value) if math.isfinite(value) else NOTHING for value in values]
    return Line(chinese, english, spelled, frozenset(i for i, value in enumerate(values) if value == top))


def _last(rows: Rows, key: str) -> float:
    return next((finite(row[key]) for row in reversed(rows) if key in row), math.nan)


def _figures(sides: Sequence[Side], rows: Sequence[Rows], chapter: str) -> Iterable[Figure]:
    long = max(len(column(one, "loss")) for one in rows) >= LONG
    named = [(f"eval/{name}/{BITS}", f"{name} 每字符比特", "bits per character") for name in _all(rows, BITS)]
    named += [(f"eval/{name}/accuracy", f"{name} 正确率", "accuracy") for name in _all(rows, "accuracy")]
    named += [("loss", "训练损失", "training loss")]
    for key, chinese, english in named:
        for axis in ("tokens", "flops", "seconds"):
            found = [_over(one, key, axis) for one in rows]
            if not all(len(series.finite) for series in found):
                continue
            divisor, unit = _unit(axis, max(float(series.x.max()) for series in found))
            series = [Series(one.x / divisor, one.y) for one in found]
            drawn = [smooth(one) if key == "loss" else thin(one) for one in series]
            name = f"{chapter}-{key}-{axis}".replace("/", "-")
            # Beside a run's name stands the table's figure.
            ends = [recent_mean(one)[0] if key == "loss" else float(one.finite[-1]) for one in found]
            named_ends = [f"{side.name} {spell_number(end, 3)}" for side, end in zip(sides, ends, strict=True)]
            yield _overlaid(name, (chinese, english), axis, unit, named_ends, drawn, long)


def _all(rows: Sequence[Rows], figure: str) -> list[str]:
    return list(dict.fromkeys(name for one in rows for name in sources(one, figure)))


def _over(rows: Rows, key: str, axis: str) -> Series:
    """A figure over tokens, over useful operations or over seconds of training, saving and evaluating left out."""
    x, pairs = 0.0, []
    for row in rows:
        seconds = finite(row.get("seconds"))
        if axis == "tokens":
            x = row["tokens"]
        elif math.isfinite(seconds):
            work = seconds * finite(row.get("flops_per_second")) if axis == "flops" else seconds
            x = x + work if math.isfinite(work) else math.nan
        if key in row and math.isfinite(x):
            pairs.append((x, finite(row[key])))
    return Series(*np.array(pairs, dtype=np.float64).reshape(-1, 2).T)


def _unit(axis: str, most: float) -> tuple[float, str]:
    """What to divide by, and the word for what comes of it."""
    units = {
        "tokens": ((1.0, "tokens"),),
        "flops": ((1e21, "ZFLOP"), (1e18, "EFLOP"), (1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP")),
        "seconds": ((86400 * 3.0, "d"), (3600 * 2.0, "h"), (120.0, "min"), (1.0, "s")),
    }[axis]
    size, unit = next((one for one in units if most >= one[0]), units[-1])
    return {"d": 86400.0, "h": 3600.0, "min": 60.0}.get(unit, size), unit


def _overlaid(
    name: str, what: tuple[str, str], axis: str, unit: str, names: Sequence[str], series: Sequence[Series], long: bool
) -> Figure:
    curves, keys = [], []
    for n, (side, one) in enumerate(zip(names, series, strict=True)):
        # Numbers stand on the lines one after the other, so that lines that end together do not hide them.
        curves.append(Curve(one, n, width=1.8, name=str(n + 1), at=(n + 1) / (len(names) + 1)))
        keys.append(Key(f"{n + 1} {side}", n % LINES + 1, "solid"))
    scale = falling(series, long)
    label = f"{what[0]} {what[1]} {AXES[axis][1]}: " + "; ".join(key.text for key in keys)
    wide = axis == "tokens"
    narrow, large = (draw(f"{name}-{s[0]}", label, curves, s, scale, unit=unit) for s in (NARROW, WIDE))
    return Figure(what[0], what[1], AXES[axis], narrow, large if wide else None, keys if wide else ())
