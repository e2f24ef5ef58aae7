"""Tokens for a reader's eyes, one by one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from buddygpt.data.tokenizer.content import backend_content
from buddygpt.data.tokenizer.ranks import byte_characters

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def spell_tokens(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[str]:
    """The text of each token by itself: added tokens by their names, bytes of part of a character as `\\xe4`."""
    added = tokenizer.get_added_vocab()
    in_bytes = "ByteLevel" in json.dumps(backend_content(tokenizer)["decoder"])
    byte_of = {char: byte for byte, char in enumerate(byte_characters())}

    def spell(piece: str) -> str:
        if piece in added:
            return piece
        if in_bytes and all(char in byte_of for char in piece):
            return bytes(byte_of[char] for char in piece).decode("utf-8", "backslashreplace")
        return piece.replace("\u2581", " ")  # as SentencePiece writes a space

    return [spell(piece) for piece in tokenizer.convert_ids_to_tokens(list(ids))]
