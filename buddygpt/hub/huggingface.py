"""Hugging Face and its mirror, through huggingface_hub.

The library removes what has come of a file when its process ends, so the bytes are fetched here, by its session, from
where an earlier try stopped, and put where its cache has its blobs. Its other way, Xet, is not taken: it cannot go on,
and knows neither `hub.proxy` nor mirrors.
"""

from __future__ import annotations

import fcntl
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from buddygpt.hub.protocol import TIMEOUT, NoAnswer, NoRevision, Spoilt, brief
from buddygpt.hub.proxies import guard_huggingface, same_origin, way
from buddygpt.hub.settings import HUGGINGFACE, Settings
from buddygpt.hub.wanted import HubFile, Repository, check_file
from buddygpt.recipe.errors import is_disk_full
from buddygpt.recipe.hub import HubName

if TYPE_CHECKING:
    from huggingface_hub import HfFileMetadata
    from huggingface_hub.hf_api import RepoFile, RepoSibling

_OTHER_TIMES = (408, 429)
_WAITS = (1.0, 2.0, 4.0)
"""Seconds before each further try when nothing comes any more of a file that has begun to."""


class HuggingFace:
    """huggingface.co, or a mirror of it.

    Args:
        name: which of the two.
        settings: address, proxies and whether it is told the token.
    """

    def __init__(self, name: HubName, settings: Settings):
        self.name = name
        self._endpoint = settings.endpoints[name]
        self._token = None if name in settings.tokens else False  # None: what the library finds, if anything
        self._direct = name in settings.direct
        guard_huggingface(settings)

    @property
    def cache(self) -> Path:
        """The library's."""
        from huggingface_hub import constants

        return Path(constants.HF_HUB_CACHE)

    def list(self, repository: Repository) -> tuple[str, list[HubFile]]:
        """As `Hub.list`."""
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HTTPError

        api = HfApi(self._endpoint, token=self._token)
        with way(direct=self._direct):
            try:
                info: Any = api.repo_info(
                    repository.id, repo_type=repository.kind, revision=repository.revision, timeout=TIMEOUT,
                    files_metadata=True,
                )  # fmt: skip
                commit = str(info.sha)
                files = [HubFile(s.rfilename, s.size, _content(s, commit)) for s in info.siblings or ()]
                if any(file.size is None for file in files):  # a mirror may tell names only
                    tree = api.list_repo_tree(repository.id, repo_type=repository.kind, revision=commit, recursive=True)
                    files = [HubFile(f.path, f.size, _content(f, commit)) for f in tree if hasattr(f, "blob_id")]
                if info.gated and files:  # the list is free to see; whether the files are shows at one of them
                    self._look(replace(repository, revision=commit), max(files, key=lambda file: file.size))
            except (HTTPError, OSError, ValueError) as error:
                raise self._told(error, repository) from None
        return commit, files

    def find(self, repository: Repository, file: HubFile) -> Path | None:
        """As `Hub.find`."""
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(
            repository.id, file.name, revision=repository.revision, repo_type=repository.kind
        )
        return Path(found) if isinstance(found, str) and Path(found).stat().st_size == file.size else None

    def begun(self, repository: Repository, file: HubFile) -> int:
        """As `Hub.begun`."""
        partial = _partial(self._blobs(repository) / file.digest)  # which is its etag, too
        return partial.stat().st_size if partial.is_file() else 0

    def download(self, repository: Repository, file: HubFile, folder: Path | None = None) -> Path:
        """As `Hub.download`."""
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HTTPError

        with way(direct=self._direct):
            try:
                seen = self._look(repository, file)
                if folder is not None:
                    self._load(seen, repository, file, folder / file.name)
                    return folder / file.name
                self._drop_wrong(repository, file)
                self._load(seen, repository, file, self._blobs(repository) / str(seen.etag))
                return Path(
                    hf_hub_download(  # finds the blob, and makes what leads to it
                        repository.id, file.name, repo_type=repository.kind, revision=repository.revision,
                        endpoint=self._endpoint, token=self._token,
                    )
                )  # fmt: skip
            except (HTTPError, OSError) as error:
                if is_disk_full(error):
                    raise
                raise self._told(error, repository) from None

    def _look(self, repository: Repository, file: HubFile) -> HfFileMetadata:
        from huggingface_hub import get_hf_file_metadata

        return get_hf_file_metadata(
            self._url(repository, file), token=self._token, endpoint=self._endpoint, retry_on_errors=False
        )

    def _load(self, seen: HfFileMetadata, repository: Repository, file: HubFile, target: Path) -> None:
        """Fetch into a file beside the target, and move it there when it is what was listed."""
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = _partial(target)
        wrong: str | None = None
        with partial.open("ab") as out:
            fcntl.flock(out, fcntl.LOCK_EX)  # another process may fetch the same file
            for _ in range(2):
                if target.is_file() and target.stat().st_size == file.size:
                    return
                self._get_all(seen.location or self._url(repository, file), file, out)
                wrong = check_file(partial, file)
                if wrong is None:
                    partial.replace(target)
                    return
                out.truncate(0)
            partial.unlink()
        raise Spoilt(wrong)

    def _get_all(self, address: str, file: HubFile, out: BinaryIO) -> None:
        """Add what is missing; where the connection breaks after something has come, go on from there."""
        from huggingface_hub.errors import HTTPError

        failures = 0
        while (begun := out.seek(0, 2)) < file.size or begun == 0:
            try:
                self._get(address, file, out)
                return
            except (HTTPError, OSError) as error:
                out.flush()
                failures = 0 if out.seek(0, 2) > begun else failures + 1
                if is_disk_full(error) or out.tell() == 0 or failures > len(_WAITS):
                    raise
                time.sleep(_WAITS[failures - 1] if failures else 0)

    def _get(self, address: str, file: HubFile, out: BinaryIO) -> None:
        from huggingface_hub import constants, get_session
        from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

        token = self._token if same_origin(address, self._endpoint) else False
        headers = build_hf_headers(token=token) | {"Accept-Encoding": "identity"}
        if begun := out.tell():
            headers["Range"] = f"bytes={begun}-"
        timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
        with get_session().stream("GET", address, headers=headers, timeout=timeout) as response:
            hf_raise_for_status(response)
            if response.status_code != 206:  # all of it, whatever was asked for
                out.truncate(0)
            for part in response.iter_bytes():
                out.write(part)
                if out.tell() > file.size:  # what comes is not what was listed
                    break
        out.flush()

    def _drop_wrong(self, repository: Repository, file: HubFile) -> None:
        """Remove what lies in the cache under the file's name but is not of its size."""
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(
            repository.id, file.name, revision=repository.revision, repo_type=repository.kind
        )
        if isinstance(found, str):
            Path(found).resolve().unlink(missing_ok=True)
            Path(found).unlink(missing_ok=True)

    def _url(self, repository: Repository, file: HubFile) -> str:
        from huggingface_hub import hf_hub_url

        return hf_hub_url(
            repository.id, file.name, repo_type=repository.kind, revision=repository.revision, endpoint=self._endpoint
        )

    def _blobs(self, repository: Repository) -> Path:
        from huggingface_hub.file_download import repo_folder_name

        return self.cache / repo_folder_name(repo_id=repository.id, repo_type=repository.kind) / "blobs"

    def _told(self, error: Exception, repository: Repository) -> NoAnswer:
        """The reason for a message."""
        from huggingface_hub.errors import (
            GatedRepoError,
            HfHubHTTPError,
            HFValidationError,
            OfflineModeIsEnabled,
            RemoteEntryNotFoundError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )

        what = "data set" if repository.kind == "dataset" else "model"
        page = f"{HUGGINGFACE}/{'datasets/' if repository.kind == 'dataset' else ''}{repository.id}"
        match error:
            case GatedRepoError():
                return NoAnswer(f"its owner asks for consent: accept the terms on {page}, then `hf auth login`")
            case RepositoryNotFoundError():
                return NoAnswer(f"no such {what}, or a private one: log in with `hf auth login`")
            case RevisionNotFoundError():
                return NoRevision(f"it has no revision '{repository.revision}'")
            case RemoteEntryNotFoundError():
                return NoAnswer("the file is gone")
            case HFValidationError():
                return NoAnswer("not an id; write owner/name")
            case OfflineModeIsEnabled():
                return NoAnswer("HF_HUB_OFFLINE is set", passing=True)
            case HfHubHTTPError():
                status = error.response.status_code
                return NoAnswer(f"status {status}", passing=status >= 500 or status in _OTHER_TIMES)
            case ValueError():
                return NoAnswer("its answer is not a hub's", passing=True)
        return NoAnswer(brief(error), passing=True)


def _content(told: RepoSibling | RepoFile, commit: str) -> str:
    if told.lfs:
        return f"sha256:{told.lfs.sha256}"
    return f"git:{told.blob_id}" if told.blob_id else f"listed:{commit}"


def _partial(target: Path) -> Path:
    return target.with_name(target.name + ".incomplete")
