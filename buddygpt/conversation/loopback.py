"""Servers that only this machine can reach, and that no page of another site can use through the browser."""

from __future__ import annotations

import socket
from typing import Any
from urllib.parse import urlsplit

from buddygpt.recipe.errors import BuddyError

ADDRESS = "127.0.0.1"
NAMES = frozenset({ADDRESS, "localhost", "::1"})
"""Hosts that a browser on this machine, or behind `ssh -L`, may have asked for."""


def listen(port: int | None, first: int) -> socket.socket:
    """A socket that listens on this machine alone.

    Args:
        port: as asked for; `first` or any free one where left out.

    Raises:
        BuddyError: the port is taken, or not for everyone.
    """
    for number in (first, 0) if port is None else (port,):
        found = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a server that just ended holds no port
        try:
            found.bind((ADDRESS, number))
            found.listen()
            return found
        except OSError as error:
            found.close()
            if port is not None:
                reason = (error.strerror or str(error)).lower()
                raise BuddyError(f"--port {port}: {reason}; choose another, or leave it out for a free one") from None
    raise BuddyError("no port is free on this machine")


class SameSite:
    """An ASGI app that hears only what was asked under a name of this machine, and by no page but its own.

    A page of another site could otherwise write to the server, or read it too once the name of that site points here
    (DNS rebinding).

    Args:
        app: what is guarded.
        headers: go with every answer.
    """

    def __init__(self, app: Any, headers: dict[str, str] | None = None):
        self._app = app
        self._headers = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] == "http" and not self._is_ours(scope["headers"]):
            await send({"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"text/plain")]})
            await send({"type": "http.response.body", "body": b"only for pages of this server, on this machine\n"})
            return
        if scope["type"] == "websocket":  # neither server has one, and browsers let any page open it
            await send({"type": "websocket.close", "code": 1008})
            return

        async def with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *self._headers]}
            await send(message)

        await self._app(scope, receive, with_headers)

    @staticmethod
    def _is_ours(headers: list[tuple[bytes, bytes]]) -> bool:
        host, origin = (
            [value.decode("latin-1") for name, value in headers if name == wanted] for wanted in (b"host", b"origin")
        )
        if len(host) != 1 or len(origin) > 1:
            return False
        try:
            named = urlsplit(f"//{host[0]}").hostname in NAMES
        except ValueError:
            return False
        return named and origin in ([], [f"http://{host[0]}"])
