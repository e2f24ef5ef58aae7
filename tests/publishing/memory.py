"""A hub in memory, for what a push decides; the stand-ins are for what it says over a wire."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from buddygpt.publishing.parcel import Item
from buddygpt.publishing.remote import Held, Tell
from buddygpt.recipe.errors import BuddyError


@dataclass
class Memory:
    """A hub.

    Args:
        hub, user: its name, and whose the token is; None where there is no token.
        private, files: repositories by name.
        hollow: it says yes and keeps nothing.
        always_public: it makes every repository public.
        before_commit: called when all contents are there and nothing is to be seen yet.
        writes: what was asked of it that changes something.
    """

    hub: str = "huggingface"
    user: str | None = "someone"
    private: dict[str, bool] = field(default_factory=dict)
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    hollow: bool = False
    always_public: bool = False
    before_commit: Callable[[], None] = lambda: None
    writes: list[tuple] = field(default_factory=list)

    def login(self) -> str:
        if self.user is None:
            raise BuddyError(f"{self.hub}: no token")
        return self.user

    def visibility(self, repo: str):
        return None if repo not in self.files else "private" if self.private[repo] else "public"

    def create(self, repo: str, *, private: bool, license: str | None = None) -> None:
        self.writes.append(("create", repo, private))
        self.files[repo], self.private[repo] = {".gitattributes": b"*.safetensors filter=lfs\n"}, private
        if self.always_public:
            self.private[repo] = False

    def listing(self, repo: str) -> dict[str, Held]:
        def held(name: str, data: bytes) -> Held:
            if name.endswith(".safetensors"):
                return Held(len(data), f"sha256:{hashlib.sha256(data).hexdigest()}")
            return Held(len(data), f"git:{hashlib.sha1(b'blob %d' % len(data) + bytes(1) + data).hexdigest()}")

        return {name: held(name, data) for name, data in self.files[repo].items()}

    def read(self, repo: str, name: str) -> bytes:
        return self.files[repo][name]

    def send(self, repo: str, items: Sequence[Item], message: str, tell: Tell, gone: Sequence[str] = ()) -> None:
        self.writes.append(("send", repo, [item.name for item in items], list(gone)))
        done, total = 0, sum(item.size for item in items)
        for item in items:
            done += item.size
            tell(done, total)
        self.before_commit()
        if not self.hollow:
            self.files[repo] |= {item.name: item.path.read_bytes() for item in items}
            for name in gone:
                del self.files[repo][name]

    def address(self, repo: str) -> str:
        return f"https://{self.hub}.invalid/{repo}"
