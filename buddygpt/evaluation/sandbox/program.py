"""What runs a program's text once the process is contained. Nothing here is trusted: the program can change it."""

from __future__ import annotations

import atexit
import builtins
import json
import os
import random
import sys
import threading
import traceback
import types
from contextlib import suppress
from typing import Any

from buddygpt.evaluation.sandbox.values import pack, unpack

ANSWERS = 3
"""The descriptor on which answers go, apart from what the program prints."""
_NO_MEMORY = b'{"memory": true}'
_LONGEST_LINE = 300


def run(source: str, name: str | None, arguments: Any) -> None:
    """Run a program, or call a function of it, and answer how it went.

    Args:
        source: Python.
        name: of a function, or of a method of `Solution` where the program has such a class; None runs the program as
            the main one, up to its end or its exit.
        arguments: of the call, packed.
    """
    random.seed(0)
    builtins.exit = builtins.quit = sys.exit  # type: ignore[attr-defined]  # `site`, which brings them, is left out
    main = types.ModuleType("__main__" if name is None else "solution")
    sys.modules[main.__name__] = main
    try:
        try:
            exec(compile(source, "<program>", "exec"), main.__dict__)
        except SystemExit:
            if name is not None:
                raise
        result: dict[str, Any] = {"ended": True}
        if name is not None:
            owner = main.Solution() if hasattr(main, "Solution") else main
            result["value"] = pack(getattr(owner, name)(*unpack(arguments)))
        answer(result)
    except MemoryError:
        os.write(ANSWERS, _NO_MEMORY)
        os._exit(1)
    except BaseException as error:
        answer({"error": _last_line(error)})


def end() -> None:
    """End the process as Python would: wait for threads, call what is registered for the end, write what is held back.

    Taking the interpreter down in order as well would take five times as long as the whole run of a short program.
    """
    with suppress(BaseException):
        while others := [t for t in threading.enumerate() if t is not threading.current_thread() and not t.daemon]:
            others[0].join()
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.__stdout__):
        with suppress(BaseException):
            stream.flush()
    os._exit(0)


def answer(result: dict[str, Any]) -> None:
    """Send a result to the warden, unless the program has closed the line."""
    data = memoryview(json.dumps(result).encode())
    with suppress(OSError):
        while data:
            data = data[os.write(ANSWERS, data) :]


def _last_line(error: BaseException) -> str:
    try:
        return traceback.format_exception_only(error)[-1].strip()[:_LONGEST_LINE]
    except BaseException:
        return type(error).__name__
