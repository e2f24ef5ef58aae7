"""Needle in a text: does a model find one sentence again, by its depth in the text and by the text's length?"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from buddygpt.data.tokenizer import largest_id
from buddygpt.evaluation.haystack import Needle
from buddygpt.evaluation.scores import measuring, token_log_probs
from buddygpt.model.generation import generate, stop_ids
from buddygpt.model.loss import IGNORE_INDEX
from buddygpt.model.sampling import Sampling


@dataclass(frozen=True)
class NeedleCell:
    """All needles of one length and depth.

    Args:
        length: in tokens.
        depth: 0 to 1.
        asked: how many.
        right: of them answered exactly.
        log_prob: mean log-probability of the whole value, in nats; guessing four digits gives -9.21.
    """

    length: int
    depth: float
    asked: int
    right: int
    log_prob: float

    @property
    def share(self) -> float:
        """Of the asked, those answered exactly."""
        return self.right / self.asked


@dataclass(frozen=True)
class NeedleGrid:
    """Cells by length, then by depth."""

    cells: tuple[NeedleCell, ...]

    def share(self, shortest: int = 0, longest: float = float("inf")) -> float:
        """Of all needles in texts of more than `shortest` and at most `longest` tokens, those answered exactly."""
        cells = [cell for cell in self.cells if shortest < cell.length <= longest]
        return sum(cell.right for cell in cells) / sum(cell.asked for cell in cells)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> NeedleGrid:
        """What `as_dict` gave."""
        return cls(tuple(NeedleCell(**cell) for cell in data["cells"]))


def find_needles(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    needles: Sequence[Needle],
    *,
    batch: int = 1,
    precision: str = "bf16",
) -> NeedleGrid:
    """Ask for every needle; right is a greedy answer whose digits are the value and no more.

    Args:
        model: a causal language model, ours or transformers'; left in the mode in which it was.
        tokenizer: made the needles.
        needles: of any lengths.
        batch: needles at once; memory grows with it.
        precision: bf16, fp16 or fp32, under autocast as in training.
    """
    found: dict[tuple[int, float], list[tuple[bool, float]]] = {}
    ordered = sorted(needles, key=lambda n: (n.length, n.depth))
    with measuring(model, precision):
        for start in range(0, len(ordered), batch):
            some = ordered[start : start + batch]
            for needle, *result in zip(some, _answers(model, tokenizer, some), _log_probs(model, some), strict=True):
                found.setdefault((needle.length, needle.depth), []).append((result[0], result[1]))
    return NeedleGrid(
        tuple(
            NeedleCell(length, depth, len(r), sum(right for right, _ in r), sum(nats for _, nats in r) / len(r))
            for (length, depth), r in found.items()
        )
    )


def _answers(model: Any, tokenizer: PreTrainedTokenizerBase, needles: Sequence[Needle]) -> list[bool]:
    """Whether each greedy continuation begins with exactly the value."""
    digits = max(len(n.value) for n in needles)
    rows = generate(
        model, [n.prompt for n in needles], Sampling(digits + 1, temperature=0),
        stop=stop_ids(model, tokenizer), vocabulary=largest_id(tokenizer) + 1,
    )  # fmt: skip
    texts = [tokenizer.decode(row, skip_special_tokens=True) for row in rows]
    return [re.match(r"\d*", text)[0] == n.value for text, n in zip(texts, needles, strict=True)]  # type: ignore[index]


def _log_probs(model: Any, needles: Sequence[Needle]) -> list[float]:
    """Log-probability of each value as a whole."""
    texts = [[*n.prompt, *n.answer] for n in needles]
    longest = max(map(len, texts))
    ids = torch.tensor([text + [0] * (longest - len(text)) for text in texts])  # after the text: nothing sees it
    targets = torch.full_like(ids, IGNORE_INDEX)
    for row, n in enumerate(needles):
        targets[row, len(n.prompt) : len(texts[row])] = torch.tensor(n.answer)
    return token_log_probs(model, ids[:, :-1], targets[:, 1:]).sum(-1).tolist()
