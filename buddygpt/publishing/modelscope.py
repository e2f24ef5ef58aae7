"""Models to ModelScope, through modelscope_hub.

Its `upload_folder` makes a missing repository public, publishes the files that came where one failed, in several
commits, and prints; so what it is made of is used: whether a blob is missing, one blob, one commit. What the live hub
answers, where the client's source does not say it, is from measured notes of others (github.com: the ModelScope driver
of a Cloudreve fork, October 2026): blobs go to lfs.modelscope.cn, which wants the token, too; a blob that is there is
left out of the answer; a commit that removes what is not there is refused.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import time
import warnings
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, TypeVar

from buddygpt.hub.settings import Settings
from buddygpt.publishing.modelscope_faults import AGAIN, is_missing, pause_before, tell_fault
from buddygpt.publishing.origins import Onward, guard_session, is_safe, siblings
from buddygpt.publishing.parcel import Item
from buddygpt.publishing.remote import Held, NotThere, Tell, Visibility
from buddygpt.recipe.errors import BrokenOff, BuddyError
from buddygpt.recipe.hub import HubName

if TYPE_CHECKING:
    from modelscope_hub import HubApi, HubConfig

A = TypeVar("A")

_BRANCH = "master"
_WAITS = (1.0, 2.0, 4.0, 8.0)
"""Seconds before each further try of what may go otherwise another time."""
_PATIENCE = (30.0, 600.0)
"""Seconds until a blob's next bytes are taken, and until the answer once all are."""
_STEP = 1 << 20
"""Bytes between two words on the progress."""
_LISTED = 3000
"""Files after which the hub's list just ends, as modelscope_hub has found."""


class ModelScopeRemote:
    """modelscope.cn, or what MODELSCOPE_ENDPOINT names.

    Args:
        settings: proxies, and whether it is told the token.

    Raises:
        BuddyError: an address that must not be told a token, or a login that cannot be read.
    """

    hub: HubName = "modelscope"

    def __init__(self, settings: Settings):
        self._direct = self.hub in settings.direct
        self._told_token = self.hub in settings.tokens
        self._config = _read_config()
        self._endpoint = str(self._config.endpoint)
        if not is_safe(self._endpoint):
            raise BuddyError("MODELSCOPE_ENDPOINT: a token goes to https addresses only; write https://host")

    @cached_property
    def _api(self) -> HubApi:
        from modelscope_hub import HubApi

        logging.getLogger("modelscope_hub").setLevel(logging.CRITICAL)  # it tells addresses and whole answers
        api = HubApi(self._config)
        api.openapi._max_retries = 1  # one way to try again is enough: `_ask`
        trusted = (self._endpoint, *siblings(self._endpoint))
        for session in (
            api.legacy._session, api.legacy._read_session, api.openapi._session, api.openapi._read_session
        ):  # fmt: skip
            guard_session(session, "modelscope", trusted, direct=self._direct)
        return api

    def login(self) -> str:
        """As `Remote.login`."""
        if not self._told_token:
            raise BuddyError("hub.tokens: leaves modelscope out, and without a token nothing can be pushed there")
        token = self._config.token
        if not token:
            raise BuddyError(
                "modelscope: no token of yours is known here, or it is too old: "
                f"make one at {self._endpoint}/my/myaccesstoken, then `modelscope login`, or set MODELSCOPE_API_TOKEN"
            )
        if not token.isascii() or not token.isprintable() or " " in token:
            raise BuddyError("modelscope: the token holds a character that no token has: copy it once more")
        name = self._ask("tell whose the token is", self._api.whoami).username
        if not name:
            raise BrokenOff(f"modelscope: {self._endpoint} does not answer as ModelScope does: see MODELSCOPE_ENDPOINT")
        return name

    def visibility(self, repo: str) -> Visibility | None:
        """As `Remote.visibility`."""
        from modelscope_hub import Visibility as Level
        from modelscope_hub.errors import HubError

        def look() -> Visibility | None:
            try:
                level = self._api.get_repo(repo, "model").visibility
            except HubError as error:
                if is_missing(error):
                    return None
                raise
            if level is None:
                raise BrokenOff(f"modelscope: {repo}: it does not say whether the repository is public")
            return "public" if level == Level.PUBLIC else "private"

        return self._ask(f"show {repo}", look)

    def create(self, repo: str, *, private: bool, license: str | None = None) -> None:
        """As `Remote.create`."""
        from modelscope_hub.constants import License
        from modelscope_hub.errors import AlreadyExistsError

        # The client tells the hub Apache-2.0 where it is told none.
        told = next((one for one in License if one.lower() == (license or "").lower()), License.OTHER).value

        def make() -> None:
            again = bool(tried)
            tried.append(True)
            try:
                self._api.create_repo(repo, "model", visibility="private" if private else "public", license=told)
            except AlreadyExistsError:
                if not (again and self.visibility(repo)):  # else the answer to the try before was lost
                    raise BuddyError(
                        f"modelscope: {repo}: the name is taken, by what your token does not see: --repo gives another"
                    ) from None

        tried: list[bool] = []
        self._ask(f"create {repo}", make)

    def listing(self, repo: str) -> dict[str, Held]:
        """As `Remote.listing`."""
        return self._ask(f"list {repo}", partial(self._list, repo))

    def _list(self, repo: str) -> dict[str, Held]:
        """By one request of its own: the client's takes a refusal with status 200 for an empty list."""
        from modelscope_hub.errors import HubError

        try:
            answer = self._api.legacy._request(
                "GET", f"models/{repo}/repo/files", params={"Revision": _BRANCH, "Recursive": "True"}
            )
        except HubError as error:
            if is_missing(error):  # as a branch without a commit is, too
                return {}
            raise
        told = answer.json()["Data"]
        entries = (told["Files"] if isinstance(told, dict) else told) or []
        if len(entries) >= _LISTED:
            raise BuddyError(f"modelscope: {repo} holds more files than its list tells: push to another repository")
        return {
            entry["Path"]: Held(int(entry["Size"]), f"sha256:{entry.get('Sha256') or self._digest(repo, entry)}")
            for entry in entries
            if entry["Type"] != "tree"
        }

    def _digest(self, repo: str, entry: dict[str, Any]) -> str:
        """Of a file that the list has without its hash; a blob, whose name the hash is, never is one."""
        return "" if entry.get("IsLFS") else hashlib.sha256(self._read(repo, entry["Path"])).hexdigest()

    def read(self, repo: str, name: str) -> bytes:
        """As `Remote.read`."""
        return self._ask(f"give {name} of {repo}", partial(self._read, repo, name))

    def _read(self, repo: str, name: str) -> bytes:
        try:
            where = {"Revision": _BRANCH, "FilePath": name}
            return self._api.legacy._request("GET", f"models/{repo}/repo", params=where).content
        except Onward as onward:  # a file that is a blob lies with a storage, which needs no token
            from modelscope_hub.errors import raise_for_status
            from requests import Session

            session = Session()
            guard_session(session, "modelscope", (), direct=self._direct)
            answer = session.get(onward.address, timeout=_PATIENCE)
            raise_for_status(answer)
            return answer.content

    def send(self, repo: str, items: Sequence[Item], message: str, tell: Tell, gone: Sequence[str] = ()) -> None:
        """As `Remote.send`; a blob that was broken off begins anew, since the hub keeps no parts."""
        from modelscope_hub._upload import _upload_mode

        blobs = [item for item in items if _upload_mode(item.name, item.size, "model") == "lfs"]
        done, total = 0, sum(item.size for item in items)
        for blob in blobs:
            there = partial(_shift, tell, done, total)
            self._ask(f"take {blob.name}", partial(self._send_blob, repo, blob, there))
            done += blob.size
            tell(done, total)
        names = {blob.name for blob in blobs}
        actions = [_pointer(item) if item.name in names else _whole(item) for item in items]
        self._commit(repo, items, message, actions + [_removal(name) for name in gone], gone)
        tell(total, total)

    def address(self, repo: str) -> str:
        """As `Remote.address`."""
        return f"{self._endpoint}/models/{repo}"

    def _send_blob(self, repo: str, item: Item, there: Callable[[int], None]) -> None:
        """Send it unless the hub has it, and see that it has."""
        place = self._place(repo, item)  # anew for each try: an address may be signed, and grow old
        if place is None:
            return
        with _Body(item, there) as body:
            try:
                self._api.legacy.upload_blob(place, body, item.size, timeout=_PATIENCE)  # type: ignore[arg-type]
            finally:
                body.check()  # before the hub's own word on it
        for wait in (*_WAITS, None):
            if self._place(repo, item) is None:
                return
            if wait is not None:
                time.sleep(wait)
        raise NotThere(f"modelscope: it took {item.name} and does not have it; nothing was published: {AGAIN}")

    def _place(self, repo: str, item: Item) -> str | None:
        """Where to send a blob; None where the hub has it."""
        told = self._api.legacy.validate_blobs(repo, "model", [{"oid": item.sha256, "size": item.size}])
        return told.get(item.sha256)

    def _commit(
        self, repo: str, items: Sequence[Item], message: str, actions: list[dict[str, object]], gone: Sequence[str]
    ) -> None:
        tried: list[bool] = []

        def make() -> None:
            if tried and self._has(repo, items, gone):  # the answer was lost, not the commit
                return
            tried.append(True)
            if not isinstance(self._api.legacy.create_commit(repo, "model", actions, message, _BRANCH), dict):
                raise ValueError("not a hub's answer")

        self._ask("make the commit", make)

    def _has(self, repo: str, items: Sequence[Item], gone: Sequence[str]) -> bool:
        held = self._list(repo)
        return not held.keys() & set(gone) and all(
            held.get(item.name) == Held(item.size, f"sha256:{item.sha256}") for item in items
        )

    def _ask(self, what: str, work: Callable[[], A]) -> A:
        """Do it, again after a while where it may go otherwise then.

        Raises:
            BuddyError: it does not go; says in one line why and what to do.
        """
        from modelscope_hub.errors import HubError

        for wait in (*_WAITS, None):
            try:
                return work()
            except BuddyError:
                raise
            except (HubError, OSError, ValueError, LookupError, TypeError, AttributeError) as error:
                pause = pause_before(error, wait)
                if pause is None:
                    raise tell_fault(error, what, self._config) from None
            time.sleep(pause)
        raise AssertionError("the last try has returned or raised")


class _Body:
    """A file on its way: it tells how far it is, and sees that it is still the one of the parcel.

    Args:
        item: the file.
        there: told the bytes that were read.
    """

    def __init__(self, item: Item, there: Callable[[int], None]):
        self._item, self._there = item, there
        self._sum, self._read, self._said = hashlib.sha256(), 0, 0

    def __enter__(self) -> _Body:
        if not self._item.path.is_file() or self._item.path.stat().st_size != self._item.size:
            raise self._changed()
        self._file = self._item.path.open("rb")
        return self

    def __exit__(self, *fault: object) -> None:
        self._file.close()

    def __len__(self) -> int:
        return self._item.size

    def read(self, size: int = -1) -> bytes:
        """As a file's."""
        left = self._item.size - self._read
        part = self._file.read(left if size < 0 else min(size, left))
        self._sum.update(part)
        self._read += len(part)
        if self._read - self._said >= _STEP:
            self._said = self._read
            self._there(self._read)
        return part

    def check(self) -> None:
        """See, where all has been read, that it is what it was.

        Raises:
            BuddyError: it is not.
        """
        if self._read == self._item.size and self._sum.hexdigest() != self._item.sha256:
            raise self._changed() from None

    def _changed(self) -> BuddyError:
        return BuddyError(f"{self._item.path}: changed while it was being pushed; run the same command again")


def _read_config() -> HubConfig:
    from modelscope_hub import HubConfig

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MODELSCOPE_DOMAIN, its older name for the address, does
            config = HubConfig()
        config.token = (config.token or "").strip() or (config.load_token() or "").strip()  # a blank variable is none
    except Exception as error:  # a pickle that was cut, or of other versions, raises what it likes
        raise BuddyError(
            f"modelscope: what `modelscope login` left cannot be read ({type(error).__name__}): log in anew"
        ) from None
    return config


def _shift(tell: Tell, done: int, total: int, part: int) -> None:
    tell(done + part, total)


def _pointer(item: Item) -> dict[str, object]:
    return {
        "action": "create", "path": item.name, "type": "lfs", "size": item.size, "sha256": item.sha256,
        "content": "", "encoding": "",
    }  # fmt: skip


def _whole(item: Item) -> dict[str, object]:
    with _Body(item, lambda read: None) as body:
        content = body.read()
        body.check()
    return {
        "action": "create", "path": item.name, "type": "normal", "size": item.size, "sha256": "",
        "content": base64.b64encode(content).decode(), "encoding": "base64",
    }  # fmt: skip


def _removal(name: str) -> dict[str, object]:
    return {
        "action": "delete", "path": name, "type": "normal", "size": 0, "sha256": "", "content": "", "encoding": ""
    }  # fmt: skip
