"""The trimmed vocabulary: what a size costs in tokens and saves in parameters, and what it buys at equal compute.

Sizes are chosen on the training part of python-docs-zh; d2l-zh is another domain. The comparison trains the recipes
0.1b and 0.1b-32k on four corpora for the same number of floating-point operations, with the same batch, rates and
schedule.
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.table import table

CORPORA = Path(__file__).parents[2] / "shared" / "data" / "corpus"
TRAINED = ("python-docs-zh", "tidb-docs-zh", "javaguide", "php-docs-zh")
ELSEWHERE = "d2l-zh"
SIZES = (8_192, 16_384, 32_768, 65_536)
HELD_OUT = 20  # every so many documents
LENGTH, BATCH = 512, 4_096
TOKENS = int(os.environ.get("BUDDY_BENCHMARK_TOKENS", 245_760))
"""Tokens of the full vocabulary's training."""


def run() -> str:
    """Two tables."""
    return f"{sizes()}\n\n{equal_compute()}"


def sizes() -> str:
    """Bytes a token by size of the vocabulary, and what the table and the head take of the 0.1b."""
    from buddygpt.data.tokenizer import DocumentEncoder, choose_tokens, count_tokens, load_tokenizer, trim
    from buddygpt.model.cost import count_flops
    from buddygpt.recipe.geometry import count_parameters

    model = _recipe("0.1b").model
    full = load_tokenizer("qwen3")
    texts = _texts("python-docs-zh")
    training = [text for number, text in enumerate(texts) if number % HELD_OUT]
    held_out = texts[::HELD_OUT]
    counts = count_tokens(full, [training])
    rows = []
    for size in (*SIZES, len(full)):
        tokenizer = full if size == len(full) else trim(full, choose_tokens(full, counts, size))
        encoder = DocumentEncoder(tokenizer)
        rates = []
        for part in (training, held_out, _texts(ELSEWHERE)):
            tokens = sum(map(len, encoder.encode(part)))
            rates.append(sum(len(text.encode()) for text in part) / tokens)
        sized = model.model_copy(update={"vocab_size": size})
        parameters, flops = count_parameters(sized), count_flops(sized, model.max_position_embeddings)
        rows.append(
            (
                f"{size:,}",
                *(f"{rate:.3f}" for rate in rates),
                f"{parameters.total / 1e6:.1f} M",
                f"{parameters.embedding / parameters.total:.0%}",
                f"{flops.head / 1e6:.0f} M",
                f"{flops.head / flops.forward:.0%}",
            )
        )
    head = (
        "entries", "bytes a token, python-docs-zh (chosen on it)", "its held-out documents", ELSEWHERE,
        "parameters of the 0.1b", "in the table", "head, FLOP a token", "of the forward pass",
    )  # fmt: skip
    return table(head, rows)


def equal_compute() -> str:
    """Held-out bits per character of both recipes after the same number of floating-point operations."""
    from buddygpt.model.cost import count_flops

    costs = {name: count_flops(_recipe(name).model, LENGTH).training for name in ("0.1b", "0.1b-32k")}
    rows, figures = [], {}
    with tempfile.TemporaryDirectory() as folder:
        for name, cost in costs.items():
            steps = round(TOKENS * costs["0.1b"] / cost / BATCH)
            _train(name, steps * BATCH, Path(folder))
            record = json.loads(Path(folder, "runs", name, "pretrain", "done.json").read_text("utf-8"))
            bits = {k.split("/")[1]: v for k, v in record["metrics"].items() if k.endswith("bits_per_character")}
            figures[name] = bits
            (source,) = (
                json.loads(next(Path(folder, "runs", name).glob("data/manifest.json")).read_text()) for _ in "1"
            )
            seen = sum(s["splits"]["train"]["bytes"] for s in source["sources"].values())
            tokens = sum(s["splits"]["train"]["tokens"] for s in source["sources"].values())
            rows.append(
                (
                    name,
                    f"{steps:,}",
                    f"{steps * BATCH:,}",
                    f"{steps * BATCH * seen / tokens / 1e6:.2f} MB",
                    f"{steps * BATCH * cost:.3g}",
                    *(f"{bits[each]:.3f}" for each in (*TRAINED, ELSEWHERE)),
                )
            )
    gains = [figures["0.1b-32k"][each] / figures["0.1b"][each] - 1 for each in (*TRAINED, ELSEWHERE)]
    rows.append(("0.1b-32k / 0.1b - 1", "", "", "", "", *(f"{gain:+.1%}" for gain in gains)))
    head = ("recipe", "steps", "tokens", "text", "FLOP", *(f"{each}, bits/char" for each in (*TRAINED, ELSEWHERE)))
    return table(head, rows)


def _train(name: str, tokens: int, folder: Path) -> None:
    sources = [f"{{kind: files, name: {each}, paths: ['{CORPORA / each}.jsonl.gz']}}" for each in TRAINED]
    sources.append(f"{{kind: files, name: {ELSEWHERE}, paths: ['{CORPORA / ELSEWHERE}.jsonl.gz'], validation: 1}}")
    changes = {
        "name": name,
        "data.sources": f"[{', '.join(sources)}]",
        "data.validation": 0.03,
        "pretrain.tokens": tokens,
        "pretrain.tokens_per_batch": BATCH,
        "pretrain.sequence_length": LENGTH,
        "pretrain.micro_batch_size": 4,
        "pretrain.eval_tokens": 20_000,
        "pretrain.prompts": "[]",
    }
    overrides = [part for key, value in changes.items() for part in ("--set", f"{key}={value}")]
    command = [sys.executable, "-m", "buddygpt", "pretrain", name, *overrides]
    subprocess.run(command, cwd=folder, check=True, stdout=sys.stderr)


def _recipe(name: str):  # type: ignore[no-untyped-def]
    from buddygpt.recipe.loader import load_recipe
    from buddygpt.recipe.shipped import find_recipe

    return load_recipe(find_recipe(name))


def _texts(name: str) -> list[str]:
    with gzip.open(CORPORA / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line)["text"] for line in lines]
