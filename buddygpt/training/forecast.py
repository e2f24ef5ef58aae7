"""What training will take: memory by micro-batch, and time by speed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from buddygpt.model.cost import count_flops
from buddygpt.recipe.base import spell_bytes
from buddygpt.recipe.model import ModelSection
from buddygpt.recipe.pretrain import PretrainSection
from buddygpt.recipe.tuning import TuningSection
from buddygpt.training.cards import ASSUMED_MFU, CARDS, LAUNCHES
from buddygpt.training.facts import Rows, Work
from buddygpt.training.probe import Probe
from buddygpt.training.room import divisors, largest_micro_batch, needed

HOUR = 3600


def choices(work: Work, processes: int) -> list[int]:
    """Micro-batches into which a batch divides, rising."""
    section = work.section
    if isinstance(section, PretrainSection):
        return divisors(section.tokens_per_batch // section.sequence_length // processes)
    assert isinstance(section, TuningSection)
    return divisors(section.batch_size // processes)


def largest(work: Work, sizes: Sequence[int], free: int) -> int | None:
    """The largest of some micro-batches that fits into so many free bytes of the device."""
    kind = work.device.kind
    return largest_micro_batch(
        sizes, lambda size: needed(work.split(size).memory(), work.model, kind, work.section.precision), free
    )


def memory_columns(work: Work, sizes: Sequence[int]) -> list[tuple[str, ...]]:
    """Bytes by part, a column for each micro-batch."""
    all_of_them = [work.split(size).memory() for size in sizes]
    rows = [
        (part, *(spell_bytes(getattr(memory, part)) for memory in all_of_them))
        for part in ("weights", "gradients", "optimizer", "activations", "loss")
    ]
    rows.append(("highest", *(memory.moment for memory in all_of_them)))
    rows.append(("tensors, then", *(spell_bytes(memory.total) for memory in all_of_them)))
    kind = work.device.kind
    beside = "libraries and holes" if kind == "cpu" else "the device's own and slack"
    rows.append(
        (
            f"with {beside}",
            *(spell_bytes(needed(memory, work.model, kind, work.section.precision)) for memory in all_of_them),
        )
    )
    return rows


@dataclass(frozen=True)
class Hours:
    """Time of a run.

    Args:
        tokens_per_second: over all devices.
        training: hours of the steps.
        judging: hours of the evaluations, at most.
    """

    tokens_per_second: float
    training: float
    judging: float

    @property
    def total(self) -> float:
        """Of both; saving is left out."""
        return self.training + self.judging


def judged_tokens(section: PretrainSection, sources: int) -> int:
    """Held-out tokens that all evaluations of a run read, at most."""
    return -(-section.steps // section.eval_every) * section.eval_tokens * sources


def measured_hours(probe: Probe, section: PretrainSection, sources: int, processes: int) -> Hours:
    """Of the whole run, at the speed that was measured on one device.

    Args:
        probe: what was measured.
        section: the recipe's.
        sources: of text, each with held-out tokens.
        processes: devices, taken to be as fast together as alone.
    """
    tokens = probe.micro_batch_size * section.sequence_length * processes
    seconds = probe.step_seconds(section.tokens_per_batch // tokens)
    judging = judged_tokens(section, sources) / tokens * probe.judging
    return Hours(section.tokens_per_batch / seconds, section.steps * seconds / HOUR, judging / HOUR)


def assumed_hours(model: ModelSection, section: PretrainSection, sources: int, peak: float, cards: int = 1) -> Hours:
    """Of the whole run, at the share of its peak that a card is assumed to reach.

    Args:
        model, section: the recipe's.
        sources: of text, each with held-out tokens.
        peak: of one card, in operations a second.
        cards: taken to be as fast together as alone.
    """
    flops = count_flops(model, section.sequence_length)
    tokens = section.micro_batch_size * section.sequence_length
    computing = tokens * flops.training / peak / ASSUMED_MFU
    speed = cards * tokens / max(computing, LAUNCHES * model.num_hidden_layers)
    steps = section.steps * section.tokens_per_batch / speed
    judging = judged_tokens(section, sources) / speed * flops.forward / flops.training
    return Hours(speed, steps / HOUR, judging / HOUR)


def card_rows(work: Work, sources: int, per_hour: float | None) -> list[tuple[str, ...]]:
    """One card of each kind: name, peak, memory, largest micro-batch, tokens a second, time, cost."""
    section = work.section
    assert isinstance(section, PretrainSection)
    sizes = choices(work, 1)
    needs = {size: needed(work.split(size).memory("cuda"), work.model, "cuda") for size in sizes}
    rows = []
    for card in CARDS:
        hours = assumed_hours(work.model, section, sources, card.peak)
        fitting = largest_micro_batch(sizes, needs.__getitem__, card.memory)
        row = (
            card.name,
            f"{card.teraflops:g}",
            f"{card.gigabytes}",
            f"{fitting}" if fitting else "0: does not fit",
            f"{hours.tokens_per_second:,.0f}",
            spell_hours(hours.total),
        )
        rows.append(row if per_hour is None else (*row, spell_cost(hours.total, per_hour)))
    return rows


def speed_rows(hours: Hours, mfu: float | None, per_hour: float | None, processes: int) -> Rows:
    """Speed, time and cost of a run."""
    rows = [
        ("tokens a second", f"{hours.tokens_per_second:,.0f}"),
        ("utilisation (MFU)", "unknown: no data sheet of this device here" if mfu is None else f"{mfu:.1%}"),
        ("training", spell_hours(hours.training)),
        ("evaluation", f"at most {spell_hours(hours.judging)}"),
        ("together", f"{spell_hours(hours.total)}, saving left out"),
    ]
    if per_hour is not None:
        rate = f"{per_hour:g} an hour" + (f" x {processes}" if processes > 1 else "")
        rows.append(("cost", f"{spell_cost(hours.total, per_hour * processes)} at {rate}"))
    return rows


def spell_hours(hours: float) -> str:
    """A time for readers: 42 s, 12 min, 3.4 h, 71 h (3 days)."""
    if hours < 1 / 60:
        return f"{hours * HOUR:.0f} s"
    if hours < 1:
        return f"{hours * 60:.0f} min"
    if hours < 48:
        return f"{hours:.1f} h"
    return f"{hours:,.0f} h ({hours / 24:.1f} days)"


def spell_cost(hours: float, per_hour: float) -> str:
    """A sum of money, in whatever it is counted."""
    cost = hours * per_hour
    return f"{cost:,.0f}" if cost >= 100 else f"{cost:.2f}"
