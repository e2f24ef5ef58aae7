"""How long a run is, and what happens when: known once the data are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from buddygpt.recipe.errors import BuddyError
from buddygpt.recipe.pretrain import PretrainSection
from buddygpt.recipe.tuning import TuningSection
from buddygpt.training.setup import accumulation_steps

PARTS = 10
"""A tuning run is saved and evaluated so many times where the recipe does not say."""
READ_OFTEN = 8
"""Epochs of a source above which a caution is told."""


@dataclass(frozen=True)
class Pace:
    """Steps of a run.

    Args:
        steps: optimizer steps of the whole run.
        batch: samples of an optimizer step, over all devices.
        accumulation: micro-batches of one device in an optimizer step.
        save_every, eval_every: steps between checkpoints, and between evaluations.
        tokens: how many the first so many steps read.
    """

    steps: int
    batch: int
    accumulation: int
    save_every: int
    eval_every: int
    tokens: Callable[[int], int]

    def judges(self, step: int) -> bool:
        """Whether an evaluation follows after `step` steps."""
        return step > 0 and (step % self.eval_every == 0 or step == self.steps)


def pretraining_pace(section: PretrainSection, processes: int) -> Pace:
    """Of a run of pretraining.

    Raises:
        BuddyError: the batch does not divide among the processes.
    """
    accumulation = accumulation_steps(section, processes)
    tokens = section.tokens_per_batch
    batch = tokens // section.sequence_length
    return Pace(
        section.steps, batch, accumulation, section.save_every, section.eval_every, lambda steps: steps * tokens
    )


def check_batch(section: PretrainSection | TuningSection, where: str, processes: int) -> int:
    """Micro-batches that one process passes in an optimizer step.

    Args:
        section: the recipe's.
        where: its name.
        processes: over all machines.

    Raises:
        BuddyError: the batch does not divide among the processes.
    """
    if isinstance(section, PretrainSection):
        return accumulation_steps(section, processes)
    at_once = section.micro_batch_size * processes
    if section.batch_size % at_once:
        raise BuddyError(
            f"{where}.batch_size: {section.batch_size} does not divide by {processes} processes x "
            f"{section.micro_batch_size} = {at_once}; change {where}.micro_batch_size or the number of processes"
        )
    return section.batch_size // at_once


def tuning_pace(
    section: TuningSection, where: str, samples: float, processes: int, tokens: Callable[[int], int]
) -> Pace:
    """Of a run of tuning.

    Args:
        section: the recipe's.
        where: its name.
        samples: that one epoch has.
        processes: over all machines.
        tokens: how many the first so many samples have.

    Raises:
        BuddyError: the batch does not divide among the processes.
    """
    accumulation = check_batch(section, where, processes)
    steps = max(1, round(section.epochs * samples / section.batch_size))
    part = max(1, steps // PARTS)
    return Pace(
        steps,
        section.batch_size,
        accumulation,
        section.save_every or part,
        section.eval_every or part,
        lambda done: tokens(done * section.batch_size),
    )
