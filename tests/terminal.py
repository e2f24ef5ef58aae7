"""A program on a terminal of its own: keys go in, what it draws comes out."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
IUTF8 = 0x4000
"""Linux's mark of terminals that erase whole characters by themselves; the module `termios` lacks it."""


class Terminal:
    """Use as a context manager.

    Args:
        command: the program and its arguments; it runs with this checkout importable.
        folder: where.
        columns: width.
        environment: in addition to PATH, HOME (`folder`) and TERM.
    """

    def __init__(self, command: list[object], folder: Path, columns: int = 80, **environment: str):
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
        modes = termios.tcgetattr(slave)
        modes[0] |= IUTF8
        termios.tcsetattr(slave, termios.TCSANOW, modes)
        kept = {k: v for k, v in os.environ.items() if k in ("PATH", "VIRTUAL_ENV")}
        known = {"HOME": str(folder), "TERM": "xterm", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            list(map(str, command)), cwd=folder, env=kept | known | environment,
            stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        os.close(slave)
        self._out = b""

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._master)

    def type(self, keys: str | bytes) -> None:
        os.write(self._master, keys.encode() if isinstance(keys, str) else keys)

    @property
    def shown(self) -> str:
        """All that was drawn so far, without the sequences that move and colour."""
        text = self._out.decode(errors="replace").replace("\r\n", "\n")
        return re.sub(r"\x1b(\[[0-9;?]*[A-Za-z]|[=>])", "", text)

    def until(self, text: str, seconds: float = 60) -> str:
        """Wait until `text` is drawn after all that was waited for before; what was drawn up to it."""
        deadline = time.monotonic() + seconds
        start = getattr(self, "_seen", 0)
        while text not in self.shown[start:]:
            assert time.monotonic() < deadline, f"no {text!r} in {self.shown!r}"
            self._read(0.2)
        self._seen = self.shown.index(text, start) + len(text)
        return self.shown[start : self._seen]

    def end(self, seconds: float = 60) -> int:
        """Wait for the program's end; its exit code."""
        deadline = time.monotonic() + seconds
        while self._process.poll() is None and time.monotonic() < deadline:
            self._read(0.1)
        self._read(0)
        return self._process.wait(1)

    def _read(self, seconds: float) -> None:
        try:
            if select.select([self._master], [], [], seconds)[0]:
                self._out += os.read(self._master, 65536)
        except OSError:  # the program has ended
            time.sleep(min(seconds, 0.05))
