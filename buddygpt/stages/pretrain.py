"""Pretraining: prepared text in, a model folder out."""

from __future__ import annotations

import json
import shlex
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import GenerationConfig, PreTrainedTokenizerBase, set_seed

from buddygpt.data import demo
from buddygpt.data.baseline import ngram_baseline
from buddygpt.data.prepare import Prepared, find_prepared, prepare
from buddygpt.data.windows import Mixture, StreamWindows, TokenStream, Window, evaluation_windows
from buddygpt.events import Caution, Emit, Note, Table
from buddygpt.model import BuddyGPTConfig, BuddyGPTForCausalLM
from buddygpt.recipe.base import spell_bytes
from buddygpt.recipe.data import DemoSource, source_name
from buddygpt.recipe.errors import BuddyError, is_disk_full
from buddygpt.recipe.geometry import count_parameters
from buddygpt.recipe.runs import Run, dump_yaml, free_bytes, write_atomically
from buddygpt.recipe.schema import Recipe
from buddygpt.report.page import Report, load_rows, write_report
from buddygpt.training import checkpoints
from buddygpt.training.balance import Balance
from buddygpt.training.callbacks import Brake, Meter, Samples, Seal
from buddygpt.training.facts import checkpoint_bytes, memory_rows, model_rows, training_attention, training_rows
from buddygpt.training.setup import (
    accumulation_steps,
    check_precision,
    find_device,
    launched_processes,
    versions,
)
from buddygpt.training.trainer import HeldOut, PretrainTrainer

SECTIONS = ("model", "tokenizer", "data", "pretrain")
"""Sections of a recipe that decide what pretraining does."""
ORIGIN = "origin.json"
"""In each checkpoint: the prepared text and the versions it was made with."""


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
    run.check(recipe, *SECTIONS)
    folder = run.chapter("pretrain")
    if (finished := _finished(folder, emit)) is not None:
        return finished
    start = _start(folder / "checkpoints", resume)
    device = find_device()
    check_precision(section, device)
    training_attention(recipe, device)
    accumulation = accumulation_steps(section, device.processes)
    _check_space(recipe, folder)
    prepared = _prepared(recipe, cache, emit)
    if start:
        _check_same_text(start, prepared)
    tokenizer = prepared.tokenizer()
    training, held_out, ends = _texts(recipe, prepared, tokenizer)
    run.claim(recipe, *SECTIONS)
    run.link_data(prepared.path)

    windows = Mixture(
        [StreamWindows(stream, section.sequence_length) for stream in training],
        [s.relative_weight for s in recipe.data.sources if source_name(s) in {t.name for t in training}],
        section.steps * section.tokens_per_batch // section.sequence_length,
        section.seed,
    )
    set_seed(section.seed)
    model = _fresh_model(recipe, tokenizer)
    baseline = ngram_baseline(training, ends, tokenizer, prepared.path / "baseline.json")
    built_with = versions()
    facts = {
        "model": model_rows(recipe),
        "training": training_rows(recipe, device, accumulation),
        "memory": memory_rows(recipe, device),
        "data": [(name, f"{epochs:.2f} epochs") for name, epochs in windows.epochs().items()]
        + [("shards", prepared.path.name)],
        "versions": list(built_with.items()),
    }
    _tell_plan(recipe, facts, baseline, windows, emit)

    folder.mkdir(parents=True, exist_ok=True)
    step = checkpoints.step_of(start) if start else 0
    brake = Brake()
    balance = Balance()
    meter = Meter(folder / "metrics.jsonl", section, emit, step, balance.figures)
    samples = Samples(_prompts(recipe), tokenizer, folder / "samples.jsonl", emit, step)
    origin = {"prepared": prepared.path.name, "versions": built_with}
    seal = Seal(
        {"recipe.yaml": dump_yaml(recipe.as_dict()), ORIGIN: json.dumps(origin, indent=1)}, section.keep_checkpoints
    )
    trainer = PretrainTrainer(
        model,
        tokenizer,
        section,
        windows,
        held_out,
        folder / "checkpoints",
        [balance, samples, brake, seal, meter],
        accumulation,
    )
    if start:
        emit(Note(f"going on from {start.name}"))
    with _brake_on_signals(brake, emit), _disk_full(folder):
        trainer.train(resume_from_checkpoint=str(start) if start else None)
    step = trainer.state.global_step
    metrics = {k: v for k, v in meter.latest.items() if k.startswith("eval/")}
    done = step >= section.steps
    if trainer.is_world_process_zero():
        with _disk_full(folder):
            if done:
                _save(model, tokenizer, folder / "model")
            write_report(folder / "report.html", _report(run, facts, meter, folder, baseline, done))
            if done:
                record = {"step": step, "metrics": metrics, "baseline": baseline, "recipe": recipe.digest(*SECTIONS)}
                write_atomically(folder / "done.json", json.dumps(record, indent=1))
        _tell_end(folder, metrics, baseline, samples.latest, done, emit)
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


def _finished(folder: Path, emit: Emit) -> PretrainResult | None:
    file = folder / "done.json"
    if not file.is_file():
        return None
    record = json.loads(file.read_text("utf-8"))
    emit(Note(f"{folder}: finished already at step {record['step']}; the model is {folder / 'model'}"))
    return PretrainResult(True, record["step"], folder / "model", record["metrics"], record["baseline"])


def _start(folder: Path, resume: bool) -> Path | None:
    """The checkpoint to go on from."""
    newest = checkpoints.newest_checkpoint(folder)
    if newest is not None and not resume:
        raise BuddyError(
            f"{folder.parent}: an unfinished run is there, saved at step {checkpoints.step_of(newest)}; "
            "go on with --resume, choose another folder with --run, or remove it"
        )
    return newest


def _check_same_text(start: Path, prepared: Prepared) -> None:
    """See that the text is what the checkpoint was trained on: its sources may have changed since."""
    before = json.loads((start / ORIGIN).read_text("utf-8"))["prepared"]
    if before != prepared.path.name:
        raise BuddyError(
            f"{start}: was trained on other text (prepared as {before}, now {prepared.path.name}): a source or the "
            "tokenizer has changed; bring it back, or train anew under another name (--set name=...)"
        )


def _check_space(recipe: Recipe, folder: Path) -> None:
    """See that the checkpoints that will lie on disk at once fit: weights and two moments, in fp32."""
    assert recipe.pretrain is not None
    parameters = count_parameters(recipe.model).total
    kept = recipe.pretrain.keep_checkpoints + 1  # the new one is whole before the oldest goes
    need = kept * checkpoint_bytes(parameters) + 4 * parameters
    free = free_bytes(folder)
    if free < need:
        raise BuddyError(
            f"{folder}: {spell_bytes(need)} are needed for {kept} checkpoints and the model, {spell_bytes(free)} free; "
            "free some, choose another folder with --run, or lower pretrain.keep_checkpoints"
        )


def _prepared(recipe: Recipe, cache: Path, emit: Emit) -> Prepared:
    if launched_processes() == 1:
        return prepare(recipe, cache, emit)
    prepared = find_prepared(recipe, cache)
    if prepared is None:
        raise BuddyError(f"{recipe.name}: the data are not prepared; run `buddy data RECIPE` once, then this again")
    return prepared


def _texts(
    recipe: Recipe, prepared: Prepared, tokenizer: PreTrainedTokenizerBase
) -> tuple[list[TokenStream], list[HeldOut], list[tuple[TokenStream, int]]]:
    """Training streams, held-out texts, and each held-out stream with the token where its judged part stops."""
    assert recipe.data is not None and recipe.pretrain is not None
    eos = tokenizer.eos_token_id
    training, held_out, ends = [], [], []
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
    return training, held_out, ends


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
        if epochs > 8:
            emit(
                Caution(
                    f"{name} is read {epochs:.1f} times; beyond about four, repeating teaches little (arXiv 2305.16264)"
                )
            )


@contextmanager
def _brake_on_signals(brake: Brake, emit: Emit) -> Iterator[None]:
    """Ctrl-C or a scheduler's SIGTERM ends the run after its step, saved; a second one ends it at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def pull(number: int, frame: Any) -> None:
        if brake.pulled:
            raise KeyboardInterrupt
        brake.pulled = True
        emit(Note("finishing this step, then saving; once more to stop at once"))

    before = {number: signal.signal(number, pull) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _disk_full(folder: Path) -> Iterator[None]:
    """Tell of a full disk in one line."""
    try:
        yield
    except Exception as error:
        if not is_disk_full(error):
            raise
        whole = checkpoints.whole_checkpoints(folder / "checkpoints")
        kept = f"{whole[-1].name} is whole" if whole else "no checkpoint is whole yet"
        raise BuddyError(f"{folder}: no space left; {kept}; free some space and go on with --resume") from error


def _save(model: BuddyGPTForCausalLM, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Model, tokenizer and generation settings, whole or not at all."""
    temporary = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    model.save_pretrained(temporary)
    tokenizer.save_pretrained(temporary)
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)


def _report(run: Run, facts: Any, meter: Meter, folder: Path, baseline: dict[str, float], done: bool) -> Report:
    again = ("buddy", "pretrain", str(run.path / "recipe.yaml"), "--run", str(run.path), "--resume")
    command = shlex.join(("buddy", "chat", str(folder / "model")) if done else again)
    return Report(
        title=run.name,
        facts=facts,
        metrics=meter.rows,
        samples=load_rows(folder / "samples.jsonl"),
        baselines=baseline,
        command=command,
        finished=done,
    )


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
