"""What a chat model can do, in a few figures that are told before and after each stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from buddygpt.data import demo
from buddygpt.data.demo.rows import pairs
from buddygpt.evaluation.baselines import guess
from buddygpt.evaluation.facts import examine
from buddygpt.evaluation.health import check_health
from buddygpt.evaluation.preferences import judge
from buddygpt.report.tuning import FIGURES, Changes, changes

QUESTIONS = 300
"""Of the demo world, of each kind."""
REPLY_TOKENS = 128


def judge_model(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    seeds: Sequence[int],
    room: int,
) -> dict[str, float]:
    """The figures of one model, the likeliest token taken each time.

    Args:
        model: on its device.
        tokenizer: with chat marks.
        prompts: ids that ask for an answer, of held-out rows.
        seeds: of the demo worlds among the data; facts are examined where there are some.
        room: most tokens of a prompt with its reply; the same for all models that are compared.
    """
    found: dict[str, float] = {}
    for seed in seeds:
        known = examine(model, tokenizer, demo.examination(seed, "train")[:QUESTIONS], seed)
        unseen = examine(model, tokenizer, demo.examination(seed, "test")[:QUESTIONS], seed)
        preferred = judge(model, tokenizer, list(pairs(seed, "test"))[:QUESTIONS])
        own = {
            "facts asked for": known.known.exact,
            "facts held out": unseen.known.exact,
            "true answer preferred": preferred.accuracy,
        }
        for name, value in own.items():
            found[name] = found.get(name, 0.0) + value / len(seeds)
    health = check_health(model, tokenizer, prompts, room=room, max_new_tokens=min(REPLY_TOKENS, room // 2))
    if health.replies:
        found["stops by itself"] = health.stopped
        found["tokens of a reply"] = health.tokens
        found["distinct 4-grams"] = health.distinct
        found["repeats itself"] = health.repeating
    return found


def guessing(seeds: Sequence[int]) -> dict[str, dict[str, float]]:
    """What is reached without a model on facts held out: by the most frequent answer, and by the nearest question."""
    found: dict[str, dict[str, float]] = {}
    for seed in seeds:
        by = guess(demo.dialogues(seed, "train"), demo.examination(seed, "test")[:QUESTIONS])
        for name, value in (("most frequent answer", by.frequent), ("nearest question", by.nearest)):
            own = found.setdefault(name, {"facts held out": 0.0})
            own["facts held out"] += value / len(seeds)
    return found


def change_table(columns: Mapping[str, Mapping[str, float]]) -> Changes:
    """`changes` as a page takes them, with the meaning of each figure."""
    return Changes(tuple(columns), changes(columns), {name: meaning for name, (_, meaning) in FIGURES.items()})
