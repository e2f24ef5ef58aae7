"""What every hub can do, and how it says that it cannot."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Protocol

from buddygpt.hub.wanted import HubFile, Repository
from buddygpt.recipe.hub import HubName

TIMEOUT = 4.0
"""Seconds that a connection to a hub, or its answer to a question, may take."""


_PLAIN = re.compile(r"[\w .,:'\[\]()-]{1,120}")


class NoAnswer(Exception):
    """A hub does not have what is wanted, or does not answer: the next one is asked.

    Args:
        reason: for a message.
        passing: it may be otherwise another time: a fault of the network or of the hub.
    """

    def __init__(self, reason: str, *, passing: bool = False):
        self.passing = passing
        super().__init__(reason)


class NoRevision(NoAnswer):
    """The hub has the repository, but not at the revision asked for."""


class Spoilt(Exception):
    """What a hub sends is, twice, not what it listed."""


class Hub(Protocol):
    """A place that serves repositories. A repository's revision is, from `find` on, the commit that `list` gave."""

    name: HubName

    @property
    def cache(self) -> Path:
        """Folder of all that is downloaded from it."""
        ...

    def list(self, repository: Repository) -> tuple[str, list[HubFile]]:
        """The commit that the revision stands for, and the files at it.

        Raises:
            NoAnswer: there is none.
        """
        ...

    def find(self, repository: Repository, file: HubFile) -> Path | None:
        """A file in the cache, downloaded before."""
        ...

    def begun(self, repository: Repository, file: HubFile) -> int:
        """Bytes of a file that lie here from a download that was broken off."""
        ...

    def download(self, repository: Repository, file: HubFile, folder: Path | None = None) -> Path:
        """Fetch a file, from where an earlier try stopped, and see that it is the one that was listed.

        Args:
            repository: at a commit.
            file: which.
            folder: where to put it, under its name; the cache where left out.

        Raises:
            NoAnswer: the hub does not answer; what has come so far stays.
            Spoilt: another content than listed came, twice.
            OSError: the disk is full.
        """
        ...


def brief(error: Exception) -> str:
    """A fault of the network in a few words: what it says of itself unless that may hold an address or a signature."""
    told = str(error).partition("\n")[0]
    return told if _PLAIN.fullmatch(told) else type(error).__name__
