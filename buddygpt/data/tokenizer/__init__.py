"""Tokenizers: Qwen3's rebuilt offline or trimmed, trained ones of any size, and encoding in which text stays text.

Every tokenizer made here is a byte-level BPE behind Qwen's pipeline: NFC normalisation, Qwen's splitting
pattern (words, single digits, runs of punctuation, white space), bytes. Nothing is unknown and nothing is
lost, but text is normalised: ``decode(encode(x)) == NFC(x)``.

Added tokens (``<|endoftext|>``, ``<think>``, ...) hold the highest ids. Typed in a document they are only
characters: `DocumentEncoder` never gives their ids.
"""

from buddygpt.data.tokenizer.bpe import END_OF_TEXT, train_tokenizer
from buddygpt.data.tokenizer.chat import chat_ends, make_chat_tokenizer
from buddygpt.data.tokenizer.content import largest_id, tokenizer_hash
from buddygpt.data.tokenizer.documents import DocumentEncoder, encode_documents
from buddygpt.data.tokenizer.loader import is_hub_id, load_tokenizer
from buddygpt.data.tokenizer.pieces import spell_tokens
from buddygpt.data.tokenizer.qwen3 import IDLE_TOKENS
from buddygpt.data.tokenizer.trim import choose_tokens, count_tokens, kept_tokens, trim

__all__ = [
    "END_OF_TEXT",
    "IDLE_TOKENS",
    "DocumentEncoder",
    "chat_ends",
    "choose_tokens",
    "count_tokens",
    "encode_documents",
    "is_hub_id",
    "kept_tokens",
    "largest_id",
    "load_tokenizer",
    "make_chat_tokenizer",
    "spell_tokens",
    "tokenizer_hash",
    "train_tokenizer",
    "trim",
]
