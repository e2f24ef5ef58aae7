"""What must never leave: tokens, keys, and what names this machine or its user.

Tokens are known by their form and, those of this machine, by themselves: what the environment and the logins hold.
A finding tells the file and the kind, never what was found.
"""

from __future__ import annotations

import getpass
import mmap
import os
import re
import socket
import struct
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from buddygpt.publishing.parcel import Item

_FORMS = {
    "a Hugging Face token": r"\b(?:hf|api_org)_[A-Za-z0-9]{20,}",
    "a ModelScope token": r"\bms-[0-9a-f]{8}-[0-9a-f-]{20,}",
    "a key of a model service": r"\bsk-[A-Za-z0-9_-]{20,}",
    "a GitHub token": r"\b(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,})",
    "a GitLab token": r"\bglpat-[A-Za-z0-9_-]{20,}",
    "a key of a cloud": r"\b(?:AKIA|ASIA|LTAI)[A-Za-z0-9]{16,}",
    "a Google key": r"\bAIza[A-Za-z0-9_-]{35}",
    "a Slack token": r"\bxox[abprs]-[A-Za-z0-9-]{10,}",
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY",
    "a password in an address": r"\b[a-z][a-z0-9+.-]*://[^\s/:@'\"]+:[^\s/@'\"]+@",
}
_BY_FORM = {kind: re.compile(form.encode()) for kind, form in _FORMS.items()}
_ANY_FORM = re.compile("|".join(f"(?:{form})" for form in _FORMS.values()))
_SIGNED = re.compile(r"(https?://[^\s?'\"<>]+)\?[^\s'\"<>]+")
_HELD = re.compile(r"(TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|ACCESS_?KEY|CREDENTIALS?)S?$", re.IGNORECASE)
"""Names of variables that hold secrets."""
_SHORTEST = 8
"""Characters from which a variable's value is looked for; a shorter one stands in any text by chance."""
_HOMES = re.compile(rb"(?:/home/|/Users/|/root/|[A-Z]:\\\\?Users\\\\?|file:///)[\w.-]*")
_COMMON = frozenset(
    "root user admin ubuntu debian runner docker jovyan localhost buddy buddygpt test demo home".split()
)
"""Names of users and machines that say nothing."""
_VOCABULARY = ("tokenizer.json", "vocab.json", "merges.txt", "added_tokens.json")
"""Files made of words, in which a path or a name is a word."""


@dataclass(frozen=True)
class Machine:
    """What is known of this machine.

    Args:
        tokens: the secrets that it holds.
        paths: folders whose names would tell of it.
        names: of its user and of itself, those that say something.
    """

    tokens: tuple[str, ...]
    paths: tuple[str, ...]
    names: tuple[str, ...]


def this_machine(*folders: Path, public: Iterable[str] = ()) -> Machine:
    """What the environment, the hubs' logins and the system tell.

    Args:
        folders: further ones whose place is nobody's business.
        public: names that everybody may know, as the owner of the repository.
    """
    places = {str(p) for f in (Path.home(), Path.cwd(), *folders) for p in (f.absolute(), f.resolve())}
    known = _COMMON | {name.lower() for name in public}
    names = {_user(), socket.gethostname()}
    return Machine(
        tuple(_tokens(_LOGINS)),
        tuple(sorted(p for p in places if p.count("/") > 1)),
        tuple(sorted(n for n in names if len(n) > 3 and n.lower() not in known)),
    )


def find_secrets(items: Sequence[Item], machine: Machine) -> list[str]:
    """Every file that holds what must not leave, one line each: `README.md: a GitHub token`.

    Weights are searched for the tokens of this machine; their header, and all of any other file, for everything.
    """
    return [f"{item.name}: {kind}" for item in items for kind in dict.fromkeys(_kinds(item, machine))]


def redact(text: str) -> str:
    """The text without tokens and without the queries of addresses, in which signatures stand.

    A hub's login is looked into where the hub's client is at work: no other text can hold what stands there.
    """
    for token in _tokens(hubs=[name for name in _LOGINS if name in sys.modules]):
        text = text.replace(token, "(a secret)")
    return _SIGNED.sub(r"\1?...", _ANY_FORM.sub("(a secret)", text))


def _kinds(item: Item, machine: Machine) -> Iterator[str]:
    if item.size == 0:
        return
    yield from _in_name(item.name, machine)
    with item.path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if any(data.find(token.encode()) >= 0 for token in machine.tokens):
            yield "a token of this machine"
        text: bytes | mmap.mmap = data
        if item.name.endswith(".safetensors"):
            text = data[8 : 8 + min(struct.unpack("<Q", data[:8])[0], len(data))] if len(data) > 8 else b""
        for kind, form in _BY_FORM.items():
            if form.search(text):
                yield kind
        if item.name.rpartition("/")[2] not in _VOCABULARY:
            yield from _places(text, machine)


def _in_name(name: str, machine: Machine) -> Iterator[str]:
    if _ANY_FORM.search(name) or any(token in name for token in machine.tokens):
        yield "a secret in its name"


def _places(text: bytes | mmap.mmap, machine: Machine) -> Iterator[str]:
    if _HOMES.search(text) or any(re.search(re.escape(path.encode()) + rb"(?![\w-])", text) for path in machine.paths):
        yield "a path on this machine"
    if b"\0" in text[:1024]:  # a picture: no words
        return
    for name in machine.names:
        if re.search(rb"(?<![\w-])" + re.escape(name.encode()) + rb"(?![\w-])", text):
            yield "the name of this machine or its user"


def _tokens(hubs: Iterable[str]) -> Iterator[str]:
    """Secrets of the environment and of logins, the longest first, so that none is left in part."""
    found = {value.strip() for name, value in os.environ.items() if _HELD.search(name)}
    for hub in hubs:
        found.update(_LOGINS[hub]())
    yield from sorted((t for t in found if len(t) >= _SHORTEST), key=lambda t: (-len(t), t))


def _of_huggingface() -> Iterator[str]:
    from huggingface_hub import constants

    yield from (line.strip() for line in _lines(Path(constants.HF_TOKEN_PATH)))
    for line in _lines(Path(constants.HF_STORED_TOKENS_PATH)):
        name, _, value = line.partition("=")
        if _HELD.search(name.strip()):
            yield value.strip()


def _of_modelscope() -> Iterator[str]:
    from modelscope_hub import HubConfig

    try:
        config = HubConfig()
        yield config.token or ""
        yield from _lines(config.credentials_dir / "git_token")
    except Exception:  # a damaged login is told when the hub is asked
        return


_LOGINS = {"huggingface_hub": _of_huggingface, "modelscope_hub": _of_modelscope}
"""What the hubs' clients have stored, by the client's name."""


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container whose user has no name
        return ""
