"""The stand-in judged by clients that nobody here wrote: npm's, git with git-lfs, and a mirror, olah."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest
from huggingface_hub import HfApi, constants

from buddygpt.events import silent

from .huggingface.repositories import GIT_ENVIRONMENT

CLIENTS = Path(__file__).parents[1] / "clients"
NODE = shutil.which("node") if (CLIENTS / "node_modules" / "@huggingface" / "hub").is_dir() else None
LFS = shutil.which("git-lfs")
OLAH = os.environ.get("OLAH_CLI") or shutil.which("olah-cli")
NAME = "someone/mountains"
FILES = {
    "README.md": "---\nlicense: apache-2.0\n---\n# 山水\n".encode(),
    "model.safetensors": bytes(range(256)) * 700,
    "pictures/loss.png": b"\x89PNG\r\n\x1a\n" + bytes(500),
    "notes/第 一.txt": "山高水长\r\n".encode(),
}
LARGE = {"model.safetensors", "pictures/loss.png"}


@pytest.fixture
def tree(tmp_path):
    """A folder with FILES."""
    for name, data in FILES.items():
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / name).write_bytes(data)
    return tmp_path / "tree"


@pytest.fixture
def api(huggingface):
    """huggingface_hub."""
    return HfApi(huggingface.url, token=huggingface.token)


@pytest.mark.skipif(NODE is None, reason="npm's @huggingface/hub is not installed: npm ci --prefix tests/clients")
@pytest.mark.parametrize("part_size", [10**9, 50_000], ids=["whole", "in parts"])
def test_npms_client_pushes_lists_and_loads_what_huggingface_hub_sees(huggingface, api, tree, part_size):
    huggingface.part_size = part_size
    done = subprocess.run(
        [NODE, CLIENTS / "huggingface.mjs", huggingface.url, NAME, tree],
        capture_output=True, text=True, encoding="utf-8", timeout=60,
        env={"PATH": os.environ["PATH"], "HF_TOKEN": huggingface.token},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    repository = huggingface.repository(NAME)
    files = FILES | {"more.txt": b"more"}
    assert told["user"] == "someone" and repository.private and repository.files() == files
    told["seen"].pop(".gitattributes")
    assert told["seen"] == {
        name: {
            "size": len(data),
            "large": hashlib.sha256(data).hexdigest() if name in LARGE else None,
            "sha256": hashlib.sha256(data).hexdigest(),
        }
        for name, data in files.items()
    }
    listed = {file.path: file.size for file in api.list_repo_tree(NAME, recursive=True) if hasattr(file, "blob_id")}
    assert listed.items() >= {name: len(data) for name, data in files.items()}.items()
    assert not huggingface.leaks()


class Clone:
    """Git with git-lfs in a folder of its own: no settings of the user's are read or written.

    The token goes by the environment into a header for the hub's address alone.
    """

    def __init__(self, folder: Path, hub, token: str | None):
        filters = {
            "clean": "git-lfs clean -- %f",
            "smudge": "git-lfs smudge -- %f",
            "process": "git-lfs filter-process",
        }
        config = {f"filter.lfs.{name}": command for name, command in filters.items()}
        config |= {"filter.lfs.required": "true", "user.name": "someone", "user.email": "someone@example.com"}
        if token:
            basic = base64.b64encode(f"someone:{token}".encode()).decode()
            config[f"http.{hub.url}/.extraHeader"] = f"Authorization: Basic {basic}"
        self.folder, self.address = folder, f"{hub.url}/{NAME}"
        self.environment = GIT_ENVIRONMENT | {"HOME": str(folder.parent), "GIT_CONFIG_COUNT": str(len(config))}
        for n, (name, value) in enumerate(config.items()):
            self.environment |= {f"GIT_CONFIG_KEY_{n}": name, f"GIT_CONFIG_VALUE_{n}": value}

    def __call__(self, *arguments: object, ok: bool = True) -> str:
        where = self.folder if self.folder.exists() else self.folder.parent
        done = subprocess.run(
            ["git", *map(str, arguments)], cwd=where, env=self.environment, capture_output=True, text=True, timeout=60
        )
        assert (done.returncode == 0) is ok, done.stderr
        return done.stdout + done.stderr

    def files(self) -> dict[str, bytes]:
        found = [path for path in self.folder.rglob("*") if path.is_file() and ".git" not in path.parts]
        return {path.relative_to(self.folder).as_posix(): path.read_bytes() for path in found}


@pytest.mark.skipif(LFS is None, reason="git-lfs is not installed (Debian: git-lfs)")
def test_git_and_git_lfs_clone_what_was_pushed_and_push_what_huggingface_hub_sees(huggingface, api, tree, tmp_path):
    api.create_repo(NAME, private=True)
    api.upload_folder(folder_path=tree, repo_id=NAME)
    git = Clone(tmp_path / "clone", huggingface, huggingface.token)
    git("clone", "-q", git.address, git.folder)
    files = git.files()
    assert files.pop(".gitattributes") and files == FILES
    assert git("status", "--porcelain") == ""  # a large file that was no pointer would be seen as changed
    new = bytes(reversed(range(256))) * 300
    (git.folder / "second.safetensors").write_bytes(new)
    (git.folder / "README.md").write_text("# 第二\n", "utf-8")
    git("add", ".")
    git("commit", "-q", "-m", "by git")
    git("lfs", "push", "origin", "main")
    git("push", "-q", "origin", "main")
    listed = {file.path: file for file in api.list_repo_tree(NAME, recursive=True)}
    assert listed["second.safetensors"].lfs.sha256 == hashlib.sha256(new).hexdigest()
    readme = "# 第二\n".encode()
    assert huggingface.repository(NAME).files() == FILES | {"second.safetensors": new, "README.md": readme}
    assert not huggingface.leaks()


@pytest.mark.skipif(LFS is None, reason="git-lfs is not installed (Debian: git-lfs)")
@pytest.mark.parametrize("token", [None, "hf_wrong"])
def test_git_is_refused_without_the_token(huggingface, tmp_path, token):
    huggingface.make(NAME, private=True)
    git = Clone(tmp_path / "clone", huggingface, token)
    git("clone", "-q", git.address, git.folder, ok=False)
    public = huggingface.repository(NAME)
    public.private = False
    git("clone", "-q", git.address, git.folder, ok=token is None)
    if token is None:
        (git.folder / "a.txt").write_text("a", "utf-8")
        git("add", ".")
        git("commit", "-q", "-m", "a")
        git("push", "-q", "origin", "main", ok=False)
    assert public.files() == {}


@pytest.fixture
def olah(huggingface, tmp_path):
    """olah, with the stand-in as the hub that it mirrors; gives its address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [
            OLAH, "--host", "127.0.0.1", "--port", str(port), "--repos-path", tmp_path / "olah",
            "--hf-scheme", "http", "--hf-netloc", huggingface.url.removeprefix("http://"),
            "--hf-lfs-netloc", huggingface.storage_url.removeprefix("http://"), "--log-path", tmp_path / "logs",
        ],
        cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        for _ in range(900):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


@pytest.mark.skipif(OLAH is None, reason="olah-cli is not installed (OLAH_CLI names it in another environment)")
def test_a_pushed_run_loads_through_olah_with_the_same_tensors(huggingface, olah, tmp_path, monkeypatch):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from buddygpt.stages.push import Choices, run

    from .toys import write_run

    write_run(tmp_path / "runs")
    ours = tmp_path / "runs" / "mountains" / "export" / "hf"
    monkeypatch.setenv("HF_TOKEN", huggingface.token)
    run(None, tmp_path / "runs", Choices("huggingface", NAME, public=True, yes=True), ask=None, emit=silent)
    monkeypatch.delenv("HF_TOKEN")  # who loads it is somebody else
    assert not huggingface.asked("GET", host="storage")
    monkeypatch.setattr(constants, "ENDPOINT", olah)
    template = olah + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    theirs = AutoModelForCausalLM.from_pretrained(NAME, cache_dir=tmp_path / "cache").state_dict()
    sent = AutoModelForCausalLM.from_pretrained(ours).state_dict()
    assert theirs.keys() == sent.keys() and all(torch.equal(sent[name], theirs[name]) for name in sent)
    text = "春眠不觉晓"
    there, here = (AutoTokenizer.from_pretrained(place, cache_dir=tmp_path / "cache") for place in (NAME, ours))
    assert there(text).input_ids == here(text).input_ids
    assert huggingface.asked("GET", host="storage")  # olah fetched, nothing lay here
