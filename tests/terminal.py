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
        self._out, self._seen = b"", 0

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._master)

    def type(self, keys: str | bytes) -> None:
        os.write(self._master, keys.encode() if isinstance(keys, str) else keys)

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    @property
    def drawn(self) -> str:
        """All that was drawn so far."""
        return self._out.decode(errors="replace").replace("\r\n", "\n")

    @property
    def shown(self) -> str:
        """The same without the sequences that move and colour."""
        return re.sub(r"\x1b(\[[0-9;?]*[A-Za-z]|[=>])", "", self.drawn)

    def until(self, text: str, seconds: float = 90) -> str:
        """Wait until `text` is drawn after all that was waited for before; what was drawn up to it."""
        deadline, start = time.monotonic() + seconds, self._seen
        while text not in self.drawn[start:]:
            assert time.monotonic() < deadline, f"no {text!r} in …{self.drawn[-800:]!r}"
            self._read(0.2)
        self._seen = self.drawn.index(text, start) + len(text)
        return self.drawn[start : self._seen]

    def prompt(self) -> None:
        """Wait until the line editor listens: it asks for pastes to be marked."""
        self.until("\x1b[?2004h")

    def end(self, seconds: float = 90) -> int:
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
