"""How far a tuned model has gone from its reference, on what it says itself."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from buddygpt.model.generation import generate
from buddygpt.model.loss import IGNORE_INDEX
from buddygpt.model.sampling import Sampling


@dataclass(frozen=True)
class Divergence:
    """An estimate of KL(policy || reference) over replies, in nats, each figure with its standard error.

    Args:
        per_reply: mean over replies of `log policy - log reference` of the whole reply.
        per_reply_error: NaN for a single reply.
        per_token: the same sum over all replies, divided by their tokens.
        per_token_error: of a ratio of two sums over replies (delta method).
        replies, tokens: what was drawn; end marks are tokens.
    """

    per_reply: float
    per_reply_error: float
    per_token: float
    per_token_error: float
    replies: int
    tokens: int


@torch.no_grad()
def kl_to_reference(
    policy: Any,
    reference: Any,
    prompts: Sequence[Sequence[int]],
    *,
    stop: Collection[int],
    max_new_tokens: int,
    seed: int = 0,
    batch_size: int = 8,
) -> Divergence:
    """Draw one reply of the policy to each prompt, at temperature 1, and score it by both models.

    Unbiased up to where replies are cut: the KL of replies of at most `max_new_tokens` tokens.

    Args:
        policy, reference: models of ours in eval mode, of one tokenizer.
        prompts: token ids, none empty; the same prompt may stand there several times.
        stop: ids that end a reply; the end is part of it.
        max_new_tokens: most tokens of a reply.
        seed: of the draws; the global random state is neither read nor moved.
        batch_size: prompts at once.

    Raises:
        ValueError: no prompts.
    """
    if not prompts:
        raise ValueError("kl_to_reference needs at least one prompt")
    ratios: list[float] = []
    lengths: list[int] = []
    for start in range(0, len(prompts), batch_size):
        some = prompts[start : start + batch_size]
        # Without stop ids here: a reply's end is judged like any token, and `generate` would leave it out.
        drawn = generate(policy, some, Sampling(max_new_tokens, temperature=1.0, top_p=1.0, seed=seed + start))
        replies = [_until(reply, stop) for reply in drawn]
        ours, theirs = (_log_probs(model, some, replies) for model in (policy, reference))
        ratios += (ours - theirs).tolist()
        lengths += map(len, replies)
    return _summary(ratios, lengths)


def _until(reply: list[int], stop: Collection[int]) -> list[int]:
    """The reply up to and with its first end mark."""
    end = next((place for place, token in enumerate(reply) if token in stop), len(reply))
    return reply[: end + 1]


def _log_probs(model: Any, prompts: Sequence[Sequence[int]], replies: Sequence[Sequence[int]]) -> Tensor:
    """Log-probability of each whole reply after its prompt."""
    longest = max(len(p) + len(r) for p, r in zip(prompts, replies, strict=True))
    ids = torch.zeros(len(prompts), longest, dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, IGNORE_INDEX)
    for row, (prompt, reply) in enumerate(zip(prompts, replies, strict=True)):
        whole = torch.tensor([*prompt, *reply])
        ids[row, : len(whole)], mask[row, : len(whole)] = whole, 1
        labels[row, len(prompt) : len(whole)] = whole[len(prompt) :]
    inputs = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    out = model(**{name: value.to(model.device) for name, value in inputs.items()}, fused_lm_head=True)
    return out.log_probs.double().sum(-1).cpu()


def _summary(ratios: Sequence[float], lengths: Sequence[int]) -> Divergence:
    """Means and their standard errors."""
    replies, tokens = len(ratios), sum(lengths)
    per_reply, per_token = sum(ratios) / replies, sum(ratios) / tokens

    def error(deviations: list[float]) -> float:
        if replies < 2:
            return math.nan
        return math.sqrt(sum(d * d for d in deviations) / (replies - 1) / replies)

    return Divergence(
        per_reply,
        error([ratio - per_reply for ratio in ratios]),
        per_token,
        error([ratio - per_token * length for ratio, length in zip(ratios, lengths, strict=True)]) * replies / tokens,
        replies,
        tokens,
    )
