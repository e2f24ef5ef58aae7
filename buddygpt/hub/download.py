"""Files of data sets on the Hugging Face hub: what there is at which commit, and the files themselves.

The hub is asked once for each source, at the same time and briefly, before anything else is done: a recipe whose data
cannot be had fails within seconds, with one line a source. Files are taken at the commit found then. Credentials are
huggingface_hub's own affair; none is read or told here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

from buddygpt.events import Emit, Progress
from buddygpt.recipe.base import spell_bytes
from buddygpt.recipe.data import HubSource, source_name
from buddygpt.recipe.errors import BrokenOff, BuddyError
from buddygpt.recipe.runs import free_bytes

TIMEOUT = 4.0
"""Seconds that a connection to the hub, or its answer, may take."""
PATIENCE = 8.0
"""Seconds after which every source without an answer counts as unreachable, name look-up and retries included."""
_AT_ONCE = 4


@dataclass(frozen=True)
class HubFile:
    """A file of a data set.

    Args:
        name: path in the repository.
        size: bytes.
        content: the hub's own hash of it.
    """

    name: str
    size: int
    content: str


@dataclass(frozen=True)
class HubFiles:
    """The files of a source, at one commit.

    Args:
        id: repository.
        revision: what was asked for.
        commit: what it stood for.
        files: in order of their names.
    """

    id: str
    revision: str
    commit: str
    files: tuple[HubFile, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> HubFiles:
        """What `as_dict` gave."""
        return cls(data["id"], data["revision"], data["commit"], tuple(HubFile(**f) for f in data["files"]))


class _Unreachable(Exception):
    """The hub gave no answer; that of last time may do."""


def resolve(
    sources: Mapping[int, HubSource], earlier: Mapping[int, HubFiles] | None = None
) -> tuple[dict[int, HubFiles], list[str]]:
    """List the matching files of all sources, each at the commit that its revision stands for now.

    Args:
        sources: by their place in the recipe.
        earlier: answers of another time, taken where the hub does not answer.

    Returns:
        The answers, and a line for each that is an earlier one.

    Raises:
        BuddyError: one line for each source that cannot be had: which, how large, and how to give a local copy.
    """
    earlier = earlier or {}
    pool = ThreadPoolExecutor(len(sources) or 1)
    asked = {place: pool.submit(_ask, source) for place, source in sources.items()}
    wait(asked.values(), timeout=PATIENCE)
    pool.shutdown(wait=False, cancel_futures=True)
    answers, cautions, faults = {}, [], []
    for place, future in asked.items():
        try:
            answers[place] = _answer(future)
        except _Unreachable as error:
            if place in earlier:
                answers[place] = earlier[place]
                cautions.append(
                    f"{sources[place].id}: the hub does not answer ({error}); taking the files of commit "
                    f"{earlier[place].commit[:12]}, as last time"
                )
            else:
                faults.append(_fault(place, sources[place], str(error)))
        except BuddyError as error:
            faults.append(_fault(place, sources[place], str(error)))
    if faults:
        raise BuddyError(faults)
    return answers, cautions


def fetch(id: str, commit: str, names: Sequence[str], size: int, emit: Emit) -> list[Path]:
    """The files on this machine, downloaded into huggingface_hub's cache unless they lie there.

    A download that was broken off goes on where it stopped.

    Args:
        id: repository.
        commit: full hash.
        names: paths in the repository.
        size: bytes of all of them, for the check of the disk.
        emit: who is told.

    Raises:
        BuddyError: too little space, or a download fails.
    """
    from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import HTTPError  # httpx's, of whichever version the hub's library uses
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    have = {name: try_to_load_from_cache(id, name, revision=commit, repo_type="dataset") for name in names}
    missing = [name for name, path in have.items() if not isinstance(path, str)]
    if not missing:
        return [Path(str(have[name])) for name in names]
    folder = Path(constants.HF_HUB_CACHE)
    free = free_bytes(folder)
    need = size * len(missing) // len(names)
    if free < need:
        raise BrokenOff(
            f"{folder}: {spell_bytes(need)} are needed to download {id}, {spell_bytes(free)} are free; "
            "free some, or set HF_HOME to a folder on a larger disk"
        )

    def download(name: str) -> str:
        return hf_hub_download(id, name, repo_type="dataset", revision=commit)

    loud = not are_progress_bars_disabled()
    disable_progress_bars()
    pool = ThreadPoolExecutor(_AT_ONCE)
    try:
        for done, (name, path) in enumerate(zip(missing, pool.map(download, missing), strict=True), 1):
            have[name] = path
            emit(Progress(f"download {id}", done, len(missing), "files"))
    except (HTTPError, OSError) as error:
        raise BrokenOff(f"{id}: download failed ({_brief(error)}); start again to go on where it stopped") from None
    finally:
        pool.shutdown(cancel_futures=True)
        if loud:
            enable_progress_bars()
    return [Path(str(have[name])) for name in names]


def _answer(future: Future[HubFiles]) -> HubFiles:
    if not future.done() or future.cancelled():
        raise _Unreachable(f"no answer within {PATIENCE:g} seconds")
    return future.result()


def _ask(source: HubSource) -> HubFiles:
    """The hub's answer for one source."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        HTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        info = HfApi().dataset_info(source.id, revision=source.revision, timeout=TIMEOUT, files_metadata=True)
    except GatedRepoError:
        raise BuddyError("its owner asks for consent; agree on its page, then log in with `hf auth login`") from None
    except RepositoryNotFoundError:
        raise BuddyError("no such data set, or a private one; log in with `hf auth login`") from None
    except RevisionNotFoundError:
        raise BuddyError(f"it has no revision '{source.revision}'") from None
    except HFValidationError:
        raise BuddyError("not an id; write owner/name") from None
    except HfHubHTTPError as error:
        raise _Unreachable(f"status {error.response.status_code}") from None
    except (HTTPError, OSError) as error:
        raise _Unreachable(_brief(error)) from None
    siblings = sorted(info.siblings or [], key=lambda file: file.rfilename)
    chosen = [
        HubFile(s.rfilename, s.size or 0, f"sha256:{s.lfs.sha256}" if s.lfs else f"git:{s.blob_id}")
        for s in siblings
        if _matches(s.rfilename, source.files) and not _matches(s.rfilename, source.exclude)
    ]
    if not chosen:
        shown = ", ".join(s.rfilename for s in siblings[:5])
        raise BuddyError(f"none of its {len(siblings)} files matches {', '.join(source.files)}; there are {shown} ...")
    return HubFiles(source.id, source.revision, str(info.sha), tuple(chosen))


def _matches(name: str, globs: Sequence[str]) -> bool:
    return any(fnmatchcase(name, glob) for glob in globs)


def _fault(place: int, source: HubSource, reason: str) -> str:
    name = source_name(source)
    size = f" ({spell_bytes(source.size)})" if source.size else ""
    remedy = f"give a local copy with {_remedy(place, source)}"
    return f"data.sources.{place}: {name}: {source.id}{size} cannot be had: {reason}; {remedy}"


def _remedy(place: int, source: HubSource) -> str:
    """The override that puts local files in the source's place; all else that the recipe says of it stays."""
    kept = source.model_dump(include={"weight", "validation", "map", "min_score"}, exclude_defaults=True)
    fields = {"name": source_name(source)} | kept | {"paths": [f"/path/*{PurePosixPath(source.files[0]).suffix}"]}
    told = ", ".join(f"{k}: [{', '.join(v)}]" if isinstance(v, list) else f"{k}: {v}" for k, v in fields.items())
    return f"--set data.sources.{place}='{{kind: files, {told}}}'"


def _brief(error: Exception) -> str:
    """The first line of a network fault, without the request's address: that may be a signed one."""
    told = str(error).partition("\n")[0]
    return told if told and "http" not in told else type(error).__name__
