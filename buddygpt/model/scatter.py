"""A model of a trimmed vocabulary under the ids of the full one.

The kept tokens' rows go to their old ids. All other tokens get one row: the mean of the rows of idle tokens, which no
text holds, so that training has pushed them down. A logit is linear in its row, so theirs is the mean of the idle
tokens' logits: it never exceeds the highest of all, and the greedy choice stays what it was. docs/vocabulary.md tells
what is left to them when tokens are drawn, and what other values cost.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from buddygpt.model.architectures import EMBEDDING, HEAD
from buddygpt.model.modeling import BuddyGPTForCausalLM
from buddygpt.model.whole import fill, outline

_ENDS = ("bos_token_id", "eos_token_id", "pad_token_id")


def scatter(model: BuddyGPTForCausalLM, kept: Sequence[int], size: int, idle: Sequence[int]) -> BuddyGPTForCausalLM:
    """The model with `size` rows, on the CPU; what is no table of the vocabulary is shared with `model` there.

    Args:
        model: with a row for each kept token.
        kept: the full vocabulary's id of each row.
        size: entries of the full vocabulary.
        idle: rows of tokens that no text holds.
    """
    config: Any = copy.deepcopy(model.config)
    config.vocab_size = size
    state = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    for name in (EMBEDDING,) if config.tie_word_embeddings else (EMBEDDING, HEAD):
        state[name] = _wide_table(state[name], kept, size, idle)
    wide = outline(config)
    fill(wide, state)
    wide.generation_config = copy.deepcopy(model.generation_config)
    for settings in filter(None, (config, wide.generation_config)):
        for name in _ENDS:
            setattr(settings, name, _renumbered(getattr(settings, name, None), kept))
    return wide


def _wide_table(table: Tensor, kept: Sequence[int], size: int, idle: Sequence[int]) -> Tensor:
    """(size, C) from the (V, C) of the kept tokens."""
    wide = table[list(idle)].float().mean(dim=0).to(table.dtype).repeat(size, 1)
    wide[list(kept)] = table
    return wide


def _renumbered(ids: int | list[int] | None, kept: Sequence[int]) -> int | list[int] | None:
    if isinstance(ids, list):
        return [kept[i] for i in ids]
    return None if ids is None else kept[ids]
