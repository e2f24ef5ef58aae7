"""Experiment trackers: transformers' own integrations, told after the meter; each chapter is a run of its own."""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import get_reporting_integration_callbacks

from buddygpt.recipe.errors import BuddyError
from buddygpt.recipe.runs import write_atomically
from buddygpt.recipe.training import TrainingSection

PROJECT = "buddygpt"
"""What runs are filed under where the tracker's own environment variable names no project."""


def check_trackers(section: TrainingSection, where: str) -> None:
    """See that what the recipe names is installed.

    Args:
        section: with `trackers`.
        where: the section's name.

    Raises:
        BuddyError: one is not.
    """
    missing = [name for name in section.trackers if find_spec(name) is None]
    if missing:
        raise BuddyError(
            f"{where}.trackers: {' and '.join(missing)} not installed; pip install 'buddygpt[trackers]', "
            f"or do without (--set {where}.trackers=[])"
        )


def tracked_name(checkpoints: Path) -> str:
    """What a chapter's run is called in a tracker.

    Args:
        checkpoints: the chapter's folder of them, runs/NAME/CHAPTER/checkpoints.
    """
    return f"{checkpoints.parent.parent.name}-{checkpoints.parent.name}"


def start_trackers(names: Sequence[str], chapter: Path, step: int) -> list[TrainerCallback]:
    """Begin, or go on with, a chapter's run in each tracker.

    Args:
        names: of `trackers`.
        chapter: the chapter's folder; what trackers keep on disk lies in `trackers/NAME` there.
        step: from which training goes on; 0 begins a new run.

    Returns:
        Callbacks that report, in this order.

    Raises:
        BuddyError: a tracker cannot begin, as where nobody is logged in.
    """
    callbacks: list[TrainerCallback] = []
    for name in names:
        folder = chapter / "trackers" / name
        folder.mkdir(parents=True, exist_ok=True)
        try:
            callbacks.append(_STARTS[name](folder, tracked_name(chapter / "checkpoints"), step))
        except Exception as error:
            line = " ".join(str(error).split())[:200]
            raise BuddyError(f"trackers: {name} cannot begin: {line}; {_REMEDIES[name]}") from error
    return [*callbacks, _Closing(names)] if names else []


def _tensorboard(folder: Path, name: str, step: int) -> TrainerCallback:
    from torch.utils.tensorboard import SummaryWriter

    # What an earlier try has written of later steps is not shown.
    return _integration("tensorboard")(SummaryWriter(str(folder), purge_step=step + 1 if step else None))


def _wandb(folder: Path, name: str, step: int) -> TrainerCallback:
    import wandb

    os.environ.setdefault("WANDB_CONSOLE", "off")  # what is on the screen is a live bar, drawn again and again
    place = os.environ.get("WANDB_DIR", str(folder))
    project = os.environ.get("WANDB_PROJECT", PROJECT)
    wandb.init(project=project, name=name, dir=place, id=_identity(folder, step), resume="allow" if step else None)
    return _integration("wandb")()


def _swanlab(folder: Path, name: str, step: int) -> TrainerCallback:
    os.environ.setdefault("SWANLAB_TERMINAL_PROXY_TYPE", "none")
    import swanlab

    place = os.environ.get("SWANLAB_LOG_DIR", str(folder))
    project = os.environ.get("SWANLAB_PROJECT", PROJECT)
    swanlab.init(
        project=project, name=name, log_dir=place, id=_identity(folder, step), resume="allow" if step else None
    )
    return _integration("swanlab")()


def _trackio(folder: Path, name: str, step: int) -> TrainerCallback:
    os.environ.setdefault("TRACKIO_DIR", str(folder.absolute()))  # read when it is imported
    return _integration("trackio")()  # it begins with the trainer's `run_name` and `project`


def _integration(name: str) -> Any:
    return get_reporting_integration_callbacks([name])[0]


def _identity(folder: Path, step: int) -> str:
    """A run's own id, kept beside what it writes: a name alone would go on with another run of that name."""
    file = folder / "id"
    if not (step and file.is_file()):
        write_atomically(file, secrets.token_hex(11)[:21])
    return file.read_text("utf-8")


_STARTS = {"wandb": _wandb, "swanlab": _swanlab, "tensorboard": _tensorboard, "trackio": _trackio}
_REMEDIES = {
    "wandb": "log in with `wandb login`, or keep it on this disk with WANDB_MODE=offline",
    "swanlab": "log in with `swanlab login`, or keep it on this disk with SWANLAB_MODE=offline",
    "tensorboard": "see that it fits this torch, or leave it out of `trackers`",
    "trackio": "see that it is installed whole, or leave it out of `trackers`",
}


class _Closing(TrainerCallback):
    """Ends runs that their integration leaves open: another chapter in this process begins its own."""

    def __init__(self, names: Sequence[str]):
        self.names = [name for name in names if name in ("wandb", "swanlab")]

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        for name in self.names:
            import_module(name).finish()
