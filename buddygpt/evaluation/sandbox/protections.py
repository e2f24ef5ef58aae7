"""What contains a program on this machine, and the permission to run programs of a model."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from buddygpt.evaluation.sandbox.box import Sandbox, permitted
from buddygpt.evaluation.sandbox.outcome import Kind
from buddygpt.recipe.errors import BuddyError

_NEEDED = ("no network", "no further processes", "no signals to others", "no files but its own")
_PROBE = """
import os, socket
def held(outside):
    tries = {
        "no network": lambda: socket.socket(),
        "no further processes": lambda: os.fork() or os._exit(0),
        "no signals to others": lambda: os.kill(os.getppid(), 0),
        "no files but its own": lambda: open(outside),
    }
    names = []
    for name, attempt in tries.items():
        try:
            attempt()
        except PermissionError:
            names.append(name)
    try:
        open("own", "w")
        return [*names, "a folder of its own in memory"]
    except PermissionError:
        return [*names, "nothing to write to"]
"""


@contextmanager
def allowed() -> Iterator[None]:
    """Permit programs of a model to run within the block, in all threads: what `--allow-code-execution` enters.

    Raises:
        BuddyError: they cannot be contained on this machine.
    """
    protections()
    with permitted():
        yield


@lru_cache(maxsize=1)
def protections() -> tuple[str, ...]:
    """What holds on this machine: tried out by a program of ours in the box, not derived.

    Raises:
        BuddyError: something fails without which no program of a model is run.
    """
    home = Path.home()
    with (
        tempfile.NamedTemporaryFile(prefix=".buddygpt-", dir=home if os.access(home, os.W_OK) else None) as outside,
        permitted(),
        Sandbox() as box,
    ):
        outcome = box.call(_PROBE, "held", outside.name)
    if outcome.kind is not Kind.ENDED:
        reason = outcome.detail or outcome.kind
        raise BuddyError(f"a program of a model cannot be contained on this machine ({reason}); leave code tasks out")
    if lacking := [name for name in _NEEDED if name not in outcome.value]:
        raise BuddyError(
            f"a program of a model cannot be contained on this machine: it does not hold {', '.join(lacking)}; "
            "leave code tasks out"
        )
    layers = ["own users, processes, mounts and network (namespaces)"] if box.namespaces else []
    return (*outcome.value, "limits of time, memory, files and output", *layers)
