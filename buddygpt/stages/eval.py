"""Scores on benchmarks: models through lm-eval, compared item by item, written down and drawn."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import torch
from transformers import PreTrainedTokenizerBase

from buddygpt.data.fingerprints import hash_weights
from buddygpt.data.prepared import read_prepared
from buddygpt.data.staging import CONTAMINATED
from buddygpt.data.tokenizer import load_tokenizer
from buddygpt.evaluation.bench import Ready, find, make
from buddygpt.evaluation.catalog import Benchmark, data_of, load_benchmark
from buddygpt.evaluation.sandbox.protections import allowed, protections
from buddygpt.evaluation.scoreboard import Asked, Marks, marks, paired, scores_of
from buddygpt.evaluation.session import Fitted, Settings, examine
from buddygpt.evaluation.targets import Target, find_targets, see_writable
from buddygpt.evaluation.wording import tasks_of
from buddygpt.events import Caution, Emit, Note
from buddygpt.model.interop import load
from buddygpt.recipe.data import DemoSource
from buddygpt.recipe.errors import BuddyError
from buddygpt.recipe.hub import HubSection
from buddygpt.recipe.loader import load_recipe
from buddygpt.recipe.runs import Run, write_atomically
from buddygpt.recipe.schema import Chapter
from buddygpt.report.evaluation import Evaluation, comparison_table, write_evaluation
from buddygpt.report.scores import Measured, Score, measured_in, plain
from buddygpt.report.scoretable import markdown_table, terminal_table
from buddygpt.training.reference import weights_hash

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Options:
    """What the user may choose beside targets and tasks.

    Args:
        settings: how models are asked.
        data_dir: a folder with the benchmarks' files.
        device: torch's name; the accelerator, or the CPU without one, where left out.
        dtype: fp32, bf16 or fp16; bf16 on an accelerator that has it, fp32 elsewhere, where left out.
        output: where results go; into the run of the model where left out.
        samples: also write every item with its answer.
        hub: where data is fetched from.
        allow_code: programs that a model writes may be run.
    """

    settings: Settings = field(default_factory=Settings)
    data_dir: Path | None = None
    device: str | None = None
    dtype: str | None = None
    output: Path | None = None
    samples: bool = False
    hub: HubSection = field(default_factory=HubSection)
    allow_code: bool = False


def run(
    names: Sequence[str], tasks: Sequence[str], runs: Path, cache: Path, options: Options, emit: Emit
) -> list[Measured]:
    """Ask models, write `results.json`, `samples/` and `report.html`, and tell the scores.

    Args:
        names: folders, runs or hub ids; the newest finished model where there are none.
        tasks: names of benchmarks.
        runs: where runs lie.
        cache: where rows of benchmarks lie.
        options: what else was chosen.
        emit: who is told.

    Raises:
        BuddyError: a task or model that is not there, data that cannot be had, a model that cannot be asked.
    """
    benchmarks = list({benchmark.name: benchmark for benchmark in map(load_benchmark, tasks)}.values())
    _permit([benchmark.name for benchmark in benchmarks if benchmark.kind == "code"], options.allow_code, emit)
    targets = find_targets(names, runs, options.output, emit)
    together = options.output or runs / "eval"
    see_writable([*(target.folder for target in targets), *([together] if len(targets) > 1 else [])])
    device, dtype = choose(options.device, options.dtype)
    ready = {
        benchmark.name: find(benchmark, options.data_dir, options.hub, cache, emit)
        for benchmark in benchmarks
        if not benchmark.built_in
    }
    rows, found = [], []
    for target in targets:
        if len(targets) > 1:
            emit(Note(f"model: {target.name}"))
        seed = _world(target.run)
        if target.run is None and any(benchmark.name == "demo" for benchmark in benchmarks):
            emit(Note(f"{target.name}: lies in no run, so that demo asks about the world of seed 0"))
        own_ready = [make(one, seed, cache) if one.built_in else ready[one.name] for one in benchmarks]
        measured, own = _ask(target, own_ready, device, dtype, options, emit)
        rows.append(measured)
        found.append(own)
    emit(terminal_table(rows, "scores"))
    comparisons = [
        paired(asked.task, asked.metric, (a.model, first[asked.task][1]), (b.model, second[asked.task][1]))
        for (a, first), (b, second) in itertools.combinations(zip(rows, found, strict=True), 2)
        for asked, _ in first.values()
    ]
    if comparisons:
        emit(comparison_table(comparisons, "compared item by item"))
    if len(targets) > 1:
        together.mkdir(parents=True, exist_ok=True)
        write_atomically(
            together / "comparison.json",
            json.dumps(
                {"rows": [*map(plain, rows)], "pairs": [*map(plain, comparisons)]}, ensure_ascii=False, indent=1
            ),
        )
        page = together / "report.html"
        title = " / ".join(row.model for row in rows)
        write_evaluation(page, Evaluation(title, rows, comparisons, _facts(own_ready, device, dtype, options)))
        emit(Note(f"report: {page}"))
    return rows


def _permit(code: Sequence[str], allow: bool, emit: Emit) -> None:
    """See that programs may be run, and tell what contains them.

    Raises:
        BuddyError: nobody allowed it, or they cannot be contained here.
    """
    if code and not allow:
        raise BuddyError(
            f"{', '.join(code)}: runs programs that the model writes; add --allow-code-execution, and see in "
            "docs/evaluation.md what contains them"
        )
    if code:
        emit(Note(f"programs run contained: {', '.join(protections())}"))


def choose(device: str | None, dtype: str | None) -> tuple[torch.device, str]:
    """Where and in which type models compute.

    Raises:
        BuddyError: there is no such device, or it does not compute in that type.
    """
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    try:
        chosen = torch.device(device) if device else accelerator or torch.device("cpu")
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError) as error:
        known = f"{accelerator}, cpu" if accelerator else "cpu"
        raise BuddyError(f"--device {device}: {str(error).splitlines()[0][:120]}; here there is {known}") from None
    half = chosen.type != "cpu" and (chosen.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False))
    name = dtype or ("bf16" if half else "fp32")
    if name not in DTYPES:
        raise BuddyError(f"--dtype {name}: one of {', '.join(DTYPES)}")
    if name == "fp16" and chosen.type == "cpu":
        raise BuddyError("--dtype fp16: needs a GPU; bf16 or fp32 on a CPU")
    return chosen, name


def _ask(
    target: Target, ready: Sequence[Ready], device: torch.device, dtype: str, options: Options, emit: Emit
) -> tuple[Measured, dict[str, tuple[Asked, Marks]]]:
    """One model's scores, written down; and every item's part in them, by task."""
    tokenizer = load_tokenizer(str(target.source))
    model = load(target.source).to(device, DTYPES[dtype]).eval()
    kept = target.folder / f"answers-{_identity(model, tokenizer, device, dtype)}.jsonl"
    for other in target.folder.glob(f"answers-{'[0-9a-f]' * 16}.jsonl"):
        if other != kept:
            other.unlink()  # of weights that are no longer there
    runs_code = any(one.benchmark.kind == "code" for one in ready)
    with allowed() if runs_code else nullcontext():
        results, fitted = examine(model, tokenizer, ready, options.settings, kept, emit)
    asked = [_asked(one, target.run) for one in fitted]
    facts = _facts(ready, device, dtype, options)
    settings = dict(facts["settings"]) | {"lm_eval": version("lm_eval")}
    scores = map(partial(_with_readings, results), fitted, scores_of(results, asked))
    measured = Measured(target.name, tuple(replace(score, settings=settings) for score in scores))
    _write(target, results, measured, facts, options.samples)
    for score in measured.scores:
        if score.contaminated:
            emit(
                Caution(f"{score.task}: {score.contaminated:,} training documents held pieces of it, and were left out")
            )
    page = target.folder / "report.html"
    write_evaluation(page, Evaluation(target.name, [measured], (), facts))
    emit(Note(f"report: {page}"))
    return measured, {one.task: (one, marks(results, one)) for one in asked}


def _asked(one: Fitted, run: Run | None) -> Asked:
    plan, benchmark = one.plan, one.plan.ready.benchmark
    return Asked(
        task=benchmark.name, root=next(iter(tasks_of(benchmark))), metric=plan.metric, chance=benchmark.chance,
        shots=None if benchmark.kind == "text" else plan.shots, chat=plan.chat, cut=one.cut,
        contaminated=_contaminated(benchmark, run),
    )  # fmt: skip


def _world(run: Run | None) -> int:
    """Seed of the demo world that a run was trained on; 0 where it was not."""
    recipe = load_recipe(run.path / "recipe.yaml") if run else None
    sources = recipe.data.sources if recipe and recipe.data else ()
    return next((source.seed for source in sources if isinstance(source, DemoSource)), 0)


def _identity(model: Any, tokenizer: PreTrainedTokenizerBase, device: torch.device, dtype: str) -> str:
    """What answers hang on beside the prompt."""
    text = json.dumps([tokenizer.get_vocab(), tokenizer.special_tokens_map], sort_keys=True, default=str)
    parts = (weights_hash(model), model.config.to_json_string(), text, device.type, dtype, version("lm_eval"))
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=8).hexdigest()


def _with_readings(results: dict[str, Any], one: Fitted, score: Score) -> Score:
    """A score with what other readings of the same rows give, such as another way to find an answer in a text."""
    _, *others = tasks_of(one.plan.ready.benchmark)
    readings = {
        f"{name}: {metric.removesuffix(',none')}": float(value)
        for name in others
        for metric, value in results["results"][name].items()
        if "," in metric and "_stderr," not in metric
    }
    return replace(score, extra={**score.extra, **readings})


def _contaminated(benchmark: Benchmark, run: Run | None) -> int | None:
    """Training documents of a run that held pieces of a benchmark and were left out; None where nobody looked."""
    _, data = data_of(benchmark)
    names = {benchmark.name, *benchmark.aliases, *(name.partition(".")[0] for name in (data.local if data else ()))}
    reasons, count = {f"{CONTAMINATED} {name}" for name in names}, None
    for chapter in get_args(Chapter):
        prepared = read_prepared(run.data(chapter)) if run else None
        if prepared is None or not names & (prepared.manifest["decontaminate"] or {}).get("sets", {}).keys():
            continue
        dropped = [source["dropped"] for source in prepared.manifest["sources"].values()]
        count = (count or 0) + sum(drops[reason]["count"] for drops in dropped for reason in reasons & drops.keys())
    return count


def _facts(
    ready: Sequence[Ready], device: torch.device, dtype: str, options: Options
) -> dict[str, list[tuple[str, str]]]:
    settings = options.settings
    limit = ""
    if settings.limit is not None:
        limit = f"{settings.limit:.0%}" if settings.share else f"{settings.limit:g} of each subject"
    versions = {name: version(name) for name in ("buddygpt", "lm_eval", "torch", "transformers", "datasets")}
    how = [
        ("device", str(device)),
        ("dtype", dtype),
        ("batch", str(settings.batch_size or "as memory allows")),
        *([("items", f"{limit}, drawn with seed {settings.seed}")] if limit else []),
        ("date", datetime.now().astimezone().isoformat(timespec="minutes")),
    ]
    mind = [(one.benchmark.name, line) for one in ready for line in one.benchmark.warnings if not line.startswith("?")]
    return {
        "settings": how,
        "data": [(one.benchmark.name, _source(one)) for one in ready],
        **({"to mind": mind} if mind else {}),
        "versions": list(versions.items()),
    }


def _source(one: Ready) -> str:
    """Where rows come from, and under which licence."""
    _, data = data_of(one.benchmark)
    return f"{one.source}; {data.licence}" if data and data.licence else one.source


def _write(target: Target, results: dict[str, Any], measured: Measured, facts: Any, samples: bool) -> None:
    """`results.json` in lm-eval's layout with our scores beside, `scores.md`, and items, a file a task.

    lm-eval's part is this command's. Of our scores those stay beside that earlier commands gave of the same weights in
    other tasks.

    Raises:
        BuddyError: the folder cannot be written.
    """
    from lm_eval.utils import handle_non_serializable

    items = results["samples"]
    whole = {key: value for key, value in results.items() if key != "samples"}
    whole["config"] |= {key: value for key, value in facts["settings"] if key in ("device", "dtype")}
    file = target.folder / "results.json"
    weights = hash_weights(target.source) if isinstance(target.source, Path) else None
    earlier = measured_in(file, weights) if weights else None
    others = [score for score in (earlier.scores if earlier else ()) if not measured.score(score.task)]
    known = replace(measured, scores=(*others, *measured.scores))
    whole["buddygpt"] = plain(known) | {"weights": weights, "facts": facts}
    try:
        target.folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(whole, ensure_ascii=False, indent=1, default=handle_non_serializable)
        write_atomically(file, text)
        write_atomically(target.folder / "scores.md", markdown_table([known]))
        if samples:
            (target.folder / "samples").mkdir(exist_ok=True)
            for task, rows in items.items():
                lines = [json.dumps(row, ensure_ascii=False, default=handle_non_serializable) for row in rows]
                write_atomically(target.folder / "samples" / f"{task}.jsonl", "".join(line + "\n" for line in lines))
    except OSError as error:
        raise BuddyError(
            f"{target.folder}: cannot be written: {error.strerror}; choose another with --output"
        ) from None
