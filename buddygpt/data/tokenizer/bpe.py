"""Byte-level BPE in Qwen's shape: put together from a vocabulary, or trained on texts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, trainers

from buddygpt.recipe.errors import BuddyError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

END_OF_TEXT = "<|endoftext|>"
"""Ends every document and pads every batch; the end token of a base model."""

SPECIAL_TOKENS = (END_OF_TEXT, "<|im_start|>", "<|im_end|>")
"""Control tokens of a trained tokenizer, in id order: left out when decoding with ``skip_special_tokens``."""

PLAIN_TOKENS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>")
"""Its other added tokens, with the ids after those: one id each, but kept when decoding."""


def train_tokenizer(texts: Iterable[str], vocab_size: int, *, min_frequency: int = 2) -> PreTrainedTokenizerFast:
    """Train a tokenizer of exactly `vocab_size` entries: the 256 bytes, the merges, then the added tokens.

    The same texts give the same tokenizer, whatever the number of threads. Pairs seen fewer than
    `min_frequency` times are not merged. Texts too small to fill `vocab_size` are an error, never a smaller
    tokenizer.
    """
    byte_characters = pre_tokenizers.ByteLevel.alphabet()
    added = len(SPECIAL_TOKENS + PLAIN_TOKENS)
    smallest = len(byte_characters) + added
    if vocab_size < smallest:
        raise BuddyError(
            f"tokenizer: vocab_size {vocab_size} is too small: {len(byte_characters)} bytes and {added} added"
            f" tokens take {smallest} entries; set vocab_size to more than that"
        )
    trainee = Tokenizer(models.BPE())
    pipeline = assemble({}, []).backend_tokenizer
    trainee.normalizer, trainee.pre_tokenizer = pipeline.normalizer, pipeline.pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - added,
        min_frequency=min_frequency,
        initial_alphabet=byte_characters,
        show_progress=False,
    )
    trainee.train_from_iterator(texts, trainer)
    reached = trainee.get_vocab_size() + added
    if reached != vocab_size:
        raise BuddyError(
            f"tokenizer: the training texts give only {reached} of the {vocab_size} entries of vocab_size;"
            f" add text, or set vocab_size to {reached} or less"
        )
    model = json.loads(trainee.to_str())["model"]
    merges = [(left, right) for left, right in model["merges"]]
    return assemble(model["vocab"], merges, SPECIAL_TOKENS, PLAIN_TOKENS)


def assemble(
    vocab: dict[str, int],
    merges: list[tuple[str, str]],
    special_tokens: Sequence[str] = (END_OF_TEXT,),
    plain_tokens: Sequence[str] = (),
) -> PreTrainedTokenizerFast:
    """A tokenizer with Qwen's pipeline around `vocab` and `merges`, and the added tokens after them.

    It is transformers' Qwen2 class: NFC, Split by Qwen's pattern, ByteLevel. A folder with a Qwen model in it
    is read by that class whatever its files say, and transformers 4 knows it too. For transformers 4, which
    cannot read back what 5 writes for it, ``extra_special_tokens`` stays unset; the added tokens carry their
    special flag themselves.
    """
    from transformers import Qwen2Tokenizer

    tokenizer = Qwen2Tokenizer(
        vocab=vocab,
        merges=merges,
        unk_token=None,
        eos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        add_prefix_space=False,
    )
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in special_tokens])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in plain_tokens])
    return tokenizer
