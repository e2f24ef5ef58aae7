"""What a card says of each stage's training, as rows of a table with a column for each stage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from buddygpt.publishing.facts import Row, Words, plain
from buddygpt.publishing.story import Stage
from buddygpt.recipe.base import spell_bytes
from buddygpt.recipe.dpo import DPOSection
from buddygpt.recipe.pretrain import PretrainSection
from buddygpt.recipe.training import WSD, Muon, TrainingSection
from buddygpt.recipe.tuning import TuningSection
from buddygpt.report.figures import BITS, sources
from buddygpt.report.words import CHINESE, NOTHING, spell_duration, spell_number

_ORDER: tuple[Words, ...] = (
    ("读过的词元", "tokens read"),
    ("步数", "steps"),
    ("每步", "a step"),
    ("窗口", "window"),
    ("优化器", "optimizer"),
    ("权重衰减", "weight decay"),
    ("学习率计划", "schedule"),
    ("精度", "precision"),
    ("LoRA", "LoRA"),
    ("损失", "loss"),
    ("留出数据", "held out"),
    ("与参考模型的 KL", "KL to the reference"),
    ("硬件", "hardware"),
    ("用时（不含评测和保存）", "time, without evaluations and saving"),
    ("单进程内存峰值", "peak memory of a process"),
)
"""Names of the rows of training."""


def training_rows(stages: Sequence[Stage]) -> list[Row]:
    """How each stage was trained, a column a stage; rows that no stage has are left out."""
    columns = [_training(stage) for stage in stages]
    names = list(dict.fromkeys(name for column in columns for name in column))
    order = [name for name in _ORDER if name in names]
    return [(name, *(column.get(name, NOTHING) for column in columns)) for name in order]


def _training(stage: Stage) -> dict[Words, str | Words]:
    section, device = stage.section, stage.made_on
    unit = {"pretrain": ("个窗口", "windows"), "sft": ("个窗口", "windows"), "dpo": ("对", "pairs")}[stage.name]
    if isinstance(section, PretrainSection):
        step: Words = (f"{section.tokens_per_batch:,} 个词元", f"{section.tokens_per_batch:,} tokens")
    else:
        assert isinstance(section, TuningSection)
        step = f"{section.batch_size:,} {unit[0]}", f"{section.batch_size:,} {unit[1]}"
    length = getattr(section, "sequence_length", None)
    kl = stage.final.get("kl/reply")
    values: list[str | Words | None] = [
        None if stage.tokens is None else f"{stage.tokens:,}",
        None if stage.steps is None else f"{stage.steps:,}",
        step,
        (f"{length:,} 个词元", f"{length:,} tokens") if length else None,
        _optimizer(section),
        f"{section.optimizer.weight_decay:g}",
        _schedule(section),
        section.precision,
        _lora(section),
        " + ".join(section.loss_type) + f", β = {section.beta:g}" if isinstance(section, DPOSection) else None,
        _held_out(stage),
        None if kl is None else (f"每条回复 {kl:.2g} nat", f"{kl:.2g} nats a reply"),
        _hardware(device),
        None if stage.seconds is None else spell_duration(stage.seconds),
        spell_bytes(device["peak_bytes"]) if device.get("peak_bytes") else None,
    ]
    return {name: value for name, value in zip(_ORDER, values, strict=True) if value is not None}


def _optimizer(section: TrainingSection) -> Words:
    optimizer = section.optimizer
    rate = _spell_rate(optimizer.learning_rate)
    if isinstance(optimizer, Muon):
        other = _spell_rate(optimizer.adamw_learning_rate or optimizer.learning_rate)
        return (
            f"Muon，学习率 {rate}；其余参数 AdamW，{other}",
            f"Muon, learning rate {rate}; AdamW, {other}, for the rest",
        )
    return f"AdamW，学习率 {rate}", f"AdamW, learning rate {rate}"


def _spell_rate(rate: float) -> str:
    return f"{rate:g}".replace("e-0", "e-")


def _schedule(section: TrainingSection) -> Words:
    schedule = section.schedule
    kind = {"cosine": ("余弦", "cosine"), "linear": ("线性", "linear"), "wsd": ("WSD", "WSD")}[schedule.kind]
    chinese, english = f"{kind[0]}，预热 {schedule.warmup:.0%}", f"{kind[1]}, warm-up {schedule.warmup:.0%}"
    if isinstance(schedule, WSD):
        chinese, english = f"{chinese}，衰减 {schedule.decay:.0%}", f"{english}, decay {schedule.decay:.0%}"
    return (
        f"{chinese}，终值为峰值的 {schedule.min_ratio:.0%}",
        f"{english}, down to {schedule.min_ratio:.0%} of the peak",
    )


def _lora(section: TrainingSection) -> Words | None:
    if not isinstance(section, TuningSection) or section.lora is None:
        return None
    return f"秩 {section.lora.rank}，已并入权重", f"rank {section.lora.rank}, merged into the weights"


def _held_out(stage: Stage) -> Words | None:
    """The last figures on what was held out, by source."""
    names = {source.key: source.name for source in stage.sources}
    baselines, told = stage.done.get("baseline", {}), []
    rows = [{**stage.final}]
    for key in sources(rows, BITS):
        name, bits = plain(names.get(key, key)), spell_number(stage.final[f"eval/{key}/{BITS}"], 3)
        ngram = f"（5-gram 模型 {baselines[key]:.3f}）" if key in baselines else ""
        english = f" (a 5-gram model: {baselines[key]:.3f})" if key in baselines else ""
        told.append((f"{name}：每字符 {bits} 比特{ngram}", f"{name}: {bits} bits per character{english}"))
    for key in sources(rows, "accuracy"):
        name, share = names.get(key, key), f"{stage.final[f'eval/{key}/accuracy']:.1%}"
        chinese = f"{plain(CHINESE.get(name, name))}：{share} 的偏好对判断正确"
        told.append((chinese, f"{plain(name)}: {share} of the pairs judged right"))
    return ("；".join(one[0] for one in told), "; ".join(one[1] for one in told)) if told else None


def _hardware(device: Any) -> Words | None:
    if not device:
        return None
    times = f"{device['processes']} × " if device["processes"] > 1 else ""
    kind = "CPU" if device["kind"] == "cpu" else device["kind"]
    return f"{times}{kind}（{device['name']}）", f"{times}{kind} ({device['name']})"
