"""The plots of a training run with what stands around them: caption, legend, and words for a screen reader."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from buddygpt.report.curves import Series, column, reach, settled, smooth, thin
from buddygpt.report.plots import LINES, Curve, Scale, draw, spans_far
from buddygpt.report.words import spell_count

WIDE, NARROW = (920, 340), (430, 250)
"""Pixels of a drawing across the page, and of one in half of it or on a phone."""

LONG = 2000
"""Steps of a run so long that the first steep fall would press everything else flat: the plot leaves it out."""

BITS = "bits_per_character"

_SPEED = Scale(zero=True, counts=True)


@dataclass(frozen=True)
class Key:
    """A line of the legend: `line` is the colour, 1 to 8."""

    text: str
    line: int
    style: str  # "solid", "thin" or "dashed"


@dataclass(frozen=True)
class Figure:
    """A plot as the page shows it.

    Args:
        chinese, english: the caption.
        note: more of the caption, in Chinese and English.
        narrow: the drawing for half the page.
        wide: the drawing across the page; none where it always takes half.
        keys: the legend; empty where there is one line.
    """

    chinese: str
    english: str
    note: tuple[str, str]
    narrow: Markup
    wide: Markup | None = None
    keys: Sequence[Key] = ()


def sources(metrics: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the held-out texts, in the order of their first evaluation."""
    keys = dict.fromkeys(key for row in metrics for key in row if key.startswith("eval/") and key.endswith("/" + BITS))
    return [key[len("eval/") : -len("/" + BITS)] for key in keys]


def make_figures(metrics: Sequence[Mapping[str, Any]], baselines: Mapping[str, float]) -> list[Figure]:
    """The plots for which there is something to draw."""
    figures = [
        _held_out(metrics, baselines),
        _loss(metrics),
        _plain("lr", "学习率", "learning rate", column(metrics, "learning_rate"), Scale(zero=True)),
        _noisy("gradient", "梯度范数", "gradient norm", column(metrics, "grad_norm")),
        _noisy("speed", "速度", "tokens per second", column(metrics, "tokens_per_second"), _SPEED),
    ]
    return [figure for figure in figures if figure is not None]


def _held_out(metrics: Sequence[Mapping[str, Any]], baselines: Mapping[str, float]) -> Figure | None:
    curves: list[Curve] = []
    keys: list[Key] = []
    told: list[str] = []
    found = {name: column(metrics, f"eval/{name}/{BITS}") for name in sources(metrics)}
    drawn = {name: series for name, series in found.items() if len(series.finite)}
    end = max((float(series.x.max()) for series in drawn.values()), default=0.0)
    for n, (name, series) in enumerate(drawn.items()):
        curves.append(Curve(thin(series), n, width=2))
        keys.append(Key(f"{name} {series.finite[-1]:.3f}", n % LINES + 1, "solid"))
        told.append(f"{name} {_course(series)}")
        if name in baselines and np.isfinite(baselines[name]):
            level = Series(np.array([0.0, end or 1.0]), np.full(2, baselines[name]))
            curves.append(Curve(level, n, width=1.2, dashed=True))
            keys.append(Key(f"5-gram {baselines[name]:.3f}", n % LINES + 1, "dashed"))
            told[-1] += f"，5-gram {baselines[name]:.3f}"
    if not curves:
        return None
    scale = _falling([c.series for c in curves], len(column(metrics, "loss")) >= LONG)
    label = "留出文本的每字符比特数 bits per character: " + "；".join(told)
    note = _join(
        ("越低越好", "lower is better"),
        ("虚线是读过同样训练文本的 5-gram Kneser–Ney 模型", "dashed: a 5-gram Kneser–Ney model of the same text")
        if any(c.dashed for c in curves)
        else None,
        *_axis(scale),
    )
    narrow, wide = (draw(f"bits-{size[0]}", label, curves, size, scale) for size in (NARROW, WIDE))
    return Figure("每字符比特数", "bits per character", note, narrow, wide, keys)


def _loss(metrics: Sequence[Mapping[str, Any]]) -> Figure | None:
    series = column(metrics, "loss")
    scale = _falling([series], len(series) >= LONG)
    return _noisy("loss", "训练损失", "training loss", series, scale, ("每词元，单位 nat", "nats a token"))


def _noisy(
    name: str,
    chinese: str,
    english: str,
    series: Series,
    scale: Scale | None = None,
    note: tuple[str, str] | None = None,
) -> Figure | None:
    """Each step faint, their running mean over it; without a scale, whichever suits the values."""
    if not len(series.finite):
        return None
    scale = scale or Scale(log=spans_far(series.finite))
    steps, mean = thin(series), smooth(series)
    label = f"{chinese} {english}: {_course(mean)}"
    curves = [Curve(steps, width=0.9, opacity=0.4), Curve(mean, width=1.8)]
    drawing = draw(name, label, curves, NARROW, scale, steps.x[np.isnan(steps.y)])
    keys = [Key("每步 each step", 1, "thin"), Key(f"平均 mean of ±{reach(series):,} steps", 1, "solid")]
    return Figure(chinese, english, _join(note, *_axis(scale)), drawing, None, keys)


def _plain(name: str, chinese: str, english: str, series: Series, scale: Scale) -> Figure | None:
    """One line."""
    if not len(series.finite):
        return None
    drawing = draw(name, f"{chinese} {english}: {_course(series)}", [Curve(thin(series))], NARROW, scale)
    return Figure(chinese, english, _join(*_axis(scale)), drawing)


def _falling(series: Sequence[Series], long: bool) -> Scale:
    """The axis of figures that fall steeply at first and slowly ever after."""
    values = np.concatenate([s.finite for s in series])
    late = np.concatenate([settled(s) for s in series])
    cut = long and len(late) > 0 and values.max() > 1.2 * late.max()
    return Scale(log=spans_far(late if cut else values), top=float(late.max()) if cut else None)


def _axis(scale: Scale) -> list[tuple[str, str]]:
    """What a reader must know of the axis."""
    notes = [("对数刻度", "log scale")] if scale.log else []
    return [*notes, ("最初的高值在图外", "the first, high values are cut off")] if scale.top is not None else notes


def _join(*notes: tuple[str, str] | None) -> tuple[str, str]:
    kept = [note for note in notes if note]
    return "，".join(n[0] for n in kept), ", ".join(n[1] for n in kept)


def _course(series: Series) -> str:
    """First and last value in words."""
    values = series.finite
    first, last = (spell_count(v) if abs(v) >= 1000 else f"{v:.4g}" for v in (values[0], values[-1]))
    return f"{first} → {last} ({spell_count(float(series.x.max()))} tokens)"
