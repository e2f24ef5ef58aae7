"""The 0.1b with all of Qwen3's vocabulary, and with 32,768 entries of it: the same text and as many operations.

Operations are counted by buddygpt.model.cost: the smaller model is cheaper for each token, so it reads more of them.
About ten minutes a side on two quiet cores, and some for preparing the text and its 5-gram model.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.table import table
from benchmarks.vocabulary import CORPUS
from buddygpt.report.page import load_rows

SIDES = ("0.1b", "0.1b-32k")
SOURCES = ("python-docs-zh", "tidb-docs-zh", "javaguide", "php-docs-zh")
OTHER = "d2l-zh"
FLOP = 0.9e14
"""Of each side, training: 90 k tokens of the full vocabulary, 205 k of the trimmed one."""
COMMON = (
    "data.validation=0.02",
    "pretrain.tokens_per_batch=4Ki",
    "pretrain.micro_batch_size=2",
    "pretrain.save_every=1000",
    "pretrain.eval_tokens=6000",
    "pretrain.prompts=['函数', '数据库']",
)
THREADS = 2


def run(flop: float = FLOP, more: Sequence[str] = ()) -> str:
    """Held-out bits per character of both sides, at the end and on the way.

    Args:
        flop: of training, for each side.
        more: overrides of both recipes.
    """
    rows, curves = [], []
    with tempfile.TemporaryDirectory() as folder:
        for side in SIDES:
            changes = [*_sources(), *COMMON, *more]
            tokens, cost, steps = _tokens(side, flop, changes)
            budget = (f"pretrain.tokens={tokens}", f"pretrain.eval_every={-(-steps // 4)}")
            metrics = _train(side, Path(folder), [*changes, *budget])
            evaluations = [row for row in metrics if _KEYS[0] in row]
            seconds = sum(row["seconds"] for row in metrics if "loss" in row)
            bits = [evaluations[-1][key] for key in _KEYS]
            rows.append((side, f"{tokens:,}", f"{tokens * cost:.2e}", f"{seconds:.0f}", *(f"{b:.3f}" for b in bits)))
            curves += [
                (side, f"{row['tokens'] * cost:.1e}", *(f"{row[key]:.3f}" for key in _KEYS)) for row in evaluations
            ]
    what = (
        f"Both sides train for {flop:.1e} FLOP as buddygpt.model.cost counts them, with the same rates, batches and "
        f"text, on {THREADS} threads. Bits per character of 2 % of each source's documents and of {OTHER}, none of it "
        "trained on; below, at each quarter of the way."
    )
    ends = table(("recipe", "tokens", "FLOP", "seconds of training", *SOURCES, OTHER), rows)
    return what + "\n\n" + ends + "\n\n" + table(("recipe", "FLOP so far", *SOURCES, OTHER), curves)


_KEYS = tuple(f"eval/{name}/bits_per_character" for name in (*SOURCES, OTHER))


def _sources() -> list[str]:
    listed = [f"{{kind: files, name: {name}, paths: ['{CORPUS / name}.jsonl.gz']}}" for name in SOURCES]
    other = f"{{kind: files, name: {OTHER}, paths: ['{CORPUS / OTHER}.jsonl.gz'], validation: 1}}"
    return [f"data.sources=[{', '.join([*listed, other])}]"]


def _tokens(side: str, flop: float, changes: Sequence[str]) -> tuple[int, float, int]:
    """Tokens that the budget pays for, what one costs, and steps, which are whole."""
    from buddygpt.model.cost import count_flops
    from buddygpt.recipe.loader import load_recipe
    from buddygpt.recipe.shipped import find_recipe

    recipe = load_recipe(find_recipe(side), changes)
    section = recipe.pretrain
    assert section is not None
    cost = count_flops(recipe.model, section.sequence_length).training
    steps = round(flop / cost / section.tokens_per_batch)
    return steps * section.tokens_per_batch, cost, steps


def _train(side: str, folder: Path, changes: Sequence[str]) -> list[dict[str, Any]]:
    """The run's metrics: steps, and evaluations on the way."""
    arguments = [part for change in changes for part in ("--set", change)]
    subprocess.run(
        [sys.executable, "-m", "buddygpt", "pretrain", side, "--set", f"name={side}", *arguments],
        cwd=folder, check=True, capture_output=True, env=os.environ | {"OMP_NUM_THREADS": str(THREADS)},
    )  # fmt: skip
    return load_rows(folder / "runs" / side / "pretrain" / "metrics.jsonl")
