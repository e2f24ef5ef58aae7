"""The files of a push: which of a model's folder may go, under which name, of what size and hash.

An allow-list, so that whatever else lies in the folder stays: logs, `.env`, optimizer states, pickles.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from buddygpt.recipe.errors import BuddyError

if TYPE_CHECKING:
    from buddygpt.publishing.remote import Held

CARD, RESULTS, TRAINING = "README.md", "eval/results.json", "training/"
_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
_SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")
_SETTINGS = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja",
    "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt",
)  # fmt: skip
_FIGURE = re.compile(r"figures/[A-Za-z0-9][A-Za-z0-9_.-]*\.png")


@dataclass(frozen=True)
class Item:
    """One file.

    Args:
        name: POSIX path in the repository.
        path: where it lies here.
        size: in bytes.
        sha256: 64 hex digits.
    """

    name: str
    path: Path
    size: int
    sha256: str


@dataclass(frozen=True)
class Parcel:
    """All files of a push, sorted by name."""

    items: tuple[Item, ...]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(item.size for item in self.items)

    def stale(self, held: Mapping[str, Held]) -> list[str]:
        """Files of the repository that an earlier push left and this one has not: a `model.safetensors` beside newer
        shards would be loaded in their stead, and a chat template would make a base model converse. Training state is
        stale only where other is sent.
        """
        here = {item.name for item in self.items}
        trains = any(name.startswith(TRAINING) for name in here)
        return [n for n in sorted(held) if n not in here and (is_ours(n) or (trains and n.startswith(TRAINING)))]


def is_ours(name: str) -> bool:
    """Whether a push writes files of this name: only those does it ever replace or remove."""
    ours = (CARD, RESULTS, _WEIGHTS, _INDEX, *_SETTINGS)
    return name in ours or _SHARD.fullmatch(name) is not None or _FIGURE.fullmatch(name) is not None


def choose_files(folder: Path) -> tuple[dict[str, Path], list[str]]:
    """The model's files that may go, and the names of all that stays.

    Raises:
        BuddyError: a link leads out of the folder, there are no weights, or shards of an earlier save lie among them.
    """
    chosen: dict[str, Path] = {}
    left = []
    for path in sorted(folder.iterdir()):
        if path.name in (*_SETTINGS, _WEIGHTS, _INDEX) or _SHARD.fullmatch(path.name):
            see_inside(path, folder)
            chosen[path.name] = path
        else:
            left.append(path.name + ("/" if path.is_dir() and not path.is_symlink() else ""))
    if "config.json" not in chosen:
        raise BuddyError(f"{folder}: no config.json in it")
    _see_weights(folder, set(chosen))
    return chosen, left


def see_inside(path: Path, folder: Path) -> None:
    """See that a file is one, and lies in the folder.

    Raises:
        BuddyError: it is a link that leads out, or no plain file.
    """
    if path.is_symlink() and not path.resolve().is_relative_to(folder.resolve()):
        raise BuddyError(f"{path}: a link that leads out of the folder; put the file itself there")
    if not path.is_file():
        raise BuddyError(f"{path}: not a file")


def pack(files: Mapping[str, Path]) -> Parcel:
    """Sizes and hashes of files, each under its name in the repository."""
    items = []
    for name in sorted(files):
        with files[name].open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        items.append(Item(name, files[name], files[name].stat().st_size, digest))
    return Parcel(tuple(items))


def is_same(item: Item, held: Held | None) -> bool:
    """Whether a hub holds this content: by size and by the hash that it tells."""
    if held is None or held.size != item.size:
        return False
    kind, _, digest = held.digest.partition(":")
    if kind == "sha256":
        return digest == item.sha256
    blob = hashlib.sha1(b"blob %d\0" % item.size, usedforsecurity=False)
    with item.path.open("rb") as file:
        while block := file.read(1 << 20):
            blob.update(block)
    return kind == "git" and digest == blob.hexdigest()


def _see_weights(folder: Path, names: set[str]) -> None:
    """One file of weights, or an index and exactly the shards that it names."""
    shards = {name for name in names if _SHARD.fullmatch(name)}
    if _INDEX not in names:
        if shards:
            stale = f"beside {_WEIGHTS} " if _WEIGHTS in names else ""
            raise BuddyError(f"{folder}: {min(shards)} {stale}without {_INDEX}: of another save; remove it")
        if _WEIGHTS not in names:
            raise BuddyError(f"{folder}: no weights in safetensors ({_WEIGHTS}); pickles are never sent")
        return
    if _WEIGHTS in names:
        raise BuddyError(f"{folder}: both {_WEIGHTS} and {_INDEX}, of which one is of another save; remove that")
    try:
        wanted = set(json.loads((folder / _INDEX).read_text("utf-8"))["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BuddyError(f"{folder / _INDEX}: not an index of weights") from None
    if stale := shards - wanted:
        raise BuddyError(f"{folder}: {min(stale)} is not in {_INDEX}: of another save; remove it")
    if missing := wanted - shards:
        raise BuddyError(f"{folder}: {min(map(str, missing))}, which {_INDEX} names, is not there")
