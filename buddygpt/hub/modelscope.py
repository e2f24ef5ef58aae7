"""ModelScope, through modelscope_hub: the client that modelscope 1.40 is a shell around, without its frameworks.

The client keeps what has come of a file and goes on from there, after a kill too. It tells no commit, so a hash of the
listing stands for one, and a file is kept here by its own hash: never mixed with one of another state of the branch.
"""

from __future__ import annotations

import hashlib
import logging
import os
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from buddygpt.hub.protocol import NoAnswer, Spoilt, brief
from buddygpt.hub.proxies import go_direct
from buddygpt.hub.settings import Settings
from buddygpt.hub.wanted import HubFile, Repository, check_file
from buddygpt.recipe.errors import is_disk_full
from buddygpt.recipe.hub import HubName

if TYPE_CHECKING:
    from modelscope_hub import HubApi

_BRANCH = "master"


class ModelScope:
    """modelscope.cn, or what MODELSCOPE_ENDPOINT names.

    Args:
        settings: proxies, and whether it is told the token.
    """

    name: HubName = "modelscope"

    def __init__(self, settings: Settings):
        self._direct = self.name in settings.direct
        self._token = None if self.name in settings.tokens else ""  # None: what the client finds, if anything

    @cached_property
    def _api(self) -> HubApi:
        import modelscope_hub._download as downloads
        from modelscope_hub import HubApi, HubConfig
        from tqdm import tqdm

        if "MODELSCOPE_LOG_LEVEL" not in os.environ:
            logging.getLogger("modelscope_hub").setLevel(logging.ERROR)
        downloads.tqdm = partial(tqdm, disable=True)  # its bars would run through ours, and no option turns them off
        api = HubApi(HubConfig(token=self._token))
        if self._direct:  # it has one session for uploads and one for all else, and no option for proxies
            go_direct(api.legacy._session)
            go_direct(api.legacy._read_session)
        return api

    @property
    def cache(self) -> Path:
        """The client's."""
        return self._api._config.cache_dir

    def list(self, repository: Repository) -> tuple[str, list[HubFile]]:
        """As `Hub.list`."""
        from modelscope_hub.errors import HubError

        entries = []
        try:  # page by page, since listing all at once would try each page for seven seconds
            for _, page, fault in self._api.legacy.iter_dataset_file_pages(repository.id, _BRANCH):
                if fault:
                    raise fault
                entries += [entry for entry in page if entry.get("Type") != "tree"]
        except (HubError, OSError, ValueError) as error:
            raise self._told(error, repository) from None
        if not entries:  # also what is told of a branch that is not there
            raise NoAnswer("it holds no files")
        state = hashlib.sha256()
        for entry in sorted(entries, key=lambda entry: entry["Path"]):
            state.update(f"{entry['Path']}\0{entry.get('Size')}\0{entry.get('Sha256')}\n".encode())
        commit = f"listing-{state.hexdigest()[:24]}"
        return commit, [
            HubFile(
                e["Path"], int(e.get("Size") or 0), f"sha256:{e['Sha256']}" if e.get("Sha256") else f"listed:{commit}"
            )
            for e in entries
        ]

    def find(self, repository: Repository, file: HubFile) -> Path | None:
        """As `Hub.find`."""
        path = self._folder(repository, file) / file.name
        return path if path.is_file() and path.stat().st_size == file.size else None

    def begun(self, repository: Repository, file: HubFile) -> int:
        """As `Hub.begun`."""
        return _bytes_below(self._folder(repository, file))

    def download(self, repository: Repository, file: HubFile, folder: Path | None = None) -> Path:
        """As `Hub.download`."""
        from modelscope_hub.errors import FileIntegrityError, HubError, NetworkError

        place = folder or self._folder(repository, file)
        digest = file.digest if file.content.startswith("sha256:") else None
        wrong: str | None = None
        for _ in range(2):
            while True:
                before = _bytes_below(place)
                try:
                    path = self._api.download_file(
                        repository.id, repository.kind, file.name, revision=_BRANCH, local_dir=place,
                        expected_sha256=digest, file_size=file.size,
                    )  # fmt: skip
                    break
                except FileIntegrityError as error:  # it has tried three times
                    raise Spoilt(brief(error)) from None
                except (HubError, OSError, ValueError) as error:
                    if is_disk_full(error):
                        raise
                    if not isinstance(error, NetworkError) or _bytes_below(place) <= before:
                        raise self._told(error, repository) from None
            wrong = None if digest else check_file(path, file)
            if wrong is None:
                return path
            path.unlink()
        raise Spoilt(wrong)

    def _folder(self, repository: Repository, file: HubFile) -> Path:
        name = repository.id.replace("/", "--")
        return self.cache / f"{repository.kind}s" / name / "by-content" / file.digest[:32]

    def _told(self, error: Exception, repository: Repository) -> NoAnswer:
        """The reason for a message; the client's own may hold addresses and whole answers."""
        from modelscope_hub.errors import APIError, AuthenticationError, NotExistError, PermissionDeniedError

        page = f"{self._api._config.endpoint}/{repository.kind}s/{repository.id}"
        match error:
            case AuthenticationError() | PermissionDeniedError():
                return NoAnswer(f"it asks for consent or a login: accept the terms on {page}, then `modelscope login`")
            case NotExistError():
                return NoAnswer("no such data set, or a private one: log in with `modelscope login`")
            case APIError() if error.status_code:
                return NoAnswer(f"status {error.status_code}", passing=error.retryable)
        return NoAnswer(brief(error), passing=True)


def _content(entry: dict[str, Any], commit: str) -> str:
    return f"sha256:{entry['Sha256']}" if entry.get("Sha256") else f"listed:{commit}"


def _bytes_below(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
