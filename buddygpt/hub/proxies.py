"""The way to a hub: through the environment's proxies or past them, and whom the Hugging Face token is told."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from buddygpt.hub.settings import Settings
from buddygpt.recipe.errors import BuddyError

if TYPE_CHECKING:
    import requests

_CURES = {"socksio": 'pip install "httpx2[socks]"', "socks": "pip install pysocks"}
_direct: ContextVar[bool] = ContextVar("direct", default=False)
_patience: ContextVar[float | None] = ContextVar("patience", default=None)
_guarded = False
_trusted: frozenset[tuple[str, str | None, int | None]] = frozenset()


def check_proxies(settings: Settings) -> None:
    """See that the clients can use the proxies which the environment names, before any request.

    Raises:
        BuddyError: one line with the cure.
    """
    schemes = {key: address.partition("://")[0].lower() for key, address in getproxies().items() if "://" in address}
    socks = [key for key, scheme in schemes.items() if scheme.startswith("socks")]
    needs = {hub: "socks" if hub == "modelscope" else "socksio" for hub in settings.order if hub not in settings.direct}
    for key in socks:
        if schemes[key] not in ("socks5", "socks5h") and "socksio" in needs.values():
            raise BuddyError(
                f"{key.upper()}_PROXY: huggingface's client knows no proxies of the kind {schemes[key]}://; "
                f"write socks5://, or go past it with hub.proxy={_spell_direct(needs, 'socksio')}"
            )
    missing = [module for module in _CURES if socks and module in needs.values() and find_spec(module) is None]
    if missing:
        cures = " and ".join(f"`{_CURES[module]}` for {_spell(needs, module)}" for module in missing)
        past = _spell_direct(needs, *missing)
        raise BuddyError(
            f"{socks[0].upper()}_PROXY is a SOCKS proxy, which needs {cures}; or go past it with hub.proxy={past}"
        )


@contextmanager
def way(*, direct: bool, patience: float | None = None) -> Iterator[None]:
    """Take huggingface_hub's requests of this thread past the environment's proxies, or through them.

    Args:
        direct: past them.
        patience: seconds without a byte after which a request that names no time itself is given up.
    """
    before = _direct.set(direct), _patience.set(patience)
    try:
        yield
    finally:
        _direct.reset(before[0])
        _patience.reset(before[1])


def guard_huggingface(settings: Settings) -> None:
    """Make huggingface_hub, in this process, obey `way` and tell its token to trusted origins only.

    The library reads the token by itself and would tell it to whatever HF_ENDPOINT names; transformers, which loads
    models through it, too.
    """
    from huggingface_hub import set_client_factory

    global _guarded, _trusted
    _trusted = frozenset(_origin(address) for hub, address in settings.endpoints.items() if hub in settings.tokens)
    if not _guarded:
        set_client_factory(_make_client)
        _guarded = True


def go_direct(session: requests.Session) -> None:
    """Take a session of requests past the environment's proxies; certificates named there stay."""
    session.trust_env = False
    session.verify = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or True


def same_origin(a: str, b: str) -> bool:
    """Whether two addresses have scheme, host and port in common."""
    return _origin(a) == _origin(b)


def _origin(address: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(address)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _make_client() -> Any:
    import httpx2
    from huggingface_hub.utils._http import hf_request_event_hook

    options: dict[str, Any] = {
        "event_hooks": {"request": [hf_request_event_hook, _keep_token, _bound]},
        "follow_redirects": True,
        "timeout": None,
    }

    class Client(httpx2.Client):
        """Of two clients, with and without the environment's proxies, the one for the thread's `way`."""

        _inherit: httpx2.Client | None = None

        def send(self, request: httpx2.Request, **given: Any) -> httpx2.Response:
            """As httpx2's."""
            if _direct.get():
                return super().send(request, **given)
            if self._inherit is None:
                self._inherit = httpx2.Client(**options)
            return self._inherit.send(request, **given)

        def close(self) -> None:
            """As httpx2's."""
            super().close()
            if self._inherit is not None:
                self._inherit.close()

    # trust_env stands for certificates, too
    file, folder = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    verify = ssl.create_default_context(cafile=file, capath=folder) if file or folder else True
    return Client(trust_env=False, verify=verify, **options)


def _keep_token(request: Any) -> None:
    if _origin(str(request.url)) not in _trusted:
        request.headers.pop("authorization", None)


def _bound(request: Any) -> None:
    patience = _patience.get()
    if patience is not None and not any(request.extensions.get("timeout", {}).values()):
        request.extensions["timeout"] = {"connect": patience, "read": patience, "write": patience, "pool": None}


def _spell(needs: dict[Any, str], *modules: str) -> str:
    return ", ".join(hub for hub, module in needs.items() if module in modules)


def _spell_direct(needs: dict[Any, str], *modules: str) -> str:
    return "{" + ", ".join(f"{hub}: none" for hub, module in needs.items() if module in modules) + "}"
