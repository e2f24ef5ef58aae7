"""Through olah, a mirror of Hugging Face that others wrote: it serves the read API from a git repository here."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
import time
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from huggingface_hub import constants

from buddygpt.events import silent
from buddygpt.hub.fetch import fetch
from buddygpt.hub.resolve import resolve
from buddygpt.hub.wanted import Wanted
from buddygpt.recipe.hub import HubSection

from .conftest import FILES

OLAH = os.environ.get("OLAH_CLI") or shutil.which("olah-cli")
ID = "someone/mountains"


@pytest.fixture
def olah(hubs, tmp_path, monkeypatch):
    """The mirror, with one repository; gives the commit."""
    repository = tmp_path / "mirrors" / "datasets" / "someone" / "mountains"
    for name, data in FILES.items():
        (repository / name).parent.mkdir(parents=True, exist_ok=True)
        (repository / name).write_bytes(data)
    who = ["-c", "user.name=someone", "-c", "user.email=someone@example.com"]
    for command in (["init", "-q", "-b", "main"], ["add", "."], [*who, "commit", "-qm", "all"]):
        subprocess.run(["git", *command], cwd=repository, check=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (tmp_path / "olah.toml").write_text(
        f'[basic]\nhost = "127.0.0.1"\nport = {port}\nrepos-path = "{tmp_path}/repos"\n'
        f'mirrors-path = ["{tmp_path}/mirrors"]\n[accessibility]\noffline = true\n',
        "utf-8",
    )
    process = subprocess.Popen(
        [OLAH, "--config", tmp_path / "olah.toml", "--log-path", tmp_path / "logs"],
        cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            try:
                urlopen(f"{address}/api/datasets/{ID}/revision/main").close()
                break
            except URLError:
                assert process.poll() is None
                time.sleep(0.1)
        monkeypatch.setenv("HF_ENDPOINT", address)
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
        )
        done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=repository, check=True, capture_output=True, text=True)
        yield done.stdout.strip()
    finally:
        process.terminate()
        process.wait()


@pytest.mark.skipif(OLAH is None, reason="olah-cli is not installed (OLAH_CLI names it in another environment)")
def test_files_are_listed_and_fetched_through_olah(olah):
    section = HubSection(order=["mirror"])
    answer = resolve({0: Wanted("here", ID, None, ("data/*.jsonl",))}, section)[0][0]
    assert answer.commit == olah
    paths, served = fetch(answer, section, silent)
    assert {f.name: p.read_bytes() for f, p in zip(served.files, paths, strict=True)} == {
        name: data for name, data in FILES.items() if name.startswith("data/")
    }
    git = [hashlib.sha1(b"blob %d\0" % f.size + FILES[f.name]).hexdigest() for f in served.files]
    assert [f.content for f in served.files] == [f"git:{digest}" for digest in git]
