"""Watchers of a training run: the samples and the brake."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import (
    PreTrainedTokenizerBase,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from buddygpt.data.tokenizer import largest_id
from buddygpt.events import Emit, Text
from buddygpt.model.generation import generate, stop_ids
from buddygpt.model.sampling import Sampling
from buddygpt.training.meter import rewind
from buddygpt.training.parallel import whole


class Samples(TrainerCallback):
    """Completes fixed prompts at each evaluation, always with the same private random numbers.

    Args:
        prompts: beginnings, as they are shown.
        starts: the ids of each.
        tokenizer: the model's.
        file: samples.jsonl; lines beyond the checkpoint that training goes on from are taken back first.
        emit: who is told.
        start: steps done already.
        judged: as of `Meter`.
        length: new tokens for each prompt.
    """

    def __init__(
        self,
        prompts: Sequence[str],
        starts: Sequence[Sequence[int]],
        tokenizer: PreTrainedTokenizerBase,
        file: Path,
        emit: Emit,
        start: int,
        judged: bool = True,
        length: int = 96,
    ):
        self.prompts, self.starts, self.tokenizer = prompts, starts, tokenizer
        self.file, self.emit, self.length = file, emit, length
        rewind(file, start, judged)
        self.latest: list[dict[str, Any]] = []

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        """Sample and write down."""
        if not self.prompts:
            return
        model = whole(model)
        if not state.is_world_process_zero:
            return
        texts = complete(model, self.tokenizer, self.starts, self.length, seed=args.seed)
        self.latest = [
            {"step": state.global_step, "prompt": p, "text": t, "distinct_4grams": distinct_share(t)}
            for p, t in zip(self.prompts, texts, strict=True)
        ]
        with self.file.open("a", encoding="utf-8") as out:
            for row in self.latest:
                out.write(json.dumps(row, ensure_ascii=False) + "\n")
        self.emit(Text(f"step {state.global_step}", "\n".join(p + t for p, t in zip(self.prompts, texts, strict=True))))


def complete(
    model: Any, tokenizer: PreTrainedTokenizerBase, starts: Sequence[Sequence[int]], length: int, seed: int
) -> list[str]:
    """Continuations of the ids at temperature 0.8, top-p 0.95; the global random state is left as it was."""
    training = model.training
    model.eval()
    plain = model.get_base_model() if hasattr(model, "get_base_model") else model  # peft's signature hides options
    try:
        rows = generate(
            plain, starts, Sampling(length, temperature=0.8, top_p=0.95, seed=seed),
            stop=stop_ids(model, tokenizer), vocabulary=largest_id(tokenizer) + 1,
        )  # fmt: skip
    finally:
        model.train(training)
    return [tokenizer.decode(row, skip_special_tokens=True) for row in rows]


def distinct_share(text: str, n: int = 4) -> float:
    """Share of the character n-grams of `text` that are different ones; 1 where it is too short for two."""
    grams = Counter(text[i : i + n] for i in range(len(text) - n + 1))
    return len(grams) / grams.total() if grams else 1.0


class Brake(TrainerCallback):
    """Stops after the running step and has it saved, when asked from outside, as by Ctrl-C.

    Where there are several processes, all stop after the same step: when one is asked, or has lost its launcher.
    """

    def __init__(self) -> None:
        self.pulled = False
        self._launcher = os.getppid()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Save at the end of the run and where the brake was pulled."""
        if state.global_step >= state.max_steps:
            control.should_save = control.should_evaluate = True
        elif self._agreed(args):
            control.should_save = control.should_training_stop = True
        return control

    def _agreed(self, args: TrainingArguments) -> bool:
        if args.world_size == 1:
            return self.pulled
        asked = torch.tensor(int(self.pulled or os.getppid() != self._launcher), device=args.device)
        torch.distributed.all_reduce(asked, torch.distributed.ReduceOp.MAX)
        return bool(asked)  # not written back: a signal may have come meanwhile, which counts after the next step
