"""A stand-in for the Hugging Face hub: its API, files, large files and git, over repositories that are real."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from . import lfs
from .api import CHALLENGE, ROUTES
from .faults import Fault
from .repositories import Repository
from .server import Refused, Request, Response, serve


@dataclass
class HuggingFace:
    """The hub's state, and what it was asked.

    Args:
        folder: holds the repositories.
        token, role, user: the only token that it knows, its right ("read" or "write"), and whose it is.
        page: entries in one page of a tree.
        part_size: bytes above which a large file is asked for in parts.
        hollow: it says yes to everything that is sent, and keeps nothing.
        faults: see `faults`.
        requests: all that came, also at the store.
        crashes: faults of the stand-in's own.
    """

    folder: Path
    token: str = field(default_factory=lambda: "hf_" + secrets.token_urlsafe(24).replace("-", "a").replace("_", "b"))
    role: str = "write"
    user: str = "someone"
    page: int = 1000
    part_size: int = 5 * 10**9
    hollow: bool = False
    faults: list[Fault] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    crashes: list[str] = field(default_factory=list)
    repositories: dict[tuple[str, str], Repository] = field(default_factory=dict)
    parts: dict[str, dict[int, bytes]] = field(default_factory=dict)
    url: str = ""
    storage_url: str = ""

    def repository(self, name: str, kind: str = "models") -> Repository:
        return self.repositories[kind, name]

    def make(self, name: str, kind: str = "models", private: bool = False) -> Repository:
        """A new repository, as somebody else may have made it."""
        made = Repository(kind, name, self.folder / kind / f"{name}.git", private)
        self.repositories[kind, name] = made
        return made

    def asked(self, method: str, path: str = "", host: str | None = None) -> list[Request]:
        """Requests of a kind so far; `path` is a pattern that is searched for."""
        found = [r for r in self.requests if r.method == method and re.search(path, r.path)]
        return [r for r in found if host in (None, r.host)]

    @property
    def sent(self) -> list[str]:
        """What was uploaded: sha256 of the large files, and "commit"."""
        puts = [(r.path.rpartition("/")[2]) for r in self.asked("PUT", host="storage")]
        return puts + ["commit" for _ in self.asked("POST", "/commit/")]

    def leaks(self) -> list[Request]:
        """Requests away from the hub that hold the token."""
        return [r for r in self.requests if r.host != "hub" and r.tells(self.token)]

    def admit(self, request: Request, repository: Repository | None = None, *, write: bool = False) -> None:
        """Refuses those who may not."""
        if "authorization" in request.headers and request.token != self.token:
            raise Refused(401, "Invalid credentials in Authorization header")
        known = request.token == self.token
        if repository is None or (repository.private and not known):
            code = {"code": "RepoNotFound"} if request.path.count("/") > 2 else {}
            if not known:
                raise Refused(401, "Invalid username or password.", **code)
            raise Refused(404, "Repository not found", **code)
        if write and not known:
            raise Refused(401, "Invalid username or password.")
        if write and (self.role != "write" or not repository.name.startswith(f"{self.user}/")):
            raise Refused(403, f"You don't have the rights to write in {repository.name}")

    def handle(self, request: Request) -> Response:
        for methods, pattern, act in ROUTES:
            if request.method in methods.split() and (found := re.fullmatch(pattern, request.path)):
                named = found.groupdict()
                if "name" not in named:
                    return act(self, request)
                named["name"] = named["name"].removesuffix(".git")
                repository = self.repositories.get((named.pop("kind") or "models", named.pop("name")))
                if repository and act in (lfs.verify, lfs.complete):  # their addresses are signed
                    return act(self, request, repository)
                try:
                    self.admit(request, repository)
                except Refused as refused:
                    if "git-" in pattern or "info/lfs" in pattern:
                        refused.response.headers.update(CHALLENGE)
                    raise
                return act(self, request, repository, **named)
        raise Refused(404, "Sorry, we can't find the page you are looking for.")

    @contextmanager
    def running(self) -> Iterator[HuggingFace]:
        lists = {"requests": self.requests, "faults": self.faults, "crashes": self.crashes}
        with (
            serve("hub", self.handle, **lists) as self.url,
            serve("storage", lambda r: lfs.storage(self, r), **lists) as self.storage_url,
        ):
            yield self
