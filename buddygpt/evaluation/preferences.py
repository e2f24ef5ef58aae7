"""Which of two answers a model finds more probable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from buddygpt.data.formats import Pair
from buddygpt.data.template import answer_segments
from buddygpt.data.tokenizer import DocumentEncoder
from buddygpt.evaluation.replies import batches, encode_prompts, evaluating
from buddygpt.model.loss import IGNORE_INDEX, linear_log_probs


@dataclass(frozen=True)
class Preferences:
    """How a model judges pairs.

    Args:
        margins: log p(chosen) - log p(rejected) of each pair, in nats.
    """

    margins: tuple[float, ...]

    @property
    def accuracy(self) -> float:
        """Share of the pairs whose chosen answer is the more probable one; equal ones do not count as right."""
        return sum(margin > 0 for margin in self.margins) / max(len(self.margins), 1)

    @property
    def margin(self) -> float:
        """Mean margin in nats."""
        return sum(self.margins) / max(len(self.margins), 1)


def judge(model: Any, tokenizer: PreTrainedTokenizerBase, pairs: Sequence[Pair]) -> Preferences:
    """Compare the summed log-probabilities of both answers of each pair, their end marks included.

    Args:
        model: a causal language model on its device; left in the mode it is in.
        pairs: none longer than the model's context.
    """
    prompts = encode_prompts(tokenizer, [pair.prompt for pair in pairs])
    encoder = DocumentEncoder(tokenizer)
    sides = [encoder.encode_segments([answer_segments(m) for m in side]) for side in _sides(pairs)]
    chosen, rejected = (log_probabilities(model, prompts, answers) for answers in sides)
    return Preferences(tuple(better - worse for better, worse in zip(chosen, rejected, strict=True)))


@torch.no_grad()
def log_probabilities(
    model: Any, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], *, rows: int = 64
) -> list[float]:
    """The log-probability in nats of each answer after its prompt, summed over the answer's tokens.

    Args:
        prompts, answers: token ids, none empty.
        rows: answers read at once.
    """
    whole = [[*prompt, *answer] for prompt, answer in zip(prompts, answers, strict=True)]
    sums = [0.0] * len(whole)
    with evaluating(model):
        head = model.get_output_embeddings().weight
        for batch in batches(whole, rows):
            ids_BT, mask_BT, targets_BT = (tensor.to(model.device) for tensor in _batch(batch, whole, prompts))
            hidden_BTD = model.base_model(input_ids=ids_BT, attention_mask=mask_BT, use_cache=False).last_hidden_state
            for i, total in zip(batch, linear_log_probs(hidden_BTD, head, targets_BT).sum(-1).tolist(), strict=True):
                sums[i] = total
    return sums


def _batch(
    batch: Sequence[int], whole: Sequence[Sequence[int]], prompts: Sequence[Sequence[int]]
) -> tuple[Tensor, Tensor, Tensor]:
    """Ids, mask and the token that each position has to tell, all (B, T), padded on the right."""
    longest = max(len(whole[i]) for i in batch)
    ids_BT = torch.zeros(len(batch), longest, dtype=torch.long)
    mask_BT = torch.zeros_like(ids_BT)
    targets_BT = torch.full_like(ids_BT, IGNORE_INDEX)
    for row, i in enumerate(batch):
        ids_T, answer = torch.tensor(whole[i]), len(prompts[i])
        ids_BT[row, : len(ids_T)] = ids_T
        mask_BT[row, : len(ids_T)] = 1
        targets_BT[row, answer - 1 : len(ids_T) - 1] = ids_T[answer:]
    return ids_BT, mask_BT, targets_BT


def _sides(pairs: Sequence[Pair]) -> tuple[list[Any], list[Any]]:
    return [pair.chosen for pair in pairs], [pair.rejected for pair in pairs]
