"""Is the loss normal? What a run of its size should reach, how that is known, and what to look at where it does not.

The band comes from published fits of the loss in nats a token over parameters N and tokens D, E + A / N^a + B / D^b.
They were made on English text with another tokenizer, so that they are taken over as bits of a UTF-8 byte, which depend
on no tokenizer, and the band is as wide as what is not known: see `band`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from buddygpt.recipe.geometry import count_parameters
from buddygpt.recipe.model import ModelSection
from buddygpt.report.curves import column, finite, recent_mean
from buddygpt.report.figures import BITS, sources
from buddygpt.report.words import spell_count

FITS = ((1.69, 406.4, 0.34, 410.7, 0.28), (1.8172, 482.01, 0.3478, 2085.43, 0.3658))
"""E, A, a, B, b: Hoffmann et al. (arXiv 2203.15556, equation 10) and their data fitted anew (arXiv 2404.10102)."""
BYTES_A_TOKEN = 10.5e12 / (300e9 / 0.128)
"""UTF-8 bytes of a token in the fits, 4.48: of MassiveText's 10.5 TB, 300 B tokens are 12.8 % (arXiv 2112.11446)."""
EASIER, HARDER = 0.8, 1.2
"""What text alone may do to bits per byte. One model's figures on five Chinese corpora lie within 15 % of their mean
(benchmarks/results/2026-11-25-equal_compute.md); that English and Chinese take as many bytes for the same content is
true to 5 % (arXiv 2403.00686)."""
LEARNING = 10
"""Times the fits' tokens that today's best training is worth, at most; the record for one small model is 25 times."""
FEWEST_TOKENS, FEWEST_PARAMETERS, MOST_EPOCHS = 100e6, 10e6, 4.0
"""Where the fits still say something; repeating is worth new text up to about four times (arXiv 2305.16264)."""
START = 0.5
"""Nats by which the first loss may differ from that of a model that knows nothing."""
GAP = 0.3
"""Nats by which held-out text may be worse than training text untold."""


@dataclass(frozen=True)
class Size:
    """What the loss of a run depends on.

    Args:
        total: parameters.
        body: those that a token passes, without embedding and head.
        vocabulary: rows of the embedding.
        epochs: how often the whole run reads each source; empty where that is not known.
        bytes_per_character: UTF-8 bytes of a held-out character, by source.
    """

    total: int
    body: int
    vocabulary: int
    epochs: Mapping[str, float]
    bytes_per_character: Mapping[str, float]

    @classmethod
    def of(cls, model: ModelSection, epochs: Mapping[str, float], bytes_per_character: Mapping[str, float]) -> Size:
        """Of a recipe's model."""
        parameters = count_parameters(model)
        body = parameters.matrices + parameters.vectors - parameters.idle
        return cls(parameters.total, body, model.vocab_size, epochs, bytes_per_character)


@dataclass(frozen=True)
class Check:
    """One question about the loss and its answer; texts are pairs of Chinese and English.

    Args:
        what: is asked.
        verdict: `normal`, `above`, `below` or `open`, where it cannot be told.
        told: measured and expected.
        look: what to look at first; empty where all is well.
        scale: low and high end of the band and what was measured, as shares of the scale's length; None: no band.
    """

    what: tuple[str, str]
    verdict: str
    told: tuple[str, str]
    look: tuple[str, str] = ("", "")
    scale: tuple[float, float, float] | None = None


def loss_fit(fit: Sequence[float], parameters: float, tokens: float) -> float:
    """Nats a token of the text and tokenizer of the fits."""
    e, a, alpha, b, beta = fit
    return e + a / parameters**alpha + b / tokens**beta


def band(size: Size, tokens: float) -> tuple[float, float]:
    """Bits per UTF-8 byte of held-out text between which a sound run ends.

    The low end takes all parameters, `LEARNING` times the tokens, the lower fit, and easy text; the high end the
    parameters without embedding and head, the tokens as they are, the higher fit, and hard text.
    """
    to_bits = 1 / math.log(2) / BYTES_A_TOKEN
    low = min(loss_fit(fit, size.total, LEARNING * tokens) for fit in FITS)
    high = max(loss_fit(fit, size.body, tokens) for fit in FITS)
    return EASIER * low * to_bits, HARDER * high * to_bits


def not_applicable(size: Size, tokens: float) -> tuple[str, str] | None:
    """Why there is no band for a run, in Chinese and English; None where there is one."""
    if tokens < FEWEST_TOKENS:
        count, least = spell_count(tokens), spell_count(FEWEST_TOKENS)
        return (
            f"没有参考区间：只训练了 {count} 词元，少于 {least} 时公式已无意义",
            f"no band: {count} tokens are too few, below {least} the fits say nothing",
        )
    if size.body < FEWEST_PARAMETERS:
        count, least = spell_count(size.body), spell_count(FEWEST_PARAMETERS)
        return (
            f"没有参考区间：词表之外只有 {count} 参数，少于 {least}",
            f"no band: {count} parameters beside the vocabulary are fewer than {least}",
        )
    most = max(size.epochs.values(), default=0.0)
    if most > MOST_EPOCHS:
        return (
            f"没有参考区间：数据重复 {most:.1f} 遍，超过 {MOST_EPOCHS:g} 遍后重复的词元不再等于新词元",
            f"no band: text read {most:.1f} times, beyond {MOST_EPOCHS:g} a repeated token is not worth a new one",
        )
    return None


def checks(metrics: Sequence[Mapping[str, Any]], size: Size, baselines: Mapping[str, float]) -> list[Check]:
    """All that can be asked of a run of pretraining so far."""
    return [*_start(metrics, size), *_band(metrics, size), *_counting(metrics, baselines), *_gap(metrics)]


def _start(metrics: Sequence[Mapping[str, Any]], size: Size) -> Iterable[Check]:
    first = next((finite(row["loss"]) for row in metrics if row["step"] == 1 and "loss" in row), math.nan)
    expected = math.log(size.vocabulary)
    if math.isnan(first):
        return
    what = ("第一步的损失", "loss of the first step")
    told = (
        f"{first:.2f}；什么都不知道的模型是 ln {size.vocabulary:,} = {expected:.2f}",
        f"{first:.2f}; a model that knows nothing has ln {size.vocabulary:,} = {expected:.2f}",
    )
    if first > expected + START:
        look = ("初始权重过大，或数值精度出了问题", "initial weights that are too large, or numbers that overflow")
        yield Check(what, "above", told, look)
    elif first < expected - START:
        look = (
            "权重可能已训练过，或模型看得见要预测的词元",
            "weights that were trained before, or a model that sees what it should predict",
        )
        yield Check(what, "below", told, look)
    else:
        yield Check(what, "normal", told)


def _band(metrics: Sequence[Mapping[str, Any]], size: Size) -> Iterable[Check]:
    for name, row in _last(metrics):
        bits, width = finite(row[f"eval/{name}/{BITS}"]), size.bytes_per_character.get(name)
        if math.isnan(bits) or width is None:
            continue
        what = (f"{name}：与同等规模相比", "for its size")
        why = not_applicable(size, row["tokens"])
        if why is not None:
            yield Check(what, "open", why)
            continue
        low, high = (width * end for end in band(size, row["tokens"]))
        count = spell_count(row["tokens"])
        told = (
            f"每字符 {bits:.2f} 比特；{count} 词元时参考区间 {low:.2f}–{high:.2f}",
            f"{bits:.2f} bits per character; the band at {count} tokens is {low:.2f}–{high:.2f}",
        )
        verdict = "below" if bits < low else "above" if bits > high else "normal"
        top = 1.15 * max(high, bits)
        yield Check(what, verdict, told, LOOK.get(verdict, ("", "")), (low / top, high / top, bits / top))


LOOK = {
    "above": (
        "学习率（太低最常见），再是文档之间有没有结束标记和隔离、文本清洗是否留下乱码、学习率是否尚未降下来",
        "first the learning rate (too low is the usual fault), then end marks between documents and their isolation, "
        "text that cleaning should have removed, and whether the rate has not come down yet",
    ),
    "below": (
        "留出文本是否也在训练文本里（重复、近似重复），再是文本是否很单调（模板、代码、合成问答）",
        "first whether held-out text is in the training text too (copies, near copies), then whether the text is "
        "uniform (templates, code, made-up questions)",
    ),
}


def _counting(metrics: Sequence[Mapping[str, Any]], baselines: Mapping[str, float]) -> Iterable[Check]:
    for name, row in _last(metrics):
        bits, counted = finite(row[f"eval/{name}/{BITS}"]), finite(baselines.get(name))
        if math.isnan(bits) or math.isnan(counted):
            continue
        what = (f"{name}：与数数相比", "against counting")
        told = (
            f"每字符 {bits:.2f} 比特；同样文本的 5-gram 模型 {counted:.2f}",
            f"{bits:.2f} bits per character; a 5-gram model of the same text has {counted:.2f}",
        )
        look = (
            "还没有学到比数词更多的东西：词元太少，或学习率太低",
            "it has not learnt more than counting gives: too few tokens, or too low a rate",
        )
        yield Check(what, "above", told, look) if bits > counted else Check(what, "normal", told)


def _gap(metrics: Sequence[Mapping[str, Any]]) -> Iterable[Check]:
    judged, series = list(_last(metrics)), column(metrics, "loss")
    if len(judged) != 1 or not len(series.finite):
        return  # the training loss is of the mixture, held-out losses are of its parts
    name, row = judged[0]
    held, (trained, _) = finite(row.get(f"eval/{name}/loss")), recent_mean(series, until=row["tokens"])
    if math.isnan(held) or math.isnan(trained):
        return
    what = (f"{name}：留出与训练之差", "held-out against training text")
    told = (f"{held:.2f} − {trained:.2f} = {held - trained:+.2f} nat", f"{held - trained:+.2f} nats a token")
    look = (
        "训练文本被背下来了（遍数太多、文本太少），或留出文本与训练文本不同类",
        "text learnt by heart (too many epochs of too little text), or held-out text of another kind",
    )
    yield Check(what, "above", told, look) if held - trained > GAP else Check(what, "normal", told)


def _last(metrics: Sequence[Mapping[str, Any]]) -> Iterable[tuple[str, Mapping[str, Any]]]:
    """Each held-out source with its last evaluation."""
    for name in sources(metrics):
        yield name, next(row for row in reversed(metrics) if f"eval/{name}/{BITS}" in row)
