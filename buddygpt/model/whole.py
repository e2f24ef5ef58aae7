"""Models and folders that are whole: every tensor there, finite and of its shape; every file written or none."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from buddygpt.model.architectures import EMBEDDING, HEAD
from buddygpt.model.configuration import BuddyGPTConfig
from buddygpt.model.modeling import BuddyGPTForCausalLM
from buddygpt.recipe.errors import BuddyError, is_disk_full


def see_none(source: Path | str, what: str, names: Any) -> None:
    """See that no tensor is what it should not be.

    Raises:
        BuddyError: some are; names the first of them.
    """
    if names:
        shown = ", ".join(sorted(map(str, names))[:3])
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        raise BuddyError(f"{source}: {len(names)} tensor(s) {what} ({shown}{more}); the folder is not a whole model")


def see_finite(source: Path | str, state: dict[str, Tensor]) -> None:
    """See that every number is finite.

    Raises:
        BuddyError: one is not; names its tensor.
    """
    for name, tensor in state.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise BuddyError(f"{source}: {name} holds numbers that are not finite; the model is broken")


def outline(config: BuddyGPTConfig) -> BuddyGPTForCausalLM:
    """The model without storage."""
    with torch.device("meta"):
        return BuddyGPTForCausalLM(config).eval()


def fill(model: BuddyGPTForCausalLM, state: dict[str, Tensor]) -> None:
    """Give an outline its tensors, as they are."""
    if model.config.tie_word_embeddings:
        state = state | {HEAD: state[EMBEDDING]}
    model.load_state_dict(state, assign=True)
    model.tie_weights()


@contextmanager
def unfinished(place: Path) -> Iterator[Path]:
    """A folder beside `place` to work in, gone afterwards; where the work fails, with the parents made for it."""
    made = [p for p in place.absolute().parents if not p.exists()]
    scratch = place.with_name(f".{place.name}.unfinished")
    try:
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        yield scratch
        shutil.rmtree(scratch, ignore_errors=True)
    except BaseException as error:
        shutil.rmtree(scratch, ignore_errors=True)
        for parent in made:
            if parent.is_dir() and not any(parent.iterdir()):
                parent.rmdir()
        if is_disk_full(error):
            raise BuddyError(f"{place}: no space left; nothing was written") from error
        if isinstance(error, (OSError, SafetensorError)):
            raise BuddyError(f"{place}: cannot be written: {getattr(error, 'strerror', None) or error}") from error
        raise


@contextmanager
def whole_or_nothing(folder: Path) -> Iterator[Path]:
    """A folder to write into, which takes its name where all went well and else is gone, with parents made for it."""
    with unfinished(folder) as scratch:
        yield scratch
        scratch.rename(folder)
