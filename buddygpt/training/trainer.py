"""transformers' Trainer with our order of data, optimizer, schedule and evaluation put into its seams."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from torch.utils.data import SequentialSampler
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from buddygpt.data.windows import IGNORE_INDEX, Window
from buddygpt.model.loss import bits_per_character
from buddygpt.recipe.pretrain import PretrainSection
from buddygpt.recipe.training import TrainingSection
from buddygpt.training.optimizers import build_optimizer
from buddygpt.training.pace import Pace
from buddygpt.training.schedules import rate_factor
from buddygpt.training.stopwatch import Stopwatch
from buddygpt.training.trackers import PROJECT, tracked_name


@dataclass(frozen=True)
class HeldOut:
    """A held-out text: its windows, the tokens that they judge, the characters that those tokens spell."""

    name: str
    windows: Sequence[Window]
    tokens: int
    characters: int


class Seams(Trainer):
    """What all our trainers put into a Trainer: order of data, optimizer, schedule, evaluation."""

    section: TrainingSection
    held_out: Sequence[HeldOut]

    def _get_train_sampler(self, train_dataset: Any = None) -> torch.utils.data.Sampler | None:
        # The windows come in training order already: going on means skipping indices, nothing has to be re-drawn.
        return SequentialSampler(self.train_dataset)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """The recipe's optimizer."""
        if self.optimizer is None:
            self.optimizer = build_optimizer(self.model if model is None else model, self.section.optimizer)
        return self.optimizer

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """The recipe's schedule."""
        if self.lr_scheduler is None:
            section, steps = self.section.schedule, num_training_steps
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
                optimizer or self.optimizer, lambda step: rate_factor(section, step, steps)
            )
            self._created_lr_scheduler = True
        return self.lr_scheduler

    @cached_property
    def stopwatch(self) -> Stopwatch:
        """Times each step by its parts. Forward is all up to the loss, the copy of the batch to the device included."""
        return Stopwatch(self.args.device)

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """A step's batches, timed."""
        self.stopwatch.begin("data")
        try:
            return super().get_batch_samples(*args, **kwargs)
        finally:
            self.stopwatch.turn(None)

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """A micro-batch, timed; after a step's last one all is the optimizer's: clipping, its step, the schedule."""
        self.stopwatch.turn("forward")
        loss = super().training_step(*args, **kwargs)
        self.stopwatch.turn("optimizer" if self.accelerator.sync_gradients else None)
        return loss

    def compute_loss_context_manager(self) -> Any:
        """What holds around the computation of the loss; the backward pass begins where it ends."""
        stack = super().compute_loss_context_manager()
        stack.callback(self.stopwatch.turn, "backward")
        return stack

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Tell the callbacks; the history is metrics.jsonl, not a list that grows in every checkpoint."""
        if "loss" in logs:
            logs |= {f"seconds_{part}": seconds for part, seconds in self.stopwatch.take().items()}
        self.control = self.callback_handler.on_log(self.args, self.state, self.control, logs)

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Judge every held-out text: mean loss in nats a token, perplexity, bits per character.

        The same windows in the same order at every call; sums run over tokens, not over batches.
        """
        training = self.model.training
        self.model.eval()
        metrics: dict[str, float] = {}
        try:
            for text in self.held_out:
                nats = self._nats(text.windows)
                metrics[f"{metric_key_prefix}/{text.name}/loss"] = nats / text.tokens
                metrics[f"{metric_key_prefix}/{text.name}/perplexity"] = math.exp(min(nats / text.tokens, 700.0))
                metrics[f"{metric_key_prefix}/{text.name}/bits_per_character"] = bits_per_character(
                    nats, text.characters
                )
        finally:
            self.model.train(training)
        self.log(for_trackers(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    @torch.no_grad()
    def _nats(self, windows: Sequence[Window]) -> float:
        """Negative log-likelihood of all targets, summed over processes."""
        mine = range(self.args.process_index, len(windows), self.args.world_size)
        total = torch.zeros((), dtype=torch.float64)
        for start in range(0, len(mine), self.section.micro_batch_size):
            some = [windows[index] for index in mine[start : start + self.section.micro_batch_size]]
            batch = self._prepare_inputs(self.data_collator(some))
            with self.accelerator.autocast():
                total += self.model(**batch, num_items_in_batch=1, use_cache=False).loss.double().cpu()
        reduced = self.accelerator.reduce(total.to(self.args.device, torch.float32), reduction="sum")
        return float(reduced) if self.args.world_size > 1 else float(total)


def for_trackers(metrics: Mapping[str, float]) -> dict[str, float]:
    """Held-out figures under the names from which transformers' trackers make `eval/SOURCE/...`."""
    return {key.replace("/", "_", 1): value for key, value in metrics.items()}


class PretrainTrainer(Seams):
    """A Trainer over windows.

    Args:
        model: the model.
        tokenizer: saved into each checkpoint.
        section: the recipe's `pretrain`.
        windows: training windows in training order, as many as the whole run takes.
        held_out: texts to evaluate on.
        folder: where checkpoints go.
        callbacks: watchers.
        pace: of the run.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        section: PretrainSection,
        windows: Any,
        held_out: Sequence[HeldOut],
        folder: Path,
        callbacks: Sequence[TrainerCallback],
        pace: Pace,
    ):
        self.section = section
        self.held_out = held_out
        super().__init__(
            model=model,
            args=TrainingArguments(**trainer_options(section, folder, pace)),
            data_collator=self._collate,
            train_dataset=windows,
            eval_dataset={},
            processing_class=tokenizer,
            callbacks=list(callbacks),
        )
        self.remove_callback(PrinterCallback)  # the stage's events are what is told
        if section.gradient_checkpointing:
            model.gradient_checkpointing_enable()

    def _collate(self, windows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        batch = collate(windows)
        if not self.section.isolate_documents:
            del batch["document_ids"]
        return batch


def trainer_options(section: TrainingSection, folder: Path, pace: Pace) -> dict[str, Any]:
    """Arguments of a Trainer that follow from the recipe; all our trainers have them.

    Args:
        section: the recipe's.
        folder: where checkpoints go.
        pace: of the run.
    """
    return {
        "output_dir": str(folder),
        "max_steps": pace.steps,
        "per_device_train_batch_size": section.micro_batch_size,
        "gradient_accumulation_steps": pace.accumulation,
        "max_grad_norm": section.max_grad_norm,
        "use_cpu": PartialState().device.type == "cpu",  # chosen already; said again, or bf16 is refused there
        "bf16": section.precision == "bf16",
        "fp16": section.precision == "fp16",
        "logging_strategy": "steps",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_strategy": "steps",
        "save_steps": pace.save_every,
        "eval_strategy": "steps",
        "eval_steps": pace.eval_every,
        "disable_tqdm": True,
        "report_to": "none",  # trackers are told after the meter, of what it adds
        "run_name": tracked_name(folder),
        "project": PROJECT,
        "seed": section.seed,
        "dataloader_drop_last": True,
        "average_tokens_across_devices": True,
        "remove_unused_columns": False,
    }


PADDING = {"labels": IGNORE_INDEX, "shift_labels": IGNORE_INDEX}


def collate(windows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
    """Windows as one batch of (B, T) tensors; `labels` is one longer, its first column is never judged.

    Shorter windows of talks are filled up; `position_ids` begin anew there, so that what fills is a document by itself.
    """
    batch = {}
    for key in windows[0]:
        rows = [window[key] for window in windows]
        longest = max(map(len, rows))
        filled = np.full((len(rows), longest), PADDING.get(key, 0), dtype=np.int64)
        for row, values in zip(filled, rows, strict=True):
            row[: len(values)] = values
            if key == "position_ids":
                row[len(values) :] = np.arange(longest - len(values))
        batch[key] = torch.from_numpy(filled)
    return batch
