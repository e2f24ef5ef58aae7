"""Whether the hub has what is about to be loaded."""

from __future__ import annotations

from buddygpt.recipe.errors import BuddyError


def see_model(id: str) -> None:
    """See that the hub has the model, once and briefly: loading would try again for half a minute.

    Raises:
        BuddyError: it does not, or cannot be reached.
    """
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError

    if isinstance(try_to_load_from_cache(id, "config.json"), str):
        return
    try:
        HfApi().model_info(id, timeout=4.0)
    except (HfHubHTTPError, HFValidationError, HTTPError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise BuddyError(f"{id}: neither a folder here nor to be had from the hub: {reason}") from None
