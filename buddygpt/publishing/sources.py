"""What a card may say of a source of text: public names, the licence, how much of it went in.

A file on this machine has no public name but its own: folders of a path, and names made from them, stay here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from buddygpt.data.catalog import Entry, entries, find
from buddygpt.recipe.data import AnySource, CatalogSource, DemoSource, FilesSource, HubSource, source_name
from buddygpt.recipe.errors import BuddyError

UNSTATED = (None, "unclear", "varies by source")
"""What stands for a licence in the catalog where there is none to rely on."""
RESTRICTIONS: dict[str, tuple[str, str]] = {
    "some of its sources are non-commercial": ("部分来源禁止商用", "some of its sources are non-commercial"),
    "non-commercial": ("禁止商用", "non-commercial"),
    "research only": ("仅限研究", "research only"),
    "commercial use asks": ("商用须经许可", "commercial use asks for permission"),
    "community licence": ("自有许可条款", "terms of its own"),
}
"""Words in a licence or in a warning of the catalog to what they mean, the more exact ones first."""
_NON_COMMERCIAL = re.compile(r"(?:^|[-_ ])nc(?:$|[-_ ])", re.IGNORECASE)
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_FILE = re.compile(r"[^/\\]+\.[A-Za-z0-9*?\[\]]{1,8}(?:\.(?:gz|zst))?")

Kind = Literal["demo", "hub", "files"]


@dataclass(frozen=True)
class Licence:
    """Under which terms a source may be used.

    Args:
        text: as stated; None where none is.
        sure: whether it was seen on the source's page; else recalled.
        limits: what it forbids or asks for, in Chinese and in English.
    """

    text: str | None
    sure: bool = True
    limits: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Source:
    """A source as a card names it.

    Args:
        name: what it is called.
        key: its name in the manifest and in metrics.
        kind: demo, hub or files.
        id: on Hugging Face.
        modelscope: id there.
        licence: its terms.
        languages: codes; empty where not known.
        rows, tokens: of its training split; None where nothing is recorded.
        epochs: how often that was read; None where it cannot be told.
    """

    name: str
    key: str
    kind: Kind
    id: str | None
    modelscope: str | None
    licence: Licence
    languages: tuple[str, ...]
    rows: int | None = None
    tokens: int | None = None
    epochs: float | None = None


def is_hub_id(text: str) -> bool:
    """Whether it has the form `owner/name`; a path with dots or a drive in front has not."""
    return _HUB_ID.fullmatch(text) is not None and ".." not in text and "--" not in text


def file_name(path: str) -> str | None:
    """The last part of a path where it names files; None for a folder, whose name may be anybody's."""
    last = re.split(r"[/\\]", path.rstrip("/\\"))[-1]
    return last if _FILE.fullmatch(last) else None


def public_name(source: AnySource, number: int) -> str:
    """What a source may be called; `number` is its place in the recipe, from 1."""
    if source.name and not re.search(r"[/\\~]", source.name):
        return source.name
    if isinstance(source, FilesSource):
        names = dict.fromkeys(name for path in source.paths if (name := file_name(path)))
        first = next(iter(names), None)
        return f"files {number}" if first is None else first + (f" + {len(names) - 1}" if len(names) > 1 else "")
    if isinstance(source, HubSource):
        return source.id if is_hub_id(source.id) else f"hub {number}"
    return source.dataset if isinstance(source, CatalogSource) else "demo"


def describe(source: AnySource, number: int, manifest: Mapping[str, Any] | None) -> Source:
    """A source of a recipe, with its counts where it was prepared.

    Args:
        source: the recipe's.
        number: its place there, from 1.
        manifest: of the prepared data.
    """
    key = source_name(source)
    entry = _entry(source)
    kind: Kind = "demo" if isinstance(source, DemoSource) else "files" if isinstance(source, FilesSource) else "hub"
    own = (manifest or {}).get("sources", {}).get(key, {})
    train = own.get("splits", {}).get("train", {})
    hub_id = source.id if isinstance(source, HubSource) else entry.huggingface if entry else None
    modelscope = source.modelscope if isinstance(source, HubSource) else entry.modelscope if entry else None
    languages = ("zh",) if kind == "demo" else tuple(entry.language) if entry else ()
    return Source(
        name=public_name(source, number),
        key=key,
        kind=kind,
        id=hub_id if hub_id and is_hub_id(hub_id) else None,
        modelscope=modelscope if modelscope and is_hub_id(modelscope) else None,
        licence=Licence(None) if entry is None else _licence(entry),
        languages=languages,
        rows=train.get("documents"),
        tokens=train.get("tokens"),
    )


def _entry(source: AnySource) -> Entry | None:
    """What the catalog knows of it; of a hub's repository too, where it is one of the catalog's."""
    if isinstance(source, CatalogSource):
        try:
            return find(source.dataset)
        except BuddyError:  # of another version's catalog
            return None
    if isinstance(source, HubSource):
        return next((entry for entry in entries() if entry.huggingface == source.id), None)
    return None


def _licence(entry: Entry) -> Licence:
    told = [entry.licence or "", *entry.warnings]
    limits = [next((meaning for words, meaning in RESTRICTIONS.items() if words in line), None) for line in told]
    if _NON_COMMERCIAL.search(entry.licence or ""):
        limits.append(RESTRICTIONS["non-commercial"])
    text = None if entry.licence in UNSTATED else entry.licence
    found = tuple(dict.fromkeys(limit for limit in limits if limit))
    return Licence(text, "licence" not in entry.unsure, found)
