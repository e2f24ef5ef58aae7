"""The tiny recipe on three worlds of the demo generator, beside a 5-gram Kneser-Ney model of the same text."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.table import table
from buddygpt.report.page import load_rows

SEEDS = (0, 1, 2)


def run() -> str:
    """Held-out bits per character, the samples' shares of distinct 4-grams, wall seconds of the whole command."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in SEEDS:
            changes = (f"name=seed-{seed}", f"data.sources.0.seed={seed}", f"pretrain.seed={seed}")
            command = [sys.executable, "-m", "buddygpt", "pretrain", "tiny"]
            begun = time.perf_counter()
            subprocess.run(
                [*command, *(part for change in changes for part in ("--set", change))],
                cwd=folder, check=True, capture_output=True,
            )  # fmt: skip
            seconds = time.perf_counter() - begun
            chapter = Path(folder, "runs", f"seed-{seed}", "pretrain")
            record = json.loads((chapter / "done.json").read_text())
            samples = load_rows(chapter / "samples.jsonl")
            last = [s for s in samples if s["step"] == record["step"]]
            ours, theirs = record["metrics"]["eval/demo/bits_per_character"], record["baseline"]["demo"]
            repeated = sum(len(lines) - len(set(lines)) for s in last if (lines := s["text"].splitlines()))
            rows.append(
                (
                    seed,
                    f"{ours:.3f}",
                    f"{theirs:.3f}",
                    f"{theirs - ours:.3f}",
                    f"{min(s['distinct_4grams'] for s in last):.2f}",
                    repeated,
                    f"{seconds:.0f}",
                )
            )
    head = ("seed", "bits per character", "5-gram", "better by", "least distinct 4-grams", "repeated lines", "seconds")
    return table(head, rows)
