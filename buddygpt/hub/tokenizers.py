"""Tokenizers of models on a hub, as folders on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from buddygpt.events import silent
from buddygpt.hub.bundle import folder_of
from buddygpt.hub.fetch import fetch
from buddygpt.hub.resolve import resolve
from buddygpt.hub.settings import read_settings
from buddygpt.hub.wanted import HubFiles, Wanted
from buddygpt.recipe.errors import BuddyError
from buddygpt.recipe.hub import HubSection

FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja",
    "vocab.json", "merges.txt", "vocab.txt", "tokenizer.model", "spiece.model", "config.json",
)  # fmt: skip
"""What a tokenizer may consist of; config.json tells its class where tokenizer_config.json does not."""


def find_tokenizers(ids: Sequence[str], section: HubSection) -> list[HubFiles]:
    """Their files, on Hugging Face or its mirror: an id of the one hub may be somebody else's on ModelScope.

    Raises:
        BuddyError: one line for each that cannot be had.
    """
    wanted = {place: _wanted(id) for place, id in enumerate(ids)}
    return list(resolve(wanted, section)[0].values()) if wanted else []


def tokenizer_folder(id: str, section: HubSection) -> Path:
    """The local folder of a model's tokenizer: from the bundle, or downloaded into the cache.

    Where no hub answers, it is that of last time.

    Raises:
        BuddyError: it cannot be had.
    """
    try:
        (answer,) = find_tokenizers([id], section)
    except BuddyError:
        if (found := _of_last_time(id)) is None:
            raise
        return found
    if bundle := read_settings(section).bundle:
        return folder_of(bundle, answer)
    paths, _ = fetch(answer, section, silent)
    _remember(answer)
    return paths[0].parent


def _wanted(id: str) -> Wanted:
    return Wanted(f"tokenizer '{id}'", id, None, FILES, remedy="give 'qwen3' or a folder", kind="model")


def _of_last_time(id: str) -> Path | None:
    """The folder in huggingface_hub's cache that its branch led to last."""
    from huggingface_hub import try_to_load_from_cache

    found = [try_to_load_from_cache(id, name) for name in ("tokenizer.json", "tokenizer_config.json")]
    return next((Path(path).parent for path in found if isinstance(path, str)), None)


def _remember(answer: HubFiles) -> None:
    """Note in huggingface_hub's cache what the branch led to, as its own downloads do."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    refs = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=answer.id, repo_type="model") / "refs"
    refs.mkdir(parents=True, exist_ok=True)
    (refs / answer.revision).write_text(answer.commit, "utf-8")
