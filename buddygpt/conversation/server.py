"""An OpenAI-compatible server for other front ends: `transformers serve` on the exported folder, as a child process."""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from buddygpt.conversation.loopback import ADDRESS
from buddygpt.recipe.errors import BrokenOff

QUIET = {
    "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}  # fmt: skip
"""The child asks nothing outside this machine."""


def client_name(name: str) -> str:
    """What clients call a model: its name, of letters, digits, dots, dashes and underscores."""
    return re.sub(r"[^\w.-]+", "-", name).strip(".-") or "model"


@contextmanager
def serving(folder: Path, name: str, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A server of an exported model, from when it answers to the end of the block.

    Args:
        folder: as `model.exported.see_exported` gives it.
        name: of `client_name`.
        port: free on this machine's own address.

    Raises:
        BrokenOff: the server ended by itself, before the block or within it; with its last words.
    """
    root = str(Path(__file__).parents[2])  # the same buddygpt there, wherever its working directory is
    paths = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    with tempfile.TemporaryDirectory(prefix="buddy-serve-") as place:
        # The server's only name for a folder is its path: a link to it in the working directory makes that short.
        (Path(place) / name).symlink_to(folder.absolute(), target_is_directory=True)
        log = Path(place) / "log.txt"
        with log.open("wb") as words:
            child = subprocess.Popen(
                [sys.executable, "-m", "buddygpt.conversation.engine", name, str(port)], cwd=place,
                stdin=subprocess.PIPE, stdout=words, stderr=words, env=os.environ | QUIET | {"PYTHONPATH": paths},
                start_new_session=True,  # Ctrl-C is for this process, which then ends the child
            )  # fmt: skip
        try:
            while child.poll() is None and not _answers(port, name):
                time.sleep(0.1)
            if child.poll() is None:
                yield child
            if (code := child.poll()) is not None:
                raise BrokenOff(f"the server ended: {_last_words(log) or f'exit code {code}'}")
        finally:
            child.kill()  # it keeps nothing that could be lost
            child.wait()


def _answers(port: int, name: str) -> bool:
    """Whether the server is up, and is this one."""
    with suppress(OSError, http.client.HTTPException, ValueError):
        connection = http.client.HTTPConnection(ADDRESS, port, timeout=5)
        connection.request("GET", "/v1/models")
        models = json.loads(connection.getresponse().read())["data"]
        connection.close()
        return any(model["id"] == name for model in models)
    return False


def _last_words(log: Path) -> str:
    """The last line that tells of a fault, or the last one."""
    lines = [line.strip() for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
    faults = [line for line in lines if re.search(r"\w*(Error|ERROR|Exception)\b", line)]
    return (faults or lines or [""])[-1][:300]
