"""Whether the hub has what is about to be loaded."""

from __future__ import annotations

from buddygpt.hub.proxies import guard_huggingface
from buddygpt.hub.settings import read_settings
from buddygpt.recipe.errors import BuddyError
from buddygpt.recipe.hub import HubSection


def see_model(id: str) -> None:
    """See that the hub has the model, once and briefly: loading would try again for half a minute.

    The hub is the one that transformers loads from: huggingface.co, or what HF_ENDPOINT names.

    Raises:
        BuddyError: it does not, or cannot be reached.
    """
    guard_huggingface(read_settings(HubSection()))  # transformers, which will load it, would tell a mirror the token
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError

    if isinstance(try_to_load_from_cache(id, "config.json"), str):
        return
    try:
        HfApi().model_info(id, timeout=4.0)
    except (HfHubHTTPError, HFValidationError, HTTPError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise BuddyError(f"{id}: neither a folder here nor to be had from the hub: {reason}") from None
