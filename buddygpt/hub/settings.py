"""The recipe's `hub` section and the environment's variables as one decision."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from buddygpt.recipe.errors import BuddyError, did_you_mean
from buddygpt.recipe.hub import HubName, HubSection

HUGGINGFACE = "https://huggingface.co"
_KNOWN: tuple[HubName, ...] = get_args(HubName)


@dataclass(frozen=True)
class Settings:
    """Which hubs are asked, and how.

    Args:
        order: hubs in order of preference.
        direct: hubs that are asked past the environment's proxies.
        tokens: hubs that are told the user's token.
        endpoints: addresses of huggingface and, where there is one, mirror.
        bundle: folder that serves instead of all hubs.
    """

    order: tuple[HubName, ...]
    direct: frozenset[HubName]
    tokens: frozenset[HubName]
    endpoints: dict[HubName, str]
    bundle: Path | None


def read_settings(section: HubSection) -> Settings:
    """Settle what the recipe leaves open.

    Raises:
        BuddyError: a variable that names no hub, or an address that is none.
    """
    endpoints: dict[HubName, str] = {"huggingface": HUGGINGFACE}
    mirror = os.environ.get("HF_ENDPOINT", "").rstrip("/")
    if mirror and mirror != HUGGINGFACE:
        if not mirror.startswith(("http://", "https://")):
            raise BuddyError("HF_ENDPOINT: not an address; write https://host")
        endpoints["mirror"] = mirror
    asked = section.order or _from_environment() or ["mirror", "huggingface", "modelscope"]
    order = tuple(hub for hub in dict.fromkeys(asked) if hub != "mirror" or "mirror" in endpoints)
    if not order:
        raise BuddyError("hub.order: only the mirror is asked, but HF_ENDPOINT, which is to name it, is not set")
    bundle = os.environ.get("BUDDY_BUNDLE") if section.bundle is None else section.bundle
    return Settings(
        order,
        frozenset(hub for hub, way in section.proxy.items() if way == "none"),
        frozenset(section.tokens),
        endpoints,
        Path(bundle).expanduser() if bundle else None,
    )


def _from_environment() -> list[HubName]:
    names = [name.strip() for name in os.environ.get("BUDDY_HUBS", "").split(",") if name.strip()]
    for name in names:
        if name not in _KNOWN:
            raise BuddyError(f"BUDDY_HUBS: no hub '{name}'; known are {', '.join(_KNOWN)}{did_you_mean(name, _KNOWN)}")
    return names  # type: ignore[return-value]
