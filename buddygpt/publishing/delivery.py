"""A parcel on its way to one hub: what is there, what has to go, whether it came."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from buddygpt.events import Caution, Emit, Note, Progress
from buddygpt.publishing.parcel import CARD, Item, Parcel, is_ours, is_same
from buddygpt.publishing.remote import Held, NotThere, Remote, Visibility
from buddygpt.recipe.errors import BuddyError, Stopped

MARK = "buddygpt"
"""Stands in the front matter of every card of ours."""
_BARE = frozenset((".gitattributes", ".gitignore", CARD, "LICENSE", "configuration.json"))
"""What a repository holds that was made on a hub's page."""
_SHAPE = ("architectures", "hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
_LOOKS = (0.0, 1.0, 4.0)
"""Seconds before each look at what has arrived: a list may lag behind."""
_UNIT, _UNIT_NAME = 1_000, "kB"
"""What a bar counts."""
_SHOWN = 5
"""Names in a line before the rest is only counted."""


@dataclass(frozen=True)
class Plan:
    """What a push will do on one hub.

    Args:
        remote: the hub.
        repo: owner/name there.
        visibility: of the repository, None where it has to be made.
        public: make it for everyone.
        license: of the weights, where it is stated.
        parcel: all files.
        items: those that the hub lacks or holds otherwise.
        gone: files of an earlier push that have no place beside them.
        remarks: what its owner should know before; empty for a repository that holds this model.
        foreign: it holds something that no push put there.
    """

    remote: Remote
    repo: str
    visibility: Visibility | None
    public: bool
    license: str | None
    parcel: Parcel
    items: tuple[Item, ...]
    gone: tuple[str, ...]
    remarks: tuple[str, ...]
    foreign: bool

    @property
    def place(self) -> str:
        """The hub and the repository."""
        return f"{self.remote.hub}: {self.repo}"

    @property
    def bytes(self) -> int:
        """What has to go."""
        return sum(item.size for item in self.items)

    @property
    def seen_by(self) -> Visibility:
        """Who will see it."""
        return self.visibility or ("public" if self.public else "private")


@dataclass(frozen=True)
class Pushed:
    """A model on a hub, seen there.

    Args:
        hub, repo: where.
        visibility: who sees it.
        files, bytes: what was sent; all else was there.
        address: its page.
    """

    hub: str
    repo: str
    visibility: Visibility
    files: int
    bytes: int
    address: str


def plan(remote: Remote, repo: str, login: str, parcel: Parcel, *, public: bool, license: str | None = None) -> Plan:
    """Look at the hub; nothing is changed there.

    Raises:
        BuddyError: the hub does not answer, or not to us.
    """
    visibility = remote.visibility(repo)
    held = {} if visibility is None else remote.listing(repo)
    items = tuple(item for item in parcel.items if not is_same(item, held.get(item.name)))
    gone = tuple(parcel.stale(held))
    owner = repo.partition("/")[0]
    remarks = [] if owner == login else [f"{owner} is not your name there, which is {login}"]
    foreign = False
    if visibility is None:
        remarks.append(f"a new {'public' if public else 'private'} repository")
    elif not set(held) - _BARE:
        remarks.append(f"an empty {visibility} repository")
    elif CARD not in held or MARK not in remote.read(repo, CARD)[:4096].decode("utf-8", "replace"):
        foreign = True
        lost = [name for name in sorted(held) if is_ours(name) and name in {*gone, *(item.name for item in items)}]
        what = f"replaces or removes {_listed(lost)}" if lost else "adds to it"
        remarks.append(f"a {visibility} repository that holds something else ({_listed(sorted(held))}): this {what}")
    else:
        remarks += _changes(remote, repo, held, parcel)
    return Plan(remote, repo, visibility, public, license, parcel, items, gone, tuple(remarks), foreign)


def deliver(plan: Plan, message: str, emit: Emit) -> Pushed:
    """Send what is lacking, and see that it is there.

    Raises:
        BuddyError: it could not be sent; nothing of it is to be seen there.
        NotThere: it was taken, and is not there.
        Stopped: Ctrl-C.
    """
    remote, repo = plan.remote, plan.repo
    if plan.visibility is None:
        remote.create(repo, private=not plan.public, license=plan.license)
        if (made := remote.visibility(repo)) != plan.seen_by:
            raise BuddyError(
                f"{plan.place}: was made {made or 'to be seen by nobody'}, {plan.seen_by} was asked for; nothing was "
                f"sent; set it on {remote.address(repo)} and push again"
            )
    elif plan.public and plan.visibility == "private":
        emit(Note(f"{plan.place}: is private and stays so; its page changes that"))
    if plan.items or plan.gone:
        _send(plan, message, emit)
        _see(plan)
    else:
        emit(Note(f"{plan.place}: already there, nothing to send"))
    return Pushed(remote.hub, repo, plan.seen_by, len(plan.items), plan.bytes, remote.address(repo))


def _send(plan: Plan, message: str, emit: Emit) -> None:
    task, total = f"push to {plan.remote.hub}", max(-(-plan.bytes // _UNIT), 1)

    def tell(done: int, of: int) -> None:
        emit(Progress(task, min(-(-done // _UNIT), total), total, _UNIT_NAME))

    if plan.gone:
        emit(Caution(f"{plan.place}: {_listed(plan.gone)}, of an earlier push, will be removed"))
    tell(0, plan.bytes)
    try:
        plan.remote.send(plan.repo, plan.items, message, tell, plan.gone)
    except KeyboardInterrupt:
        raise Stopped(f"stopped: {plan.place}: push again to go on; what has arrived is not sent again") from None
    tell(plan.bytes, plan.bytes)


def _see(plan: Plan) -> None:
    """The remote is what the parcel is: by name, size and hash."""
    wrong: list[str] = []
    for wait in _LOOKS:
        time.sleep(wait)
        held = plan.remote.listing(plan.repo)
        wrong = [item.name for item in plan.parcel.items if not is_same(item, held.get(item.name))]
        left = [name for name in plan.gone if name in held]
        if not wrong and not left:
            return
    told = f"{_listed(wrong)} not there as sent" if wrong else f"{_listed(left)} still there"
    raise NotThere(f"{plan.place}: the hub said yes, but its list has {told}; push again, or ask the hub")


def _changes(remote: Remote, repo: str, held: Mapping[str, Held], parcel: Parcel) -> list[str]:
    """In what a model of ours that is there differs from this one so much that it is another."""
    if "config.json" not in held:
        return []
    here = json.loads(next(item.path for item in parcel.items if item.name == "config.json").read_text("utf-8"))
    try:
        there = json.loads(remote.read(repo, "config.json"))
    except ValueError:
        there = None
    if not isinstance(there, dict):
        return ["a config.json there that cannot be read"]
    told = [
        f"{key} {_brief(there.get(key))} there, {_brief(here.get(key))} here"
        for key in _SHAPE
        if there.get(key) != here.get(key)
    ]
    talks = "chat_template.jinja"
    if (talks in held) != any(item.name == talks for item in parcel.items):
        told.append(
            "a chat model there, a base model here" if talks in held else "a base model there, a chat model here"
        )
    return [f"another model of yours ({'; '.join(told)})"] if told else []


def _brief(value: Any) -> str:
    return (", ".join(map(str, value)) if isinstance(value, list) else str(value))[:60]


def _listed(names: Any) -> str:
    names = list(names)
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
