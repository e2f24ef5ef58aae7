"""What is wanted of the hubs, and what they have: repositories, files, and what a file's content is known by."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from buddygpt.recipe.base import spell_bytes
from buddygpt.recipe.data import Rows, source_name
from buddygpt.recipe.errors import BuddyError
from buddygpt.recipe.hub import HubName

Kind = Literal["dataset", "model"]
_WORD = re.compile(r"[0-9A-Za-z-]+")
_KEPT = {"weight", "validation", "map", "render", "min_score"}


@dataclass(frozen=True)
class Repository:
    """A repository on one hub.

    Args:
        hub: which.
        kind: of data or of a model.
        id: `owner/name` there.
        revision: branch, tag or commit.
    """

    hub: HubName
    kind: Kind
    id: str
    revision: str


@dataclass(frozen=True)
class HubFile:
    """A file of a repository.

    Args:
        name: path in the repository.
        size: bytes.
        content: the hub's own hash of it, `sha256:...` or `git:...` (of a blob); `listed:...`, the state of the whole
            repository, where the hub tells none.
        hub: who served it, where not the hub that listed it.
    """

    name: str
    size: int
    content: str
    hub: HubName | None = None

    @property
    def digest(self) -> str:
        """The hash, without what kind it is of."""
        return self.content.partition(":")[2]


@dataclass(frozen=True)
class Wanted:
    """Files of one repository, by its ids on the hubs.

    Args:
        where: whom a message is about, e.g. `data.sources.1: mountains`.
        huggingface: id on Hugging Face and its mirror; None where it is not there.
        modelscope: id on ModelScope; None where it is not there.
        files: globs of the files.
        exclude: globs of files to leave out.
        revision: branch, tag or commit on Hugging Face; ModelScope is asked for its default branch.
        size: bytes of all files, told when no hub answers; None where unknown.
        remedy: what to do when no hub has it, told last in the line.
        kind: of data or of a model.
    """

    where: str
    huggingface: str | None
    modelscope: str | None
    files: tuple[str, ...]
    exclude: tuple[str, ...] = ()
    revision: str = "main"
    size: int | None = None
    remedy: str = ""
    kind: Kind = "dataset"

    def repository(self, hub: HubName) -> Repository | None:
        """Where it lies on a hub."""
        id = self.modelscope if hub == "modelscope" else self.huggingface
        return Repository(hub, self.kind, id, "master" if hub == "modelscope" else self.revision) if id else None

    def asked(self) -> dict[str, Any]:
        """All that decides the answer, as plain data."""
        return {
            "kind": self.kind, "huggingface": self.huggingface, "modelscope": self.modelscope,
            "revision": self.revision, "files": list(self.files), "exclude": list(self.exclude),
        }  # fmt: skip

    def choose(self, files: Sequence[HubFile]) -> tuple[HubFile, ...]:
        """Those that the globs name, in order of their names."""
        return tuple(
            file
            for file in sorted(files, key=lambda file: file.name)
            if _matches(file.name, self.files) and not _matches(file.name, self.exclude)
        )

    def fault(self, reason: str) -> str:
        """The line for a source that cannot be had."""
        size = f" ({spell_bytes(self.size)})" if self.size else ""
        remedy = f"; {self.remedy}" if self.remedy else ""
        return f"{self.where}: {self.huggingface or self.modelscope}{size} cannot be had: {reason}{remedy}"


@dataclass(frozen=True)
class HubFiles:
    """The files that answer what was wanted, on one hub, at one commit.

    Args:
        wanted: the question.
        hub: who answered.
        commit: what the revision stood for; of ModelScope, whose client tells none, a hash of the listing.
        files: in order of their names.
    """

    wanted: Wanted
    hub: HubName
    commit: str
    files: tuple[HubFile, ...]

    def __post_init__(self) -> None:
        """See that nothing of it leads out of the folders that it will be put in."""
        for file in self.files:
            parts = PurePosixPath(file.name)
            if parts.is_absolute() or ".." in parts.parts or "\\" in file.name or not _WORD.fullmatch(file.digest):
                raise BuddyError(f"{self.id}: {self.hub} lists a file that cannot be: {file.name}, {file.content}")
        if not _WORD.fullmatch(self.commit):
            raise BuddyError(f"{self.id}: {self.hub} tells a commit that cannot be: {self.commit}")

    @property
    def id(self) -> str:
        """The repository's, on that hub."""
        return self._asked.id

    @property
    def revision(self) -> str:
        """What was asked for, on that hub."""
        return self._asked.revision

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    def origin(self) -> dict[str, Any]:
        """Where the files come from, for a manifest; each file's own hash stands with the file."""
        also = {file.name: file.hub for file in self.files if file.hub not in (None, self.hub)}
        origin = {"hub": self.hub, "id": self.id, "revision": self.revision, "commit": self.commit}
        return origin | ({"from_other_hubs": also} if also else {})

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        files = [{k: v for k, v in asdict(file).items() if v is not None} for file in self.files]
        return {"asked": self.wanted.asked(), "hub": self.hub, "commit": self.commit, "files": files}

    @classmethod
    def from_dict(cls, data: dict[str, Any], wanted: Wanted) -> HubFiles:
        """What `as_dict` gave, for the same question."""
        return cls(wanted, data["hub"], data["commit"], tuple(HubFile(**file) for file in data["files"]))

    @property
    def _asked(self) -> Repository:
        repository = self.wanted.repository(self.hub)
        assert repository is not None
        return repository


def check_file(path: Path, file: HubFile) -> str | None:
    """What is wrong with a downloaded file, or None: its size and, where the hub tells one, its hash are compared."""
    size = path.stat().st_size
    if size != file.size:
        return f"{size:,} bytes instead of {file.size:,}"
    kind = file.content.partition(":")[0]
    if kind == "listed":
        return None
    digest = hashlib.sha256() if kind == "sha256" else hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    with path.open("rb") as data:
        while block := data.read(1 << 20):
            digest.update(block)
    found = digest.hexdigest()
    return None if found == file.digest else f"{kind} {found[:12]} instead of {file.digest[:12]}"


def local_copy_remedy(where: str, source: Rows, files: Sequence[str]) -> str:
    """The override that puts local files in a source's place; all else that the recipe says of it stays.

    Args:
        where: the source's path in the recipe, `data.sources.1`.
        source: the recipe's.
        files: globs of its files; the first tells the ending.
    """
    kept = source.model_dump(include=_KEPT, exclude_defaults=True)
    fields = {"name": source_name(source)} | kept | {"paths": [f"/path/*{PurePosixPath(files[0]).suffix}"]}  # type: ignore[arg-type]
    return f"give a local copy with --set {where}='{_flow({'kind': 'files'} | fields)}'"


def _flow(value: Any) -> str:
    """Plain data as YAML on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(item)}" for key, item in value.items()) + "}"
    return "[" + ", ".join(map(_flow, value)) + "]" if isinstance(value, list) else str(value)


def _matches(name: str, globs: Sequence[str]) -> bool:
    return any(fnmatchcase(name, glob) for glob in globs)
