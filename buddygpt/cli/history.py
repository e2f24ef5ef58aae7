"""What was typed in earlier talks, so that a new model can be asked the same again.

One JSON text a line, in the user's state folder, for the user's eyes only (mode 0600). A line that begins with a space
is not kept, as in shells. Without a folder to write to there is no history, and no fault.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

KEPT = 1000
"""Texts; twice as many may stand in the file until it is opened again."""


class History:
    """The file, and what it held when it was opened: `texts`, oldest first."""

    def __init__(self) -> None:
        self.path = _path()
        self.texts: list[str] = []
        if self.path is None:
            return
        with suppress(OSError):
            lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines()
            self.texts = [text for line in lines[-KEPT:] if (text := _read(line))]
            if len(lines) > 2 * KEPT:
                part = self.path.with_name(f"{self.path.name}.{os.getpid()}.part")
                _append(part, self.texts)
                part.replace(self.path)

    def add(self, text: str) -> None:
        """Keep a text, but for one that begins with a space and one that is the last again."""
        if self.path is None or not text.strip() or text[0] == " " or text.strip() == next(iter(self.texts[-1:]), None):
            return
        self.texts.append(text.strip())
        with suppress(OSError):
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _append(self.path, self.texts[-1:])


def _path() -> Path | None:
    state = os.environ.get("XDG_STATE_HOME", "")
    try:
        base = Path(state) if Path(state).is_absolute() else Path.home() / ".local" / "state"
    except RuntimeError:  # nobody's home
        return None
    return base / "buddygpt" / "chat.jsonl"


def _append(path: Path, texts: list[str]) -> None:
    path.touch(mode=0o600)
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(text) + "\n" for text in texts)


def _read(line: str) -> str:
    with suppress(ValueError):
        text = json.loads(line)
        return text if isinstance(text, str) else ""
    return ""
