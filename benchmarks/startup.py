"""How long the command line takes to answer, beside the import of torch alone."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from benchmarks.table import table

ROUNDS = 9
WRONG = "schema: 1\nname: x\nmodel: {hiden_size: 3}\ntokenizer: qwen3\n"


def run() -> str:
    """Wall seconds of whole processes in turn, medians, and their ratio to `import torch`."""
    with tempfile.TemporaryDirectory() as folder:
        wrong = Path(folder, "wrong.yaml")
        wrong.write_text(WRONG)
        commands = {
            'python -c "import torch"': [sys.executable, "-c", "import torch"],
            "buddy --help": [sys.executable, "-m", "buddygpt", "--help"],
            "buddy pretrain WRONG.yaml": [sys.executable, "-m", "buddygpt", "pretrain", str(wrong)],
        }
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        for turn in range(ROUNDS + 1):
            for name, command in commands.items():
                begun = time.perf_counter()
                subprocess.run(command, capture_output=True, check=False)
                if turn:  # the first one warms the disk's cache
                    seconds[name].append(time.perf_counter() - begun)
    torch = median(seconds['python -c "import torch"'])
    rows = [(f"`{n}`", f"{median(s):.2f} s", f"{median(s) / torch:.2f}") for n, s in seconds.items()]
    return table(("command", "median of 9", "of `import torch`"), rows)
