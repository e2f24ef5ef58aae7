"""`buddy plan` beside what a run then shows: memory as predicted and as probed, speed as probed.

For each recipe, in processes of their own: prediction and probe, then `buddy pretrain` on the built-in text. On
a GPU the recipes are as they are, but for a batch of few micro-batches, and the run ends before it saves; on a CPU they
are cut to few layers and short windows.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.table import table

WARM = 3
"""Steps of a run that do not count for its speed."""
SECONDS = {"cuda": 15.0, "cpu": 40.0}
"""Of training in a probe."""
PAIRS = {"cuda": 1, "cpu": 3}
"""Probes and runs of a row, in turn: on a CPU that others share, one pair says little."""
TEXT = ("data.sources=[{kind: demo, characters: 400k}]", "data.near_duplicates=null", "data.clean=null",
        "data.validation=0.05", "pretrain.eval_tokens=1000", "pretrain.prompts=[]")  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One row.

    Args:
        recipe: a shipped one.
        micro: windows of a micro-batch; the recipe's where 0.
        accumulation: micro-batches of a step; the recipe's where 0.
        changes: overrides.
        steps: of the run.
    """

    recipe: str
    micro: int = 0
    accumulation: int = 0
    changes: tuple[str, ...] = ()
    steps: int = 12


def _cut(layers: int, length: int = 512) -> tuple[str, ...]:
    return f"model.num_hidden_layers={layers}", f"pretrain.sequence_length={length}"


CASES = {
    "cpu": (
        Case("tiny", steps=40),
        Case("tiny", 4, 4, steps=40),
        Case("0.1b", 2, 2, _cut(8)),
        Case("0.1b", 4, 1, _cut(2, 256)),
        Case("0.1b-32k", 4, 2, _cut(8)),
        Case("0.3b-mla", 2, 2, (*_cut(2), "model.vocab_size=151669")),
        Case("0.7b-moe", 2, 2, _cut(4)),
    ),
    "cuda": (
        Case("0.1b", 0, 3),
        Case("0.7b-moe", 0, 3),
        Case("0.3b-mla", 0, 3),
        Case("0.1b-32k", 64, 1),
        Case("0.3b", 0, 3),
        Case("tiny", steps=200),
    ),
}


def run() -> str:
    """One table of the cases of this device."""
    import torch

    kind = "cuda" if torch.cuda.is_available() else "cpu"
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for case in CASES[kind]:
            pairs = [
                {side: _in_a_process(side, kind, case, folder) for side in ("told", "real")} for _ in range(PAIRS[kind])
            ]
            rows.append(_row(case, pairs))
            print(f"| {' | '.join(rows[-1])} |", file=sys.stderr, flush=True)
    head = (
        "recipe",
        "micro-batch x accumulation x length",
        "run: GB",
        "predicted",
        "probed",
        "run: tokens/s",
        "probed",
    )
    what = (
        f"{Case.steps} steps of `buddy pretrain`, more of tiny, the first {WARM} left out of its speed, which is that "
        f"of its median step; probes of {SECONDS[kind]:g} s at most. "
    )
    what += (
        "Memory is `max_memory_allocated`. "
        if kind == "cuda"
        else "Memory is the peak of the whole process, data, saving and report included. "
    )
    what += "Ratios are to the run"
    if PAIRS[kind] > 1:
        what += f": the median of {PAIRS[kind]} pairs, the lowest and the highest beside it"
    return what + f".\n\n{_device(kind)}\n\n" + table(head, rows)


def _device(kind: str) -> str:
    import torch

    return f"{torch.cuda.get_device_name()}." if kind == "cuda" else f"{os.cpu_count()} cores."


def _row(case: Case, pairs: list[dict[str, dict[str, Any]]]) -> tuple[str, ...]:
    layers = [c.rpartition("=")[2] for c in case.changes if "num_hidden_layers" in c]
    return (
        case.recipe + (f", {layers[0]} layers" if layers else ""),
        pairs[0]["told"]["shape"],
        f"{median(pair['real']['bytes'] for pair in pairs) / 1e9:.2f}",
        _ratio(pair["told"]["predicted"] / pair["real"]["bytes"] for pair in pairs),
        _ratio(pair["told"]["bytes"] / pair["real"]["bytes"] for pair in pairs),
        f"{median(pair['real']['speed'] for pair in pairs):,.0f}",
        _ratio(pair["told"]["speed"] / pair["real"]["speed"] for pair in pairs),
    )


def _ratio(found: Iterable[float]) -> str:
    ratios = sorted(found)
    span = f" ({ratios[0]:.3f} to {ratios[-1]:.3f})" if len(ratios) > 1 else ""
    return f"{median(ratios):.3f} x{span}"


def _in_a_process(side: str, kind: str, case: Case, folder: str) -> dict[str, Any]:
    root = str(Path(__file__).parents[1])
    changes = [*TEXT, *case.changes, *_batch(case)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.plan", side, kind, case.recipe, *changes], cwd=folder, text=True,
        capture_output=True, check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))},
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{side} {case}: {done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _batch(case: Case) -> list[str]:
    """The batch as the case has it, and as many tokens as its steps take."""
    recipe = _recipe(case.recipe, [*TEXT, *case.changes])
    section = recipe.pretrain
    micro = case.micro or section.micro_batch_size
    at_once = micro * section.sequence_length
    batch = at_once * case.accumulation if case.accumulation else section.tokens_per_batch
    tokens = batch * case.steps
    sizes = {"micro_batch_size": micro, "tokens_per_batch": batch, "tokens": tokens, "save_every": 10_000}
    return [f"pretrain.{key}={value}" for key, value in (sizes | {"eval_every": 10_000}).items()]


def _recipe(name: str, changes: list[str]) -> Any:
    from buddygpt.recipe.loader import load_recipe
    from buddygpt.recipe.shipped import find_recipe

    return load_recipe(find_recipe(name), changes)


def measure(side: str, kind: str, name: str, changes: list[str]) -> dict[str, Any]:
    """One side of one row."""
    if side == "real":
        return _real(kind, name, changes)
    from buddygpt.training.facts import Work
    from buddygpt.training.probe import probe
    from buddygpt.training.room import expected_peak
    from buddygpt.training.setup import accumulation_steps, find_device

    recipe = _recipe(name, changes)
    section, device = recipe.pretrain, find_device()
    accumulation = accumulation_steps(section, 1)
    memory = Work.of_pretraining(recipe, device).memory()
    found = probe(recipe, section.micro_batch_size, accumulation, SECONDS[kind])
    assert found is not None, "out of memory"
    return {
        "shape": f"{section.micro_batch_size} x {accumulation} x {section.sequence_length}",
        "predicted": expected_peak(memory, recipe.model, kind, section.precision),
        "bytes": found.peak_bytes,
        "speed": section.tokens_per_batch / found.step_seconds(accumulation),
    }


def _real(kind: str, name: str, changes: list[str]) -> dict[str, Any]:
    """`buddy pretrain` in this process."""
    from buddygpt.cli.app import main

    run = Path("runs", f"{time.time_ns()}")
    rows = run / "pretrain" / "metrics.jsonl"
    if kind == "cuda":
        steps = _recipe(name, changes).pretrain.steps
        threading.Thread(target=_end_early, args=(rows, steps), daemon=True).start()
    sys.argv = ["buddy", "pretrain", name, "--run", str(run), *(p for change in changes for p in ("--set", change))]
    try:
        main()
    except SystemExit as stop:
        assert not stop.code, stop.code
    done = json.loads((run / "pretrain" / "done.json").read_text("utf-8"))
    found = {"bytes": done["made_on"]["peak_bytes"], "speed": _speed(rows)}
    shutil.rmtree(run)  # gigabytes that nobody wants
    return found


def _end_early(rows: Path, steps: int) -> None:
    """Tell and end once the last step is written, before gigabytes are saved."""
    import torch

    while len(_steps(rows)) < steps:
        time.sleep(0.02)
    print(json.dumps({"bytes": torch.cuda.max_memory_allocated(), "speed": _speed(rows)}), flush=True)
    os._exit(0)


def _steps(rows: Path) -> list[dict[str, Any]]:
    if not rows.is_file():
        return []
    lines = rows.read_text("utf-8").split("\n")[:-1]
    return [row for row in map(json.loads, lines) if "loss" in row]


def _speed(rows: Path) -> float:
    return median(row["tokens_per_second"] for row in _steps(rows)[WARM:])


if __name__ == "__main__":
    print("\n" + json.dumps(measure(*sys.argv[1:4], sys.argv[4:])))  # type: ignore[call-arg]
