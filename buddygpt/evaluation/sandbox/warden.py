"""The process between the judge and the programs: it contains each in a process of its own, and watches it.

Runs in a bare Python with an empty environment, started by `box`. Requests and replies are JSON, each with its length
before it. It answers until the judge closes the line; a program that still runs then is killed. What a program gets to
see of its judge is its input: no expected answers, no file but its folder and the standard library.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from buddygpt.evaluation.sandbox import kernel, program

_LENGTH = 8
_CHUNK = 1 << 16
_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache", "/usr/share/zoneinfo")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")
_REQUESTS, _REPLIES = 0, 1


def serve() -> None:
    """Answer requests; the first names folder and limits."""
    setup = _receive()
    if setup is None:
        return
    namespaces = kernel.enter_namespaces()
    if namespaces and (first := os.fork()):
        os.close(_REQUESTS)
        os.close(_REPLIES)
        os.waitpid(first, 0)
        os._exit(0)
    _send({"namespaces": namespaces})
    with suppress(BrokenPipeError):
        while (request := _receive()) is not None:
            _send(_run(request, setup, namespaces))
    with suppress(OSError):
        Path(setup["folder"]).rmdir()  # the judge may have been killed
    os._exit(0)  # taking the interpreter down in order takes longer


def _run(request: dict[str, Any], setup: dict[str, Any], namespaces: bool) -> dict[str, Any]:
    """Run one program to its end."""
    own_folder = namespaces
    if namespaces:
        try:
            kernel.mount_folder(setup["folder"], setup["folder_bytes"])
        except OSError:
            own_folder = False
    given = os.memfd_create("given", os.MFD_CLOEXEC)
    _write_all(given, request.get("given", "").encode("utf-8", "surrogatepass"))
    os.lseek(given, 0, os.SEEK_SET)
    printed, printing = os.pipe()
    answered, answering = os.pipe()
    child = os.fork()
    if not child:
        _become(request, setup, (given, printing, answering), namespaces, own_folder)
    for end in (given, printing, answering):
        os.close(end)
    try:
        return _watch(child, printed, answered, setup)
    finally:
        os.close(printed)
        os.close(answered)
        if own_folder:
            kernel.unmount_folder(setup["folder"])


def _watch(child: int, printed: int, answered: int, setup: dict[str, Any]) -> dict[str, Any]:
    """Read what the child writes, up to the limit, until it ends or must end."""
    deadline = time.monotonic() + setup["wall_seconds"]
    texts: dict[int, bytearray] = {printed: bytearray(), answered: bytearray()}
    handle = os.pidfd_open(child)
    poll = select.poll()
    for end in (*texts, handle, _REQUESTS):
        poll.register(end, select.POLLIN)
    stopped, alive = "", True
    while alive and not stopped:
        left = deadline - time.monotonic()
        ready = poll.poll(max(0, left * 1000)) if left > 0 else []
        if not ready:
            stopped = "wall"
        for end, _ in ready:
            if end == handle:
                alive = False
            elif end == _REQUESTS:  # the judge sends nothing meanwhile: it has gone
                stopped = "gone"
            elif not _take(end, texts[end], setup["output_bytes"]):
                poll.unregister(end)
            elif len(texts[end]) > setup["output_bytes"]:
                stopped = "output"
    if stopped:
        os.kill(child, signal.SIGKILL)
    _, status, used = os.wait4(child, 0)
    os.close(handle)
    for end, text in texts.items():
        while not stopped and _take(end, text, setup["output_bytes"]):
            if len(text) > setup["output_bytes"]:
                stopped = "output"
    return {
        "stopped": stopped,
        "code": os.waitstatus_to_exitcode(status),
        "cpu": used.ru_utime + used.ru_stime,
        "printed": texts[printed][: setup["output_bytes"]].decode("utf-8", "replace"),
        "answered": texts[answered][: setup["output_bytes"]].decode("utf-8", "replace"),
    }


def _take(end: int, text: bytearray, limit: int) -> bool:
    """Add what a pipe holds; False at its end."""
    data = os.read(end, min(_CHUNK, limit + 1 - len(text))) if len(text) <= limit else b""
    text += data
    return bool(data)


def _become(
    request: dict[str, Any], setup: dict[str, Any], ends: tuple[int, int, int], namespaces: bool, own_folder: bool
) -> NoReturn:
    """Turn the child into the contained program."""
    given, printing, answering = ends
    try:
        nothing = os.open("/dev/null", os.O_RDWR)
        for target, end in enumerate((given, printing, nothing, answering)):
            os.dup2(end, target)
        os.closerange(program.ANSWERS + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        os.chdir(setup["folder"])
        kernel.set_limits(setup["limits"])
        if namespaces:
            kernel.set_limits({"NPROC": setup["threads"]})
        kernel.give_up_rights()
        readable = [*sys.path, f"{sys.base_prefix}/lib", *_LIBRARIES, setup["folder"]]
        kernel.close_files(readable, [*_DEVICES, *([setup["folder"]] if own_folder else [])])
        kernel.close_calls()
    except Exception as fault:
        program.answer({"fault": str(fault)})
        os._exit(1)
    try:
        program.run(request["source"], request.get("name"), request.get("arguments"))
        program.end()
    finally:  # whatever the program has broken, the child goes no other way
        os._exit(1)


def _receive() -> Any:
    """The next request; None when the other side has closed the line."""
    size = int.from_bytes(_read_all(_REQUESTS, _LENGTH), "little")
    return json.loads(_read_all(_REQUESTS, size)) if size else None


def _send(reply: Any) -> None:
    text = json.dumps(reply).encode()
    _write_all(_REPLIES, len(text).to_bytes(_LENGTH, "little") + text)


def _read_all(end: int, size: int) -> bytes:
    """As many bytes, or none at the end of the line."""
    data = bytearray()
    while len(data) < size:
        part = os.read(end, min(size - len(data), 1 << 20))
        if not part:
            return b""
        data += part
    return bytes(data)


def _write_all(end: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(end, left) :]
