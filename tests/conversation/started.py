"""`buddy` in a process of its own, stopped by Ctrl-C, and seen to ask nothing of other machines."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]


@contextmanager
def started(*arguments: object, until: str) -> Iterator[tuple[subprocess.Popen, list[str]]]:
    """A command from when it has told a line with `until`, and all lines so far."""
    with _trap() as (proxy, came):
        outside = {f"{kind}_PROXY": proxy for kind in ("HTTP", "HTTPS", "ALL")} | {"NO_PROXY": "127.0.0.1,localhost"}
        child = subprocess.Popen(
            [sys.executable, "-m", "buddygpt", *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, encoding="utf-8",
            env=os.environ | outside | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        told: list[str] = []
        try:
            while not told or until not in told[-1]:
                line = child.stdout.readline()
                assert line, told
                told.append(line.rstrip("\n"))
            yield child, told
        finally:
            child.send_signal(signal.SIGINT)
            more = child.communicate(timeout=30)[0]
        assert (child.returncode, more) == (0, ""), more  # the way to end it, about which there is nothing to say
        assert came == []


@contextmanager
def _trap() -> Iterator[tuple[str, list[bytes]]]:
    """A proxy to which every request to another machine would go: its address and who came."""
    came = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def note():
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                came.append(connection.recv(200))
                connection.close()

        threading.Thread(target=note, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", came
