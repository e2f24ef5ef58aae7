"""A Trainer whose checkpoints cannot be lost, and that trusts none: what it writes, and what it goes on from."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer
from transformers.trainer import OPTIMIZER_NAME_BIN

from buddygpt.recipe.errors import BuddyError, is_out_of_memory
from buddygpt.training.checkpoints import WRITING
from buddygpt.training.keeper import Keeper
from buddygpt.training.randomness import kept_states, seed_process


class Persistent(Trainer):
    """Saving and going on, put into a Trainer's seams.

    A checkpoint is written aside by the Trainer; the keeper seals it and gives it its name. There is one before the
    first step: what cannot be saved is not trained, and a run can always go back.
    """

    keeper: Keeper
    _writing = False

    def _init_training_state(self, max_steps: int, *args: Any) -> tuple[int, int]:
        place = super()._init_training_state(max_steps, *args)
        self.state.compute_steps(self.args, max_steps)  # when to save and judge is told by the recipe as it is now
        return place

    def _prepare_for_training(self, max_steps: int, train_dataloader: Any, resume_from_checkpoint: str | None) -> Any:
        prepared = super()._prepare_for_training(max_steps, train_dataloader, resume_from_checkpoint)
        if resume_from_checkpoint is None or Path(resume_from_checkpoint).parent != self.keeper.shelf.folder:
            self._load_rng_state(resume_from_checkpoint)
            self._save_checkpoint(self.model, None)
        return prepared

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
            self._forget_moments()
            if self.args.should_save:
                Path(output_dir, OPTIMIZER_NAME_BIN).unlink()

    def _forget_moments(self) -> None:
        optimizer = self.optimizer.optimizer  # type: ignore[union-attr]
        for one in (optimizer, *getattr(optimizer, "pair", ())):
            one.state.clear()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        with _trusting_nobody(resume_from_checkpoint):
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        with _trusting_nobody(checkpoint):
            super()._load_optimizer_and_scheduler(checkpoint)
        if self.is_fsdp_enabled and checkpoint is not None and not Path(checkpoint, OPTIMIZER_NAME_BIN).exists():
            self._forget_moments()  # it goes back to before the first step, with those of the steps that it gave up
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
            more = f" and {len(strange) - 1} more" if len(strange) > 1 else ""
            raise BuddyError(f"the checkpoint's weights are another model's: {strange[0]}{more}")


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
        if is_out_of_memory(error):
            raise
        reason = " ".join(str(error).split())[:160]
        raise BuddyError(
            f"{checkpoint}: cannot be gone on from: it is another model's, or its state holds more than tensors and "
            f"numbers, and nothing of that is run ({type(error).__name__}: {reason})"
        ) from error
