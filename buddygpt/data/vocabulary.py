"""The tokenizer of prepared data: the recipe's, or one trained or trimmed on its training split."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from buddygpt.data.fates import TRAIN, fate_file, fractions
from buddygpt.data.shards import kept_documents
from buddygpt.data.staging import Batch, Staged, load_array
from buddygpt.data.tokenizer import (
    choose_tokens,
    count_tokens,
    largest_id,
    load_tokenizer,
    tokenizer_hash,
    train_tokenizer,
    trim,
)
from buddygpt.recipe.errors import BuddyError
from buddygpt.recipe.runs import write_atomically
from buddygpt.recipe.schema import Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from buddygpt.data.job import Job

SAMPLE_BYTES = 256_000_000
"""Bytes of training text that a tokenizer is trained or trimmed on at most; of more, a share chosen by hash."""


def check_tokenizer(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> None:
    """See that the tokenizer fits the model.

    Raises:
        BuddyError: its ids do not, or it cannot end a text.
    """
    largest = largest_id(tokenizer)
    if largest >= recipe.model.vocab_size:
        raise BuddyError(
            f"{recipe.name}: the tokenizer's vocabulary is larger than the model's: ids reach {largest}, "
            f"model.vocab_size is {recipe.model.vocab_size}; set it to {-(-(largest + 1) // 128) * 128} or more"
        )
    if tokenizer.eos_token_id is None:
        raise BuddyError(f"{recipe.name}: the tokenizer '{recipe.tokenizer.base}' has no end-of-text token")


def settle_tokenizer(
    job: Job, batches: Sequence[Batch], staged: Staged, fates: Path
) -> tuple[PreTrainedTokenizerBase, dict[str, Any]]:
    """The tokenizer, saved in the prepared folder, and its part of the manifest.

    One that the recipe has trained or trimmed learns from the training split only, in the recipe's order; of more than
    SAMPLE_BYTES from a share of the documents, chosen by hash, which the manifest tells.
    """
    folder, memo = job.path / "tokenizer", job.work / "tokenizer.json"
    if memo.is_file():  # made before the work was broken off
        return load_tokenizer(str(folder.absolute())), json.loads(memo.read_text("utf-8"))
    facts: dict[str, Any] = {}
    tokenizer = job.base
    if job.entries is not None:
        total = sum(int(_training(staged, fates, number)["bytes"].sum()) for number in range(len(batches)))
        share = min(1.0, SAMPLE_BYTES / total)
        sample = _sample(batches, staged, fates, share)
        if tokenizer is None:
            tokenizer = train_tokenizer(chain.from_iterable(sample), job.entries)
            learned = "trained_on"
        else:
            counts = count_tokens(tokenizer, sample)
            kept = choose_tokens(tokenizer, counts, job.entries)
            facts["kept"] = {"of": len(counts), "share_of_text": round(int(counts[kept].sum()) / int(counts.sum()), 6)}
            tokenizer = trim(tokenizer, kept)
            learned = "chosen_on"
        facts[learned] = {"bytes": total, "sampled_share": share}
        check_tokenizer(job.recipe, tokenizer)
    assert tokenizer is not None
    shutil.rmtree(folder, ignore_errors=True)
    tokenizer.save_pretrained(str(folder))
    largest = largest_id(tokenizer)
    facts |= {
        "name": job.recipe.tokenizer.base or "trained",
        "hash": tokenizer_hash(tokenizer),
        "entries": len(tokenizer),
        "largest_id": largest,
        "end": tokenizer.eos_token_id,
        "dtype": "uint16" if largest < 2**16 else "uint32",
    }
    write_atomically(memo, json.dumps(facts, ensure_ascii=False))
    return tokenizer, facts


def _training(staged: Staged, fates: Path, batch: int) -> Any:
    """Index records of a batch's training documents."""
    return staged.index(batch)[load_array(fate_file(fates, batch)) == TRAIN]


def _sample(batches: Sequence[Batch], staged: Staged, fates: Path, share: float) -> Iterator[list[str]]:
    """Blocks of training texts in the recipe's order; of a part of them, those whose hash's lower word is small."""
    for number in range(len(batches)):
        chosen = fractions(_training(staged, fates, number)["low"]) < share
        start = 0
        for split, texts, _ in kept_documents(staged, fates, number):
            if split == TRAIN:
                yield [text for text, keep in zip(texts, chosen[start : start + len(texts)], strict=True) if keep]
                start += len(texts)
