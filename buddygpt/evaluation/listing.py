"""Which benchmarks can be run on this machine, and what the others lack."""

from __future__ import annotations

from pathlib import Path

from buddygpt.evaluation.bench import readiness, see_folder
from buddygpt.evaluation.catalog import benchmark_names, load_benchmark
from buddygpt.events import Emit, Table
from buddygpt.recipe.hub import HubSection


def list_benchmarks(data_dir: Path | None, hub: HubSection, cache: Path, emit: Emit) -> None:
    """A line for each benchmark; no network is asked.

    Raises:
        BuddyError: `data_dir` is no folder.
    """
    if data_dir is not None:
        see_folder(data_dir)
    rows = []
    for name in benchmark_names():
        benchmark = load_benchmark(name)
        ready, told = readiness(benchmark, data_dir, hub, cache)
        if benchmark.kind == "code":
            told += "; --allow-code-execution"
        rows.append((name, "ready" if ready else "", benchmark.about, told))
    emit(Table("benchmarks", ("", "", "asks", "data"), tuple(rows)))
