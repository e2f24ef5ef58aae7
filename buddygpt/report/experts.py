"""How evenly a mixture's experts were loaded: one figure over training and one row a layer at its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from buddygpt.report.curves import Series, finite, reach, smooth
from buddygpt.report.figures import NARROW, Figure, Key
from buddygpt.report.plots import Curve, Scale, draw
from buddygpt.report.words import spell_number


@dataclass(frozen=True)
class LayerLoad:
    """One layer's load, spelled: `max_violation` over the first and the last steps, experts without tokens at last."""

    layer: int
    first: str
    last: str
    idle: str


def load_figure(metrics: Sequence[Mapping[str, Any]]) -> Figure | None:
    """The fullest expert's load over the mean load, less 1: the worst layer and the mean of layers."""
    layers = _layers(metrics, "max_violation")
    if not layers:
        return None
    values_LS = np.array([series.y for series in layers])
    x = layers[0].x
    curves = [
        Curve(smooth(Series(x, values_LS.max(0))), 0, width=1.8),
        Curve(smooth(Series(x, values_LS.mean(0))), 1, width=1.8),
    ]
    ends = [next(iter(curve.series.finite[::-1]), np.nan) for curve in curves]
    keys = [
        Key(f"最不均的层 worst layer {spell_number(ends[0], 2)}", 1, "solid"),
        Key(f"各层平均 mean of layers {spell_number(ends[1], 2)}", 2, "solid"),
    ]
    label = "专家负载 max violation over tokens: " + "; ".join(key.text for key in keys)
    note = ("最忙专家的负载 ÷ 平均负载 − 1，越低越均", "the fullest expert's load / mean load - 1; lower is more even")
    return Figure("专家负载", "expert load", note, draw("experts", label, curves, NARROW, Scale(zero=True)), None, keys)


def layer_loads(metrics: Sequence[Mapping[str, Any]]) -> list[LayerLoad]:
    """The rows of the table; none for a run without experts."""
    rows = []
    pairs = zip(_layers(metrics, "max_violation"), _layers(metrics, "idle_experts"), strict=True)
    for layer, (violation, idle) in enumerate(pairs):
        steps = 2 * reach(violation)
        first, last, idle_last = (
            float(np.mean(part)) for part in (violation.y[:steps], violation.y[-steps:], idle.y[-steps:])
        )
        rows.append(LayerLoad(layer, spell_number(first, 2), spell_number(last, 2), f"{idle_last:.1%}"))
    return rows


def _layers(metrics: Sequence[Mapping[str, Any]], key: str) -> list[Series]:
    """The figure `key`, which holds one number a layer, as one series a layer."""
    rows = [row for row in metrics if isinstance(row.get(key), list) and "tokens" in row]
    if not rows:
        return []
    x = np.array([row["tokens"] for row in rows], dtype=np.float64)
    values_SL = np.array([[finite(v) for v in row[key]] for row in rows], dtype=np.float64)
    return [Series(x, y) for y in values_SL.T]
