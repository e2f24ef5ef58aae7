"""Run as a module, in a process of its own: `transformers serve`, for the programs of this machine alone.

    python -m buddygpt.conversation.engine MODEL PORT

Ends with the process that holds its standard input.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import Any

from buddygpt.conversation.loopback import ADDRESS, SameSite


def main(model: str, port: str) -> None:
    """Serve until the standard input ends."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import uvicorn
    from transformers.cli.transformers import app

    config: Any = uvicorn.Config
    uvicorn.Config = lambda served, **options: config(SameSite(served), **options)  # type: ignore[misc,assignment]
    app(["serve", model, "--host", ADDRESS, "--port", port])


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
