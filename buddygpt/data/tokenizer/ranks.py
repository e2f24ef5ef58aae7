"""Byte-pair encoding by ranks: tiktoken gives the ids of most byte-level tokenizers three to four times as fast.

tiktoken joins the neighbours whose joint piece has the lowest id, wherever that piece is in the vocabulary. A
tokenizer's own file lists the pairs that may join, in order. Both give the same ids where

1. every piece longer than a byte is made by one listed pair, and the list is in the order of the pieces' ids;
2. joining the bytes of a piece alone, by pieces of lower ids only, ends with the two parts of its listed pair.

For take a step of either way at which two neighbours spell a piece P. Nothing was joined across their borders, so all
joins within were those of the bytes of P alone; when P's turn comes all joins by lower ids are done, and by 2 what is
left are the two parts that the list names. So no pair that the list lacks ever has its turn.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from tokenizers import normalizers

MOST_BLANKS = 500_000
"""Blanks in a row; from a million on tiktoken's search runs out of stack."""
_NFC = normalizers.NFC()
_BLANKS = re.compile(r"\s+")


class RankEncoder:
    """A tokenizer's splitting and merges, by tiktoken. Can be pickled."""

    def __init__(self, pattern: str, ranks: dict[bytes, int], normalise: bool):
        import tiktoken

        self._encoding = tiktoken.Encoding("ranks", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
        self._normalise = normalise

    def encode(self, text: str) -> list[int] | None:
        """The ids of a text; None for one with more blanks in a row than tiktoken can split.

        Args:
            text: Unicode without lone surrogates, which tiktoken would replace.
        """
        if self._normalise and not unicodedata.is_normalized("NFC", text):
            text = _NFC.normalize_str(text)  # the library's: its Unicode tables may be older than Python's
        if len(text) > MOST_BLANKS and max(map(len, _BLANKS.findall(text)), default=0) > MOST_BLANKS:
            return None
        return self._encoding.encode_ordinary(text)


def rank_encoder(content: Mapping[str, Any]) -> RankEncoder | None:
    """The encoder that gives a tokenizer's ids; None where that is not certain.

    Args:
        content: of its tokenizer.json.
    """
    pattern = _pattern(content.get("pre_tokenizer"))
    normaliser = content.get("normalizer")
    if pattern is None or normaliser not in (None, {"type": "NFC"}) or not _is_plain(content["model"]):
        return None
    characters = byte_characters()
    byte_of = {character: byte for byte, character in enumerate(characters)}
    ranks: dict[bytes, int] = {}
    for piece, number in content["model"]["vocab"].items():
        try:
            ranks[bytes(byte_of[character] for character in piece)] = number
        except KeyError:  # an entry that spells no bytes
            return None
    if not all(bytes([byte]) in ranks for byte in range(256)):
        return None
    listed = [tuple(bytes(byte_of[c] for c in part) for part in pair) for pair in content["model"]["merges"]]
    made = sorted((number, piece) for piece, number in ranks.items() if len(piece) > 1)
    if len(made) != len(listed):
        return None
    for (_, piece), pair in zip(made, listed, strict=True):
        if b"".join(pair) != piece or tuple(halves(piece, ranks)) != pair:
            return None
    return RankEncoder(pattern, ranks, normaliser is not None)


def halves(piece: bytes, ranks: Mapping[bytes, int]) -> list[bytes]:
    """What is left of the bytes of `piece` when all pieces of lower ranks have been joined; not less than two parts."""
    parts = [piece[at : at + 1] for at in range(len(piece))]
    own_rank = ranks[piece]
    while len(parts) > 2:
        pair_ranks = [ranks.get(left + right, own_rank) for left, right in pairwise(parts)]
        at = pair_ranks.index(min(pair_ranks))
        if pair_ranks[at] >= own_rank:
            break
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts


def byte_characters() -> list[str]:
    """The character that spells each byte in vocabulary and merges, as in byte-level BPE since GPT-2.

    The printable characters of Latin-1 stand for themselves, the other 68 bytes take the code points from 256
    on, in order.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    substitutes = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(substitutes)) for byte in range(256)]


def _pattern(pre_tokenizer: Any) -> str | None:
    """The regular expression that splits text, where bytes follow it and nothing else does."""
    match pre_tokenizer:
        case {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": str(pattern)}, "behavior": "Isolated", "invert": False},
                {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
            ],
        }:
            return pattern
    return None


def _is_plain(model: Mapping[str, Any]) -> bool:
    """BPE without any of its extras."""
    extras = ("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback")
    return model.get("type", "BPE") == "BPE" and not any(model.get(extra) for extra in (*extras, "ignore_merges"))
