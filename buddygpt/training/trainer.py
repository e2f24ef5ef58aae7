"""transformers' Trainer with our order of data, optimizer, schedule, evaluation and care put into its seams."""

from __future__ import annotations

import math
import pickle
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import DistributedType, gather_object
from torch.utils.data import SequentialSampler
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from buddygpt.data.windows import IGNORE_INDEX, Window
from buddygpt.model.loss import bits_per_character
from buddygpt.recipe.errors import BuddyError
from buddygpt.recipe.pretrain import PretrainSection
from buddygpt.recipe.training import TrainingSection
from buddygpt.training.balance import gates
from buddygpt.training.checkpoints import WRITING
from buddygpt.training.keeper import Keeper
from buddygpt.training.optimizers import build_optimizer
from buddygpt.training.pace import Pace
from buddygpt.training.parallel import parallel_options, splitting
from buddygpt.training.randomness import kept_states, seed_process
from buddygpt.training.schedules import rate_factor
from buddygpt.training.seam import hush_renamed


@dataclass(frozen=True)
class HeldOut:
    """A held-out text: its windows, the tokens that they judge, the characters that those tokens spell."""

    name: str
    windows: Sequence[Window]
    tokens: int
    characters: int


class Seams(Trainer):
    """What all our trainers put into a Trainer: order of data, optimizer, schedule, evaluation, guard, checkpoints."""

    section: TrainingSection
    held_out: Sequence[HeldOut]
    keeper: Keeper
    _losses: list[torch.Tensor]
    _writing = False

    def _get_train_sampler(self, train_dataset: Any = None) -> torch.utils.data.Sampler | None:
        # The windows come in training order already: going on means skipping indices, nothing has to be re-drawn.
        return SequentialSampler(self.train_dataset)

    def create_accelerator_and_postprocess(self) -> None:
        """Accelerate's part, with the recipe's way to share the model."""
        with splitting(self.section):
            super().create_accelerator_and_postprocess()

    def compute_loss_context_manager(self) -> Any:
        """Autocast, which accelerate leaves out where a model is split."""
        context = super().compute_loss_context_manager()
        if self.is_fsdp_enabled:
            context.enter_context(self.accelerator.autocast())
        return context

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

    def _init_training_state(self, max_steps: int, *args: Any) -> tuple[int, int]:
        place = super()._init_training_state(max_steps, *args)
        self.state.compute_steps(self.args, max_steps)  # when to save and judge is told by the recipe as it is now
        return place

    def _prepare_for_training(self, max_steps: int, train_dataloader: Any, resume_from_checkpoint: str | None) -> Any:
        prepared = super()._prepare_for_training(max_steps, train_dataloader, resume_from_checkpoint)
        self._losses = []
        if resume_from_checkpoint is None or Path(resume_from_checkpoint).parent != self.keeper.shelf.folder:
            self._load_rng_state(resume_from_checkpoint)
            self._save_checkpoint(self.model, None)  # what cannot be saved is not trained; a run can always go back
        return prepared

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """Forward and backward of one micro-batch; the guard will ask for its loss."""
        loss = super().training_step(model, inputs, num_items_in_batch)
        self._losses.append(loss)
        return loss

    def _clip_grad_norm(self, model: Any) -> torch.Tensor:
        """Clip, and have the guard judge the step before it is taken."""
        norm = super()._clip_grad_norm(model)
        losses_A, self._losses = torch.stack(self._losses), []
        scaled = self.accelerator.scaler is not None and not torch.isfinite(norm)
        # fp16's scaler skips by itself where its own factor was too large; DeepSpeed's engine steps by itself.
        if scaled or self.accelerator.distributed_type == DistributedType.DEEPSPEED:
            return norm
        # In the order of the samples: processes take micro-batches in turn.
        losses_AW = self.accelerator.gather(losses_A[None]).T if self.args.world_size > 1 else losses_A[:, None]
        step, guard = self.state.global_step + 1, self.keeper.guard
        verdict = guard.judge(step, float(losses_AW.mean(1).sum()), float(norm))
        if verdict is not None:
            for parameter in model.parameters():  # an optimizer passes over what has no gradient, moments and all
                parameter.grad = None
            for gate in gates(model):
                gate.tokens_per_expert = None
            if self.is_world_process_zero():
                self.keeper.skip(step, verdict, (losses_AW / self.args.world_size).flatten().tolist())
            guard.lose_patience(verdict)
        return norm

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        """Save before evaluating: an evaluation that fails loses nothing."""
        judged, self.control.should_evaluate = self.control.should_evaluate, False
        super()._maybe_log_save_evaluate(*args, **kwargs)
        if judged:
            self.evaluate()

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        step = self.state.global_step
        if (name := _not_finite(self.model)) is not None:
            raise BuddyError(
                f"{self.keeper.folder}: at step {step} {name} is not finite; it is not saved. Train anew with a lower "
                "learning rate under another name (--set name=...)"
            )
        if self.is_world_process_zero():
            self.keeper.shelf.prepare()
        self.accelerator.wait_for_everyone()
        self._writing = True
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self._writing = False
        self.accelerator.wait_for_everyone()
        if self.is_world_process_zero():
            self.keeper.save(step)
        self.accelerator.wait_for_everyone()

    def _get_output_dir(self, trial: Any) -> str:
        folder = super()._get_output_dir(trial)
        return str(Path(folder) / WRITING) if self._writing else folder

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        super()._save(output_dir, state_dict)
        if self.args.should_save:
            folder = self.args.output_dir if output_dir is None else output_dir
            Path(str(folder), "training_args.bin").unlink(missing_ok=True)  # a pickle that nobody here reads

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if self.is_fsdp_enabled and self.state.global_step == 0:
            # Where there are no moments yet torch makes some up, by a step without gradients that counts as one.
            optimizer = self.optimizer.optimizer
            for one in (optimizer, *getattr(optimizer, "pair", ())):
                one.state.clear()
            if self.args.should_save:
                Path(output_dir, "optimizer.bin").unlink()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        with _trusting_nobody(resume_from_checkpoint):
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        with _trusting_nobody(checkpoint):
            super()._load_optimizer_and_scheduler(checkpoint)
        # The loaded groups hold the rate of the step to come by the schedule that they were saved under; a run that
        # starts from another's checkpoint has its own. On going on it is the same number.
        schedule = self.lr_scheduler
        if checkpoint is not None and isinstance(schedule, torch.optim.lr_scheduler.LambdaLR):
            rates = zip(schedule.optimizer.param_groups, schedule.base_lrs, schedule.lr_lambdas, strict=True)
            for group, peak, factor in rates:
                group["lr"] = peak * factor(schedule.last_epoch)
            schedule._last_lr = [group["lr"] for group in schedule.optimizer.param_groups]  # what is logged

    def _load_scaler(self, checkpoint: str | None) -> None:
        with _trusting_nobody(checkpoint):
            super()._load_scaler(checkpoint)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        # A checkpoint of as many processes goes on with their numbers; other processes draw new ones.
        if checkpoint is not None and kept_states(Path(checkpoint)) != self.args.world_size:
            seed_process(self.args.seed, self.state.global_step, self.args.process_index)
            return
        with _trusting_nobody(checkpoint):
            super()._load_rng_state(checkpoint)

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """Weights must be this model's, each of them."""
        missing = set(load_result.missing_keys) - set(getattr(self.model, "all_tied_weights_keys", None) or {})
        if strange := sorted(missing | set(load_result.unexpected_keys)):
            raise BuddyError(f"the checkpoint's weights are another model's: {strange[0]} and {len(strange) - 1} more")

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Tell the callbacks; the history is metrics.jsonl, not a list that grows in every checkpoint."""
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
        self.log(metrics)
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


def _not_finite(model: torch.nn.Module) -> str | None:
    """The first weight that is no number, by its name."""
    names, found = [], []
    for name, parameter in model.named_parameters():
        local = parameter.to_local() if hasattr(parameter, "to_local") else parameter
        names.append(name)
        found.append(torch.isfinite(local.detach()).all())
    return next((name for name, fine in zip(names, torch.stack(found).tolist(), strict=True) if not fine), None)


@contextmanager
def _trusting_nobody(checkpoint: str | None) -> Iterator[None]:
    """A state that holds more than tensors and numbers is told in a line; torch and transformers run nothing of it."""
    try:
        yield
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError) as error:
        reason = " ".join(str(error).split())[:160]
        raise BuddyError(
            f"{checkpoint}: cannot be gone on from: it is another model's, or its state holds more than tensors and "
            f"numbers, and nothing of that is run ({type(error).__name__}: {reason})"
        ) from error


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
        "report_to": "none",
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
