"""Prepared data: a folder with token files, a tokenizer, and a manifest that tells all about them.

CACHE/KEY/manifest.json                       written last: a folder without it counts for nothing
CACHE/KEY/tokenizer/                          as saved by transformers
CACHE/KEY/shards/SOURCE/train/00000.ds        and 00000.ds.index; also SOURCE/validation/
CACHE/KEY/samples.json                        of what was dropped or changed, for the report
CACHE/KEY/logs/                               datatrove's
CACHE/KEY/work/                               intermediate files, until all is done
CACHE/KEY.lock                                held by the process that prepares
CACHE/files.json, hub.json                    hashes of local files, answers of the hub
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from buddygpt.data.samples import Samples
from buddygpt.data.shards import Shard, ShardRecord
from buddygpt.recipe.errors import BuddyError, did_you_mean

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FORMAT = 2
"""Version of the layout and of everything that decides the tokens; a new one prepares anew."""
Split = Literal["train", "validation"]


@dataclass(frozen=True)
class Prepared:
    """One prepared folder."""

    path: Path
    manifest: dict[str, Any]

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer that made the tokens."""
        from buddygpt.data.tokenizer import load_tokenizer

        return load_tokenizer(str((self.path / "tokenizer").absolute()))

    def source(self, name: str) -> dict[str, Any]:
        """A source's part of the manifest.

        Raises:
            BuddyError: there is no such source.
        """
        known = self.manifest["sources"]
        if name not in known:
            near = did_you_mean(name, known) or f"; there are {', '.join(known)}"
            raise BuddyError(f"{self.path}: no source '{name}'{near}")
        return known[name]

    def records(self, source: str, split: Split) -> list[ShardRecord]:
        """The manifest's entries of a source's shards."""
        return [ShardRecord(**record) for record in self.source(source)["splits"][split]["shards"]]

    def open(self, source: str, split: Split) -> list[Shard]:
        """A source's shards in order; none where the split is empty.

        Raises:
            BuddyError: no such source, or a shard that is missing or cut short.
        """
        return [Shard(record, self.path, self.manifest["tokenizer"]["dtype"]) for record in self.records(source, split)]

    def check(self) -> list[str]:
        """Faults of the folder's shards and tokenizer, one line each; reads everything."""
        from buddygpt.data.tokenizer import tokenizer_hash

        faults = []
        for source in self.manifest["sources"]:
            for split in ("train", "validation"):
                for record in self.records(source, split):
                    faults += record.check(self.path)
        try:
            if tokenizer_hash(self.tokenizer()) != self.manifest["tokenizer"]["hash"]:
                faults.append(f"{self.path / 'tokenizer'}: not the tokenizer that made the shards; remove {self.path}")
        except BuddyError as error:
            faults += error.lines
        return faults

    def samples(self) -> dict[str, Samples]:
        """What was dropped or changed, a few documents of each kind, by source."""
        return {name: Samples.from_dict(own) for name, own in self._told()["sources"].items()}

    def pairs(self) -> list[dict[str, tuple[str, str]]]:
        """Some near duplicates: place and text of the one `removed`, and of the one `kept` for it."""
        return self._told()["near_duplicates"]["pairs"]

    def _told(self) -> dict[str, Any]:
        return json.loads((self.path / "samples.json").read_text("utf-8"))

    def sample(self, source: str, tokens: int = 120) -> str:
        """The start of a source's first document, decoded; of a held-out one where nothing is trained on."""
        for split in ("train", "validation"):
            for shard in self.open(source, split):
                ids = shard.tokens[: min(tokens, int(shard.document_ends[0]) - 1)].tolist()
                return str(self.tokenizer().decode(ids)).rstrip("\ufffd")  # a cut may lie within a character
        return ""


def read_prepared(path: Path) -> Prepared | None:
    """The prepared folder at `path`; None where it is not, or not whole."""
    try:
        manifest = json.loads((path / "manifest.json").read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise BuddyError(f"{path / 'manifest.json'}: not to be read ({error}); remove {path}, prepare again") from None
    return Prepared(path, manifest) if manifest.get("format") == FORMAT else None
