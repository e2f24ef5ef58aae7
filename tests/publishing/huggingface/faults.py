"""What goes wrong on the way, told request by request."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

QUOTA = "Private repository storage limit reached, please upgrade your plan to increase your private storage limit."

_lock = threading.Lock()


@dataclass(frozen=True)
class Answer:
    """This answer instead of the true one; `text` may be made of the request."""

    status: int
    text: str | Callable[[Any], str] = (
        '{"error":"Internal Error - We\'re working hard to fix this as soon as possible!"}'
    )
    headers: dict[str, str] = field(default_factory=dict)

    def text_for(self, request) -> str:
        return self.text if isinstance(self.text, str) else self.text(request)


@dataclass(frozen=True)
class Drop:
    """The connection breaks after so many bytes of the body."""

    after: int


@dataclass(frozen=True)
class Lose:
    """The request is served, its answer never comes."""


@dataclass(frozen=True)
class Wait:
    """The true answer comes later."""

    seconds: float


@dataclass(frozen=True)
class Redirect:
    """The same path at another address."""

    to: str
    status: int = 307


@dataclass
class Fault:
    """A fault at requests of a kind.

    Args:
        method, path: of the requests; `path` is a pattern that is searched for.
        act: what happens.
        times: so often; None for ever.
        skip: so many requests of the kind pass before.
        host: only at this server.
    """

    method: str
    path: str
    act: Answer | Drop | Lose | Wait | Redirect
    times: int | None = 1
    skip: int = 0
    host: str | None = None
    seen: int = 0


def fault_of(faults: list[Fault], request) -> Answer | Drop | Lose | Wait | Redirect | None:
    """The first fault that meets the request; counts."""
    with _lock:
        for fault in faults:
            if request.method != fault.method or fault.host not in (None, request.host):
                continue
            if not re.search(fault.path, request.path):
                continue
            fault.seen += 1
            if fault.seen > fault.skip and (fault.times is None or fault.seen <= fault.skip + fault.times):
                return fault.act
    return None


def quota(status: int) -> Answer:
    """No more room, in the hub's words."""
    error = QUOTA if status == 403 else {413: "Payload Too Large", 507: "Insufficient Storage"}[status]
    return Answer(status, f'{{"error":"{error}"}}', {"X-Error-Message": error})


def echo(status: int) -> Answer:
    """An error whose text holds the request's headers, the token with them, as careless proxies answer."""
    return Answer(status, lambda request: f'{{"error":"could not serve {request.headers.get("authorization")}"}}')
