"""Generation health: do replies end, do they repeat themselves? Measured on any prompts, before and after tuning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from buddygpt.evaluation.replies import Reply, greedy_replies

PROMPTS = 64
"""Most prompts that are replied to."""
NGRAM = 4
LINE_CHARACTERS = 10
"""A shorter line may stand twice: a bracket, a heading, a yes."""
LOOP_TURNS, LOOP_TOKENS, LOOP_PERIOD = 3, 16, 64
"""A loop says the same tokens, at most so many, so many times in a row, over so many tokens: a laugh is none."""


@dataclass(frozen=True)
class Health:
    """How the replies to some prompts look.

    Args:
        replies: how many.
        passed_over: prompts that leave no room for a reply in the model's context.
        stopped: share of the replies that end by themselves.
        tokens: mean length of a reply.
        distinct: share of distinct ones among the 4-grams of tokens within a reply, of all replies together; 1 where
            no reply has any.
        repeating: share of the replies that say a whole line twice or run in a loop.
    """

    replies: int
    passed_over: int
    stopped: float
    tokens: float
    distinct: float
    repeating: float


def check_health(
    model: Any, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Sequence[int]], *, room: int, max_new_tokens: int
) -> Health:
    """Let a model reply to the first `PROMPTS` that fit, the likeliest token each time, and look at what it says.

    Args:
        model: a causal language model on its device.
        prompts: ids that ask for an answer.
        room: most tokens of a prompt with its reply.
        max_new_tokens: most tokens of a reply.
    """
    fitting = [prompt for prompt in prompts if len(prompt) + max_new_tokens <= room]
    replies = greedy_replies(model, tokenizer, fitting[:PROMPTS], max_new_tokens=max_new_tokens)
    return health_of(replies, passed_over=len(prompts) - len(fitting))


def health_of(replies: Sequence[Reply], *, passed_over: int = 0) -> Health:
    """What `check_health` says of these replies."""
    n = max(len(replies), 1)
    grams = [[reply.ids[i : i + NGRAM] for i in range(len(reply.ids) - NGRAM + 1)] for reply in replies]
    total = sum(map(len, grams))
    return Health(
        replies=len(replies),
        passed_over=passed_over,
        stopped=sum(reply.stopped for reply in replies) / n,
        tokens=sum(len(reply.ids) for reply in replies) / n,
        distinct=sum(len(set(own)) for own in grams) / total if total else 1.0,
        repeating=sum(_repeats_line(reply.text) or _loops(reply.ids) for reply in replies) / n,
    )


def _repeats_line(text: str) -> bool:
    lines = [line for line in map(str.strip, text.splitlines()) if len(line) >= LINE_CHARACTERS]
    return len(set(lines)) < len(lines)


def _loops(ids: Sequence[int]) -> bool:
    """Whether some run of tokens goes on with the period n long enough: each equals the one n before it."""
    for period in range(1, min(LOOP_PERIOD, len(ids) // LOOP_TURNS) + 1):
        run, needed = period, max(LOOP_TURNS * period, LOOP_TOKENS)
        for i in range(period, len(ids)):
            run = run + 1 if ids[i] == ids[i - period] else period
            if run >= needed:
                return True
    return False
