"""Supervised fine-tuning: talks in, a model that answers out."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase, set_seed

from buddygpt.data.lengths import Openings
from buddygpt.data.prepared import Prepared
from buddygpt.data.talks import TalkWindows, sample_weights
from buddygpt.data.tokenizer import DocumentEncoder, chat_ends
from buddygpt.data.windows import Mixture
from buddygpt.evaluation.judgement import change_table, changes, guessing, judge_model
from buddygpt.evaluation.reach import ReachRecord, held_out_texts, make_exam
from buddygpt.events import Caution, Emit, Note, Table
from buddygpt.model import BuddyGPTForCausalLM
from buddygpt.model.context import as_before, extend
from buddygpt.model.cost import as_section
from buddygpt.recipe.data import source_name
from buddygpt.recipe.errors import BuddyError
from buddygpt.recipe.runs import Run, dump_yaml
from buddygpt.recipe.schema import Recipe
from buddygpt.recipe.sft import SFTSection
from buddygpt.report.page import Report, load_rows, write_report
from buddygpt.report.reach import BEFORE, EXTENDED, TUNED, context_heads, context_rows
from buddygpt.report.tuning import Tuning, tuning_cautions
from buddygpt.training import chapter, checkpoints
from buddygpt.training.balance import Balance
from buddygpt.training.base import find_base, settle_ends
from buddygpt.training.callbacks import Brake, Meter, Samples, Seal
from buddygpt.training.facts import Work, attention_rows, common_rows, memory_rows, model_rows
from buddygpt.training.lora import merged
from buddygpt.training.pace import Pace, tuning_pace
from buddygpt.training.reference import weights_hash
from buddygpt.training.setup import check_precision, find_device, versions
from buddygpt.training.sft import SFTTrainer
from buddygpt.training.trainer import HeldOut
from buddygpt.training.tuning import (
    demo_seeds,
    first_figures,
    prepare_rows,
    tell_cuts,
    tell_epochs,
    tell_intake,
)

SHOWN = 3
"""Held-out prompts that the model answers at each evaluation."""


@dataclass(frozen=True)
class SFTResult:
    """How fine-tuning ended.

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


def run(recipe: Recipe, run: Run, *, cache: Path, resume: bool, emit: Emit) -> SFTResult:
    """Fine-tune a finished model on the recipe's talks.

    Args:
        recipe: with an `sft` section.
        run: the run directory.
        cache: where prepared rows lie.
        resume: go on from the newest whole checkpoint.
        emit: who is told.

    Raises:
        BuddyError: something the user can mend; what is on disk stays as it was.
    """
    recipe.require("sft", "sft")
    section = recipe.sft
    assert section is not None
    run.check_chapter(recipe, "sft")
    folder = run.chapter("sft")
    if (done := chapter.finished(folder, emit)) is not None:
        return SFTResult(True, done["step"], folder / "model", done["metrics"], done["before"], done["after"])
    start = chapter.start_from(folder, resume)
    device = find_device()
    check_precision(section, device, "sft")
    base = find_base(section, run, "sft")
    tokenizer = base.tokenizer
    prepared = prepare_rows(recipe, cache, "sft", tokenizer, emit)
    tell_intake(prepared, emit)
    model = base.load(section)
    context = model.config.max_position_embeddings, model.config.rope_parameters
    length = _reach(model, section, emit)
    origin = {"prepared": prepared.path.name, "model": weights_hash(model), "versions": versions()}
    if start:
        chapter.check_origin(start, origin)
    openings = Openings.of(DocumentEncoder(tokenizer))
    training, judged = _windows(prepared, section, length, openings)
    tell_cuts([*training, *judged], emit)
    windows, pace = _mixture(training, section, device.processes)
    chapter.check_space(model.num_parameters(), section.keep_checkpoints, folder, "sft")
    run.claim_chapter(recipe, "sft")
    run.link_data(prepared.path, "sft")
    set_seed(section.seed)
    work = Work("sft", as_section(model.config), section, length, True, device)
    facts = {
        "model": [("began with", str(base.source)), *model_rows(work.model)],
        "training": _training_rows(work, windows, training, pace),
        "memory": memory_rows(work),
        "data": [(name, f"{epochs:.2f} epochs") for name, epochs in windows.epochs().items()]
        + [("rows", prepared.path.name)],
        "versions": list(origin["versions"].items()),
    }
    for heading in ("model", "training", "memory", "data"):
        emit(Table(heading, ("", ""), tuple(facts[heading])))
    tell_epochs(windows.epochs(), emit)

    folder.mkdir(parents=True, exist_ok=True)
    prompts = [ids for source in judged for ids in source.prompts()]
    seeds = demo_seeds(section.data)
    room, began = context[0], "pretrain" if section.model is None else "before"
    with as_before(model, *context):
        before = first_figures(folder, lambda: judge_model(model, tokenizer, prompts, seeds, room), start is not None)
    reach = None
    if length > room:
        emit(Note("measuring how far the model reaches, before and after its context is extended"))
        text, texts = held_out_texts(run.data(), judged, tokenizer, length)
        exam = make_exam(tokenizer, model, room, length, text, texts)
        reach = ReachRecord(folder / "context.json", exam, section.rope.kind, start is not None)
        with as_before(model, *context):
            reach.measure(BEFORE, model, section.precision)
        reach.measure(EXTENDED, model, section.precision)
    step = checkpoints.step_of(start) if start else 0
    brake, balance = Brake(), Balance()
    meter = Meter("sft", folder / "metrics.jsonl", pace, emit, step, balance.figures)
    shown = prompts[:SHOWN]
    texts = tokenizer.batch_decode(shown, skip_special_tokens=False)
    samples = Samples(texts, shown, tokenizer, folder / "samples.jsonl", emit, step)
    recipe_text = dump_yaml(recipe.as_dict())
    seal = Seal({"recipe.yaml": recipe_text, chapter.ORIGIN: json.dumps(origin, indent=1)}, section.keep_checkpoints)
    trainer = SFTTrainer(
        model,
        tokenizer,
        section,
        windows,
        [_held_out(source, tokenizer) for source in judged],
        folder / "checkpoints",
        [balance, samples, brake, seal, meter],
        pace,
    )
    if start:
        emit(Note(f"going on from {start.name}"))
    with chapter.brake_on_signals(brake, emit), chapter.disk_full(folder):
        trainer.train(resume_from_checkpoint=str(start) if start else None)
    step = trainer.state.global_step
    metrics = {k: v for k, v in meter.latest.items() if k.startswith("eval/")}
    finished = step >= pace.steps
    after: dict[str, float] = {}
    if trainer.is_world_process_zero():
        with chapter.disk_full(folder):
            if finished:
                tuned: Any = trainer.accelerator.unwrap_model(trainer.model)
                if section.lora is not None:
                    tuned = merged(tuned)
                settle_ends(tuned, chat_ends(tokenizer))
                after = judge_model(tuned, tokenizer, prompts, seeds, room)
                if reach is not None:
                    reach.measure(TUNED, tuned, section.precision)
                chapter.save(tuned, tokenizer, folder / "model")
            columns = guessing(seeds) | {began: before} | ({"sft": after} if after else {})
            reached = None if reach is None else reach.page()
            tuning = Tuning("sft", change_table(columns), before, after, context=reached)
            write_report(folder / "report.html", _report(run, facts, meter, folder, tuning, finished))
            if finished:
                chapter.record(
                    folder,
                    step=step,
                    metrics=metrics,
                    began=began,
                    before=before,
                    after=after,
                    recipe=recipe.digest("sft"),
                )
        for _, caution in tuning_cautions(meter.rows, tuning):
            emit(Caution(caution))
        if finished:
            emit(Table("what fine-tuning changed", ("", *columns), tuple(changes(columns))))
            if reached is not None:
                emit(Table("longer context", context_heads(reached), tuple(context_rows(reached))))
            emit(Note(f"model:  {folder / 'model'}"))
        emit(Note(f"report: {folder / 'report.html'}"))
    return SFTResult(finished, step, folder / "model", metrics, before, after)


def _reach(model: BuddyGPTForCausalLM, section: SFTSection, emit: Emit) -> int:
    """The length of a window; the model's context is extended where it is shorter."""
    context = model.config.max_position_embeddings
    length = section.sequence_length or context
    if length <= context:
        if "rope" in section.model_fields_set:
            emit(Caution(f"sft.rope: is not used; windows of {length} tokens fit the model's context of {context}"))
        return length
    try:
        extend(model, length, section.rope.kind, section.rope.factor)
    except ValueError as error:
        raise BuddyError(f"sft.rope: {error}") from None
    emit(Note(f"context: {context:,} -> {length:,} tokens by {section.rope.kind} scaling of rotary positions"))
    return length


def _windows(
    prepared: Prepared, section: SFTSection, length: int, openings: Openings
) -> tuple[list[TalkWindows], list[TalkWindows]]:
    """Windows of each source to train on, and of each to judge by.

    Raises:
        BuddyError: there is nothing to learn.
    """
    training, judged = [], []
    for name in map(source_name, section.data.sources):
        if shards := prepared.open(name, "train"):
            training.append(TalkWindows(name, shards, length, openings, section.packing))
        if shards := prepared.open(name, "validation"):
            judged.append(TalkWindows(name, shards, length, openings, True, section.eval_tokens))
    if not any(source.learned for source in training):
        raise BuddyError("sft.data: no row has an answer to learn; see `buddy data inspect FILE --stage sft`")
    return training, judged


def _mixture(training: list[TalkWindows], section: SFTSection, processes: int) -> tuple[Mixture[Any], Pace]:
    """All windows of the run in their order, and its pace."""
    by_name = {source_name(source): source.weight for source in section.data.sources}
    weights = sample_weights(training, [by_name[source.name] for source in training])
    tokens = sum(source.tokens for source in training)
    per_window = sum(w * s.tokens / len(s) for w, s in zip(weights, training, strict=True)) / sum(weights)
    sizes: list[int] = [0]

    def read(count: int) -> int:
        """Tokens of the first so many windows."""
        while len(sizes) <= count:
            source, number = windows.locate(len(sizes) - 1)
            sizes.append(sizes[-1] + training[source].size(number))
        return sizes[count]

    pace = tuning_pace(section, "sft", tokens / per_window, processes, read)
    windows = Mixture(training, weights, pace.steps * section.batch_size, section.seed)
    return windows, pace


def _held_out(source: TalkWindows, tokenizer: PreTrainedTokenizerBase) -> HeldOut:
    answers = source.answers()
    texts = tokenizer.batch_decode(answers, skip_special_tokens=True)
    return HeldOut(source.name, source, sum(map(len, answers)), max(1, sum(map(len, texts))))


def _training_rows(
    work: Work, windows: Mixture[Any], training: Sequence[TalkWindows], pace: Pace
) -> list[tuple[str, str]]:
    section = work.section
    assert isinstance(section, SFTSection)
    tokens, learned = (sum(getattr(source, name) for source in training) for name in ("tokens", "learned"))
    room = sum(len(source) for source in training) * work.length
    rows = common_rows(work)
    if section.lora is not None:
        rows.append(("low-rank updates", f"rank {section.lora.rank}"))
    return [
        *rows,
        ("steps", f"{pace.steps:,} of {section.batch_size} windows, {section.epochs:g} epochs"),
        ("window", f"{work.length:,} tokens" + (f", {tokens / room:.1%} full" if section.packing else "")),
        ("talks", f"{sum(source.talks for source in training):,}"),
        ("learned", f"{learned:,} of {tokens:,} tokens ({learned / tokens:.1%}): answers and their end marks"),
        *attention_rows(work),
    ]


def _report(run: Run, facts: Any, meter: Meter, folder: Path, tuning: Tuning, done: bool) -> Report:
    again = ("buddy", "sft", str(run.path / "recipe.yaml"), "--run", str(run.path), "--resume")
    return Report(
        title=run.name,
        facts=facts,
        metrics=meter.rows,
        samples=load_rows(folder / "samples.jsonl"),
        baselines={},
        command=shlex.join(("buddy", "chat", str(folder / "model")) if done else again),
        finished=done,
        tuning=tuning,
    )
