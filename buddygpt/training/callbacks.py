"""Watchers of a training run: the meter, the samples, and the brake."""

from __future__ import annotations

import json
import math
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
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
from buddygpt.events import Emit, Progress, Text
from buddygpt.model.generation import generate, stop_ids
from buddygpt.model.sampling import Sampling
from buddygpt.recipe.runs import write_atomically
from buddygpt.report.page import load_rows
from buddygpt.training.launch import rank
from buddygpt.training.pace import Pace
from buddygpt.training.parallel import whole


class Meter(TrainerCallback):
    """Writes metrics.jsonl, one line a step and one an evaluation, and tells how far training is.

    Args:
        name: of the work, for those who are told.
        file: metrics.jsonl; lines beyond the checkpoint that training goes on from are taken back first.
        pace: of the run.
        emit: who is told.
        start: steps done already.
        more: figures of other watchers that go into each step's line; read anew at each.
        judged: whether the evaluation that was due at `start` came to its end.
    """

    def __init__(
        self,
        name: str,
        file: Path,
        pace: Pace,
        emit: Emit,
        start: int,
        more: Mapping[str, Any] | None = None,
        judged: bool = True,
    ):
        self.name, self.file, self.pace, self.emit = name, file, pace, emit
        self.more = {} if more is None else more
        self._clock = 0.0
        self._told = 0.0
        self._rate = 0.0
        self.rewind(start, judged)

    def rewind(self, step: int, judged: bool = True) -> None:
        """Take back the lines after a step, and the evaluation at it where that is to be made again."""
        self.rows = rewind(self.file, step, judged)
        self.latest: dict[str, Any] = {}
        for row in self.rows:
            self.latest |= row

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """A step's time runs from the end of the one before: fetching data counts, saving and evaluating do not."""
        self._clock = time.perf_counter()

    on_evaluate = on_save = on_train_begin

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **kwargs: Any
    ) -> None:
        """A step's or an evaluation's figures."""
        if not state.is_world_process_zero or not logs:
            return
        if "loss" in logs:
            seconds = time.perf_counter() - self._clock
            tokens = self.pace.tokens(state.global_step)
            speed = (tokens - self.pace.tokens(state.global_step - 1)) / seconds
            self._rate = speed if not self._rate else 0.9 * self._rate + 0.1 * speed
            self.latest |= logs
            row = {
                "step": state.global_step,
                "tokens": tokens,
                "loss": logs["loss"],
                "learning_rate": logs["learning_rate"],
                "grad_norm": logs.get("grad_norm"),
                "seconds": round(seconds, 4),
                "tokens_per_second": round(speed, 1),
                **{key: value for key, value in logs.items() if key.startswith(("rewards/", "logps/"))},
                **self.more,
            }
            self._write(row)
            self._tell(state)
            self._clock = time.perf_counter()
        elif any(key.startswith("eval/") for key in logs):
            self.latest |= logs
            self._write({"step": state.global_step, "tokens": self.pace.tokens(state.global_step), **logs})

    def _write(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        # JSON has no NaN: a figure that is not finite is written as null, and a reader sees the gap.
        clean = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
        with self.file.open("a", encoding="utf-8") as out:
            out.write(json.dumps(clean) + "\n")

    def _tell(self, state: TrainerState) -> None:
        done, total = state.global_step, self.pace.steps
        now = time.monotonic()
        if now - self._told < 0.2 and done < total:
            return
        self._told = now
        values = {"loss": f"{self.latest['loss']:.4f}"}
        for key, value in self.latest.items():
            for end, short in (("/bits_per_character", "bpc"), ("/accuracy", "accuracy")):
                if key.startswith("eval/") and key.endswith(end):
                    values[f"{short} {key.split('/')[1]}"] = f"{value:.3f}"
        values["tok/s"] = f"{self._rate:,.0f}"
        self.emit(Progress(self.name, done, total, "steps", values))


def rewind(file: Path, step: int, judged: bool = True) -> list[dict[str, Any]]:
    """Rows of a file of JSON lines up to `step`; later ones, and a line cut short by a crash, are taken out of it.

    Args:
        file: rows have a `step`.
        step: the last one that stays.
        judged: what an evaluation at `step` has written stays, too.
    """
    if rank() > 0:  # process 0 keeps the file
        return []
    rows = [row for row in load_rows(file) if row["step"] < step or (row["step"] == step and (judged or "loss" in row))]
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return rows


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
