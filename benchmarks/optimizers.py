"""Optimizers and schedules compared: held-out bits per character of one small model on real text.

Every setting gets the same four peak rates on one seed; the best of them (by the held-out part of the training sources)
goes to three other seeds, which only report. Muon's updates are scaled to the size of AdamW's (arXiv 2502.16982,
section 2.2), so that the four values mean the same to both, and its AdamW part has the same rate. Then the candidate is
trained on ever smaller budgets, its schedule fitted to each, until it is no better than the baseline on all tokens.

    python -m benchmarks optimizers --prepare FOLDER        tokenizer and token arrays of the corpus, some MB
    python -m benchmarks optimizers --data FOLDER --out FILE.json     all runs; needs no corpus; a GPU serves best
    python -m benchmarks optimizers --from FILE.json        the page and its figures
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks.trials import Bench, Setting, Trial, keep_arrays, run_trial
from benchmarks.vocabulary import CORPUS

SOURCES = ("python-docs-zh", "tidb-docs-zh", "javaguide", "php-docs-zh")
OTHER = "d2l-zh"
VOCABULARY = 8192
HELD_OUT_TOKENS = 24_000
"""Most tokens of each held-out part, in whole documents."""
SAME, NEW = "same sources", OTHER
"""The two held-out texts: documents of the training sources that were not trained on, and another book."""

COSINE = {"kind": "cosine", "warmup": 0.05, "min_ratio": 0.1}
WSD = {"kind": "wsd", "warmup": 0.05, "decay": 0.3}
LINEAR = {"kind": "linear", "warmup": 0.05}
SETTINGS = (
    Setting("AdamW + cosine", "adamw", COSINE),
    Setting("AdamW + WSD", "adamw", WSD),
    Setting("AdamW + linear", "adamw", LINEAR),
    Setting("Muon + cosine", "muon", COSINE),
    Setting("Muon + linear", "muon", LINEAR),
    Setting("Muon + WSD", "muon", WSD),
    Setting("Muon + WSD + QK-norm", "muon", WSD, qk_norm=True),
)
BASELINE, CANDIDATE = SETTINGS[0].name, SETTINGS[-1].name
RATES = (1.5e-3, 3e-3, 6e-3, 1.2e-2)
CHOOSING, REPORTING = 100, (0, 1, 2)
"""Seeds: the one on which rates are chosen, those that report."""
BUDGETS = (0.2, 0.3, 0.5, 0.7)
"""Shares of the tokens; all of them is among the runs of the seeds already."""

GEOMETRY = {
    "vocab_size": VOCABULARY, "hidden_size": 320, "num_hidden_layers": 6, "max_position_embeddings": 256,
    "num_attention_heads": 5, "num_key_value_heads": 5, "intermediate_size": 864,
}  # fmt: skip
TOKENS, BATCH = 3 * 2**20, 2**13
TOY = GEOMETRY | {
    "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1,
    "intermediate_size": 48,
}  # fmt: skip


def options() -> argparse.ArgumentParser:
    """What the command takes beside the benchmark's name."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks optimizers")
    parser.add_argument("--prepare", type=Path, metavar="FOLDER", help="write tokenizer and arrays here and stop")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="what --prepare wrote")
    parser.add_argument("--out", type=Path, metavar="FILE", help="all runs as JSON, written after each")
    parser.add_argument("--from", type=Path, metavar="FILE", dest="source", help="draw the page of these runs")
    parser.add_argument("--tokens", type=int, default=TOKENS, help="of a whole run")
    parser.add_argument("--rates", type=float, nargs=4, default=RATES, help="the four peak rates")
    parser.add_argument("--workers", type=int, help="runs at once; 1 on a CPU, 10 on a GPU where left out")
    parser.add_argument("--attention", default="auto", help="attn_implementation")
    parser.add_argument("--quick", action="store_true", help="a toy model for seconds: to see that all works")
    return parser


def run(
    prepare: Path | None, data: Path | None, out: Path | None, source: Path | None, tokens: int,
    rates: Sequence[float], workers: int | None, attention: str, quick: bool,
) -> tuple[str, str] | None:  # fmt: skip
    """Prepare, train, or draw; arguments as `options` has them.

    Returns:
        The page and what was measured on, where a page was asked for.
    """
    if prepare:
        return _prepare(prepare)
    if source:
        from benchmarks.optimizers_page import page

        return page(json.loads(source.read_text("utf-8")))
    if data is None or out is None:
        options().error("give --prepare FOLDER, or --data FOLDER and --out FILE, or --from FILE")
    if quick:
        bench, tokens = Bench(data, TOY, 64, 512, 8, 2000), 20 * 512
    else:
        bench = Bench(data, GEOMETRY, 256, BATCH, 32, 10**6)
    _run_all(replace(bench, attention=attention), tokens, tuple(rates), workers, out)
    return None


def _run_all(bench: Bench, tokens: int, rates: Sequence[float], workers: int | None, out: Path) -> None:
    """All runs, in three rounds: alone and timed, rates, then seeds and budgets; those in `out` are not repeated."""
    from benchmarks.__main__ import machine

    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before the workers import torch
    import torch

    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    workers = workers or (10 if gpu else 1)
    found: dict[str, Any] = {
        "machine": machine() + (f" {gpu}, up to {workers} runs at once." if gpu else f" Up to {workers} runs at once."),
        "bench": asdict(bench) | {"data": bench.data.name},
        "facts": json.loads((bench.data / "facts.json").read_text("utf-8")),
        "parameters": _parameters(bench), "tokens": tokens, "rates": list(rates), "trials": [],
    }  # fmt: skip
    before: dict[tuple[Any, ...], dict[str, Any]] = {}
    if out.is_file():
        earlier = json.loads(out.read_text("utf-8"))
        if any(earlier[key] != found[key] for key in ("facts", "parameters", "tokens", "rates")):
            raise SystemExit(f"{out}: has runs of another comparison; give another --out")
        before = {tuple(t[k] for k in KEY): t for t in earlier["trials"]}
        found["minutes"] = earlier["minutes"]
    began = time.monotonic() - 60 * found.get("minutes", 0)
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:

        def finish(trials: Sequence[Trial], at_once: bool = True) -> list[dict[str, Any]]:
            done = [t for t in before.values() if any(_is(t, trial) for trial in trials)]
            found["trials"] += done
            trials = [trial for trial in trials if not any(_is(t, trial) for t in done)]
            groups = [trials] if at_once else [[trial] for trial in trials]
            for group in groups:
                futures = [pool.submit(run_trial, bench, trial) for trial in group]
                for future in as_completed(futures):
                    done.append(future.result())
                    found["trials"].append(done[-1])
                    found["minutes"] = (time.monotonic() - began) / 60
                    out.write_text(json.dumps(found), "utf-8")
                    _tell(done[-1], len(found["trials"]), found["minutes"])
            return done

        timed = finish([Trial("time", s, rates[0], CHOOSING, tokens) for s in SETTINGS], at_once=False)
        if broken := next((t for t in timed if t["error"]), None):
            raise SystemExit(f"{broken['setting']}: {broken['error']}")
        tried = finish([Trial("rate", s, rate, CHOOSING, tokens) for s in SETTINGS for rate in rates])
        best = {s.name: best_rate(tried, s.name) for s in SETTINGS}
        last = [Trial("seed", s, best[s.name], seed, tokens) for s in SETTINGS for seed in REPORTING]
        candidate = next(s for s in SETTINGS if s.name == CANDIDATE)
        last += [
            Trial("budget", candidate, best[CANDIDATE], seed, round(tokens * share))
            for share in reversed(BUDGETS)
            for seed in REPORTING
        ]
        finish(last)


KEY = ("purpose", "setting", "rate", "seed", "tokens")
"""What tells a run from others."""


def _is(found: dict[str, Any], trial: Trial) -> bool:
    return [found[key] for key in KEY] == [trial.purpose, trial.setting.name, *(getattr(trial, k) for k in KEY[2:])]


def final_bits(trial: dict[str, Any], text: str) -> float:
    """Bits per character of a held-out text at the end of a run; infinite where it diverged or broke off."""
    bits = trial["evaluations"][-1][text] if trial["evaluations"] and not trial["error"] else float("inf")
    return bits if bits == bits else float("inf")


def best_rate(trials: Sequence[dict[str, Any]], name: str) -> float:
    """The peak rate with the fewest final bits on the held-out part of the training sources."""
    mine = [t for t in trials if t["purpose"] == "rate" and t["setting"] == name]
    return min(mine, key=lambda t: final_bits(t, SAME))["rate"]


def _tell(trial: dict[str, Any], count: int, minutes: float) -> None:
    ended = trial["error"] or (f"{final_bits(trial, SAME):.4f} bits per character" if trial["evaluations"] else "timed")
    told = f"{trial['purpose']} {trial['setting']} rate {trial['rate']:g} seed {trial['seed']} tokens {trial['tokens']}"
    print(
        f"{minutes:5.1f} min, {count:3}: {told}: {ended}, {1000 * trial['seconds_per_step']:.0f} ms a step", flush=True
    )


def _parameters(bench: Bench) -> int:
    import torch

    from buddygpt.model import BuddyGPTConfig, BuddyGPTForCausalLM

    with torch.device("meta"):
        return BuddyGPTForCausalLM(BuddyGPTConfig(**bench.geometry)).num_parameters()


def _prepare(folder: Path) -> None:
    """The corpus by the product's own way, then one file of arrays."""
    import tempfile

    import numpy as np

    from buddygpt.data.prepare import prepare
    from buddygpt.events import silent
    from buddygpt.recipe.loader import load_recipe
    from buddygpt.recipe.shipped import find_recipe

    listed = [f"{{kind: files, name: {name}, paths: ['{CORPUS / name}.jsonl.gz']}}" for name in SOURCES]
    listed.append(f"{{kind: files, name: {OTHER}, paths: ['{CORPUS / OTHER}.jsonl.gz'], validation: 1}}")
    changes = [
        f"data.sources=[{', '.join(listed)}]", "data.validation=0.02", f"tokenizer={{train: {VOCABULARY}}}",
        f"model.vocab_size={VOCABULARY}",
    ]  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as cache:
        prepared = prepare(load_recipe(find_recipe("tiny"), changes), Path(cache), silent)
        tokenizer = prepared.tokenizer()
        splits = {}
        for name in (*SOURCES, OTHER):
            for split in ("train", "validation"):
                shards = prepared.open(name, split)
                if not shards:
                    continue
                offsets = np.cumsum([0, *(len(s.tokens) for s in shards)])
                tokens = np.concatenate([s.tokens for s in shards])
                ends = np.concatenate([s.document_ends + o for s, o in zip(shards, offsets, strict=False)])
                if split == "validation":
                    ends = ends[: max(1, int(np.searchsorted(ends, HELD_OUT_TOKENS, side="right")))]
                    tokens = tokens[: ends[-1]]
                splits[f"{name}/{split}"] = tokens, ends
        tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    parts = [f"{name}/validation" for name in SOURCES if f"{name}/validation" in splits]
    facts = keep_arrays(folder, splits, SOURCES, {SAME: parts, NEW: [f"{OTHER}/validation"]})
    print(json.dumps(facts, indent=1))
