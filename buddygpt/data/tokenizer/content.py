"""What a tokenizer is made of: its file's content, its hash, its highest id."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def tokenizer_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """Hex digest of all that decides which ids a text gets; the same after saving and loading.

    It covers normaliser, splitting, vocabulary, merges and added tokens. Decoder, padding, truncation,
    post-processor and chat template are left out: `DocumentEncoder` uses none of them.
    """
    content = backend_content(tokenizer)
    deciding = {key: content[key] for key in ("normalizer", "model", "added_tokens")}
    deciding["pre_tokenizer"] = _without_offset_flags(content["pre_tokenizer"])
    canonical = json.dumps(deciding, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(canonical.encode(), digest_size=16).hexdigest()


def largest_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The highest id the tokenizer can give, added tokens included: what a token file's dtype must hold."""
    return max(tokenizer.get_vocab().values())


def backend_content(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """What tokenizer.json holds, or would."""
    return json.loads(tokenizer.backend_tokenizer.to_str())


def _without_offset_flags(node: Any) -> Any:
    """`node` without `trim_offsets`: it moves offsets, never ids, and libraries rewrite it on the way."""
    if isinstance(node, dict):
        return {key: _without_offset_flags(value) for key, value in node.items() if key != "trim_offsets"}
    if isinstance(node, list):
        return [_without_offset_flags(value) for value in node]
    return node
