"""Preference tuning: pairs of a better and a worse answer in, a model that prefers the better ones out."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase, set_seed

from buddygpt.data import demo
from buddygpt.data.length_bias import compare_lengths
from buddygpt.data.lengths import Openings
from buddygpt.data.prepared import Prepared
from buddygpt.data.talks import PairRows, encode_pairs, sample_weights
from buddygpt.data.tokenizer import DocumentEncoder, chat_ends
from buddygpt.data.windows import Mixture
from buddygpt.evaluation.judgement import change_table, changes, guessing, judge_model
from buddygpt.evaluation.kl import kl_to_reference
from buddygpt.events import Caution, Emit, Note, Table
from buddygpt.model.cost import as_section
from buddygpt.model.generation import stop_ids
from buddygpt.recipe.data import source_name
from buddygpt.recipe.dpo import DPOSection
from buddygpt.recipe.errors import BuddyError
from buddygpt.recipe.runs import Run, dump_yaml
from buddygpt.recipe.schema import Recipe
from buddygpt.report.page import Report, load_rows, write_report
from buddygpt.report.tuning import Tuning, tuning_cautions
from buddygpt.training import chapter, checkpoints
from buddygpt.training.balance import Balance
from buddygpt.training.base import find_base, settle_ends
from buddygpt.training.callbacks import Brake, Meter, Samples, Seal
from buddygpt.training.dpo import DPOTrainer
from buddygpt.training.facts import Work, attention_rows, common_rows, memory_rows, model_rows
from buddygpt.training.lora import merged
from buddygpt.training.pace import Pace, tuning_pace
from buddygpt.training.reference import weights_hash
from buddygpt.training.setup import check_precision, find_device, versions
from buddygpt.training.tuning import (
    chapters_before,
    demo_seeds,
    first_figures,
    prepare_rows,
    tell_cuts,
    tell_epochs,
    tell_intake,
)

SHOWN = 3
"""Held-out prompts that the model answers at each evaluation."""
UNSEEN = "facts held out"
"""What pairs about facts that training never asks for are called in the figures."""
KL_PROMPTS, KL_TOKENS = 32, 128
"""Held-out prompts on which the distance to the reference is measured, and most tokens of a reply to each."""


@dataclass(frozen=True)
class DPOResult:
    """How preference tuning ended.

    Args:
        finished: the whole run was trained, and `model` holds the result.
        step: optimizer steps done.
        model: folder of the finished model.
        metrics: final held-out figures, `eval/SOURCE/accuracy` and others.
        before, after: figures of `judge_model`, of the model that it began with and of the result.
    """

    finished: bool
    step: int
    model: Path
    metrics: dict[str, float]
    before: dict[str, float]
    after: dict[str, float]


def run(recipe: Recipe, run: Run, *, cache: Path, resume: bool, emit: Emit) -> DPOResult:
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
    run.check_chapter(recipe, "dpo")
    folder = run.chapter("dpo")
    if (done := chapter.finished(folder, emit)) is not None:
        return DPOResult(True, done["step"], folder / "model", done["metrics"], done["before"], done["after"])
    start = chapter.start_from(folder, resume)
    device = find_device()
    check_precision(section, device, "dpo")
    base = find_base(section, run, "dpo")
    tokenizer = base.tokenizer
    prepared = prepare_rows(recipe, cache, "dpo", tokenizer, emit)
    tell_intake(prepared, emit)
    model = base.load(section)
    length = _length(section, model.config.max_position_embeddings)
    origin = {"prepared": prepared.path.name, "model": weights_hash(model), "versions": versions()}
    if start:
        chapter.check_origin(start, origin)
    encoder = DocumentEncoder(tokenizer)
    training, judged = _pairs(prepared, section, length, Openings.of(encoder))
    tell_cuts([*training, *judged], emit)
    bias = compare_lengths(*np.concatenate([source.lengths for source in training]).T.tolist())
    if bias.warning:
        emit(Caution(bias.warning))
    pairs, pace = _mixture(training, section, device.processes)
    chapter.check_space(model.num_parameters(), section.keep_checkpoints, folder, "dpo")
    run.claim_chapter(recipe, "dpo")
    run.link_data(prepared.path, "dpo")
    set_seed(section.seed)
    work = Work("dpo", as_section(model.config), section, length, True, device)
    facts = {
        "model": [("began with", str(base.source)), *model_rows(work.model)],
        "training": _training_rows(work, training, pace),
        "memory": memory_rows(work, "pairs"),
        "data": [(name, f"{epochs:.2f} epochs") for name, epochs in pairs.epochs().items()]
        + [
            ("tokens of the chosen answer", f"{bias.chosen_mean:.0f} on average, {bias.chosen_median:.0f} median"),
            ("of the rejected answer", f"{bias.rejected_mean:.0f} on average, {bias.rejected_median:.0f} median"),
            ("chosen answer is longer", f"in {bias.longer:.1%} of the pairs"),
            ("rows", prepared.path.name),
        ],
        "versions": list(origin["versions"].items()),
    }
    for heading in ("model", "training", "memory", "data"):
        emit(Table(heading, ("", ""), tuple(facts[heading])))
    tell_epochs(pairs.epochs(), emit)

    folder.mkdir(parents=True, exist_ok=True)
    prompts = [pair["prompt_ids"] for source in judged for pair in source]
    seeds = demo_seeds(section.data)
    room, began = model.config.max_position_embeddings, "sft" if section.model is None else "before"
    before = first_figures(folder, lambda: judge_model(model, tokenizer, prompts, seeds, room), start is not None)
    step = checkpoints.step_of(start) if start else 0
    brake = Brake()
    # The selection bias of experts is the reference's too where adapters are all that learns: it must not move.
    balance = Balance() if section.lora is None else None
    meter = Meter("dpo", folder / "metrics.jsonl", pace, emit, step, balance.figures if balance else None)
    shown = prompts[:SHOWN]
    texts = tokenizer.batch_decode(shown, skip_special_tokens=False)
    samples = Samples(texts, shown, tokenizer, folder / "samples.jsonl", emit, step)
    recipe_text = dump_yaml(recipe.as_dict())
    seal = Seal({"recipe.yaml": recipe_text, chapter.ORIGIN: json.dumps(origin, indent=1)}, section.keep_checkpoints)
    trainer = DPOTrainer(
        model,
        tokenizer,
        section,
        pairs,
        {source.name: source for source in judged} | _unseen(seeds, section.eval_pairs, encoder),
        folder / "checkpoints",
        [*([balance] if balance else []), samples, brake, seal, meter],
        pace,
        cache / "reference",
        emit,
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
                metrics |= _distance(tuned, base.load(section), tokenizer, prompts, length, section.seed)
                chapter.save(tuned, tokenizer, folder / "model")
            earlier = chapters_before(run) if section.model is None else {}
            columns = guessing(seeds) | earlier
            columns[began] = earlier.get(began, {}) | before
            columns |= {"dpo": after} if after else {}
            tuning = Tuning(
                "dpo",
                change_table(columns),
                before,
                after,
                kl=(metrics["kl/reply"], metrics["kl/token"]) if "kl/reply" in metrics else None,
                first_loss=math.log(2) if section.loss_type == ["sigmoid"] else None,
            )
            write_report(folder / "report.html", _report(run, facts, meter, folder, tuning, finished))
            if finished:
                chapter.record(
                    folder,
                    step=step,
                    metrics=metrics,
                    began=began,
                    before=before,
                    after=after,
                    recipe=recipe.digest("dpo"),
                )
        for _, caution in tuning_cautions(meter.rows, tuning):
            emit(Caution(caution))
        _tell_end(folder, metrics, columns, finished, emit)
    return DPOResult(finished, step, folder / "model", metrics, before, after)


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


def _mixture(training: Sequence[PairRows], section: DPOSection, processes: int) -> tuple[Mixture[Any], Pace]:
    """All pairs of the run in their order, and its pace."""
    by_name = {source_name(source): source.weight for source in section.data.sources}
    weights = sample_weights(training, [by_name[source.name] for source in training])
    per_pair = sum(w * s.tokens / len(s) for w, s in zip(weights, training, strict=True)) / sum(weights)
    samples = sum(source.tokens for source in training) / per_pair
    pace = tuning_pace(section, "dpo", samples, processes, lambda count: round(count * per_pair))
    return Mixture(training, weights, pace.steps * section.batch_size, section.seed), pace


def _training_rows(work: Work, training: Sequence[PairRows], pace: Pace) -> list[tuple[str, str]]:
    section = work.section
    assert isinstance(section, DPOSection)
    rows = common_rows(work)
    if section.lora is not None:
        rows.append(("low-rank updates", f"rank {section.lora.rank}"))
    return [
        *rows,
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


def _report(run: Run, facts: Any, meter: Meter, folder: Path, tuning: Tuning, done: bool) -> Report:
    again = ("buddy", "dpo", str(run.path / "recipe.yaml"), "--run", str(run.path), "--resume")
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


def _tell_end(
    folder: Path, metrics: dict[str, float], columns: dict[str, dict[str, float]], finished: bool, emit: Emit
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
    if finished:
        emit(Table("what each stage changed", ("", *columns), tuple(changes(columns))))
        emit(Note(f"model:  {folder / 'model'}"))
    emit(Note(f"report: {folder / 'report.html'}"))
