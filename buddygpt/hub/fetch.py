"""The files themselves: from the cache, from the hub that listed them, or from another that has the same."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from buddygpt.events import Emit, Note, Progress
from buddygpt.hub.bundle import bundled
from buddygpt.hub.hubs import open_hubs
from buddygpt.hub.protocol import Hub, NoAnswer, Spoilt
from buddygpt.hub.settings import read_settings
from buddygpt.hub.threads import map_at_once
from buddygpt.hub.wanted import HubFile, HubFiles, Repository
from buddygpt.recipe.base import spell_bytes
from buddygpt.recipe.errors import BrokenOff, BuddyError, is_disk_full
from buddygpt.recipe.hub import HubName, HubSection
from buddygpt.recipe.runs import free_bytes

_AT_ONCE = 4


def check_space(answers: Iterable[HubFiles], section: HubSection, emit: Emit, *, copied_to: Path | None = None) -> None:
    """Tell what is still to be downloaded, and see that all of it together will fit.

    Args:
        answers: all that will be fetched into the caches.
        section: the recipe's.
        emit: who is told.
        copied_to: a folder that is to hold all of it too, by links where it lies on the same disk.

    Raises:
        BrokenOff: it will not; names both figures for each disk.
    """
    settings = read_settings(section)
    if settings.bundle:
        return
    hubs = open_hubs(settings)
    needs: dict[int, tuple[Path, int]] = {}

    def count(folder: Path, need: int) -> None:
        needs[_disk(folder)] = folder, needs.get(_disk(folder), (folder, 0))[1] + need

    for answer in answers:
        missing = [file for file in answer.files if _find(answer, file, hubs) is None]
        for name in (answer.hub, *hubs):
            if name in hubs and (repository := answer.wanted.repository(name)):
                break
        else:
            continue
        need = sum(max(file.size - hubs[name].begun(repository, file), 0) for file in missing)
        if missing:
            emit(Note(f"{answer.id}: {len(missing):,} files, {spell_bytes(need)}, to download from {name}"))
            count(hubs[name].cache, need)
        if copied_to and _disk(copied_to) != _disk(hubs[name].cache):
            count(copied_to, answer.size)
    faults = [
        f"{folder}: {spell_bytes(need)} are needed for what is missing, {spell_bytes(free_bytes(folder))} are free; "
        "free some, or take a larger disk (HF_HOME, MODELSCOPE_CACHE)"
        for folder, need in needs.values()
        if free_bytes(folder) < need
    ]
    if faults:
        raise BrokenOff(faults)


def fetch(answer: HubFiles, section: HubSection, emit: Emit) -> tuple[list[Path], HubFiles]:
    """The files on this machine, downloaded into the hub's cache unless they lie there.

    A download that was broken off goes on where it stopped. Where the hub breaks off for good, the next one that has
    the same file serves it.

    Args:
        answer: the files.
        section: the recipe's.
        emit: who is told.

    Returns:
        Where each lies, and the answer, completed by who served which and by hashes that the hub had not told.

    Raises:
        BuddyError: no hub serves a file, or sends another than it lists.
    """
    settings = read_settings(section)
    if settings.bundle:
        return bundled(settings.bundle, answer), answer
    taker = _Taker(answer, open_hubs(settings))
    got = {file.name: (path, file) for file in answer.files if (path := _find(answer, file, taker.hubs))}
    missing = [file for file in answer.files if file.name not in got]
    with _quiet():
        for done, (path, file) in enumerate(map_at_once(taker.take, missing, _AT_ONCE), 1):
            got[file.name] = (path, file)
            emit(Progress(f"download {answer.id}", done, len(missing), "files"))
    found = [got[file.name] for file in answer.files]
    return [path for path, _ in found], replace(answer, files=tuple(file for _, file in found))


def fetch_one(answer: HubFiles, file: HubFile, folder: Path, section: HubSection) -> Path:
    """One file outside the cache, in a folder that the caller removes; where it lies already, it stays there.

    Raises:
        BuddyError: as `fetch`.
    """
    settings = read_settings(section)
    if settings.bundle:
        return bundled(settings.bundle, replace(answer, files=(file,)))[0]
    hubs = open_hubs(settings)
    if found := _find(answer, file, hubs):
        return found
    with _quiet():
        return _Taker(answer, hubs, folder).take(file)[0]


class _Taker:
    """Fetches an answer's files, hub after hub; a hub that failed once is not asked again.

    Args:
        answer: whose files.
        hubs: in order of preference.
        folder: where to put them; the hubs' caches where left out.
    """

    def __init__(self, answer: HubFiles, hubs: Mapping[HubName, Hub], folder: Path | None = None):
        self.answer = answer
        self.hubs = hubs
        self._folder = folder
        self._failed: dict[HubName, NoAnswer] = {}
        self._lists: dict[HubName, tuple[str, dict[str, HubFile]]] = {}

    def take(self, file: HubFile) -> tuple[Path, HubFile]:
        """Fetch one.

        Raises:
            BuddyError: no hub serves it.
        """
        for name in sorted(self.hubs, key=lambda hub: hub != self.answer.hub):
            hub, repository = self.hubs[name], self.answer.wanted.repository(name)
            if repository is None or name in self._failed:
                continue
            try:
                path = hub.download(self._same(hub, repository, file), file, self._folder)
            except NoAnswer as refusal:
                self._failed[name] = refusal
            except Spoilt as error:
                lister = "it" if name == self.answer.hub else self.answer.hub
                raise BrokenOff(
                    f"{self.answer.id}: {file.name}: what {name} sends is not what {lister} lists ({error}), twice; "
                    "it is removed; start again later, or name another hub first in hub.order"
                ) from None
            except OSError as error:
                if is_disk_full(error):
                    place = self._folder or hub.cache
                    raise BrokenOff(f"{place}: no space left for {self.answer.id}; start again to go on") from None
                raise
            else:
                return path, self._known(path, file, name)
        reasons = "; ".join(f"{hub}: {refusal}" for hub, refusal in self._failed.items())
        raise BrokenOff(f"{self.answer.id}: download failed ({reasons}); start again to go on where it stopped")

    def _same(self, hub: Hub, repository: Repository, file: HubFile) -> Repository:
        """The repository at a commit where it holds the same file.

        Raises:
            NoAnswer: it has no file of that name.
            BuddyError: it has another one.
        """
        if "modelscope" not in (hub.name, self.answer.hub) or hub.name == self.answer.hub:
            return replace(repository, revision=self.answer.commit)
        if hub.name not in self._lists:
            commit, files = hub.list(repository)
            self._lists[hub.name] = commit, {other.name: other for other in files}
        commit, others = self._lists[hub.name]
        other = others.get(file.name)
        if other is None:
            raise NoAnswer(f"it has no {file.name}")
        alike = file.content == other.content or _kind(file) != _kind(other)  # compared once it is here
        if other.size != file.size or not alike:
            raise BuddyError(
                f"{self.answer.id}: {file.name}: {self.answer.hub} does not serve it "
                f"({self._failed.get(self.answer.hub)}), and {hub.name} has another of that name: {_spell(other)} "
                f"instead of {_spell(file)}; start again later, or ask {hub.name} alone with hub.order"
            )
        return replace(repository, revision=commit)

    def _known(self, path: Path, file: HubFile, name: HubName) -> HubFile:
        import hashlib

        if _kind(file) == "listed":
            with path.open("rb") as data:
                file = replace(file, content=f"sha256:{hashlib.file_digest(data, 'sha256').hexdigest()}")
        return file if name == self.answer.hub else replace(file, hub=name)


def _find(answer: HubFiles, file: HubFile, hubs: Mapping[HubName, Hub]) -> Path | None:
    """A file in any hub's cache; the hash in its place tells that it is the same."""
    for hub in hubs.values():
        repository = answer.wanted.repository(hub.name)
        if repository and (path := hub.find(replace(repository, revision=answer.commit), file)):
            return path
    return None


def _disk(folder: Path) -> int:
    return next(p for p in (folder, *folder.absolute().parents) if p.is_dir()).stat().st_dev


def _kind(file: HubFile) -> str:
    return file.content.partition(":")[0]


def _spell(file: HubFile) -> str:
    return f"{file.size:,} bytes, {_kind(file)} {file.digest[:12]}"


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep huggingface_hub's bars and its warnings, which hold signed addresses, off the screen."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars, logging

    loud, level = not are_progress_bars_disabled(), logging.get_verbosity()
    disable_progress_bars()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if loud:
            enable_progress_bars()
