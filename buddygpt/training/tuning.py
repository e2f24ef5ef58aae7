"""What fine-tuning and preference tuning have in common: how they begin, what they tell, what they leave."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from accelerate import PartialState
from transformers import PreTrainedTokenizerBase, Trainer, set_seed

from buddygpt.data.prepared import Prepared
from buddygpt.data.talks import sample_weights
from buddygpt.data.tokenizer import chat_ends
from buddygpt.data.windows import Passing
from buddygpt.events import Caution, Emit, Note, Table
from buddygpt.model import BuddyGPTForCausalLM
from buddygpt.model.cost import as_section
from buddygpt.recipe.data import DataSection, DemoSource, source_name
from buddygpt.recipe.runs import Run, write_atomically
from buddygpt.recipe.schema import Chapter, Recipe
from buddygpt.recipe.tuning import TuningSection
from buddygpt.training import beginnings
from buddygpt.training.alone import hold
from buddygpt.training.base import Base, find_base, settle_ends
from buddygpt.training.compiled import check_compile
from buddygpt.training.facts import Rows, Work, memory_rows, model_rows
from buddygpt.training.launch import rank
from buddygpt.training.lora import merged
from buddygpt.training.pace import READ_OFTEN
from buddygpt.training.parallel import whole
from buddygpt.training.reference import weights_hash
from buddygpt.training.setup import Device, check_parallel, check_precision, find_device, versions
from buddygpt.training.trackers import check_trackers
from buddygpt.training.troubles import safe_writing

SHOWN = 3
"""Held-out prompts that the model answers at each evaluation."""
Section = TypeVar("Section", bound=TuningSection)


@dataclass(frozen=True)
class TuningResult:
    """How a tuning chapter ended.

    Args:
        finished: the whole run was trained, and `model` holds the result.
        step: optimizer steps done.
        model: folder of the finished model.
        metrics: final held-out figures.
        before, after: figures of `judge_model`, of the model that it began with and of the result.
    """

    finished: bool
    step: int
    model: Path
    metrics: dict[str, float]
    before: dict[str, float]
    after: dict[str, float]


@dataclass(frozen=True)
class Begun(Generic[Section]):
    """A tuning chapter of which nothing is written yet but its prepared rows.

    Args:
        name: the chapter's.
        recipe, run, section: as given.
        start: the checkpoint to go on from.
        device: where.
        base: the model that it begins with.
        prepared: its rows.
        model: the base, loaded.
        origin: what the checkpoints keep of where they come from.
    """

    name: Chapter
    recipe: Recipe
    run: Run
    section: Section
    start: Path | None
    device: Device
    base: Base
    prepared: Prepared
    model: BuddyGPTForCausalLM
    origin: dict[str, Any]

    @property
    def folder(self) -> Path:
        """The chapter's."""
        return self.run.chapter(self.name)

    @property
    def base_name(self) -> str:
        """What the model that it begins with is called in tables."""
        before = "sft" if self.name == "dpo" else "pretrain"
        return before if self.section.model is None else "before"


def finished(run: Run, name: Chapter, emit: Emit) -> TuningResult | None:
    """What a chapter that is finished already has recorded."""
    folder = run.chapter(name)
    done = beginnings.finished(folder, emit)
    if done is None:
        return None
    return TuningResult(True, done["step"], folder / "model", done["metrics"], done["before"], done["after"])


def begin(
    recipe: Recipe,
    section: Section,
    run: Run,
    name: Chapter,
    cache: Path,
    resume: bool,
    changed: Sequence[str],
    emit: Emit,
) -> Begun[Section]:
    """Find the model and the rows of a chapter, and see that it can go on from where it stopped.

    Args:
        recipe, section, run: of the chapter.
        name: the chapter's.
        cache: where prepared rows lie.
        resume: go on from the newest whole checkpoint.
        changed: a line for each field that has changed since, as it may.
        emit: who is told.

    Raises:
        BuddyError: something the user can mend; nothing is written but prepared rows.
    """
    check_trackers(section, name)
    start = beginnings.start_from(run.chapter(name), resume, emit)
    device = find_device()
    check_precision(section, device, name)
    check_compile(section, device, name)
    check_parallel(section, device, name)
    base = find_base(section, run, name)
    prepared = beginnings.prepare_data(recipe, cache, emit, name, base.tokenizer)
    tell_intake(prepared, emit)
    model = base.load(section)
    origin = {"prepared": prepared.path.name, "model": weights_hash(model), "versions": versions()}
    if start:
        beginnings.check_origin(start, recipe, origin)
        for change in changed:
            emit(Note(change))
    return Begun(name, recipe, run, section, start, device, base, prepared, model, origin)


def work_of(begun: Begun[Any], length: int) -> Work:
    """The chapter as work on windows of so many tokens.

    Raises:
        BuddyError: the attention backend that the recipe names cannot do it here.
    """
    work = Work(begun.name, as_section(begun.model.config), begun.section, length, True, begun.device)
    work.attention()
    return work


def settle(
    begun: Begun[Any], work: Work, samples: Passing[Any], training: Rows, data: Rows, unit: str, emit: Emit
) -> dict[str, Rows]:
    """Claim the run for a chapter that is about to train, and tell what it will do.

    Args:
        begun: the chapter.
        work: what is trained.
        samples: in training order.
        training, data: rows of the chapter's own.
        unit: what a sample is called, in the plural.
        emit: who is told.

    Returns:
        All facts, by heading.

    Raises:
        BuddyError: the disk has no room, or the run is another recipe's.
    """
    section, steps = begun.section, len(samples) // begun.section.batch_size
    beginnings.check_space(work, steps, begun.folder)
    if rank() == 0:
        begun.run.claim_chapter(begun.recipe, begun.name)
        hold(begun.folder)
        begun.run.link_data(begun.prepared.path, begun.name)
    set_seed(section.seed)
    epochs = samples.mixture.epochs()
    read = [(name, f"{times:.2f} epochs") for name, times in epochs.items()]
    facts: dict[str, Rows] = {
        "model": [("began with", str(begun.base.source)), *model_rows(work.model)],
        "training": training,
        "memory": memory_rows(work, unit),
        "data": [*read, *data, ("rows", begun.prepared.path.name)],
    }
    for heading, rows in facts.items():
        emit(Table(heading, ("", ""), tuple(rows)))
    tell_epochs(epochs, emit)
    return facts | {"versions": list(begun.origin["versions"].items())}


def share(sources: Sequence[Any], section: TuningSection) -> tuple[list[float], float, float]:
    """How sources are mixed.

    Args:
        sources: with `name` and `tokens`, and as many samples as they are long.
        section: the recipe's.

    Returns:
        Shares of the samples, tokens of a sample on average, and samples of one epoch.
    """
    by_name = {source_name(source): source.weight for source in section.data.sources}
    weights = sample_weights(sources, [by_name[source.name] for source in sources])
    mean = sum(w * s.tokens / len(s) for w, s in zip(weights, sources, strict=True)) / sum(weights)
    return weights, mean, sum(source.tokens for source in sources) / mean


def shown(prompts: Sequence[Sequence[int]], tokenizer: PreTrainedTokenizerBase) -> list[tuple[str, Sequence[int]]]:
    """The first few prompts as they are shown, with their ids."""
    few = list(prompts[:SHOWN])
    return list(zip(tokenizer.batch_decode(few, skip_special_tokens=False), few, strict=True))


def result_of(trainer: Trainer, section: TuningSection, tokenizer: PreTrainedTokenizerBase) -> Any:
    """The model that was trained, an ordinary one that stops where a chat model does; in process 0, by calls in all."""
    model: Any = whole(trainer.accelerator.unwrap_model(trainer.model))
    if model is None:
        return None
    if section.lora is not None:
        model = merged(model)
    settle_ends(model, chat_ends(tokenizer))
    return model


def demo_seeds(data: DataSection) -> list[int]:
    """Seeds of the demo worlds among the sources, each once."""
    return list(dict.fromkeys(source.seed for source in data.sources if isinstance(source, DemoSource)))


def tell_intake(prepared: Prepared, emit: Emit) -> None:
    """What became of the rows: how many stay of each source, and why the others do not."""
    for name, source in prepared.manifest["sources"].items():
        gone = ", ".join(f"{drop['count']:,} {reason}" for reason, drop in source["dropped"].items())
        told = f"{name}: {source['documents_out']:,} of {source['documents_in']:,} rows"
        emit(Note(told + (f"; dropped: {gone}" if gone else "")))


def tell_cuts(sources: Sequence[Any], emit: Emit) -> None:
    """What did not fit, by source.

    Args:
        sources: with a `name`, and `cut`, counts by what was done.
    """
    for source in sources:
        if source.cut:
            told = ", ".join(f"{count:,} {what}" for what, count in source.cut.items())
            emit(Caution(f"{source.name}: too long for the window: {told}"))


def tell_epochs(epochs: dict[str, float], emit: Emit) -> None:
    """A caution for each source that is read very often."""
    for name, times in epochs.items():
        if times > READ_OFTEN:
            emit(Caution(f"{name} is read {times:.1f} times: the model will know it by heart"))


def first_figures(folder: Path, judge: Callable[[], dict[str, float]], resumed: bool) -> dict[str, float]:
    """Figures of the model that a run begins with; those of its first start where it goes on."""
    file = folder / "before.json"
    if resumed and file.is_file():  # else it is of an earlier try, maybe with another model
        return json.loads(file.read_text("utf-8"))
    figures = judge()
    if PartialState().is_main_process:
        with safe_writing(folder):
            write_atomically(file, json.dumps(figures))
    return figures


def chapters_before(run: Run) -> dict[str, dict[str, float]]:
    """Figures of what fine-tuning began with and of what came of it, by name; none where it is not finished."""
    file = run.chapter("sft") / "done.json"
    if not file.is_file():
        return {}
    record = json.loads(file.read_text("utf-8"))
    return {record["began"]: record["before"], "sft": record["after"]}
