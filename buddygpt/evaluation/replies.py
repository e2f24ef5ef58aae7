"""Replies of a model to many prompts: the likeliest token each time, in batches of prompts of like length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from buddygpt.data.formats import Message
from buddygpt.data.template import ANSWER_START, END, chat_segments
from buddygpt.data.tokenizer import DocumentEncoder, largest_id
from buddygpt.model.generation import generate, stop_ids
from buddygpt.model.sampling import Sampling


@dataclass(frozen=True)
class Reply:
    """What a model says to one prompt.

    Args:
        text: decoded, without control tokens.
        ids: its tokens, without the one that ends it.
        stopped: it ended by itself, before the most tokens it may have.
    """

    text: str
    ids: tuple[int, ...]
    stopped: bool


def encode_prompts(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Sequence[Message]]) -> list[list[int]]:
    """The ids of talks whose next turn is the assistant's.

    Raises:
        BuddyError: the tokenizer has no chat markers.
    """
    return DocumentEncoder(tokenizer).encode_segments([[*chat_segments(p), *ANSWER_START] for p in prompts])


def greedy_replies(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    rows: int = 128,
) -> list[Reply]:
    """One reply a prompt, in their order. A reply is what it would be alone, but for rounding.

    Args:
        model: a causal language model on its device; left in the mode it is in.
        prompts: of `encode_prompts`.
        max_new_tokens: most tokens of a reply; one that has so many has not stopped.
        rows: prompts decoded at once.
    """
    stop = stop_ids(model, tokenizer) | {tokenizer.convert_tokens_to_ids(END.token)}
    sampling = Sampling(max_new_tokens, temperature=0.0)
    found: list[list[int]] = [[] for _ in prompts]
    with evaluating(model):
        for batch in batches(prompts, rows):
            chosen = [prompts[i] for i in batch]
            texts = generate(model, chosen, sampling, stop=stop, vocabulary=largest_id(tokenizer) + 1)
            for i, ids in zip(batch, texts, strict=True):
                found[i] = ids
    decoded = tokenizer.batch_decode(found, skip_special_tokens=True)
    return [
        Reply(text, tuple(ids), stopped=len(ids) < max_new_tokens) for text, ids in zip(decoded, found, strict=True)
    ]


def batches(rows: Sequence[Sequence[int]], size: int) -> Iterator[list[int]]:
    """Row numbers in batches of rows of like length, the longest first, so that memory runs out at once or never."""
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))
    for start in range(0, len(order), size):
        yield order[start : start + size]


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """The model in eval mode, and in its own again afterwards."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
