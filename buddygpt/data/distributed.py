"""Running datatrove's steps on many machines, by its Slurm and Ray executors.

Both only say in a log that a task failed. Here a task leaves the lines of a BuddyError in `faults/` of its log folder,
and the command that waits raises them.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from datatrove.executor.ray import RayPipelineExecutor
from datatrove.executor.slurm import SlurmPipelineExecutor
from datatrove.pipeline.base import PipelineStep

from buddygpt.data.executor import ByResults
from buddygpt.recipe import executor as sections
from buddygpt.recipe.errors import BrokenOff, BuddyError

POLL = 5.0
"""Seconds between two looks at a queue."""


class _Telling(ByResults):
    """What both executors do otherwise than datatrove's: a failed task tells why."""

    logs: Path
    tasks: int

    def get_incomplete_ranks(self, ranks: Any = None, skip_completed: Any = None) -> list[int]:
        """Tasks that are not completed."""
        return [rank for rank in (range(self.tasks) if ranks is None else ranks) if not self.is_rank_completed(rank)]

    def _run_for_rank(self, rank: int, *arguments: Any, **options: Any) -> Any:
        try:
            return super()._run_for_rank(rank, *arguments, **options)  # type: ignore[misc]
        except BuddyError as error:
            fault = self.logs / "faults" / f"{rank:05d}.json"
            fault.parent.mkdir(parents=True, exist_ok=True)
            fault.write_text(json.dumps({"lines": error.lines, "kind": type(error).__name__}), "utf-8")
            raise

    def fault(self) -> BuddyError | None:
        """That of the first task that failed."""
        for path in sorted((self.logs / "faults").glob("*.json")):
            told = json.loads(path.read_text("utf-8"))
            return (BrokenOff if told["kind"] == "BrokenOff" else BuddyError)(told["lines"])
        return None

    def finish(self, finished: Callable[[int], None]) -> None:
        """See that all tasks are completed.

        Raises:
            BuddyError: the first task's that failed; BrokenOff where tasks ended without a word.
        """
        if fault := self.fault():
            raise fault
        missing = self.get_incomplete_ranks()
        finished(self.tasks - len(missing))
        if missing:
            raise BrokenOff(
                f"{len(missing)} of {self.tasks} tasks ended without a result; their logs are in {self.logs}; "
                "start again to go on from here"
            )


class SlurmExecutor(_Telling, SlurmPipelineExecutor):
    """datatrove's Slurm executor, waited for.

    Args:
        section: of the recipe.
        steps, tasks, workers, logs: as of `execute`.
    """

    def __init__(
        self, section: sections.SlurmExecutor, steps: Sequence[PipelineStep], tasks: int, workers: int, logs: Path
    ):
        self.logs = logs
        super().__init__(
            list(steps),
            tasks=tasks,
            time=section.time,
            partition=section.partition,
            cpus_per_task=section.cpus_per_task,
            mem_per_cpu_gb=section.memory_per_cpu,  # type: ignore[arg-type]
            workers=workers,
            job_name=f"buddy-{logs.name}",
            qos="",
            env_command=section.setup,  # type: ignore[arg-type]
            sbatch_args=dict(section.options),
            logging_dir=str(logs),
        )

    def launch_merge_stats(self) -> None:
        """Not launched: the manifest has the figures."""

    def execute(self, finished: Callable[[int], None]) -> None:
        """Submit the tasks and wait for them."""
        if shutil.which("sbatch") is None:
            raise BuddyError("data.executor: no `sbatch` on this machine; run this where jobs are submitted")
        try:
            self.launch_job()
        except subprocess.CalledProcessError as error:
            raise BuddyError(f"data.executor: sbatch refused the job (status {error.returncode})") from None
        while self._queued():
            time.sleep(POLL)
            finished(self.tasks - len(self.get_incomplete_ranks()))
            if fault := self.fault():
                subprocess.run(["scancel", str(self.job_id)], check=False)
                raise fault
        self.finish(finished)

    def _queued(self) -> bool:
        """Whether the last job array is still waiting or running."""
        if self.job_id == -1:
            return False
        answer = subprocess.run(["squeue", "-h", "-j", str(self.job_id)], capture_output=True, text=True, check=False)
        return bool(answer.stdout.strip())


class RayExecutor(_Telling, RayPipelineExecutor):
    """datatrove's Ray executor.

    Args:
        section: of the recipe.
        steps, tasks, workers, logs: as of `execute`.
    """

    def __init__(
        self, section: sections.RayExecutor, steps: Sequence[PipelineStep], tasks: int, workers: int, logs: Path
    ):
        self.logs, self._address = logs, section.address
        super().__init__(
            list(steps),
            tasks=tasks,
            workers=workers,
            logging_dir=str(logs),
            cpus_per_task=section.cpus_per_task,
            mem_per_cpu_gb=section.memory_per_cpu,
        )

    def execute(self, finished: Callable[[int], None]) -> None:
        """Run the tasks."""
        try:
            import ray
        except ImportError:
            raise BuddyError("data.executor: ray is not installed; `pip install ray`, or use kind: local") from None
        if not ray.is_initialized():
            ray.init(address=self._address, log_to_driver=False, logging_level="error", include_dashboard=False)
        done = threading.Event()
        watch = threading.Thread(target=self._watch, args=(done, finished), daemon=True)
        watch.start()
        try:
            self.run()
        finally:
            done.set()
            watch.join()
        self.finish(finished)

    def _watch(self, done: threading.Event, finished: Callable[[int], None]) -> None:
        while not done.wait(POLL):
            finished(self.tasks - len(self.get_incomplete_ranks()))


def execute(
    section: sections.SlurmExecutor | sections.RayExecutor,
    steps: Sequence[PipelineStep],
    tasks: int,
    workers: int,
    logs: Path,
    finished: Callable[[int], None],
) -> None:
    """Run every task of a pipeline that is not completed.

    Args:
        section: of the recipe.
        steps: each has `results(rank)`, the files that a completed task has left.
        tasks: how many.
        workers: of them at the same time.
        logs: folder of logs and of the marks of completed tasks, on a disk that all machines share.
        finished: called with the number of tasks done so far.

    Raises:
        BuddyError: the first task's that fails; BrokenOff where tasks end without a word.
    """
    for old in (logs / "faults").glob("*.json"):
        with suppress(FileNotFoundError):
            old.unlink()
    kind = SlurmExecutor if isinstance(section, sections.SlurmExecutor) else RayExecutor
    kind(section, steps, tasks, workers, logs).execute(finished)  # type: ignore[arg-type]
