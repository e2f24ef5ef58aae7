"""Qwen3's tokenizer cut down to the merges that a text uses most.

A merge is used where the full tokenizer applies it, be it to make a token or a part of one. A part is used at least as
often as what is made of it, and has a lower rank; so the first N merges by uses, equal ones by rank, are closed under
parts: what makes a kept token is kept. No other N merges save more tokens on that text.

Words whose tokens were all kept are segmented as before. BPE takes the applicable merge of lowest rank, the leftmost of
several. The full tokenizer's merges within such a word make its tokens or their parts, and each token is made by one
merge, so all of them are kept. At each step the trimmed tokenizer has some of the full one's applicable merges, among
them the one that the full one takes, which is the lowest of all; so it takes that too, and none is left at the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from buddygpt.data.tokenizer.bpe import assemble
from buddygpt.data.tokenizer.content import backend_content, tokenizer_hash
from buddygpt.data.tokenizer.documents import DocumentEncoder
from buddygpt.data.tokenizer.qwen3 import PLAIN_TOKENS, SPECIAL_TOKENS
from buddygpt.recipe.errors import BuddyError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast


def count_tokens(full: PreTrainedTokenizerBase, blocks: Iterable[Sequence[str]]) -> NDArray[np.int64]:
    """How often each of the full tokenizer's ids stands in the texts, which come block by block."""
    encoder, counts = DocumentEncoder(full), np.zeros(len(full), dtype=np.int64)
    for texts in blocks:
        ids = np.fromiter(chain.from_iterable(encoder.encode(texts)), dtype=np.int64)
        counts += np.bincount(ids, minlength=len(counts))
    return counts


def choose_tokens(full: PreTrainedTokenizerBase, counts: NDArray[np.int64], size: int) -> list[int]:
    """The ids of the full tokenizer that one of `size` entries keeps, ascending.

    All bytes and added tokens, then the tokens whose merges are used most; where fewer are used, the rest by rank.

    Args:
        full: Qwen3's tokenizer.
        counts: of `count_tokens`.
        size: entries of the result, bytes and added tokens included.
    """
    merges, uses = _merges(full), counts.tolist()
    for token, left, right in reversed(merges):  # a part after all that is made of it
        uses[left] += uses[token]
        uses[right] += uses[token]
    made = [token for token, _, _ in merges]
    always = set(range(len(full))).difference(made)
    most = sorted(made, key=lambda token: (-uses[token], token))[: size - len(always)]
    return sorted([*always, *most])


def trim(full: PreTrainedTokenizerBase, kept: Sequence[int]) -> PreTrainedTokenizerFast:
    """The tokenizer of the kept ids, renumbered in their order; the added tokens keep the highest.

    Args:
        full: Qwen3's tokenizer.
        kept: ids of `choose_tokens`.
    """
    model = backend_content(full)["model"]
    wanted = set(kept)
    pieces = sorted((token, piece) for piece, token in model["vocab"].items() if token in wanted)
    vocab = {piece: number for number, (_, piece) in enumerate(pieces)}
    merges = [(left, right) for left, right in model["merges"] if left + right in vocab]
    return assemble(vocab, merges, SPECIAL_TOKENS, PLAIN_TOKENS)


def kept_tokens(tokenizer: PreTrainedTokenizerBase, full: PreTrainedTokenizerBase) -> list[int]:
    """The id in the full tokenizer of each id of a trimmed one, in order.

    Entries are spelt alike in both, so a trimmed tokenizer tells by itself what was kept.

    Raises:
        BuddyError: the tokenizer is not the full one trimmed.
    """
    known = full.get_vocab()
    kept = [known.get(piece, -1) for piece, _ in sorted(tokenizer.get_vocab().items(), key=lambda entry: entry[1])]
    if -1 in kept or tokenizer_hash(trim(full, kept)) != tokenizer_hash(tokenizer):
        raise BuddyError("the tokenizer is no trimmed 'qwen3' (`tokenizer: {base: qwen3, keep: N}` in a recipe)")
    return kept


def _merges(full: PreTrainedTokenizerBase) -> list[tuple[int, int, int]]:
    """Each merge's token and its two parts, by rank."""
    model: dict[str, Any] = backend_content(full)["model"]
    vocab = model["vocab"]
    return [(vocab[left + right], vocab[left], vocab[right]) for left, right in model["merges"]]
