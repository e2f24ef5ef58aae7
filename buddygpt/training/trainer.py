"""transformers' Trainer with our order of data, optimizer, schedule, guard and evaluation put into its seams."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import DistributedType, gather_object
from torch.utils.data import SequentialSampler
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from buddygpt.data.windows import IGNORE_INDEX, Window
from buddygpt.model.loss import bits_per_character
from buddygpt.recipe.pretrain import PretrainSection
from buddygpt.recipe.training import TrainingSection
from buddygpt.training.balance import gates
from buddygpt.training.keeper import Keeper
from buddygpt.training.optimizers import build_optimizer
from buddygpt.training.pace import Pace
from buddygpt.training.parallel import parallel_options, splitting
from buddygpt.training.persistence import Persistent
from buddygpt.training.schedules import rate_factor
from buddygpt.training.seam import hush_renamed
from buddygpt.training.stopwatch import Stopwatch
from buddygpt.training.trackers import PROJECT, tracked_name


@dataclass(frozen=True)
class HeldOut:
    """A held-out text: its windows, the tokens that they judge, the characters that those tokens spell."""

    name: str
    windows: Sequence[Window]
    tokens: int
    characters: int


class Seams(Persistent):
    """What all our trainers put into a Trainer: order of data, optimizer, schedule, evaluation, guard."""

    section: TrainingSection
    held_out: Sequence[HeldOut]
    _losses: list[torch.Tensor]

    def _get_train_sampler(self, train_dataset: Any = None) -> torch.utils.data.Sampler | None:
        # The windows come in training order already: going on means skipping indices, nothing has to be re-drawn.
        return SequentialSampler(self.train_dataset)

    def create_accelerator_and_postprocess(self) -> None:
        """Accelerate's part, with the recipe's way to share the model."""
        with splitting(self.section):
            super().create_accelerator_and_postprocess()

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

    def compute_loss_context_manager(self) -> Any:
        """What holds around the computation of the loss; the backward pass begins where it ends."""
        stack = super().compute_loss_context_manager()
        stack.callback(self.stopwatch.turn, "backward")
        if self.is_fsdp_enabled:  # accelerate leaves it out where a model is split
            stack.enter_context(self.accelerator.autocast())
        return stack

    def _prepare_for_training(self, *args: Any) -> Any:
        self._losses = []
        return super()._prepare_for_training(*args)

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """Forward and backward of one micro-batch; the guard will ask for its loss.

        After a step's last one all time is the optimizer's: clipping, judging, its step, the schedule.
        """
        self.stopwatch.turn("forward")
        loss = super().training_step(model, inputs, num_items_in_batch)
        self.stopwatch.turn("optimizer" if self.accelerator.sync_gradients else None)
        self._losses.append(loss)
        return loss

    def _clip_grad_norm(self, model: Any) -> torch.Tensor:
        """Clip, and have the guard judge the step before it is taken."""
        norm = super()._clip_grad_norm(model)
        losses_A, self._losses = torch.stack(self._losses), []
        if self.accelerator.distributed_type == DistributedType.DEEPSPEED:  # its engine steps by itself
            return norm
        # In the order of the samples: processes take micro-batches in turn.
        losses_AW = self.accelerator.gather(losses_A[None]).T if self.args.world_size > 1 else losses_A[:, None]
        step, loss, guard = self.state.global_step + 1, float(losses_AW.mean(1).sum()), self.keeper.guard
        if not torch.isfinite(norm) and math.isfinite(loss) and self._overflows():
            guard.figures.clear()
            return norm
        verdict = guard.judge(step, loss, float(norm))
        if verdict is not None:
            for parameter in model.parameters():  # an optimizer passes over what has no gradient, moments and all
                parameter.grad = None
            for gate in gates(model):
                gate.tokens_per_expert = None
            if self.is_world_process_zero():
                self.keeper.skip(step, verdict, (losses_AW / self.args.world_size).flatten().tolist())
            guard.lose_patience(verdict)
        return norm

    def _overflows(self) -> bool:
        """Whether fp16's own factor may be why gradients are not finite: its scaler skips the step and lowers it."""
        scaler = self.accelerator.scaler
        return scaler is not None and scaler.get_scale() >= 1

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Tell the callbacks; the history is metrics.jsonl, not a list that grows in every checkpoint."""
        if "loss" in logs:
            self._tr_loss.zero_()  # transformers takes the sum from itself, and what is not finite would stay so
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
        total = 0.0
        for some in shares(windows, self.section.micro_batch_size, self.args.process_index, self.args.world_size):
            batch = self._prepare_inputs(self.data_collator(some or [windows[0]]))
            with self.accelerator.autocast():
                nats = self.model(**batch, num_items_in_batch=1, use_cache=False).loss
            total += float(nats) if some else 0.0
        return sum(gather_object([total]))  # as objects: in fp64, which not every device sums


def for_trackers(metrics: Mapping[str, float]) -> dict[str, float]:
    """Held-out figures under the names from which transformers' trackers make `eval/SOURCE/...`."""
    return {key.replace("/", "_", 1): value for key, value in metrics.items()}


class PretrainTrainer(Seams):
    """A Trainer over windows.

    Args:
        model: the model.
        tokenizer: saved into each checkpoint.
        section: the recipe's `pretrain`.
        keeper: of the windows in training order, and of the checkpoints.
        held_out: texts to evaluate on.
        callbacks: watchers.
        pace: of the run.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        section: PretrainSection,
        keeper: Keeper,
        held_out: Sequence[HeldOut],
        callbacks: Sequence[TrainerCallback],
        pace: Pace,
    ):
        self.section, self.keeper, self.held_out = section, keeper, held_out
        super().__init__(
            model=model,
            args=TrainingArguments(**trainer_options(section, keeper.shelf.folder, pace)),
            data_collator=self._collate,
            train_dataset=keeper.samples,
            eval_dataset={},
            processing_class=tokenizer,
            callbacks=list(callbacks),
        )
        self.remove_callback(PrinterCallback)  # the stage's events are what is told
        if section.gradient_checkpointing:
            hush_renamed()
            model.selective = section.gradient_checkpointing == "selective"
            model.gradient_checkpointing_enable()

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """The model's own loss, in training with z-loss; evaluation does not come this way."""
        if self.section.z_loss:
            inputs = {**inputs, "z_loss": self.section.z_loss}
        return super().compute_loss(model, inputs, *args, **kwargs)

    def _collate(self, windows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        batch = collate(windows)
        if not self.section.isolate_documents:
            del batch["document_ids"]
        return batch


class Unsaved(PretrainTrainer):
    """For what is measured and not gone on from: no checkpoint is written."""

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        pass


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
        **parallel_options(section),
    }


def shares(samples: Sequence[Any], size: int, rank: int, processes: int) -> Iterator[list[Any]]:
    """One process' part of samples, in batches: as many as each other process has, the last one maybe empty.

    A model that is split over the processes computes only when all of them do.
    """
    for start in range(0, len(samples), size * processes):
        yield [samples[i] for i in range(start + rank, min(start + size * processes, len(samples)), processes)]


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
