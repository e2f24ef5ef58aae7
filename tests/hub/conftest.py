"""Stand-ins for the hubs on this machine, which answer what the real clients ask, and remember what they were asked."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from huggingface_hub import constants

COMMIT = "c0ffee" * 6 + "abcd"
ROWS = [f"第{n}篇：" + "山高水长，" * (n % 7 + 1) for n in range(80)]
FILES = {
    "data/a.jsonl": "".join(json.dumps({"content": r}, ensure_ascii=False) + "\n" for r in ROWS[:40]).encode(),
    "data/b.jsonl": "".join(json.dumps({"content": r}, ensure_ascii=False) + "\n" for r in ROWS[40:]).encode(),
    "data/jinyong.jsonl": b'{"content": "left out"}\n',
    "README.md": b"# about",
}


@dataclass
class StandIn:
    """A hub's server: what it holds, what it does wrong, and what it was asked.

    Args:
        files: of its only repository, someone/mountains.
        status: all that it answers, where set.
        cut: after so many bytes of a file the connection breaks, once for each.
        spoil: so many answers with files come with a byte changed.
        gated: files, and on ModelScope the list, are for others.
        hashes: the list tells them.
        beyond: address that serves the files instead, by a redirect.
        stall: a file's answer stops after the first half until this is set.
    """

    files: dict[str, bytes] = field(default_factory=lambda: dict(FILES))
    status: int | None = None
    cut: list[int] = field(default_factory=list)
    spoil: int = 0
    gated: bool = False
    hashes: bool = True
    beyond: str | None = None
    stall: threading.Event | None = None
    asked: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    url: str = ""

    @property
    def fetched(self) -> list[tuple[str, str | None]]:
        """Files that were asked for, and from which byte."""
        return [(name, headers.get("range")) for verb, name, headers in self.asked if verb == "file"]

    def saw(self, secret: str) -> bool:
        """Whether any request told the secret."""
        return any(secret in value for _, _, headers in self.asked for value in headers.values())


class _Handler(BaseHTTPRequestHandler):
    hub: StandIn

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = urlsplit(self.path)
        headers = {key.lower(): value for key, value in self.headers.items()}
        name = self.name_of(path)
        kind = "file" if name is not None and self.command == "GET" else "head" if name is not None else "list"
        self.hub.asked.append((kind, name or unquote(self.path), headers))
        if self.hub.status:
            return self.answer(b"", self.hub.status)
        if name is None:
            return self.list(path)
        if self.hub.gated and "granted" not in headers.get("authorization", ""):
            return self.answer(b"", 403, {"X-Error-Code": "GatedRepo"})
        if name not in self.hub.files:
            return self.answer(b"", 404, {"X-Error-Code": "EntryNotFound"})
        data = self.hub.files[name]
        told = self.told_of(data)
        if self.hub.beyond:
            return self.answer(b"", 302, told | {"Location": f"{self.hub.beyond}/{self.path.lstrip('/')}"})
        if self.hub.spoil and kind == "file":
            self.hub.spoil -= 1
            data = data[:-2] + b"?\n"
        self.send(data, told)

    def send(self, data: bytes, told: dict[str, str]):
        status, total = 200, len(data)
        if wanted := self.headers.get("Range"):
            start = int(wanted.removeprefix("bytes=").partition("-")[0])
            if start >= total:
                return self.answer(b"", 416, {"Content-Range": f"bytes */{total}"})
            status, data = 206, data[start:]
            told = told | {"Content-Range": f"bytes {start}-{total - 1}/{total}"}
        if self.command == "GET" and self.hub.cut:
            return self.answer(data, status, told, sent=self.hub.cut.pop(0))
        if self.command == "GET" and self.hub.stall:
            self.answer(data, status, told, sent=len(data) // 2)
            self.wfile.flush()
            self.hub.stall.wait(60)
            return None
        return self.answer(data, status, told)

    def answer(self, data: bytes, status: int = 200, headers: dict[str, str] | None = None, sent: int | None = None):
        self.send_response(status)
        for key, value in ({"Content-Length": str(len(data)), "Set-Cookie": "seen=1"} | (headers or {})).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data[:sent])

    def log_message(self, *args):
        pass


class _HuggingFace(_Handler):
    """Lists with the API's `revision`, serves with `resolve`, as huggingface_hub asks."""

    def name_of(self, path):
        parts = unquote(path.path).split("/resolve/")
        return parts[1].partition("/")[2] if len(parts) == 2 and parts[0].endswith("someone/mountains") else None

    def told_of(self, data):
        return {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": COMMIT} | (
            {"X-Linked-Etag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Linked-Size": str(len(data))}
            if self.hub.beyond
            else {}
        )

    def list(self, path):
        if path.path not in [
            f"/api/{kind}/someone/mountains/revision/{revision}"
            for kind in ("datasets", "models")
            for revision in ("main", COMMIT)
        ]:
            code = "RevisionNotFound" if "someone/mountains" in path.path else "RepoNotFound"
            return self.answer(b"", 404, {"X-Error-Code": code})
        siblings = [
            {"rfilename": name, "size": len(data), "blobId": "0" * 40}
            | {"lfs": {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 100}}
            for name, data in self.hub.files.items()
        ]
        gated = {"gated": "manual"} if self.hub.gated else {}
        told = {"id": "someone/mountains", "sha": COMMIT, "siblings": siblings} | gated
        return self.answer(json.dumps(told).encode(), 200, {"Content-Type": "application/json"})


class _ModelScope(_Handler):
    """Lists with `repo/tree`, page by page, serves with `repo?FilePath=`, as modelscope_hub asks."""

    def name_of(self, path):
        return parse_qs(path.query)["FilePath"][0] if path.path == "/api/v1/datasets/someone/mountains/repo" else None

    def told_of(self, data):
        return {}

    def list(self, path):
        if path.path != "/api/v1/datasets/someone/mountains/repo/tree":
            return self.answer(b"{}", 404)
        if self.hub.gated:
            return self.answer(b'{"Code": 403, "Message": "access denied"}', 403)
        query = parse_qs(path.query)
        page, size = int(query["PageNumber"][0]), int(query["PageSize"][0])
        assert query["Revision"] == ["master"]
        files = [
            {"Path": name, "Name": name, "Type": "blob", "Size": len(data), "IsLFS": False}
            | ({"Sha256": hashlib.sha256(data).hexdigest()} if self.hub.hashes else {})
            for name, data in self.hub.files.items()
        ]
        files.insert(0, {"Path": "data", "Name": "data", "Type": "tree", "Size": 0})
        data = {"Code": 200, "Success": True, "Data": {"Files": files[(page - 1) * size : page * size]}}
        return self.answer(json.dumps(data).encode(), 200, {"Content-Type": "application/json"})


@contextmanager
def serve(handler: type, host: str = "127.0.0.1", context=None, **state) -> Iterator[str]:
    """A server in a thread; gives its address."""
    server = ThreadingHTTPServer((host, 0), type("Handler", (handler,), state))
    server.daemon_threads = True
    if context:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"{'https' if context else 'http'}://{host}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def hubs(monkeypatch, tmp_path):
    """All three hubs, each with the same data set; the caches are empty, no token is known."""
    found = SimpleNamespace(huggingface=StandIn(), mirror=StandIn(), modelscope=StandIn())
    for name in ("HF_TOKEN", "MODELSCOPE_API_TOKEN", "BUDDY_HUBS", "BUDDY_BUNDLE", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    for scheme in ("http", "https", "all"):
        monkeypatch.delenv(f"{scheme}_proxy", raising=False)
        monkeypatch.delenv(f"{scheme}_proxy".upper(), raising=False)
    with (
        serve(_HuggingFace, hub=found.huggingface) as found.huggingface.url,
        serve(_HuggingFace, hub=found.mirror) as found.mirror.url,
        serve(_ModelScope, hub=found.modelscope) as found.modelscope.url,
    ):
        monkeypatch.setattr("buddygpt.hub.settings.HUGGINGFACE", found.huggingface.url)
        monkeypatch.setenv("HF_ENDPOINT", found.mirror.url)
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", found.modelscope.url)
        monkeypatch.setenv("MODELSCOPE_HOME", str(tmp_path / "ms-home"))
        monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "ms"))
        monkeypatch.setattr(constants, "ENDPOINT", found.mirror.url)  # as HF_ENDPOINT does for a fresh process
        template = found.mirror.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr("modelscope_hub._download.DOWNLOAD_INTEGRITY_RETRY_BACKOFF", 0.01)
        monkeypatch.setattr("modelscope_hub._download.DOWNLOAD_RETRY_TIMES", 1)
        hurried = SimpleNamespace(**vars(time) | {"sleep": lambda seconds: None})
        monkeypatch.setattr("modelscope_hub._legacy_api.time", hurried)
        monkeypatch.setattr("buddygpt.hub.huggingface.time", hurried)
        yield found
