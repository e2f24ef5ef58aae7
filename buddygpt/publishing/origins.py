"""Whom a hub's client, where it uses requests, may tell the token: the address that was set, and nobody else."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from buddygpt.hub.proxies import go_direct, same_origin
from buddygpt.recipe.errors import BrokenOff

if TYPE_CHECKING:
    from requests import PreparedRequest, Response, Session


class Onward(BrokenOff):
    """A hub sends us to another address.

    Args:
        line: for people.
        address: it; may be signed.
    """

    def __init__(self, line: str, address: str):
        self.address = address
        super().__init__(line)


def is_safe(address: str) -> bool:
    """Whether nobody on the way can read along: TLS, or this machine."""
    parts = urlsplit(address)
    host = parts.hostname or ""
    if not host or "@" in parts.netloc:
        return False
    if parts.scheme == "https" or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def siblings(endpoint: str) -> list[str]:
    """Where a ModelScope site takes blobs: lfs.modelscope.cn for modelscope.cn and www.modelscope.cn.

    As modelscope_hub has it (`OpenAPIClient._same_host_as_endpoint`), which knows these hosts to want the token.
    """
    parts = urlsplit(endpoint)
    if parts.scheme != "https" or parts.port:
        return []
    labels = str(parts.hostname).split(".")
    site = ".".join(labels[1:] if len(labels) > 2 else labels)
    return [f"https://lfs.{site}", f"https://pre-lfs.{site}"]


def guard_session(session: Session, hub: str, trusted: Sequence[str], *, direct: bool) -> None:
    """Keep a session's token to trusted origins, follow it nowhere else, and take no refusal for an answer.

    Args:
        session: any of requests; a try of it is one try. It raises Onward for a redirect.
        hub: for messages.
        trusted: addresses whose origins are told tokens and cookies.
        direct: past the environment's proxies.
    """
    from requests.adapters import HTTPAdapter

    if direct:
        go_direct(session)
    session.mount("https://", HTTPAdapter())
    session.mount("http://", HTTPAdapter())
    session.auth = _as_it_is  # else a password of ~/.netrc would take the token's place
    session.headers["Cache-Control"] = "no-cache"
    session.send = partial(_send, session.send, hub, trusted)  # type: ignore[method-assign]


def _send(send: Any, hub: str, trusted: Sequence[str], request: PreparedRequest, **given: Any) -> Response:
    host = urlsplit(str(request.url)).hostname
    if not is_safe(str(request.url)):
        raise BrokenOff(f"{hub}: it names {host}, to be reached without TLS: nothing was sent there")
    if not any(same_origin(str(request.url), origin) for origin in trusted):
        request.headers.pop("Authorization", None)
        request.headers.pop("Cookie", None)
    answer: Response = send(request, **given | {"allow_redirects": False})
    if answer.is_redirect:
        onward = urljoin(str(request.url), answer.headers["Location"])
        line = (
            f"{hub}: {host} sends us on to {urlsplit(onward).hostname}: nothing was sent there; see the hub's address"
        )
        raise Onward(line, onward)
    if answer.status_code < 400 and not given.get("stream"):
        answer.status_code = _status(answer)
    return answer


def _status(answer: Response) -> int:
    """Of an answer that says it has failed, 400 or what a blob's own fault says, whatever stands at its head."""
    try:
        told = answer.json()
    except ValueError:
        return answer.status_code
    if not isinstance(told, dict):
        return answer.status_code
    failed = told.get("Success") is False or told.get("success") is False
    if failed or told.get("Code") not in (None, 200, "200"):
        return 400
    data = told.get("Data", told)
    blobs = data.get("objects") if isinstance(data, dict) else None
    for blob in blobs if isinstance(blobs, list) else ():
        if isinstance(blob, dict) and blob.get("error"):
            code = blob["error"].get("code") if isinstance(blob["error"], dict) else None
            return code if isinstance(code, int) and 400 <= code < 600 else 400
    return answer.status_code


def _as_it_is(request: PreparedRequest) -> PreparedRequest:
    return request
