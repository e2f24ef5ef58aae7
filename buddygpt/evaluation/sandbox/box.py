"""A box for programs that a model wrote: each runs contained, and what comes out is data.

Layers, of which `protections` says what holds on this machine:

- a list of system calls (seccomp): no network, no further processes, no signals to others
- a list of files (Landlock): the standard library to read, the program's own folder to write; nothing else
- limits of CPU and wall time, address space, threads, open files, output
- no environment, no inherited files, no rights of root
- where the kernel lets a user make them, namespaces: no network devices, no view of other processes, which all end with
  the first; the folder lies in memory, with a bound, and is new for each program

The judge never stands in the program's process: it sends inputs, and compares what comes back outside. A program can
forge nothing, neither by its exit code nor by what it prints, for the expected answers are not where it is.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from buddygpt.evaluation.sandbox.outcome import Kind, Outcome, outcome_of
from buddygpt.evaluation.sandbox.values import pack
from buddygpt.recipe.errors import BrokenOff, BuddyError

_START = (
    "import sys; sys.path.insert(0, {root!r}); from buddygpt.evaluation.sandbox.warden import serve; "
    "del sys.path[0]; import {modules}; serve()"
)
_MODULES = (
    "array bisect collections copy datetime decimal fractions functools heapq io itertools json math operator random "
    "re statistics string threading typing"
)
"""What programs use most: read once, before the first of them."""
_ENVIRONMENT = {"PYTHONHASHSEED": "0", "TZ": "UTC"}
_NEEDED_TO_START = ("LD_LIBRARY_PATH",)
_GRACE = 10.0
"""Seconds beyond the limit of wall time after which the warden itself is taken for dead."""


@dataclass(frozen=True)
class Limits:
    """Bounds of one program.

    Args:
        cpu_seconds: of all its threads together; what counts, so that a busy machine changes no verdict.
        wall_seconds: until it is killed though it does nothing.
        memory_bytes: of address space.
        output_bytes: of what it prints, and of what a function answers, each.
        folder_bytes: of all files in its folder.
        threads: at a time; holds with namespaces, else by memory alone.
        open_files: at a time.
    """

    cpu_seconds: int = 6
    wall_seconds: float = 15
    memory_bytes: int = 2 << 30
    output_bytes: int = 16 << 20
    folder_bytes: int = 16 << 20
    threads: int = 64
    open_files: int = 64


_permitted = False


@contextmanager
def permitted() -> Iterator[None]:
    """Let programs run within the block; `protections.allowed` is the way here, which sees first that they can."""
    global _permitted
    before, _permitted = _permitted, True
    try:
        yield
    finally:
        _permitted = before


class Sandbox:
    """Runs programs one after the other, each in a fresh process and an empty folder; for one thread.

    Args:
        limits: of each program.

    Raises:
        BuddyError: no permission, or no means to contain a program.
    """

    def __init__(self, limits: Limits = Limits()):
        if not _permitted:
            raise BuddyError(
                "this runs programs that the model wrote: give --allow-code-execution to permit it, "
                "or leave the task out"
            )
        if sys.platform != "linux":
            raise BuddyError(
                f"code tasks run on Linux only: nothing on {sys.platform} closes network and files to a program; "
                "run them on Linux or in a Linux container, or leave the task out"
            )
        self._limits = limits
        self._start()

    def _start(self) -> None:
        folder = tempfile.mkdtemp(prefix="buddygpt-program-")
        start = _START.format(root=str(Path(__file__).parents[3]), modules=", ".join(_MODULES.split()))
        self._folder = Path(folder)
        self._warden: Any = subprocess.Popen(
            [sys.executable, "-s", "-S", "-P", "-B", "-X", "utf8", "-c", start],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=folder,
            env=_ENVIRONMENT | {name: os.environ[name] for name in _NEEDED_TO_START if name in os.environ},
            start_new_session=True,
            bufsize=0,
        )
        limits = self._limits
        bounds = {
            "CPU": limits.cpu_seconds,
            "AS": limits.memory_bytes,
            "FSIZE": limits.folder_bytes,
            "NOFILE": limits.open_files,
            "CORE": 0,
            "MEMLOCK": 0,
            "MSGQUEUE": 0,
        }
        granted = self._ask(asdict(limits) | {"folder": folder, "limits": bounds}, _GRACE)
        if granted is None:
            raise BrokenOff(f"no contained process could be started: {self._complaint or 'it gave no reason'}")
        self.namespaces: bool = granted["namespaces"]

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *fault: Any) -> None:
        self.close()

    def run(self, source: str, given: str = "") -> Outcome:
        """Run a program from beginning to end.

        Args:
            source: Python; an exit, with whatever code, is an end.
            given: on its standard input.
        """
        return self._outcome({"source": source, "given": given})

    def call(self, source: str, name: str, *arguments: Any) -> Outcome:
        """Run a program and call a function of it, or a method of its class `Solution`.

        Args:
            source: Python.
            name: of the function or method.
            arguments: plain data.
        """
        return self._outcome({"source": source, "name": name, "arguments": pack(list(arguments))})

    def close(self) -> None:
        """End what still runs, and remove the folder."""
        if self._warden is None:
            return
        warden, self._warden = self._warden, None
        with suppress(OSError):
            warden.stdin.close()  # at which it kills what runs, and ends
        try:
            warden.wait(_GRACE)
        except subprocess.TimeoutExpired:
            warden.kill()
            warden.wait()
        self._complaint = " ".join(warden.stderr.read(2000).decode("utf-8", "replace").splitlines()[-1:])
        warden.stdout.close()
        warden.stderr.close()
        with suppress(OSError):
            self._folder.rmdir()

    def _outcome(self, request: dict[str, Any]) -> Outcome:
        if self._warden is None:
            self._start()
        reply = self._ask(request, self._limits.wall_seconds + _GRACE)
        if reply is None:
            return Outcome(Kind.KILLED, detail="the machine ended it")
        return outcome_of(reply, "name" in request, self._limits.cpu_seconds)

    def _ask(self, request: dict[str, Any], seconds: float) -> Any:
        """The warden's reply; None where there comes none."""
        text = json.dumps(request).encode()
        try:
            self._write(len(text).to_bytes(8, "little") + text)
            deadline = time.monotonic() + seconds
            return json.loads(self._read(int.from_bytes(self._read(8, deadline), "little"), deadline))
        except (OSError, EOFError, ValueError):
            self.close()
            return None

    def _write(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            left = left[self._warden.stdin.write(left) :]

    def _read(self, size: int, deadline: float) -> bytes:
        data = bytearray()
        line = self._warden.stdout
        while len(data) < size:
            if not select.select([line], [], [], max(0, deadline - time.monotonic()))[0]:
                raise EOFError
            part = line.read(min(size - len(data), 1 << 20))
            if not part:
                raise EOFError
            data += part
        return bytes(data)
