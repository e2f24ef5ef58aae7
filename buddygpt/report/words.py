"""How a page says things: Chinese beside English, and figures short enough to read at a glance."""

from __future__ import annotations

import math
from collections.abc import Sequence

CHINESE = {
    "active for a token": "每词元激活",
    "attention": "注意力",
    "attention by": "注意力由谁计算",
    "passed over": "未选用",
    "data": "数据",
    "device": "设备",
    "documents": "文档",
    "feed-forward": "前馈",
    "layers x width": "层数 × 宽度",
    "model": "模型",
    "of which embedding": "其中词嵌入",
    "operations": "运算量",
    "optimizer": "优化器",
    "parameters": "参数量",
    "precision": "精度",
    "schedule": "学习率计划",
    "shards": "数据分片",
    "tokens": "词元数",
    "tokens a step": "每步词元数",
    "training": "训练",
    "versions": "版本",
    "vocabulary": "词表",
    "native architecture": "对应的原生结构",
    # memory
    "memory": "内存",
    "weights": "权重",
    "gradients": "梯度",
    "activations": "激活",
    "loss": "损失",
    "together": "合计",
    "cache": "缓存",
    # tuning
    "began with": "起点",
    "low-rank updates": "低秩更新",
    "steps": "步数",
    "window": "窗口",
    "talks": "对话",
    "learned": "学习的词元",
    "reference": "参考模型",
    "pairs": "偏好对",
    "rows": "数据行",
    "tokens of the chosen answer": "较好回答的词元数",
    "of the rejected answer": "较差回答的词元数",
    "chosen answer is longer": "较好的回答更长",
    # what each stage changed
    "before": "训练前",
    "pretrain": "预训练",
    "sft": "微调",
    "dpo": "偏好调优",
    "most frequent answer": "最常见答案",
    "nearest question": "最相近问题",
    "facts asked for": "问过的事实",
    "facts of the demo world that training asked for, in new words: answered exactly": "训练中问过，换种问法：完全答对",
    "facts held out": "没问过的事实",
    "facts of the demo world that training never asked for: answered exactly": "训练中从没问过：完全答对",
    "true answer preferred": "偏好真答案",
    "of a true and a false answer about a fact held out, the true one more probable": "没问过的事实：真答案更可能",
    "stops by itself": "自己停下",
    "replies that end before the most tokens they may have": "在词元上限之前结束的回复",
    "tokens of a reply": "回复的词元数",
    "mean length": "平均长度",
    "distinct 4-grams": "不重复的 4-gram",
    "within replies; 1 where nothing is repeated": "回复之内；毫无重复为 1",
    "repeats itself": "重复自己",
    "replies that say a line twice or run in a loop": "一行说两遍或陷入循环的回复",
    # longer context
    "held-out text of pretraining": "预训练的留出文本",
    "held-out talks laid end to end": "首尾相接的留出对话",
    "not extended": "未扩展",
    "extended, not tuned": "扩展，未训练",
    "extended and tuned": "扩展并训练",
    # evaluation
    "settings": "设置",
    "to mind": "须知",
    "sources of the data": "数据出处",
    "batch size": "批大小",
    "date": "日期",
    # stages of the data
    "read": "读入",
    "cleaned": "清洗后",
    "without duplicates": "去重后",
    "train": "训练",
    "validation": "验证",
    # facts of a source
    "origin": "出处",
    "revision": "版本",
    "license": "许可",
    "size": "大小",
    "files": "文件",
    # why documents are left out
    "no text column": "没有文本列",
    "not a string": "不是字符串",
    "empty": "空文本",
    "lone surrogate": "孤立代理项",
    "no score": "没有分数",
    "low score": "分数过低",
    "duplicate": "重复",
    "near duplicate": "近似重复",
    "contaminated": "与评测集重叠",
    "too short": "过短",
    "mojibake": "乱码",
    "language": "语言不符",
    "advertising": "广告",
    "no function words": "没有虚词",
    "repeated lines": "重复行",
    "repeated n-grams": "重复片段",
    "common n-gram": "堆砌词语",
    "symbols": "符号过多",
    "punctuation": "标点过多",
    "no punctuation": "没有标点",
    "digits": "数字过多",
    "short lines": "短行过多",
    "ellipsis lines": "省略行过多",
    # what is changed in documents
    "Unicode NFC": "统一码规范化",
    "line ends": "换行符",
    "control characters": "控制字符",
    "end markers": "结束标记",
    "boilerplate lines": "网页套话",
    "full-width letters": "全角字母",
}
"""Chinese of the headings and labels that stages write in English; others stand as they are."""

NOTHING = "—"
"""Stands for a figure that is missing or not finite."""


def spell_count(value: float) -> str:
    """A count in three significant digits: 0, 512, 1.31M, 35B."""
    if not math.isfinite(value):
        return NOTHING
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size * 0.9995:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def spell_number(value: float, digits: int) -> str:
    """A figure with `digits` decimals; thousands are parted, and what is too large for that has an exponent."""
    if not math.isfinite(value):
        return NOTHING
    return f"{value:.3g}" if abs(value) >= 1e7 else f"{value:,.{digits}f}"


def spell_duration(seconds: float) -> str:
    """Seconds in the two units that matter: 42.3 s, 12 min 5 s, 3 h 20 min, 2 d 4 h."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for size, unit, smaller, name in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // smaller} {name}"
    return f"{whole} s"


def spell_steps(steps: Sequence[int], most: int = 8) -> str:
    """Step numbers in order, neighbours drawn together: 12, 15–18, 90; only the first `most` stretches."""
    stretches: list[list[int]] = []
    for step in steps:
        if stretches and step == stretches[-1][1] + 1:
            stretches[-1][1] = step
        else:
            stretches.append([step, step])
    shown = [f"{a:,}" if a == b else f"{a:,}–{b:,}" for a, b in stretches[:most]]
    return ", ".join(shown) + (" …" if len(stretches) > most else "")
