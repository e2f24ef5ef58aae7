"""What a push needs of a hub. Nothing of a push is to be seen there before all of it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from buddygpt.hub.proxies import check_proxies
from buddygpt.hub.settings import Settings
from buddygpt.publishing.parcel import Item
from buddygpt.recipe.errors import BrokenOff
from buddygpt.recipe.hub import HubName

Visibility = Literal["private", "public"]
Tell = Callable[[int, int], None]
"""Called with the bytes that are there and the bytes in all."""


@dataclass(frozen=True)
class Held:
    """What a hub tells of a file that it holds.

    Args:
        size: in bytes.
        digest: `sha256:` and 64 hex digits, or `git:` and the SHA-1 of git's blob.
    """

    size: int
    digest: str


class NotThere(BrokenOff):
    """The hub said yes, and yet does not hold what was sent."""

    exit_code = 1


class Remote(Protocol):
    """A hub that takes models. Its methods raise BuddyError where the user can mend it, BrokenOff where the network or
    the hub failed; neither tells a token, an address with a signature or a hub's whole answer.
    """

    hub: HubName

    def login(self) -> str:
        """User name of the token.

        Raises:
            BuddyError: there is no token, or the hub does not know it; says how to log in.
        """
        ...

    def visibility(self, repo: str) -> Visibility | None:
        """Who can see a repository; None where there is none of this name."""
        ...

    def create(self, repo: str, *, private: bool, license: str | None = None) -> None:
        """Make an empty repository; a hub that asks for its licence is told this one, or that it is another."""
        ...

    def listing(self, repo: str) -> dict[str, Held]:
        """Every file of the branch that users get, by its POSIX path."""
        ...

    def read(self, repo: str, name: str) -> bytes:
        """A small file of the listing, as README.md or config.json."""
        ...

    def send(self, repo: str, items: Sequence[Item], message: str, tell: Tell, gone: Sequence[str] = ()) -> None:
        """Send contents, going on where an earlier try stopped, then make one commit of them.

        Args:
            repo: owner/name; it exists.
            items: files that the hub lacks or holds otherwise.
            message: of the commit.
            tell: told as bytes arrive.
            gone: files that the same commit removes.
        """
        ...

    def address(self, repo: str) -> str:
        """The page for people."""
        ...


def open_remote(hub: HubName, settings: Settings) -> Remote:
    """The hub, by the way that the settings name; nothing is asked of it yet.

    Raises:
        BuddyError: a proxy that its client cannot use, or an address that must not be told a token.
    """
    check_proxies(replace(settings, order=(hub,)))
    if hub == "modelscope":
        from buddygpt.publishing.modelscope import ModelScopeRemote

        return ModelScopeRemote(settings)
    from buddygpt.publishing.huggingface import HuggingFaceRemote

    return HuggingFaceRemote(settings)
