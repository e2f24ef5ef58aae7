"""Pretraining: prepared text in, a model folder out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import GenerationConfig, PreTrainedTokenizerBase, set_seed

from buddygpt.data import demo
from buddygpt.data.baseline import ngram_baseline
from buddygpt.data.prepare import Prepared
from buddygpt.data.windows import Mixture, Passing, StreamWindows, TokenStream, Window, evaluation_windows
from buddygpt.events import Caution, Emit, Note, Table
from buddygpt.model import BuddyGPTConfig, BuddyGPTForCausalLM
from buddygpt.recipe.data import DemoSource, source_name
from buddygpt.recipe.runs import Run
from buddygpt.recipe.schema import PRETRAINING, Recipe
from buddygpt.report.chapters import Kept
from buddygpt.training import beginnings, chapter
from buddygpt.training.alone import alone, hold
from buddygpt.training.branch import branch_point, origin_of, take_history
from buddygpt.training.compiled import check_compile
from buddygpt.training.facts import Work, memory_rows, model_rows, training_rows
from buddygpt.training.launch import rank
from buddygpt.training.pace import READ_OFTEN, pretraining_pace
from buddygpt.training.parallel import whole
from buddygpt.training.setup import check_parallel, check_precision, find_device, versions
from buddygpt.training.trackers import check_trackers
from buddygpt.training.trainer import HeldOut, PretrainTrainer
from buddygpt.training.troubles import safe_writing


@dataclass(frozen=True)
class PretrainResult:
    """How pretraining ended.

    Args:
        finished: the whole budget was trained, and `model` holds the result.
        step: optimizer steps done.
        model: folder of the finished model.
        metrics: final held-out figures, `eval/SOURCE/bits_per_character` and others.
        baseline: bits per character of a 5-gram model, by source.
    """

    finished: bool
    step: int
    model: Path
    metrics: dict[str, float]
    baseline: dict[str, float]


@alone()
def run(recipe: Recipe, run: Run, *, cache: Path, resume: bool, emit: Emit) -> PretrainResult:
    """Train the recipe's model from scratch.

    Args:
        recipe: with `data` and `pretrain` sections.
        run: the run directory.
        cache: where prepared shards lie.
        resume: go on from the newest whole checkpoint.
        emit: who is told.

    Raises:
        BuddyError: something the user can mend; what is on disk stays as it was.
    """
    recipe.require("pretrain", "pretrain", "data")
    assert recipe.pretrain is not None and recipe.data is not None
    section = recipe.pretrain
    changed = run.check(recipe, *PRETRAINING)
    folder = run.chapter("pretrain")
    if (done := beginnings.finished(folder, emit)) is not None:
        return PretrainResult(True, done["step"], folder / "model", done["metrics"], done["baseline"])
    check_trackers(section, "pretrain")
    start = beginnings.start_from(folder, resume, emit)
    branches = start is None and section.start_from is not None
    if branches:
        start = branch_point(recipe, run, emit)
    device = find_device()
    check_precision(section, device)
    check_compile(section, device)
    check_parallel(section, device)
    work = Work.of_pretraining(recipe, device)
    work.attention()
    pace = pretraining_pace(section, device.processes)
    beginnings.check_space(work, pace.steps, folder)
    prepared = beginnings.prepare_data(recipe, cache, emit)
    origin: dict[str, Any] = {"prepared": prepared.path.name, "versions": versions()}
    if start:
        beginnings.check_origin(start, recipe, origin)
        for change in changed:
            emit(Note(change))
    if start and section.start_from:
        origin["start_from"] = origin_of(start, folder)
    tokenizer = prepared.tokenizer()
    training, held_out, ends, widths = _texts(recipe, prepared, tokenizer)
    if rank() == 0:
        run.claim(recipe, *PRETRAINING)
        hold(folder)
        run.link_data(prepared.path)
        if start and branches:
            with safe_writing(folder):
                take_history(start, folder)

    windows = Mixture(
        [StreamWindows(stream, section.sequence_length) for stream in training],
        [s.relative_weight for s in recipe.data.sources if source_name(s) in {t.name for t in training}],
        section.steps * section.tokens_per_batch // section.sequence_length,
        section.seed,
    )
    set_seed(section.seed)
    model = _fresh_model(recipe, tokenizer)
    baseline = ngram_baseline(training, ends, tokenizer, prepared.path / "baseline.json") if rank() == 0 else {}
    facts = {
        "model": model_rows(recipe.model),
        "training": training_rows(work, pace.accumulation) + _branch_rows(origin),
        "memory": memory_rows(work),
        "data": [(name, f"{epochs:.2f} epochs") for name, epochs in windows.epochs().items()]
        + [("shards", prepared.path.name)],
        "versions": list(origin["versions"].items()),
    }
    _tell_plan(recipe, facts, baseline, windows, emit)
    kept = Kept(facts, baseline, windows.epochs(), widths)

    prompts = [
        (prompt, [tokenizer.eos_token_id, *tokenizer(prompt, add_special_tokens=False)["input_ids"]])
        for prompt in _prompts(recipe)
    ]
    order = Passing(windows)
    watch = chapter.watch(folder, recipe, work, pace, origin, start, order, prompts, tokenizer, emit)
    trainer = PretrainTrainer(model, tokenizer, section, watch.keeper, held_out, watch.callbacks(), pace)
    chapter.begin_page(folder, kept)
    step, metrics = chapter.train(trainer, watch, folder, start, emit)
    done = step >= pace.steps
    result = whole(trainer.accelerator.unwrap_model(trainer.model)) if done else None
    if trainer.is_world_process_zero():
        with safe_writing(folder):
            if done:
                chapter.save(result, tokenizer, folder / "model")
            chapter.page(run, "pretrain", kept, done)
            if done:
                known = {"recipe": recipe.digest(*PRETRAINING)} | {k: v for k, v in origin.items() if k == "start_from"}
                chapter.record(folder, device, origin, step=step, metrics=metrics, baseline=baseline, **known)
        _tell_end(folder, metrics, baseline, watch.samples.latest, done, emit)
    return PretrainResult(done, step, folder / "model", metrics, baseline)


def _fresh_model(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> BuddyGPTForCausalLM:
    """The model with initial weights, and with the settings that it generates by later."""
    backend = recipe.pretrain.attn_implementation if recipe.pretrain else None
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    model = BuddyGPTForCausalLM(
        BuddyGPTConfig.from_recipe(recipe, bos_token_id=None, attn_implementation=backend, **ends)
    )
    model.generation_config = GenerationConfig(do_sample=True, temperature=0.8, top_p=0.95, **ends)
    return model


def _texts(
    recipe: Recipe, prepared: Prepared, tokenizer: PreTrainedTokenizerBase
) -> tuple[list[TokenStream], list[HeldOut], list[tuple[TokenStream, int]], dict[str, float]]:
    """Training streams, held-out texts, each held-out stream with the token where its judged part stops.

    The last are the UTF-8 bytes of a held-out character, by source.
    """
    assert recipe.data is not None and recipe.pretrain is not None
    eos = tokenizer.eos_token_id
    training, held_out, ends = [], [], []
    widths = {}
    for source in recipe.data.sources:
        name = source_name(source)
        stream = TokenStream(name, prepared.open(name, "train"), eos)
        if len(stream):
            training.append(stream)
        stream = TokenStream(name, prepared.open(name, "validation"), eos)
        if len(stream):
            windows, stop = evaluation_windows(stream, recipe.pretrain.sequence_length, recipe.pretrain.eval_tokens)
            ids, _ = stream.read(0, stop)
            text = tokenizer.decode(ids[ids != eos].tolist(), clean_up_tokenization_spaces=False)
            held_out.append(HeldOut(name, windows, stop, len(text)))
            ends.append((stream, stop))
            widths[name] = len(text.encode("utf-8", "replace")) / max(1, len(text))
    return training, held_out, ends, widths


def _branch_rows(origin: dict[str, Any]) -> list[tuple[str, str]]:
    """Where a branch began."""
    began = origin.get("start_from")
    return [("starts from", f"{began['checkpoint']}, step {began['step']:,}")] if began else []


def _prompts(recipe: Recipe) -> list[str]:
    """The recipe's prompts, or those of its demo corpus."""
    assert recipe.data is not None and recipe.pretrain is not None
    if recipe.pretrain.prompts:
        return list(recipe.pretrain.prompts)
    return [p for s in recipe.data.sources if isinstance(s, DemoSource) for p in demo.prompts(s.seed)]


def _tell_plan(recipe: Recipe, facts: Any, baseline: dict[str, float], windows: Mixture[Window], emit: Emit) -> None:
    emit(
        Table(
            recipe.name,
            ("", ""),
            tuple(row for heading in ("model", "training", "memory", "data") for row in facts[heading]),
        )
    )
    for name, bits in baseline.items():
        emit(Note(f"a 5-gram Kneser-Ney model of the same text needs {bits:.3f} bits per character of {name}"))
    for name, epochs in windows.epochs().items():
        if epochs > READ_OFTEN:
            told = "beyond about four, repeating teaches little (arXiv 2305.16264)"
            emit(Caution(f"{name} is read {epochs:.1f} times; {told}"))


def _tell_end(
    folder: Path, metrics: dict[str, float], baseline: dict[str, float], samples: list[Any], done: bool, emit: Emit
) -> None:
    rows = []
    for key, value in metrics.items():
        if key.endswith("/bits_per_character"):
            name = key.split("/")[1]
            ngram = f"{baseline[name]:.3f}" if name in baseline else "-"
            rows.append(
                (
                    name,
                    f"{value:.3f}",
                    ngram,
                    f"{metrics[f'eval/{name}/loss']:.4f}",
                    f"{metrics[f'eval/{name}/perplexity']:.2f}",
                )
            )
    if rows:
        emit(Table("held-out text", ("source", "bits/char", "5-gram", "loss", "perplexity"), tuple(rows)))
    if samples:
        emit(Note("distinct 4-grams of the samples: " + ", ".join(f"{s['distinct_4grams']:.2f}" for s in samples)))
    emit(Note(f"report: {folder / 'report.html'}"))
    if done:
        emit(Note(f"model:  {folder / 'model'}"))
