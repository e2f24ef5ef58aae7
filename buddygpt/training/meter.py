"""The meter of a training run: a row of metrics.jsonl for each step, each evaluation and each checkpoint."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from buddygpt.events import Caution, Emit, Progress
from buddygpt.model.cost import count_flops
from buddygpt.recipe.base import spell_bytes
from buddygpt.recipe.runs import write_atomically
from buddygpt.report.page import load_rows
from buddygpt.training.cards import peak_flops
from buddygpt.training.checkpoints import sync
from buddygpt.training.facts import Work
from buddygpt.training.launch import rank
from buddygpt.training.pace import Pace
from buddygpt.training.setup import peak_bytes

KEPT = ("rewards/", "logps/", "seconds_")
"""Beginnings of the figures that a trainer logs with a step's loss and that its row takes over as they are."""
DRAWN = 0.02
"""Share of the time that drawing the report may take while training goes on."""


@dataclass(frozen=True)
class Effort:
    """Useful operations, and what the devices could do: what utilisation is told by.

    Args:
        body: FLOPs of one token, forward and backward, of the layers: their products with weights and their scores.
        head: those of the head.
        peak: FLOP/s of all devices together; None where it is not known.
    """

    body: float
    head: float
    peak: float | None

    @classmethod
    def of(cls, work: Work) -> Effort | None:
        """Of a run's work; None for tuning, where it depends on each row which products are needed."""
        if work.name != "pretrain":
            return None
        flops, device = count_flops(work.model, work.length), work.device
        peak = peak_flops(device.name, work.section.precision)
        body, head = 3 * (flops.layers + flops.scores), 3 * flops.head
        return cls(body, head, None if peak is None else peak * device.processes)

    def figures(self, tokens: int, seconds: float) -> dict[str, float]:
        """Of a step: FLOP/s that were of use, and the shares of the peak that body and head took of them."""
        found = {"flops_per_second": round((self.body + self.head) * tokens / seconds)}
        if self.peak is None:
            return found
        body, head = (part * tokens / (seconds * self.peak) for part in (self.body, self.head))
        return found | {"mfu": round(body + head, 5), "mfu_body": round(body, 5), "mfu_head": round(head, 5)}


class Meter(TrainerCallback):
    """Writes metrics.jsonl and tells how far training is.

    What a step's row adds to the trainer's own figures is put into `logs` too, for the trackers that are told after it.

    Args:
        file: metrics.jsonl; lines beyond the checkpoint that training goes on from are taken back first.
        work: what is trained, and where; its name is told.
        pace: of the run.
        emit: who is told.
        start: steps done already.
        more: figures of other watchers that go into each step's line; read anew at each.
        judged: whether the evaluation that was due at `start` came to its end.
        draw: makes the report from what is written so far; called after an evaluation or a checkpoint, where drawing
            has taken no more than `DRAWN` of the time, and its failure ends nothing.
    """

    def __init__(
        self,
        file: Path,
        work: Work,
        pace: Pace,
        emit: Emit,
        start: int,
        more: Mapping[str, Any] | None = None,
        judged: bool = True,
        draw: Callable[[], Any] | None = None,
    ):
        self.file, self.work, self.pace, self.emit = file, work, pace, emit
        self.effort = Effort.of(work)
        self.more = {} if more is None else more
        self.draw, self._drawn, self._drawing = draw, time.perf_counter(), 0.0
        self._clock = time.perf_counter()
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

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **kwargs: Any
    ) -> None:
        """A step's figures."""
        if not state.is_world_process_zero or not logs or "loss" not in logs:
            return
        seconds = time.perf_counter() - self._clock
        tokens = self.pace.tokens(state.global_step)
        read = tokens - self.pace.tokens(state.global_step - 1)
        speed = read / seconds
        self._rate = speed if not self._rate else 0.9 * self._rate + 0.1 * speed
        row = {
            "step": state.global_step,
            "tokens": tokens,
            "loss": logs["loss"],
            "learning_rate": logs["learning_rate"],
            "grad_norm": logs.get("grad_norm"),
            "seconds": round(seconds, 4),
            "tokens_per_second": round(speed, 1),
            **{k: round(v, 4) if k.startswith("seconds_") else v for k, v in logs.items() if k.startswith(KEPT)},
            **(self.effort.figures(read, seconds) if self.effort else {}),
            "peak_bytes": peak_bytes(self.work.device),
            **self.more,
        }
        logs |= {key: value for key, value in row.items() if isinstance(value, int | float) and key != "step"}
        # Trackers draw numbers: of the layers the worst one's.
        logs |= {key: max(value) if isinstance(value, list) else value for key, value in self.more.items()}
        self.latest |= row
        self._write(row)
        self._tell(state)
        self._clock = time.perf_counter()

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: Mapping[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """An evaluation's figures."""
        self.latest |= metrics or {}
        self._mark(state, "seconds_eval", metrics or {})

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """How long a checkpoint took. The lines of its steps are on the disk as surely as it is."""
        self._mark(state, "seconds_save", {})
        if state.is_world_process_zero:
            sync(self.file)

    def _mark(self, state: TrainerState, key: str, figures: Mapping[str, float]) -> None:
        if state.is_world_process_zero:
            row = {"step": state.global_step, "tokens": self.pace.tokens(state.global_step), **figures}
            self._write(row | {key: round(time.perf_counter() - self._clock, 4)})
            self._draw()
        self._clock = time.perf_counter()

    def _draw(self) -> None:
        now = time.perf_counter()
        if self.draw is None or self._drawing > DRAWN * (now - self._drawn):
            return
        try:
            self.draw()
        except Exception as error:  # a page is not worth a run
            self.emit(Caution(f"the report is not written while training goes on: {type(error).__name__}: {error}"))
            self.draw = None
        self._drawn = time.perf_counter()
        self._drawing = self._drawn - now

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
        if "mfu" in self.latest:
            values["MFU"] = f"{self.latest['mfu']:.1%}"
        if self.latest.get("peak_bytes"):
            values["memory"] = spell_bytes(self.latest["peak_bytes"])
        self.emit(Progress(self.work.name, done, total, "steps", values))


def rewind(file: Path, step: int, judged: bool = True) -> list[dict[str, Any]]:
    """Rows of a file of JSON lines up to `step`; later ones, and a line cut short by a crash, are taken out of it.

    Args:
        file: rows have a `step`.
        step: the last one that stays.
        judged: what an evaluation at `step` has written stays, too.
    """
    if rank() > 0:  # process 0 keeps the file
        return []

    def stays(row: Mapping[str, Any]) -> bool:
        return row["step"] < step or (row["step"] == step and (judged or "loss" in row or "seconds_save" in row))

    rows = [row for row in load_rows(file) if stays(row)]
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return rows
