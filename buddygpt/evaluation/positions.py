"""Bits per character by position: how well a model foretells text the further it stands from the text's beginning.

A model whose context was stretched badly shows here at once: its curve rises where the positions are new to it.
Shapes: B windows, T positions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from buddygpt.evaluation.scores import measuring, token_log_probs
from buddygpt.model.generation import CharacterStream
from buddygpt.model.loss import bits_per_character
from buddygpt.recipe.errors import BuddyError

BUCKETS = 16


@dataclass(frozen=True)
class Passage:
    """One window of one text.

    Args:
        ids: T + 1 token ids; the token after position t is judged at t.
        characters: T numbers, of the characters that each judged token completes.
    """

    ids: tuple[int, ...]
    characters: tuple[int, ...]


@dataclass(frozen=True)
class Positions:
    """Sums over equal ranges of positions, the same windows of text for every model.

    Args:
        edges: where ranges begin, in tokens, and where the last one ends.
        windows: how many were read.
        nats: negative log-likelihood of each range.
        characters: of each range.
        errors: standard error of each range's bits per character, with windows as the sample.
    """

    edges: tuple[int, ...]
    windows: int
    nats: tuple[float, ...]
    characters: tuple[int, ...]
    errors: tuple[float, ...]

    @property
    def bits(self) -> tuple[float, ...]:
        """Bits per character of each range."""
        return tuple(map(bits_per_character, self.nats, self.characters))

    def between(self, start: int, stop: int) -> float:
        """Bits per character of the ranges that lie wholly in [start, stop), in tokens.

        Raises:
            ValueError: none does.
        """
        ranges = [i for i in range(len(self.nats)) if start <= self.edges[i] and self.edges[i + 1] <= stop]
        if not ranges:
            raise ValueError(f"no range of positions lies within {start} to {stop}")
        return bits_per_character(sum(self.nats[i] for i in ranges), sum(self.characters[i] for i in ranges))

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Positions:
        """What `as_dict` gave."""
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in data.items()})


def cut_passages(
    tokenizer: PreTrainedTokenizerBase,
    texts: Iterable[Sequence[int]],
    length: int,
    most: int | None = None,
    begin: int | None = None,
) -> list[Passage]:
    """Windows of `length` positions, one after the other from each text's beginning; its rest is left out.

    Each window begins with the end-of-text token, as a text does in pretraining: then position 0 foretells a first
    token, and a window is what a model sees of a long text that begins there.

    Args:
        tokenizer: made the ids; a fast one.
        texts: token ids of long texts.
        length: T.
        most: windows to take, of the first texts.
        begin: the end-of-text token; the tokenizer's own end where left out, which a chat model's is not.

    Raises:
        BuddyError: fewer than two windows, which have no standard error.
    """
    first = int(tokenizer.eos_token_id if begin is None else begin)
    passages: list[Passage] = []
    longest = 0
    for ids in texts:
        longest = max(longest, len(ids))
        for start in range(0, len(ids) - length + 1, length):
            if most is not None and len(passages) == most:
                return passages
            judged = tuple(map(int, ids[start : start + length]))
            stream = CharacterStream(tokenizer)
            characters = tuple(len(stream.push(token)) for token in judged)
            passages.append(Passage((first, *judged), characters))
    if len(passages) < 2:
        raise BuddyError(
            f"positions: two windows of {length:,} tokens are needed, the texts hold {len(passages)}, the longest has "
            f"{longest:,} tokens; give longer texts or a shorter length"
        )
    return passages


def measure_positions(
    model: Any, passages: Sequence[Passage], *, buckets: int = BUCKETS, batch: int = 1, precision: str = "bf16"
) -> Positions:
    """Read every window and add up what each range of positions costs.

    Args:
        model: a causal language model, ours or transformers'; left in the mode in which it was.
        passages: all of one length, which `buckets` divides.
        buckets: ranges of positions.
        batch: windows at once; memory grows with it.
        precision: bf16, fp16 or fp32, under autocast as in training.

    Raises:
        ValueError: passages of several lengths or of one that `buckets` does not divide; a range without a character.
    """
    lengths = {len(p.characters) for p in passages}
    if len(lengths) != 1:
        raise ValueError(f"the passages must have one length, not {sorted(lengths)}")
    length = lengths.pop()
    if length % buckets:
        raise ValueError(f"{buckets} ranges do not divide {length} positions")
    with measuring(model, precision):
        batches = (passages[start : start + batch] for start in range(0, len(passages), batch))
        nats_WT = np.concatenate([_nats(model, some) for some in batches])
    nats_WK = nats_WT.reshape(len(passages), buckets, -1).sum(-1)
    characters_WK = np.array([p.characters for p in passages]).reshape(len(passages), buckets, -1).sum(-1)
    nats_K, characters_K = nats_WK.sum(0), characters_WK.sum(0)
    if not characters_K.all():
        raise ValueError(f"a range of {length // buckets} positions completes no character; take fewer ranges")
    return Positions(
        edges=tuple(range(0, length + 1, length // buckets)),
        windows=len(passages),
        nats=tuple(nats_K.tolist()),
        characters=tuple(characters_K.tolist()),
        errors=tuple(_errors(nats_WK / np.log(2), characters_WK).tolist()),
    )


def _nats(model: Any, passages: Sequence[Passage]) -> NDArray[np.float64]:
    """Negative log-likelihood (B, T) of the windows' tokens."""
    ids = torch.tensor([p.ids for p in passages])
    return -token_log_probs(model, ids[:, :-1], ids[:, 1:]).double().cpu().numpy()


def _errors(bits_WK: NDArray[np.float64], characters_WK: NDArray[np.int64]) -> NDArray[np.float64]:
    """Standard error of the ratio of two sums over windows (Cochran, Sampling Techniques, 3rd ed., section 6.4)."""
    windows, characters_K = len(bits_WK), characters_WK.sum(0)
    residuals_WK = bits_WK - bits_WK.sum(0) / characters_K * characters_WK
    return np.sqrt((residuals_WK**2).sum(0) * windows / (windows - 1)) / characters_K
