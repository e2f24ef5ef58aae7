"""Preference tuning: pairs of a better and a worse answer in, a model that prefers the better ones out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from buddygpt.data import demo
from buddygpt.data.length_bias import compare_lengths
from buddygpt.data.lengths import Openings
from buddygpt.data.prepared import Prepared
from buddygpt.data.talks import PairRows, encode_pairs
from buddygpt.data.tokenizer import DocumentEncoder
from buddygpt.data.windows import Mixture, Passing
from buddygpt.evaluation.judgement import change_table, changes, guessing, judge_model
from buddygpt.evaluation.kl import kl_to_reference
from buddygpt.events import Caution, Emit, Note, Table
from buddygpt.model.generation import stop_ids
from buddygpt.recipe.data import source_name
from buddygpt.recipe.dpo import DPOSection
from buddygpt.recipe.errors import BuddyError
from buddygpt.recipe.runs import Run
from buddygpt.recipe.schema import Recipe
from buddygpt.report.chapters import Kept
from buddygpt.report.tuning import Tuning, tuning_cautions
from buddygpt.training import chapter
from buddygpt.training.alone import alone
from buddygpt.training.dpo import DPOTrainer
from buddygpt.training.facts import Rows, Work, attention_rows, common_rows
from buddygpt.training.pace import Pace, tuning_pace
from buddygpt.training.troubles import safe_writing
from buddygpt.training.tuning import (
    TuningResult,
    begin,
    chapters_before,
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

UNSEEN = "facts held out"
"""What pairs about facts that training never asks for are called in the figures."""
KL_PROMPTS, KL_TOKENS = 32, 128
"""Held-out prompts on which the distance to the reference is measured, and most tokens of a reply to each."""


@alone()
def run(recipe: Recipe, run: Run, *, cache: Path, resume: bool, emit: Emit) -> TuningResult:
    """Tune a model on the recipe's pairs.

    Args:
        recipe: with a `dpo` section.
        run: the run directory.
        cache: where prepared rows and reference scores lie.
        resume: go on from the newest whole checkpoint.
        emit: who is told.

    Raises:
        BuddyError: something the user can mend; what is on disk stays as it was.
    """
    recipe.require("dpo", "dpo")
    section = recipe.dpo
    assert section is not None
    changed = run.check_chapter(recipe, "dpo")
    if (done := finished(run, "dpo", emit)) is not None:
        return done
    begun = begin(recipe, section, run, "dpo", cache, resume, changed, emit)
    model, tokenizer, folder = begun.model, begun.base.tokenizer, begun.folder
    room = model.config.max_position_embeddings
    length = _length(section, room)
    work = work_of(begun, length)
    encoder = DocumentEncoder(tokenizer)
    training, judged = _pairs(begun.prepared, section, length, Openings.of(encoder))
    tell_cuts([*training, *judged], emit)
    bias = compare_lengths(*np.concatenate([source.lengths for source in training]).T.tolist())
    if bias.warning:
        emit(Caution(bias.warning))
    pairs, pace = _mixture(training, section, begun.device.processes)
    lengths = [
        ("tokens of the chosen answer", f"{bias.chosen_mean:.0f} on average, {bias.chosen_median:.0f} median"),
        ("of the rejected answer", f"{bias.rejected_mean:.0f} on average, {bias.rejected_median:.0f} median"),
        ("chosen answer is longer", f"in {bias.longer:.1%} of the pairs"),
    ]
    facts = settle(begun, work, pairs, _training_rows(work, section, training, pace), lengths, "pairs", emit)

    prompts = [pair["prompt_ids"] for source in judged for pair in source]
    asked = shown(prompts, tokenizer)
    watch = chapter.watch(folder, recipe, work, pace, begun.origin, begun.start, pairs, asked, tokenizer, emit)
    seeds, resumed = demo_seeds(section.data), begun.start is not None
    before = first_figures(folder, lambda: judge_model(model, tokenizer, prompts, seeds, room), resumed)
    trainer = DPOTrainer(
        model,
        tokenizer,
        section,
        watch.keeper,
        {source.name: source for source in judged} | _unseen(seeds, section.eval_pairs, encoder),
        watch.callbacks(),
        pace,
        cache / "reference",
        emit,
    )
    earlier = chapters_before(run) if section.model is None else {}
    columns = guessing(seeds) | earlier
    columns[begun.base_name] = earlier.get(begun.base_name, {}) | before
    first_loss = math.log(2) if section.loss_type == ["sigmoid"] else None
    started = Tuning("dpo", change_table(columns), before, first_loss=first_loss)
    chapter.begin_page(folder, Kept(facts, tuning=started))
    step, metrics = chapter.train(trainer, watch, folder, begun.start, emit)
    ended = step >= pace.steps
    after: dict[str, float] = {}
    result = result_of(trainer, section, tokenizer) if ended else None
    if trainer.is_world_process_zero():
        with safe_writing(folder):
            if ended:
                after = judge_model(result, tokenizer, prompts, seeds, room)
                metrics |= _distance(result, begun.base.load(section), tokenizer, prompts, length, section.seed)
                chapter.save(result, tokenizer, folder / "model")
            columns |= {"dpo": after} if after else {}
            tuning = Tuning(
                "dpo",
                change_table(columns),
                before,
                after,
                kl=(metrics["kl/reply"], metrics["kl/token"]) if "kl/reply" in metrics else None,
                first_loss=first_loss,
            )
            chapter.page(run, "dpo", Kept(facts, tuning=tuning), ended)
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
                    recipe=recipe.digest("dpo"),
                )
        for _, caution in tuning_cautions(watch.meter.rows, tuning):
            emit(Caution(caution))
        _tell_end(folder, metrics, columns, ended, emit)
    return TuningResult(ended, step, folder / "model", metrics, before, after)


def _length(section: DPOSection, context: int) -> int:
    """Most tokens of prompt and answer: the model's context, or less.

    Raises:
        BuddyError: more than the model has.
    """
    length = section.sequence_length or context
    if length > context:
        raise BuddyError(
            f"dpo.sequence_length: {length:,} tokens, but the model has only {context:,} positions; "
            "extend its context with `sft.sequence_length`, or lower this"
        )
    return length


def _pairs(
    prepared: Prepared, section: DPOSection, length: int, openings: Openings
) -> tuple[list[PairRows], list[PairRows]]:
    """Pairs of each source to train on, and of each to judge by.

    Raises:
        BuddyError: no pair is left.
    """
    training, judged = [], []
    for name in map(source_name, section.data.sources):
        if shards := prepared.open(name, "train"):
            training.append(PairRows(name, shards, length, openings))
        if shards := prepared.open(name, "validation"):
            judged.append(PairRows(name, shards, length, openings, section.eval_pairs))
    if not any(map(len, training)):
        raise BuddyError(f"dpo.data: no pair differs within {length} tokens; raise dpo.sequence_length")
    return [s for s in training if len(s)], [s for s in judged if len(s)]


def _unseen(seeds: Sequence[int], most: int, encoder: DocumentEncoder) -> dict[str, list[dict[str, list[int]]]]:
    """Pairs about those facts of the demo worlds that training never asks for."""
    pairs = [pair for seed in seeds for pair in demo.pairs(seed, "test")][:most]
    return {UNSEEN: encode_pairs(pairs, encoder)} if pairs else {}


def _mixture(training: Sequence[PairRows], section: DPOSection, processes: int) -> tuple[Passing[Any], Pace]:
    """All pairs of the run in their order, and its pace."""
    weights, per_pair, epoch = share(training, section)
    pace = tuning_pace(section, "dpo", epoch, processes, lambda count: round(count * per_pair))
    return Passing(Mixture(training, weights, pace.steps * section.batch_size, section.seed)), pace


def _training_rows(work: Work, section: DPOSection, training: Sequence[PairRows], pace: Pace) -> Rows:
    return [
        *common_rows(work),
        ("loss", f"{' + '.join(section.loss_type)}, beta {section.beta:g}"),
        ("reference", section.reference),
        ("steps", f"{pace.steps:,} of {section.batch_size} pairs, {section.epochs:g} epochs"),
        ("pairs", f"{sum(map(len, training)):,}, each of at most {work.length:,} tokens"),
        *attention_rows(work),
    ]


def _distance(
    tuned: Any,
    reference: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    length: int,
    seed: int,
) -> dict[str, float]:
    """KL to the reference in nats a reply and a token; nothing where no prompt leaves room for a reply."""
    most = min(KL_TOKENS, length // 2)
    asked = [prompt for prompt in prompts if len(prompt) + most <= length][:KL_PROMPTS]
    if not asked:
        return {}
    stop = stop_ids(tuned, tokenizer)
    found = kl_to_reference(tuned.eval(), reference.eval(), asked, stop=stop, max_new_tokens=most, seed=seed)
    return {"kl/reply": found.per_reply, "kl/token": found.per_token}


def _tell_end(
    folder: Path, metrics: dict[str, float], columns: dict[str, dict[str, float]], ended: bool, emit: Emit
) -> None:
    rows = [
        (
            name,
            f"{metrics[f'eval/{name}/accuracy']:.1%}",
            f"{metrics[f'eval/{name}/margin']:.3f}",
            f"{metrics[f'eval/{name}/chosen_log_ratio']:.2f}",
            f"{metrics[f'eval/{name}/rejected_log_ratio']:.2f}",
        )
        for name in (key.split("/")[1] for key in metrics if key.endswith("/accuracy"))
    ]
    if rows:
        heads = ("source", "accuracy", "margin", "chosen log-ratio", "rejected log-ratio")
        emit(Table("held-out pairs", heads, tuple(rows)))
    if "kl/reply" in metrics:
        told = f"{metrics['kl/reply']:.2f} nats a reply, {metrics['kl/token']:.3f} a token"
        emit(Note(f"distance to the reference (KL, on replies of its own): {told}"))
    if ended:
        emit(Table("what each stage changed", ("", *columns), tuple(changes(columns))))
        emit(Note(f"model:  {folder / 'model'}"))
    emit(Note(f"report: {folder / 'report.html'}"))
