"""The stand-in judged by huggingface_hub itself: what it pushes is there, what is there it lists and loads."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, snapshot_download
from huggingface_hub.errors import (
    BadRequestError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

NAME = "someone/shanshui-tiny"


@pytest.fixture
def tree(tmp_path):
    """A folder of texts, binaries, long and empty files, with names that are no ASCII."""
    random.seed(7)
    files = {
        "README.md": "---\nlicense: apache-2.0\nlanguage:\n- zh\n---\n# 山水\n".encode(),
        "config.json": b"{}",
        "model.safetensors": random.randbytes(300_000),
        "pictures/loss.png": b"\x89PNG\r\n\x1a\n\0" + random.randbytes(500),
        "notes/第 一.txt": "山高水长\r\n".encode(),
        "notes/deep/empty.txt": b"",
    }
    for name, data in files.items():
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / name).write_bytes(data)
    return tmp_path / "tree", files


@pytest.fixture
def api(huggingface):
    """The client."""
    return HfApi(huggingface.url, token=huggingface.token)


LARGE = {"model.safetensors", "pictures/loss.png"}


def test_what_huggingface_hub_uploads_is_listed_with_its_hashes_and_loads_back(huggingface, api, tree, tmp_path):
    folder, files = tree
    assert api.create_repo(NAME, private=True).repo_id == NAME
    api.upload_folder(folder_path=folder, repo_id=NAME)
    assert huggingface.repository(NAME).files() == files
    listed = {file.path: file for file in api.list_repo_tree(NAME, recursive=True) if hasattr(file, "blob_id")}
    assert set(listed) == {*files, ".gitattributes"}
    for name, data in files.items():
        assert listed[name].size == len(data)
        assert (listed[name].lfs is not None) == (name in LARGE)
        if name in LARGE:
            assert listed[name].lfs.sha256 == hashlib.sha256(data).hexdigest()
        else:
            assert listed[name].blob_id == hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    loaded = snapshot_download(NAME, endpoint=huggingface.url, token=huggingface.token, cache_dir=tmp_path / "cache")
    found = {p.relative_to(loaded).as_posix(): p.read_bytes() for p in Path(loaded).rglob("*") if p.is_file()}
    assert found.pop(".gitattributes") and found == files
    assert not huggingface.leaks()


def test_what_has_not_changed_is_not_sent_again(huggingface, api, tree):
    folder, files = tree
    api.create_repo(NAME)
    first = api.upload_folder(folder_path=folder, repo_id=NAME)
    huggingface.requests.clear()
    assert api.upload_folder(folder_path=folder, repo_id=NAME).oid == first.oid
    assert huggingface.sent == []
    (folder / "config.json").write_text('{"a": 1}', "utf-8")
    second = api.upload_folder(folder_path=folder, repo_id=NAME)
    assert huggingface.sent == ["commit"] and second.oid != first.oid
    assert huggingface.repository(NAME).files() == files | {"config.json": b'{"a": 1}'}


def test_a_large_file_goes_in_parts_where_the_hub_asks_for_them(huggingface, api, tree):
    folder, files = tree
    huggingface.part_size = 70_000
    api.create_repo(NAME)
    api.upload_folder(folder_path=folder, repo_id=NAME)
    assert huggingface.repository(NAME).files() == files
    parts = [request for request in huggingface.asked("PUT", host="storage") if "part" in request.query]
    assert [len(request.body) for request in parts] == [70_000] * 4 + [20_000]
    assert not huggingface.leaks()


def test_the_listing_comes_page_by_page(huggingface, api, tree):
    folder, files = tree
    api.create_repo(NAME)
    api.upload_folder(folder_path=folder, repo_id=NAME)
    huggingface.page = 2
    assert {f.path for f in api.list_repo_tree(NAME, recursive=True, expand=True)} - {
        ".gitattributes", "notes", "notes/deep", "pictures",
    } == set(files)  # fmt: skip
    assert [f.path for f in api.list_repo_tree(NAME, "notes")] == ["notes/deep", "notes/第 一.txt"]
    assert [f.path for f in api.get_paths_info(NAME, ["config.json", "absent"])] == ["config.json"]
    assert {s.rfilename: s.size for s in api.model_info(NAME, files_metadata=True).siblings if s.size is not None}[
        "model.safetensors"
    ] == 300_000


def test_a_commit_is_whole_or_not_at_all(huggingface, api, tree):
    api.create_repo(NAME)
    head = api.list_repo_refs(NAME).branches[0].target_commit
    lost = CommitOperationAdd("a.safetensors", b"0" * 1000)
    lost._is_uploaded, lost._upload_mode, lost._should_ignore = True, "lfs", False  # says that it was sent
    with pytest.raises(BadRequestError, match="does not exist"):
        api.create_commit(NAME, [CommitOperationAdd("b.txt", b"b"), lost], commit_message="m")
    with pytest.raises(HfHubHTTPError, match="412"):
        api.create_commit(NAME, [CommitOperationAdd("b.txt", b"b")], commit_message="m", parent_commit="0" * 40)
    assert api.list_repo_refs(NAME).branches[0].target_commit == head
    api.create_commit(NAME, [CommitOperationAdd("b.txt", b"b"), CommitOperationAdd("c.txt", b"c")], commit_message="m")
    api.create_commit(
        NAME, [CommitOperationDelete("b.txt")], commit_message="m", parent_commit=api.model_info(NAME).sha
    )
    assert huggingface.repository(NAME).files() == {"c.txt": b"c"}
    with pytest.raises(RevisionNotFoundError):
        api.model_info(NAME, revision="nowhere")


def test_only_its_token_opens_it(huggingface, api, tree):
    huggingface.make(NAME, private=True)
    assert api.whoami()["name"] == "someone" and api.model_info(NAME).private
    stranger = HfApi(huggingface.url, token="hf_wrong")
    for ask in (stranger.whoami, lambda: stranger.create_repo("someone/b"), lambda: stranger.model_info(NAME)):
        with pytest.raises(HfHubHTTPError) as refused:
            ask()
        assert refused.value.response.status_code == 401
    with pytest.raises(RepositoryNotFoundError):
        HfApi(huggingface.url, token=False).model_info(NAME)
    with pytest.raises(HfHubHTTPError, match="403"):
        api.create_repo("another/b")
    huggingface.role = "read"
    with pytest.raises(HfHubHTTPError, match="403"):
        api.upload_file(path_or_fileobj=b"x", path_in_repo="x.txt", repo_id=NAME)
    with pytest.raises(HfHubHTTPError, match="409"):
        huggingface.role = "write"
        api.create_repo(NAME)
    assert set(huggingface.repositories) == {("models", NAME)}


def test_visibility_is_what_was_asked_for_and_a_change_is_seen(huggingface, api):
    api.create_repo(NAME, private=False)
    assert not huggingface.repository(NAME).private and not huggingface.asked("PUT", "/settings")
    api.update_repo_settings(NAME, private=True)
    assert huggingface.repository(NAME).private and huggingface.asked("PUT", "/settings")


def test_front_matter_is_looked_at(huggingface, api):
    api.create_repo(NAME)
    with pytest.raises(ValueError, match="tags"):
        api.upload_file(path_or_fileobj=b"---\ntags: {a: 1}\n---\n", path_in_repo="README.md", repo_id=NAME)
    assert huggingface.sent == []


def test_a_hollow_hub_says_yes_and_keeps_nothing(huggingface, api, tree):
    api.create_repo(NAME)
    head = huggingface.repository(NAME).head()
    huggingface.hollow = True
    api.upload_folder(folder_path=tree[0], repo_id=NAME)
    assert len(huggingface.sent) == 3 and huggingface.repository(NAME).head() == head
