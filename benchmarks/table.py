"""Markdown tables, and medians of runs in turn."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows])


def measure_in_turn(commands: dict[str, list[str]], rounds: int) -> dict[str, list[dict[str, float]]]:
    """Run Python commands A B A B ..., each printing one JSON object last; gives all of them by name."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=True)
            found[name].append(json.loads(done.stdout.splitlines()[-1]))
    return found
