"""The stand-in is judged by clients of others: what they upload they get back, and what we push they get, too."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.publishing.modelscope.conftest import TOKEN, USER
from tests.publishing.modelscope.server import FRESH, PRIVATE, PUBLIC

REPO = f"{USER}/tiny"
needs_modelscope = pytest.mark.skipif(find_spec("modelscope") is None, reason="the package modelscope is not here")


def read_all(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(part in (".cache", "._____temp", ".msc", ".mdl", ".mv") for part in path.parts)
    }


class Small:
    """modelscope_hub's own interface."""

    def __init__(self, url: str):
        from modelscope_hub import HubApi, HubConfig

        self.api = HubApi(HubConfig(endpoint=url, token=TOKEN))

    def login(self) -> str | None:
        return self.api.login(TOKEN).username

    def upload(self, folder: Path) -> None:
        self.api.create_repo(REPO, "model", visibility="private")
        self.api.upload_folder(REPO, "model", folder, disable_tqdm=True, use_cache=False)

    def download(self, folder: Path) -> None:
        self.api.download_repo(REPO, "model", local_dir=folder)


class Whole:
    """The package modelscope, as its documentation has it."""

    def __init__(self, url: str):
        from modelscope.hub.api import HubApi

        self.url = url
        self.api = HubApi(endpoint=url, token=TOKEN)

    def login(self) -> str | None:
        self.api.login(TOKEN)
        return self.api.whoami().username

    def upload(self, folder: Path) -> None:
        self.api.create_model(REPO, visibility=PRIVATE)
        self.api.upload_folder(repo_id=REPO, folder_path=str(folder), commit_message="up", use_cache=False)

    def download(self, folder: Path) -> None:
        from modelscope import snapshot_download

        snapshot_download(REPO, local_dir=str(folder), token=TOKEN, endpoint=self.url)


judges = pytest.mark.parametrize("judge", [Small, pytest.param(Whole, marks=needs_modelscope)])


@judges
def test_a_client_logs_in_uploads_a_folder_and_gets_the_same_bytes_back(judge, hub, folder, files, tmp_path, capfd):
    client = judge(hub.url)
    assert client.login() == USER
    client.upload(folder)
    assert hub.repositories[REPO].visibility == PRIVATE
    assert hub.repositories[REPO].files == FRESH | files
    client.download(tmp_path / "back")
    assert read_all(tmp_path / "back") == FRESH | files
    assert not hub.steps("unknown"), "every route that the client knows is there"


@judges
def test_a_client_gets_the_bytes_that_we_pushed(judge, hub, remote, items, files, tmp_path, capfd):
    remote.create(REPO, private=True)
    remote.send(REPO, items, "first", lambda done, total: None)
    judge(hub.url).download(tmp_path / "back")
    assert read_all(tmp_path / "back") == FRESH | files


@judges
def test_what_a_client_uploaded_is_listed_as_what_it_is(judge, hub, remote, folder, items, capfd):
    judge(hub.url).upload(folder)
    held = remote.listing(REPO)
    assert {item.name: (item.size, f"sha256:{item.sha256}") for item in items} == {
        name: (held[name].size, held[name].digest) for name in held if name not in FRESH or name == "README.md"
    }


@judges
def test_a_client_without_a_token_does_not_get_a_private_repository(judge, hub, remote, items, tmp_path, capfd):
    from modelscope_hub import HubApi, HubConfig

    remote.create(REPO, private=True)
    remote.send(REPO, items, "first", lambda done, total: None)
    client = judge(hub.url)
    stranger = HubApi(HubConfig(endpoint=hub.url, token=""))
    if judge is Small:
        client.api = stranger
    else:
        client.api._api = stranger
    with pytest.raises(Exception, match=r"模型不存在|not exist|not found"):
        client.api.get_repo(REPO, "model") if judge is Small else client.api.get_model(REPO)
    hub.repositories[REPO].visibility = PUBLIC
    assert client.api.get_repo(REPO, "model") if judge is Small else client.api.get_model(REPO)


@judges
def test_a_client_is_refused_with_a_wrong_token(judge, hub, folder, capfd):
    from modelscope_hub.errors import AuthenticationError

    hub.people.clear()
    with pytest.raises(AuthenticationError):
        judge(hub.url).login()
