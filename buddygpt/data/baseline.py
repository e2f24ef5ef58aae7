"""A baseline for held-out bits per character: a 5-gram model of the same training text, the same held-out documents."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerBase

from buddygpt.data.ngram import kneser_ney_bits_per_character
from buddygpt.data.windows import TokenStream
from buddygpt.recipe.runs import write_atomically

MOST_CHARACTERS = 10_000_000
"""Training text beyond which no n-gram model is counted: its memory grows with the text."""
ORDER = 5


def documents(stream: TokenStream, tokenizer: PreTrainedTokenizerBase, stop: int | None = None) -> Iterator[str]:
    """The texts of a stream's documents, of those that end at or before token `stop`."""
    start = 0
    for ends in stream.document_ends():
        for end in ends:
            if stop is not None and end > stop:
                return
            ids, _ = stream.read(start, int(end) - 1)
            yield tokenizer.decode(ids.tolist(), clean_up_tokenization_spaces=False)
            start = int(end)


def ngram_baseline(
    training: Sequence[TokenStream],
    held_out: Sequence[tuple[TokenStream, int]],
    tokenizer: PreTrainedTokenizerBase,
    memo: Path,
) -> dict[str, float]:
    """Bits per character of a Kneser-Ney model for each held-out text; empty where the training text is too long.

    Args:
        training: the streams that are trained on.
        held_out: streams, and the token at which their evaluated part stops.
        tokenizer: turns tokens back into text.
        memo: JSON file that remembers the result for the same held-out parts.
    """
    key = {stream.name: stop for stream, stop in held_out}
    if memo.is_file():
        known = json.loads(memo.read_text("utf-8"))
        if known["stops"] == key:
            return known["bits_per_character"]
    if sum(map(len, training)) > MOST_CHARACTERS:  # a token is one character or more
        return {}
    texts = [text for stream in training for text in documents(stream, tokenizer)]
    if sum(map(len, texts)) > MOST_CHARACTERS:
        return {}
    scores = {
        stream.name: float(np.float64(kneser_ney_bits_per_character(texts, documents(stream, tokenizer, stop), ORDER)))
        for stream, stop in held_out
    }
    write_atomically(memo, json.dumps({"order": ORDER, "stops": key, "bits_per_character": scores}))
    return scores
