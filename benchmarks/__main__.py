"""`python -m benchmarks NAME`: measure buddygpt beside a named peer; the table is kept in benchmarks/results/."""

from __future__ import annotations

import argparse
import datetime
import importlib
import platform
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
NAMES = ("startup", "model", "tiny", "data", "vocabulary", "equal_compute", "context", "tuning", "evaluation", "plan")


def main() -> None:
    """Run one benchmark and keep its table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", choices=NAMES)
    name = parser.parse_args().name
    text = importlib.import_module(f"benchmarks.{name}").run()
    head = f"# {name}, {datetime.date.today()}\n\n{machine()}\n\n"
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{datetime.date.today()}-{name}.md"
    path.write_text(head + text + "\n", "utf-8")
    print(head + text)
    print(f"\nkept in {path}")


def machine() -> str:
    """What the numbers were measured on."""
    from importlib.metadata import version

    import torch

    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        model = next(
            (line.partition(": ")[2] for line in cpuinfo.read_text().splitlines() if "model name" in line), model
        )
    flags = [f for f in ("avx512_bf16", "amx_bf16") if cpuinfo.exists() and f in cpuinfo.read_text()]
    libraries = ", ".join(f"{n} {version(n)}" for n in ("torch", "transformers"))
    return f"{model}, {torch.get_num_threads()} threads, {' '.join(flags) or 'no bf16 units'}; {libraries}."


if __name__ == "__main__":
    main()
