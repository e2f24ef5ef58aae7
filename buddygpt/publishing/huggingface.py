"""Hugging Face as a place to publish, through huggingface_hub.

Contents go by the hub's LFS protocol, file by file, and one commit at the end names them all. The library's other way,
Xet, knows neither `hub.proxy` nor to whom the token may be told, and nothing here could prove it; the hub moves what
comes by LFS into its Xet storage by itself (huggingface.co/docs/hub/xet/legacy-git-lfs).
"""

from __future__ import annotations

import io
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from logging import ERROR, getLogger
from threading import Lock
from typing import Any, BinaryIO

import httpx2
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, get_session, hf_hub_url
from huggingface_hub.errors import (
    HfHubHTTPError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

from buddygpt.hub.protocol import brief
from buddygpt.hub.proxies import guard_huggingface, same_origin, way
from buddygpt.hub.settings import Settings
from buddygpt.hub.threads import map_at_once
from buddygpt.publishing.origins import is_safe
from buddygpt.publishing.parcel import CARD, Item
from buddygpt.publishing.remote import Held, Tell, Visibility
from buddygpt.publishing.secrets import redact
from buddygpt.recipe.errors import BrokenOff, BuddyError
from buddygpt.recipe.hub import HubName

_ASKING, _SENDING = 30.0, 300.0
"""Seconds without a byte after which a question, or a transfer, is given up."""
_AT_ONCE = 4
_WAITS = (1.0, 4.0)
"""Seconds before each further try of a push that broke off; the library tries each request five times by itself."""
_PASSING = (408, 429, 500, 502, 503, 504)
_QUOTA = (402, 413, 507)
_LOGIN = "log in with `hf auth login`, or set HF_TOKEN"


class HuggingFaceRemote:
    """huggingface.co, or what HF_ENDPOINT names where the recipe's `hub.tokens` trusts it.

    Args:
        settings: address, proxies and whether it is told the token.

    Raises:
        BuddyError: the address would carry the token in the clear.
    """

    hub: HubName = "huggingface"

    def __init__(self, settings: Settings):
        mirror = "mirror" in settings.endpoints and "mirror" in settings.tokens
        name: HubName = "mirror" if mirror else "huggingface"
        self._endpoint = settings.endpoints[name]
        self._trusted = name in settings.tokens
        self._direct = name in settings.direct
        self._settings = settings
        if not is_safe(self._endpoint):
            raise BuddyError("HF_ENDPOINT: a token goes by https only; write https://host")
        self._api = HfApi(self._endpoint, token=True)  # also where HF_HUB_DISABLE_IMPLICIT_TOKEN is set

    def login(self) -> str:
        """As `Remote.login`."""
        if not self._trusted:
            raise BuddyError(
                "huggingface: hub.tokens of the recipe does not name it, and without a token nobody pushes"
            )
        with self._asked():
            told = self._api.whoami()
            name, access = str(told["name"]), (told.get("auth") or {}).get("accessToken") or {}
        if access.get("role") == "read":
            raise BuddyError(f"huggingface: the token of {name} may only read; make one that may write")
        return name

    def visibility(self, repo: str) -> Visibility | None:
        """As `Remote.visibility`."""
        with self._asked(repo):
            try:
                return "private" if self._api.repo_info(repo, repo_type="model").private else "public"
            except RepositoryNotFoundError as error:
                if error.response.status_code == 401:
                    raise
                return None

    def create(self, repo: str, *, private: bool, license: str | None = None) -> None:
        """As `Remote.create`."""
        with self._asked(repo):
            self._api.create_repo(repo, private=private, repo_type="model", exist_ok=True)

    def listing(self, repo: str) -> dict[str, Held]:
        """As `Remote.listing`."""
        with self._asked(repo):
            tree = list(self._api.list_repo_tree(repo, repo_type="model", recursive=True))
        files = [entry for entry in tree if isinstance(entry, RepoFile)]
        return {f.path: Held(f.size, f"sha256:{f.lfs.sha256}" if f.lfs else f"git:{f.blob_id}") for f in files}

    def read(self, repo: str, name: str) -> bytes:
        """As `Remote.read`."""
        with self._asked(repo):
            response = get_session().get(
                hf_hub_url(repo, name, endpoint=self._endpoint), headers=build_hf_headers(token=True)
            )
            hf_raise_for_status(response)
            return response.content

    def send(self, repo: str, items: Sequence[Item], message: str, tell: Tell, gone: Sequence[str] = ()) -> None:
        """As `Remote.send`; what is in the hub's storage already is not sent again, whoever sent it."""
        for wait in (*_WAITS, None):
            try:
                return self._send(repo, items, message, tell, gone)
            except _Passing as error:
                if wait is None:
                    raise BrokenOff(f"{error}; push again to go on") from None
            time.sleep(wait)
            gone = [name for name in gone if name in self.listing(repo)]  # the commit may have come through

    def address(self, repo: str) -> str:
        """As `Remote.address`."""
        return f"{self._endpoint}/{repo}"

    def _send(self, repo: str, items: Sequence[Item], message: str, tell: Tell, gone: Sequence[str]) -> None:
        meter = _Meter(sum(item.size for item in items), tell)
        additions = [_Addition(item, meter) for item in items]

        faults: list[BuddyError] = []

        def upload(addition: _Addition) -> None:
            if meter.stopped:
                return
            try:
                with self._asked(repo, _SENDING):
                    self._api.preupload_lfs_files(repo, [addition], free_memory=False)
                meter.whole(addition.item)
            except BuddyError as error:  # what broke off alone keeps no other file from coming through
                meter.stopped = meter.stopped or not isinstance(error, _Passing)
                faults.append(error)

        for item in items:
            if item.name == CARD:  # one that the hub refuses is told before hours of uploads
                self._see_card(repo, item)
        largest_first = sorted(additions, key=lambda addition: -addition.item.size)
        for _ in map_at_once(upload, largest_first, _AT_ONCE):
            pass  # to the end, so that no upload goes on beside a further try or after the push
        if faults:
            raise min(faults, key=lambda error: isinstance(error, _Passing))
        with self._asked(repo, _SENDING):
            removals = [CommitOperationDelete(name, is_folder=False) for name in gone]
            self._api.create_commit(repo, [*removals, *additions], commit_message=message)

    def _see_card(self, repo: str, card: Item) -> None:
        with self._asked(repo), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of front matter that could be more
            try:
                self._api._validate_yaml(card.path.read_text("utf-8"), repo_type="model")
            except ValueError as error:
                if not str(error).startswith("Invalid metadata"):
                    raise
                words = _plain(str(error).partition("\n")[2].replace("- ", ""))
                raise BuddyError(f"huggingface: {repo}: it refuses the card{words}; nothing was sent") from None

    @contextmanager
    def _asked(self, repo: str = "", patience: float = _ASKING) -> Iterator[None]:
        """Requests on the right way; a fault of theirs as a line."""
        guard_huggingface(self._settings)  # loading a model may have set it otherwise
        constants.HF_HUB_DISABLE_XET = True
        getLogger("huggingface_hub.utils._http").setLevel(ERROR)  # its warnings hold addresses with signatures
        try:
            with way(direct=self._direct, patience=patience):
                yield
        except BuddyError:
            raise
        except Exception as error:  # the client raises anything of what a hub answers
            raise self._told(error, repo) from None

    def _told(self, error: BaseException, repo: str) -> BuddyError:
        """A fault as a line: without addresses, and of the hub's own words only those that are plain."""
        while isinstance(error, RuntimeError) and error.__cause__ is not None:  # `Error while uploading ...`
            error = error.__cause__
        where = f"huggingface: {repo}: " if repo else "huggingface: "
        match error:
            case LocalTokenNotFoundError():
                return BuddyError(f"huggingface: no token; {_LOGIN}")
            case OfflineModeIsEnabled():
                return BuddyError("huggingface: HF_HUB_OFFLINE is set; a push needs the hub")
            case HfHubHTTPError():
                return self._refused(error, where)
            case httpx2.TransportError() | OSError():
                return _Passing(f"{where}{brief(error)}")
        return BrokenOff(f"{where}its answer is not a hub's ({type(error).__name__})")

    def _refused(self, error: HfHubHTTPError, where: str) -> BuddyError:
        response = error.response
        status = response.status_code
        said = _plain(str(error.server_message or ""))
        if not same_origin(str(response.request.url), self._endpoint):  # a storage whose address may have run out
            return _Passing(f"{where}the hub's storage answers with status {status}")
        if status == 401:
            return BuddyError(f"huggingface: it does not know the token (401); {_LOGIN}")
        if status in _QUOTA or (status == 403 and any(w in said.lower() for w in ("storage", "quota", "limit"))):
            return BuddyError(f"{where}no room there (status {status}{said}); free some, or ask for more")
        if status == 403:
            return BuddyError(f"{where}the token may not do this (403{said}); it needs the right to write there")
        if status in _PASSING:
            return _Passing(f"{where}status {status}{said}")
        return BrokenOff(f"{where}status {status}{said}")


def _plain(words: str) -> str:
    """The hub's own words for the end of a line; empty where they may hold an address, markup or a secret."""
    words = redact(" ".join(words.split()))
    return f": {words}" if words and brief(Exception(words)) == words else ""


class _Passing(BrokenOff):
    """It may go better another time."""


class _Meter:
    """Bytes that have gone, over files that go at once."""

    def __init__(self, total: int, tell: Tell):
        self._total, self._tell = total, tell
        self.stopped = False
        self._done: dict[str, int] = {}
        self._lock = Lock()

    def at(self, item: Item, position: int) -> None:
        if self.stopped:
            raise _Passing("huggingface: stopped")
        with self._lock:
            self._done[item.name] = position
            self._tell(sum(self._done.values()), self._total)

    def whole(self, item: Item) -> None:
        self.at(item, item.size)


class _Addition(CommitOperationAdd):
    """A file of a commit whose reading is told."""

    def __init__(self, item: Item, meter: _Meter):
        super().__init__(item.name, item.path)
        self.item, self._meter = item, meter
        self.upload_info.sha256 = bytes.fromhex(item.sha256)

    @contextmanager
    def as_file(self, with_tqdm: bool = False) -> Iterator[BinaryIO]:
        """As the library's."""
        with _Watched(self.item, self._meter.at) as file:
            yield file  # type: ignore[misc]


class _Watched(io.FileIO):
    def __init__(self, item: Item, tell: Callable[[Item, int], Any]):
        super().__init__(item.path, "r")
        self._item, self._tell_position = item, tell

    def read(self, size: int | None = -1) -> bytes | None:
        data = super().read(-1 if size is None else size)
        self._tell_position(self._item, self.tell())
        return data
