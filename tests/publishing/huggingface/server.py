"""HTTP on a port of this machine: requests and answers as plain values, recorded, with faults on the way."""

from __future__ import annotations

import base64
import json
import socket
import struct
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

from .faults import Answer, Drop, Fault, Lose, Redirect, Wait, fault_of


@dataclass(frozen=True)
class Request:
    """What a client sent.

    Args:
        host: the server's name here, "hub" or "storage".
        target: path and query as sent; `path` is decoded.
        headers: by lower-case name.
        body: all bytes; those that came where a fault cut it.
    """

    host: str
    method: str
    target: str
    headers: dict[str, str]
    body: bytes = b""

    @property
    def path(self) -> str:
        return unquote(urlsplit(self.target).path)

    @property
    def query(self) -> dict[str, str]:
        return {name: values[-1] for name, values in parse_qs(urlsplit(self.target).query).items()}

    @property
    def token(self) -> str | None:
        """Of `Authorization`: a bearer's, or the password that git sends."""
        kind, _, value = self.headers.get("authorization", "").partition(" ")
        if kind.lower() == "basic":
            return base64.b64decode(value).decode().partition(":")[2]
        return value if kind == "Bearer" else None

    def json(self):
        return json.loads(self.body)

    def tells(self, secret: str) -> bool:
        """Whether the secret is anywhere in it, also in git's base64."""
        return self.token == secret or any(
            secret in text for text in (self.target, *self.headers.values(), self.body.decode("utf-8", "replace"))
        )


@dataclass(frozen=True)
class Response:
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


class Refused(Exception):
    """An answer that ends the handling of a request."""

    def __init__(self, status: int, error: str, code: str = "", **headers: str):
        named = {"X-Error-Message": error} | ({"X-Error-Code": code} if code else {}) | headers
        self.response = told({"error": error}, status, named)


def told(data, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """JSON."""
    return Response(
        status, json.dumps(data).encode(), {"Content-Type": "application/json; charset=utf-8"} | (headers or {})
    )


def part_of(data: bytes, request: Request, headers: dict[str, str]) -> Response:
    """The bytes, or those that `Range` asks for."""
    headers = {"Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"} | headers
    first, dash, last = request.headers.get("range", "").removeprefix("bytes=").partition("-")
    if not dash:
        return Response(200, data, headers)
    start, end = int(first), min(int(last or len(data)), len(data) - 1)
    if start >= len(data):
        return Response(416, b"", {"Content-Range": f"bytes */{len(data)}"})
    return Response(206, data[start : end + 1], headers | {"Content-Range": f"bytes {start}-{end}/{len(data)}"})


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    host: str
    handle_request: Callable[[Request], Response]
    requests: list[Request]
    faults: list[Fault]
    crashes: list[str]

    def _serve(self):
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.host, self.command, self.path, headers)
        act = fault_of(self.faults, request)
        if isinstance(act, Wait):
            time.sleep(act.seconds)
        if isinstance(act, Drop):
            body = self.rfile.read(min(act.after, int(headers.get("content-length", 0))))
            self.requests.append(Request(self.host, self.command, self.path, headers, body))
            return self._hang_up()
        request = Request(self.host, self.command, self.path, headers, self._body(headers))
        self.requests.append(request)
        match act:
            case Answer():
                response = Response(
                    act.status, act.text_for(request).encode(), {"Content-Type": "application/json"} | act.headers
                )
            case Redirect():
                response = Response(act.status, b"", {"Location": act.to + self.path})
            case _:
                try:
                    response = self.handle_request(request)
                except Refused as refused:
                    response = refused.response
                except Exception:  # a fault of the stand-in, which must not pass for one of the network
                    self.crashes.append(traceback.format_exc())
                    response = Response(500)
        return self._hang_up() if isinstance(act, Lose) else self._send(response)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _serve

    def _body(self, headers: dict[str, str]) -> bytes:
        if "chunked" not in headers.get("transfer-encoding", ""):
            return self.rfile.read(int(headers.get("content-length", 0)))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _send(self, response: Response) -> None:
        self.send_response(response.status)
        for name, value in {"Content-Length": str(len(response.body)), **response.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(response.body)

    def _hang_up(self) -> None:
        """Closes with a reset, as a cable that is pulled looks from the other side."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True
        self.wfile = _Nowhere()

    def log_message(self, *args):
        pass


class _Nowhere:
    closed = True


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # of five, others wait seconds for their turn to connect

    def handle_error(self, request, client_address):
        """A client that is gone is no news."""


@contextmanager
def serve(host: str, handle: Callable[[Request], Response], **lists) -> Iterator[str]:
    """A server in a thread, with the lists of a `_Handler`; gives its address."""
    state = {"host": host, "handle_request": staticmethod(handle)} | lists
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), state))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
