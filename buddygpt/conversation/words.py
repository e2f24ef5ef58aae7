"""What the page says, in the language of the browser."""

from __future__ import annotations

ENGLISH = {
    "chat": "Ask something. Enter sends, Shift+Enter begins a line.",
    "base": "Begin a text, and the model goes on with it.",
    "stateless": "This model was not taught to converse: it goes on with each text by itself.",
    "fields": "Parameters",
    "system": "System message",
    "temperature": "Temperature",
    "greedy": "0 always takes the likeliest token.",
    "top_p": "Top-p",
    "share": "Share of the probability that is drawn from.",
    "tokens": "Most tokens of a reply",
    "seed": "Seed",
    "unset": "Empty: another reply every time.",
}
CHINESE = {
    "chat": "说点什么。回车发送，Shift+回车换行。",
    "base": "写一个开头，模型接着往下写。",
    "stateless": "这个模型没有学过对话：它只把每段文字单独续写下去。",
    "fields": "参数",
    "system": "系统提示",
    "temperature": "温度",
    "greedy": "0 表示总取最可能的词元。",
    "top_p": "Top-p",
    "share": "只从累计概率达到此值的词元里抽取。",
    "tokens": "回复最多多少词元",
    "seed": "随机种子",
    "unset": "留空则每次回复不同。",
}
