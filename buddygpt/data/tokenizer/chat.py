"""The tokenizer of a chat model: the base model's, with the chat template in it and the end of a turn as its end."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, TypeVar

from buddygpt.data.template import CHAT_TEMPLATE, END, START
from buddygpt.data.tokenizer.bpe import END_OF_TEXT
from buddygpt.recipe.errors import BuddyError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    T = TypeVar("T", bound=PreTrainedTokenizerBase)


def make_chat_tokenizer(tokenizer: T) -> T:
    """A copy that ends with `<|im_end|>`, pads with `<|endoftext|>` and carries `CHAT_TEMPLATE`.

    Raises:
        BuddyError: the vocabulary lacks a mark of the template.
    """
    chat_ends(tokenizer)
    chat = copy.deepcopy(tokenizer)
    chat.chat_template, chat.eos_token, chat.pad_token = CHAT_TEMPLATE, END.token, END_OF_TEXT
    return chat


def chat_ends(tokenizer: PreTrainedTokenizerBase) -> tuple[int, int]:
    """The ids of `<|im_end|>` and `<|endoftext|>`: a chat model stops on both.

    Raises:
        BuddyError: the vocabulary lacks a mark that every talk needs. Those of reasoning and tools are missed only by
            talks that have some.
    """
    added = tokenizer.get_added_vocab()
    missing = [token for token in (START.token, END.token, END_OF_TEXT) if token not in added]
    if missing:
        raise BuddyError(
            f"tokenizer: the base model's vocabulary lacks {', '.join(missing)}, which a chat model needs; "
            "pretrain with tokenizer 'qwen3' or one trained here, or take a base model that has them, such as Qwen's"
        )
    return added[END.token], added[END_OF_TEXT]
