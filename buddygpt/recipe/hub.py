"""The `hub` section: which hubs are asked, in which order, and by which way."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from buddygpt.recipe.base import Section

HubName = Literal["huggingface", "mirror", "modelscope"]
"""`mirror` is the endpoint that the environment variable HF_ENDPOINT names."""


class HubSection(Section):
    """Two hubs as one: the first that answers serves."""

    order: Annotated[list[HubName], Field(min_length=1)] | None = None
    """Hubs in order of preference; `BUDDY_HUBS`, or mirror (where HF_ENDPOINT is set), huggingface, modelscope."""
    proxy: dict[HubName, Literal["inherit", "none"]] = {}
    """`none` for a hub that is asked past the proxies which the environment names (HTTPS_PROXY, ALL_PROXY)."""
    tokens: list[HubName] = ["huggingface", "modelscope"]
    """Hubs that are told the user's token, where there is one; a mirror is told none unless it is named here."""
    bundle: str | None = None
    """Folder that `buddy data fetch --to` made: it serves all, no hub is asked; `BUDDY_BUNDLE` where left out."""
