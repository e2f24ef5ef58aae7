"""The hubs that the settings name."""

from __future__ import annotations

from buddygpt.hub.huggingface import HuggingFace
from buddygpt.hub.modelscope import ModelScope
from buddygpt.hub.protocol import Hub
from buddygpt.hub.proxies import check_proxies
from buddygpt.hub.settings import Settings
from buddygpt.recipe.hub import HubName


def open_hubs(settings: Settings) -> dict[HubName, Hub]:
    """The hubs in their order of preference; nothing is asked.

    Raises:
        BuddyError: a proxy that a hub's client cannot use.
    """
    check_proxies(settings)
    return {hub: ModelScope(settings) if hub == "modelscope" else HuggingFace(hub, settings) for hub in settings.order}
