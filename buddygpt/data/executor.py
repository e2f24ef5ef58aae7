"""Running datatrove's steps on this machine."""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, redirect_stderr
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from datatrove.executor.local import LocalPipelineExecutor
from datatrove.pipeline.base import PipelineStep
from datatrove.utils.stats import Stats

from buddygpt.recipe.data import DataSection
from buddygpt.recipe.errors import BrokenOff


class _Nowhere(io.TextIOBase):
    """Takes datatrove's terminal output; the same lines are in the log folder."""

    def write(self, text: str) -> int:
        return len(text)


class ByResults:
    """What all executors do otherwise than datatrove's: a completed task whose files are gone is run again."""

    pipeline: Any

    def is_rank_completed(self, rank: int) -> bool:
        """Whether the task is marked as completed, and what it made is still there."""
        made = [path for step in self.pipeline for path in step.results(rank)]
        return super().is_rank_completed(rank) and all(path.is_file() for path in made)  # type: ignore[misc]


class Executor(ByResults, LocalPipelineExecutor):
    """datatrove's local executor with three things done otherwise.

    It needs no manager process, which would outlive a killed run. Workers end with their parent, whatever ends it. And
    of several tasks that fail, the error of the first one is raised.

    Args:
        steps: one pipeline; each task runs it with its rank. `results(rank)` of a step names the files it makes.
        tasks: how many.
        workers: processes; 1 runs in this one.
        logs: folder of logs and of the marks of completed tasks, which a later run skips.
        finished: called in this process after each task with the number done so far.
    """

    def __init__(
        self, steps: Sequence[PipelineStep], tasks: int, workers: int, logs: Path, finished: Callable[[int], None]
    ):
        super().__init__(list(steps), tasks=tasks, workers=workers, logging_dir=str(logs), start_method="spawn")
        self._finished: Callable[[int], None] | None = finished

    def run(self) -> None:  # type: ignore[override]
        """Run every task that is not marked as completed.

        Raises:
            BuddyError: the first task's that fails; BrokenOff where a worker died.
        """
        ranks = [rank for rank in range(self.tasks) if not self.is_rank_completed(rank)]
        done = self.tasks - len(ranks)
        assert self._finished is not None
        self._finished(done)
        workers = min(self.workers, len(ranks))
        if workers <= 1:
            for rank in ranks:
                self.run_rank(rank)
                done += 1
                self._finished(done)
            return
        report, self._finished = self._finished, None  # stays here: workers get the rest
        ours, theirs = multiprocessing.get_context("spawn").Pipe(duplex=False)[::-1]
        pool = ProcessPoolExecutor(
            workers,
            multiprocessing.get_context("spawn"),
            initializer=_start_worker,
            initargs=(self, theirs, max(1, self.workers // workers)),
        )
        try:
            with _deaf_to_ctrl_c():  # workers start here, and inherit it
                futures = [pool.submit(_run_in_worker, rank) for rank in ranks]
            self._collect(futures, done, report)
        except BrokenProcessPool:
            raise BrokenOff(
                "a worker process died: of too little memory, or called from a script without "
                "`if __name__ == '__main__':`; lower data.workers (1 needs no processes) and start again"
            ) from None
        finally:
            ours.close()  # ends workers that are still at it
            pool.shutdown(cancel_futures=True)
            theirs.close()
            self._finished = report

    def run_rank(self, rank: int) -> None:
        """Run one task here."""
        for step in self.pipeline:
            step.stats = Stats(str(step))  # type: ignore[union-attr]
        with redirect_stderr(_Nowhere()):  # type: ignore[type-var]
            self._run_for_rank(rank, local_rank=1)

    def _collect(self, futures: list[Future[None]], done: int, report: Callable[[int], None]) -> None:
        waiting = set(futures)
        while waiting:
            ready, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            done += len(ready)
            if any(f.exception() for f in ready):
                for future in waiting:
                    future.cancel()
                # Tasks start in order: the first one that fails has started, and is waited for.
                wait([f for f in waiting if not f.cancelled()], return_when=ALL_COMPLETED)
                raise next(e for f in futures if not f.cancelled() and (e := f.exception()))
            report(done)


def execute(
    data: DataSection,
    steps: Sequence[PipelineStep],
    tasks: int,
    workers: int,
    logs: Path,
    finished: Callable[[int], None],
) -> None:
    """Run every task of a pipeline that is not completed, where the recipe says.

    Args:
        data: the recipe's section.
        steps, tasks, workers, logs, finished: as of `Executor`.

    Raises:
        BuddyError: the first task's that fails; BrokenOff where a worker died.
    """
    if data.executor.kind == "local":
        return Executor(steps, tasks, workers, logs, finished).run()
    from buddygpt.data import distributed

    distributed.execute(data.executor, steps, tasks, workers, logs, finished)


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """Hold Ctrl-C back: a worker that is still importing would answer it with a traceback."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_executor: Executor | None = None


def _start_worker(executor: Executor, lifeline: Connection, threads: int) -> None:
    """Ready a worker process: it ends when the parent's end of the pipe does, and leaves Ctrl-C to the parent."""
    global _executor
    _executor = executor
    os.environ["RAYON_NUM_THREADS"] = str(threads)  # the tokenizer's threads: workers share the processors
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()


def _end_with(lifeline: Connection) -> None:
    lifeline.poll(None)
    os._exit(1)


def _run_in_worker(rank: int) -> None:
    assert _executor is not None
    _executor.run_rank(rank)
