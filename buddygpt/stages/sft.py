"""Supervised fine-tuning: talks in, a model that answers out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from buddygpt.data.lengths import Openings
from buddygpt.data.prepared import Prepared
from buddygpt.data.talks import TalkWindows
from buddygpt.data.tokenizer import DocumentEncoder
from buddygpt.data.windows import Mixture, Passing
from buddygpt.evaluation.judgement import change_table, changes, guessing, judge_model
from buddygpt.evaluation.reach import ReachRecord, held_out_texts, make_exam
from buddygpt.events import Caution, Emit, Note, Table
from buddygpt.model import BuddyGPTForCausalLM
from buddygpt.model.context import as_before, extend
from buddygpt.recipe.data import source_name
from buddygpt.recipe.errors import BuddyError
from buddygpt.recipe.runs import Run
from buddygpt.recipe.schema import Recipe
from buddygpt.recipe.sft import SFTSection
from buddygpt.report.chapters import Kept
from buddygpt.report.reach import BEFORE, EXTENDED, TUNED, context_heads, context_rows
from buddygpt.report.tuning import Tuning, tuning_cautions
from buddygpt.training import chapter
from buddygpt.training.alone import alone
from buddygpt.training.facts import Rows, Work, attention_rows, common_rows
from buddygpt.training.pace import Pace, tuning_pace
from buddygpt.training.sft import SFTTrainer
from buddygpt.training.trainer import HeldOut
from buddygpt.training.troubles import safe_writing
from buddygpt.training.tuning import (
    TuningResult,
    begin,
    demo_seeds,
    finished,
    first_figures,
    result_of,
    settle,
    share,
    shown,
    tell_cuts,
    work_of,
)


@alone()
def run(recipe: Recipe, run: Run, *, cache: Path, resume: bool, emit: Emit) -> TuningResult:
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
    changed = run.check_chapter(recipe, "sft")
    if (done := finished(run, "sft", emit)) is not None:
        return done
    begun = begin(recipe, section, run, "sft", cache, resume, changed, emit)
    model, tokenizer, folder = begun.model, begun.base.tokenizer, begun.folder
    context = model.config.max_position_embeddings, model.config.rope_parameters
    length = _reach(model, section, emit)
    work = work_of(begun, length)
    training, judged = _windows(begun.prepared, section, length, Openings.of(DocumentEncoder(tokenizer)))
    tell_cuts([*training, *judged], emit)
    windows, pace = _mixture(training, section, begun.device.processes)
    facts = settle(begun, work, windows, _training_rows(work, section, training, pace), [], "windows", emit)

    prompts = [ids for source in judged for ids in source.prompts()]
    asked = shown(prompts, tokenizer)
    watch = chapter.watch(folder, recipe, work, pace, begun.origin, begun.start, windows, asked, tokenizer, emit)
    seeds, room, resumed = demo_seeds(section.data), context[0], begun.start is not None
    with as_before(model, *context):
        before = first_figures(folder, lambda: judge_model(model, tokenizer, prompts, seeds, room), resumed)
    reach = None
    if length > room:
        emit(Note("measuring how far the model reaches, before and after its context is extended"))
        text, texts = held_out_texts(run.data(), judged, tokenizer, length)
        exam = make_exam(tokenizer, model, room, length, text, texts)
        reach = ReachRecord(folder / "context.json", exam, section.rope.kind, resumed)
        with as_before(model, *context):
            reach.measure(BEFORE, model, section.precision)
        reach.measure(EXTENDED, model, section.precision)
    trainer = SFTTrainer(
        model,
        tokenizer,
        section,
        watch.keeper,
        [_held_out(source, tokenizer) for source in judged],
        watch.callbacks(),
        pace,
    )
    columns = guessing(seeds) | {begun.base_name: before}
    chapter.begin_page(folder, Kept(facts, tuning=Tuning("sft", change_table(columns), before)))
    step, metrics = chapter.train(trainer, watch, folder, begun.start, emit)
    ended = step >= pace.steps
    after: dict[str, float] = {}
    result = result_of(trainer, section, tokenizer) if ended else None
    if trainer.is_world_process_zero():
        with safe_writing(folder):
            if ended:
                after = judge_model(result, tokenizer, prompts, seeds, room)
                if reach is not None:
                    reach.measure(TUNED, result, section.precision)
                chapter.save(result, tokenizer, folder / "model")
            columns |= {"sft": after} if after else {}
            reached = None if reach is None else reach.page()
            tuning = Tuning("sft", change_table(columns), before, after, context=reached)
            chapter.page(run, "sft", Kept(facts, tuning=tuning), ended)
            if ended:
                chapter.record(
                    folder,
                    begun.device,
                    begun.origin,
                    step=step,
                    metrics=metrics,
                    began=begun.base_name,
                    hub_model=begun.base.hub_id,
                    before=before,
                    after=after,
                    recipe=recipe.digest("sft"),
                )
        for _, caution in tuning_cautions(watch.meter.rows, tuning):
            emit(Caution(caution))
        if ended:
            emit(Table("what fine-tuning changed", ("", *columns), tuple(changes(columns))))
            if reached is not None:
                emit(Table("longer context", context_heads(reached), tuple(context_rows(reached))))
            emit(Note(f"model:  {folder / 'model'}"))
        emit(Note(f"report: {folder / 'report.html'}"))
    return TuningResult(ended, step, folder / "model", metrics, before, after)


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


def _mixture(training: list[TalkWindows], section: SFTSection, processes: int) -> tuple[Passing[Any], Pace]:
    """All windows of the run in their order, and its pace."""
    weights, _, epoch = share(training, section)
    sizes: dict[int, list[int]] = {}

    def read(count: int) -> int:
        """Tokens of the first so many windows."""
        known = sizes.setdefault(len(windows.skipped), [0])
        while len(known) <= count:
            source, number = windows.mixture.locate(windows.place(len(known) - 1))
            known.append(known[-1] + training[source].size(number))
        return known[count]

    pace = tuning_pace(section, "sft", epoch, processes, read)
    windows = Passing(Mixture(training, weights, pace.steps * section.batch_size, section.seed))
    return windows, pace


def _held_out(source: TalkWindows, tokenizer: PreTrainedTokenizerBase) -> HeldOut:
    answers = source.answers()
    texts = tokenizer.batch_decode(answers, skip_special_tokens=True)
    return HeldOut(source.name, source, sum(map(len, answers)), max(1, sum(map(len, texts))))


def _training_rows(work: Work, section: SFTSection, training: Sequence[TalkWindows], pace: Pace) -> Rows:
    tokens, learned = (sum(getattr(source, name) for source in training) for name in ("tokens", "learned"))
    room = sum(len(source) for source in training) * work.length
    return [
        *common_rows(work),
        ("steps", f"{pace.steps:,} of {section.batch_size} windows, {section.epochs:g} epochs"),
        ("window", f"{work.length:,} tokens" + (f", {tokens / room:.1%} full" if section.packing else "")),
        ("talks", f"{sum(source.talks for source in training):,}"),
        ("learned", f"{learned:,} of {tokens:,} tokens ({learned / tokens:.1%}): answers and their end marks"),
        *attention_rows(work),
    ]
