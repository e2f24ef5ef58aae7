"""Several processes of one run: how they are started, told apart and stopped, and what is said when one dies.

Whoever starts them (this file, torchrun, accelerate) says so in the environment: `WORLD_SIZE`, `RANK`, `LOCAL_RANK`.
Process 0 is the one that tells and writes; the others keep silent.
"""

from __future__ import annotations

import logging
import os
import shlex
import signal
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from buddygpt.events import Emit, Note
from buddygpt.recipe.errors import BrokenOff, BuddyError, Stopped

if TYPE_CHECKING:
    from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent

OURS = "BUDDYGPT_LAUNCHED"
"""Set for processes that `launch` has started: it speaks for them when one dies."""
LOST = 87
"""Exit code of a process that ends because another one is gone."""
HOLD = 10.0
"""Seconds that a process other than 0 waits before it tells of a fault, which most often is the fault of all."""
SECOND = 1.0
"""Seconds that a process waits which has lost another one, so that the launcher sees that one first."""
ONCE = 2.0
"""Seconds in which signals count as one: a scheduler signals all processes, and the launcher passes its own on."""
TOLD = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
"""Numbers that a launcher gives each process."""
MEETING = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""Without each of these several processes do not find one another."""
TIMES = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")
"""How often srun or mpirun has started a program: they do not say where its processes meet."""


def launched_processes() -> int:
    """Processes that a launcher has started, before any of them has been joined; 1 where there is none."""
    return _number("WORLD_SIZE", 1)


def rank() -> int:
    """Number of this process among those that a launcher has started."""
    return _number("RANK", 0) if launched_processes() > 1 else 0


def _number(name: str, default: int) -> int:
    """A number of the environment; `check_launched` tells of one that is none."""
    value = os.environ.get(name, "")
    return int(value) if value.isdecimal() else default


def launched() -> bool:
    """Whether a launcher has started this process, alone or with others."""
    return "WORLD_SIZE" in os.environ or "ACCELERATE_DYNAMO_USE_FULLGRAPH" in os.environ


def elsewhere() -> bool:
    """Whether a launcher other than `launch` has started this process."""
    return launched() and OURS not in os.environ


def check_launched(processes: int | None) -> None:
    """See that a launcher has started as many processes as it was asked for.

    Args:
        processes: what the user asks this program for; None where nothing is said.

    Raises:
        BuddyError: it has started fewer, or others, or they cannot meet; or srun or mpirun has started several that do
            not know of one another.
    """
    if not launched():
        typed = sys.stdin is not None and sys.stdin.isatty()  # as in the shell of `srun --pty bash`: there is one of it
        for name in TIMES:
            if _number(name, 1) > 1 and not typed:
                raise BuddyError(
                    f"{name} is {os.environ[name]}: this command was started that many times, and none knows of the "
                    "others; start it once on each machine, by torchrun (docs/cluster.md) or with --processes N"
                )
        return
    started = launched_processes()
    for name in TOLD:
        if not os.environ.get(name, "1").isdecimal():
            raise BuddyError(f"{name}: {os.environ[name]!r} in the environment is no number; unset it, or use torchrun")
    if started < 1 or rank() >= started:
        raise BuddyError(f"RANK {rank()} of WORLD_SIZE {started} in the environment: there is no such process")
    if processes is not None and processes != started:
        unset = " (WORLD_SIZE says so; unset it where there is none)" if "WORLD_SIZE" in os.environ else ""
        raise BuddyError(f"--processes: {processes} are asked for, but the launcher has started {started}{unset}")
    if started > 1 and (missing := [name for name in MEETING if name not in os.environ]):
        raise BuddyError(
            f"WORLD_SIZE is {started}, but the environment does not say {', '.join(missing)}: torchrun says all of it; "
            "to train in one process unset WORLD_SIZE"
        )
    # accelerate names a meeting place for several processes, and starts one where it finds no GPU.
    if "WORLD_SIZE" not in os.environ and "MASTER_ADDR" in os.environ:
        raise BuddyError(
            "accelerate launch was asked for several processes and has started one, as it does without GPUs; "
            "use `buddy ... --processes N`, torchrun, or ask it for one (--num_processes 1)"
        )


def is_peer_lost(error: BaseException) -> bool:
    """Whether an error says no more than that another process of the run is gone."""
    if launched_processes() == 1 or not isinstance(error, RuntimeError):
        return False
    from torch import distributed

    backend_errors = (distributed.DistBackendError, distributed.DistNetworkError)
    return isinstance(error, backend_errors) or "gloo" in str(error).lower()


def hold_back(lost: bool) -> None:
    """Let another process speak first, where there are several, and the launcher end this one meanwhile.

    Args:
        lost: another one is gone, and why is what has to be told; else process 0 has the same fault.
    """
    if lost or rank() > 0:
        time.sleep(SECOND if lost else HOLD)


def leave(code: int) -> None:
    """End this process; at once where it has met others: torch could wait at exit for one that is gone."""
    torch = sys.modules.get("torch")  # a fault in a recipe is told before it is loaded
    if torch is None or not torch.distributed.is_initialized():
        sys.exit(code)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def loss_lines(error: BaseException) -> tuple[str, ...]:
    """What a process says that has lost the others: nothing where `launch` will speak, or process 0 does."""
    if rank() > 0 or not elsewhere():
        return ()
    return (f"lost touch with the other processes: {' '.join(str(error).split())[:200]}",)


def meet() -> None:
    """Wait until all processes are here: a launcher ends all when one leaves with an exit code other than 0."""
    if launched_processes() == 1:
        return
    from torch import distributed

    if distributed.is_initialized():
        distributed.barrier()


def launch(arguments: Sequence[str], processes: int, emit: Emit) -> int:
    """Run `python -m buddygpt ARGUMENTS` in several processes of this machine, by torch's elastic agent.

    The first SIGINT or SIGTERM lets them finish their step and save, a second one ends them at once.

    Args:
        arguments: of the command line.
        processes: how many.
        emit: who is told.

    Returns:
        The exit code: what went wrong was told by the process that it is from.

    Raises:
        BuddyError: one has died, or was stopped before it could save.
    """
    agent = _agent(arguments, processes, emit)
    with _passed_on(agent) as passed:
        result = agent.run()
    if not result.failures:
        return 0
    number, failure = min(result.failures.items(), key=_cause)
    if failure.exitcode > 0 and failure.exitcode != LOST:
        return failure.exitcode
    if passed:
        raise Stopped
    again = shlex.join(["buddy", *arguments, *(() if "--resume" in arguments else ("--resume",))])
    died = "lost touch with the others" if failure.exitcode == LOST else f"was ended by {failure.signal_name()}"
    likely = ", as when memory runs out" if failure.exitcode == -signal.SIGKILL else ""
    raise BrokenOff(f"process {number} of {processes} (id {failure.pid}) {died}{likely}; go on with: {again}")


def _agent(arguments: Sequence[str], processes: int, emit: Emit) -> LocalElasticAgent:
    import torch
    from torch.distributed.elastic.agent.server.api import WorkerSpec
    from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.elastic.rendezvous import RendezvousParameters, registry

    logging.disable(logging.ERROR)  # the agent's own words; what matters is told here
    threads = max(1, torch.get_num_threads() // processes)
    given = os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    os.environ["TORCHELASTIC_SIGNALS_TO_HANDLE"] = "SIGQUIT"  # the others are passed on, not turned into an end
    os.environ[OURS] = "1"
    emit(Note(f"starting {processes} processes, {given} CPU thread{'s' * (given != '1')} each"))
    # The first free port of this machine, as `torchrun --standalone`; by name, or a laptop's own may not be found.
    meeting = RendezvousParameters("c10d", "localhost:0", str(uuid.uuid4()), 1, 1, local_addr="localhost")
    spec = WorkerSpec(
        role="buddy",
        local_world_size=processes,
        entrypoint=sys.executable,
        args=("-m", "buddygpt", *arguments),
        rdzv_handler=registry.get_rendezvous_handler(meeting),
        max_restarts=0,
        monitor_interval=0.1,
        local_addr="localhost",
    )
    return LocalElasticAgent(spec, DefaultLogsSpecs())


@contextmanager
def _passed_on(agent: LocalElasticAgent) -> Iterator[list[int]]:
    """Inside, SIGINT and SIGTERM reach the processes, which stand in sessions of their own; gives those passed on."""
    passed: list[int] = []

    def pass_on(number: int, frame: Any) -> None:
        workers = [int(worker.id) for worker in agent.get_worker_group().workers if worker.id]
        if not workers:
            raise KeyboardInterrupt
        passed.append(number)
        for worker in workers:
            with suppress(ProcessLookupError):
                # As SIGINT: SIGTERM is what the agent sends when one has died, and nobody need be told of that.
                os.kill(worker, signal.SIGINT) if len(passed) == 1 else os.killpg(worker, signal.SIGKILL)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield passed
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _cause(item: tuple[int, Any]) -> tuple[bool, float, int]:
    """Order of failures: those that only follow from another one last."""
    number, failure = item
    return failure.exitcode in (LOST, -signal.SIGTERM), failure.timestamp, number
