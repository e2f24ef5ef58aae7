"""What a run cost: where its time went, how much of the device it used, how much memory it took."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from buddygpt.recipe.base import spell_bytes
from buddygpt.report.curves import column, smooth
from buddygpt.report.figures import NARROW, Figure, Key, course
from buddygpt.report.plots import Curve, Scale, draw
from buddygpt.report.template import Headline
from buddygpt.report.words import spell_count, spell_duration

PARTS = {
    "data": ("取数据", "data"),
    "forward": ("前向", "forward"),
    "backward": ("反向", "backward"),
    "optimizer": ("优化器", "optimizer"),
    "rest": ("其余", "rest"),
    "eval": ("评估", "evaluation"),
    "save": ("保存", "saving"),
}
"""Parts of the time in the order in which they are shown; the rest is what a step's parts leave of its seconds."""


@dataclass(frozen=True)
class Part:
    """One part of the time.

    Args:
        name: in Chinese and English.
        line: its colour, of the page's line colours from 1.
        share: of all the time, 0 to 1.
        time: spelled.
    """

    name: tuple[str, str]
    line: int
    share: float
    time: str


def time_parts(metrics: Sequence[Mapping[str, Any]]) -> list[Part]:
    """Where the time went; empty where no step was timed by parts."""
    seconds = {part: float(column(metrics, f"seconds_{part}").finite.sum()) for part in PARTS}
    steps = ("data", "forward", "backward", "optimizer")
    timed = [row for row in metrics if "seconds_forward" in row]
    if not timed:
        return []
    whole = float(column(timed, "seconds").finite.sum())
    seconds["rest"] = max(0.0, whole - sum(seconds[part] for part in steps))
    total = sum(seconds.values()) or 1.0
    return [
        Part(name, line, seconds[part] / total, spell_duration(seconds[part]))
        for line, (part, name) in enumerate(PARTS.items(), 1)
        if seconds[part] > 0
    ]


def usage_figure(metrics: Sequence[Mapping[str, Any]]) -> Figure | None:
    """Utilisation over the course of training; None where the device's peak is not known."""
    named = {"mfu": "全部 all", "mfu_body": "各层 body", "mfu_head": "输出头 head"}
    found = {name: smooth(column(metrics, key)) for key, name in named.items()}
    drawn = {name: series for name, series in found.items() if len(series.finite)}
    if not drawn:
        return None
    curves = [Curve(series, n, width=1.8) for n, series in enumerate(drawn.values())]
    keys = [Key(f"{name} {series.finite[-1]:.1%}", n + 1, "solid") for n, (name, series) in enumerate(drawn.items())]
    label = "算力利用率 MFU over tokens: " + "; ".join(f"{name} {course(series)}" for name, series in drawn.items())
    note = ("有用的运算 ÷ 设备峰值", "useful operations / the device's peak")
    return Figure("算力利用率", "MFU", note, draw("mfu", label, curves, NARROW, Scale(zero=True)), None, keys)


def usage_headlines(metrics: Sequence[Mapping[str, Any]]) -> Iterable[Headline]:
    """Utilisation, or operations a second where the peak is not known, and memory."""
    mfu, body, head = (_median(metrics, key) for key in ("mfu", "mfu_body", "mfu_head"))
    speed = _median(metrics, "flops_per_second")
    if mfu is not None and body is not None and head is not None:
        note, gloss = f"各层 {body:.1%} + 输出头 {head:.1%}", f"body {body:.1%} + head {head:.1%}"
        yield Headline("算力利用率", "MFU", f"{mfu:.1%}", note, gloss)
    elif speed is not None:
        yield Headline("有用运算", "useful FLOP/s", spell_count(speed), "峰值未知", "the peak is not known")
    peak = column(metrics, "peak_bytes").finite
    if len(peak):
        yield Headline("内存峰值", "peak memory", spell_bytes(int(peak.max())), "每个设备", "of one device")


def skipped_steps(metrics: Sequence[Mapping[str, Any]]) -> dict[str, list[int]]:
    """Reason to the steps that a guard skipped for it."""
    found: dict[str, list[int]] = {}
    for row in metrics:
        if row.get("skipped"):
            found.setdefault(str(row["skipped"]), []).append(row["step"])
    return found


def _median(metrics: Sequence[Mapping[str, Any]], key: str) -> float | None:
    values = column(metrics, key).finite
    return float(np.median(values)) if len(values) else None
