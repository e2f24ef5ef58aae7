"""A small model made four times as long: foretelling by position and finding needles, before and after tuning.

The model learns demo prose in which passwords are told and asked again (`benchmarks.passwords`) in windows of 256 tokens.
It is then extended to 1,024 by each scaling, and by none, and each copy is tuned on windows of the same text that are
1,024 long. What is measured stands in `buddygpt.evaluation`. About a quarter of an hour on two quiet cores.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from benchmarks.passwords import Passwords
from benchmarks.table import table
from buddygpt.evaluation.haystack import make_needles
from buddygpt.evaluation.needle import NeedleGrid, find_needles
from buddygpt.evaluation.positions import Positions, cut_passages, measure_positions
from buddygpt.model import BuddyGPTConfig, BuddyGPTForCausalLM, extend
from buddygpt.recipe.pretrain import WSD, Muon
from buddygpt.training.optimizers import build_optimizer
from buddygpt.training.schedules import rate_factor

OLD, NEW = 256, 1024
KINDS = ("none", "linear", "ntk", "yarn")
RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Work:
    """How much is trained and measured.

    Args:
        vocabulary: entries of the tokenizer.
        batch: tokens of an optimizer step.
        pretrain, tune: optimizer steps.
        rate, tune_rate: peak rates of Muon; AdamW's is 0.4 of it.
        passages: windows for bits per character.
        needles: of each length and depth.
    """

    vocabulary: int = 2048
    batch: int = 8192
    pretrain: int = 300
    tune: int = 60
    rate: float = 0.01
    tune_rate: float = 0.003
    passages: int = 48
    needles: int = 10
    lengths: tuple[int, ...] = (128, 256, 512, 768, 1024)
    characters: int = 2_500_000


def build(tokenizer: PreTrainedTokenizerBase) -> BuddyGPTForCausalLM:
    """The untrained model, 2.7 M parameters."""
    torch.manual_seed(0)
    return BuddyGPTForCausalLM(
        BuddyGPTConfig(
            vocab_size=len(tokenizer),
            hidden_size=256,
            num_hidden_layers=3,
            max_position_embeddings=OLD,
            num_attention_heads=4,
            num_key_value_heads=2,
            intermediate_size=704,
            eos_token_id=tokenizer.eos_token_id,
        )  # fmt: skip
    )


def train(
    model: Any,
    windows: Iterator[Sequence[int]],
    length: int,
    steps: int,
    batch: int,
    rate: float,
    micro: int = 8192,
    watch=None,
) -> None:
    """Optimizer steps over windows."""
    section = Muon(kind="muon", learning_rate=rate, adamw_learning_rate=0.4 * rate)
    schedule = WSD(kind="wsd", warmup=0.05, decay=0.3)
    optimizer = build_optimizer(model, section)
    plan = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_factor(schedule, step, steps))
    model.train()
    for step in range(steps):
        ids = torch.tensor(list(islice(windows, batch // length)))
        for part in ids.split(max(1, micro // length)):
            with torch.autocast("cpu", torch.bfloat16):
                loss = model(input_ids=part[:, :-1], shift_labels=part[:, 1:], num_items_in_batch=batch).loss
            loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        plan.step()
        if watch:
            watch(step, float(loss))
