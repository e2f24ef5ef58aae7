"""Data sets on the hub, imitated by a server on this machine; and a hub that is not there."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import pytest

from buddygpt.data.prepare import find_prepared, prepare
from buddygpt.events import Caution, silent
from buddygpt.hub.download import fetch, resolve
from buddygpt.recipe.data import HubSource
from buddygpt.recipe.errors import BuddyError
from buddygpt.recipe.loader import load_recipe

COMMIT = "c0ffee" * 6 + "abcd"
ROWS = [f"第{n}篇：" + "山高水长，" * (n % 7 + 1) for n in range(80)]
FILES = {
    "data/a.jsonl": "".join(json.dumps({"content": r}, ensure_ascii=False) + "\n" for r in ROWS[:40]).encode(),
    "data/b.jsonl": "".join(json.dumps({"content": r}, ensure_ascii=False) + "\n" for r in ROWS[40:]).encode(),
    "data/jinyong.jsonl": b'{"content": "left out"}\n',
    "README.md": b"# about",
}
RECIPE = """
schema: 1
name: test
model:
  vocab_size: 512
  hidden_size: 64
  num_hidden_layers: 1
  max_position_embeddings: 256
  attention: {kind: gqa, num_attention_heads: 4, num_key_value_heads: 2}
  mlp: {kind: dense, intermediate_size: 128}
tokenizer: {train: 300}
data:
  workers: 1
  validation: 0.2
  sources:
    - {kind: demo, characters: 2000}
    - kind: hub
      name: mountains
      id: someone/mountains
      files: ["data/*.jsonl"]
      exclude: ["data/jin*"]
      columns: [content]
      min_score: null
      size: 75B
      weight: 56
"""


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as it takes to list and fetch the files of one data set."""

    asked: list[str] = []

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        Hub.asked.append(self.path)
        if self.path.startswith("/api/datasets/someone/mountains/revision/main?"):
            siblings = [
                {"rfilename": name, "size": len(data), "blobId": hashlib.sha1(data).hexdigest()}
                for name, data in FILES.items()
            ]
            return self.answer(json.dumps({"id": "someone/mountains", "sha": COMMIT, "siblings": siblings}).encode())
        found = re.fullmatch(rf"/datasets/someone/mountains/resolve/{COMMIT}/(.*)", self.path)
        if found and found[1] in FILES:
            data = FILES[found[1]]
            return self.answer(data, {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": COMMIT})
        code = {"revision": "RevisionNotFound"}.get("revision" if "mountains" in self.path else "", "RepoNotFound")
        self.send_response(404)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def answer(self, data: bytes, headers: dict[str, str] | None = None):
        self.send_response(200)
        for key, value in (
            {"Content-Length": str(len(data)), "Content-Type": "application/json"} | (headers or {})
        ).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, *args):
        pass


def turn_to(monkeypatch, endpoint: str, cache: Path) -> None:
    """Make huggingface_hub ask `endpoint`, as HF_ENDPOINT does for a fresh process."""
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    Hub.asked = []
    turn_to(monkeypatch, f"http://127.0.0.1:{server.server_port}", tmp_path / "hf")
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def nobody(monkeypatch, tmp_path):
    """A hub at a port where nobody listens."""
    turn_to(monkeypatch, "http://127.0.0.1:9", tmp_path / "hf")


def source(**fields) -> HubSource:
    return HubSource.model_validate({"kind": "hub", "id": "someone/mountains", "files": ["data/*.jsonl"]} | fields)


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "r.yaml").write_text(RECIPE, "utf-8")
    return load_recipe(tmp_path / "r.yaml")


def test_files_are_listed_at_one_commit(hub):
    answers, cautions = resolve({3: source(exclude=["*jinyong*"])})
    answer = answers[3]
    assert cautions == [] and answer.commit == COMMIT
    assert [(f.name, f.size) for f in answer.files] == [(n, len(FILES[n])) for n in ("data/a.jsonl", "data/b.jsonl")]
    assert type(answer).from_dict(json.loads(json.dumps(answer.as_dict()))) == answer


def test_files_are_fetched_once(hub):
    names = ["data/a.jsonl", "data/b.jsonl"]
    events = []
    paths = fetch("someone/mountains", COMMIT, names, 100, events.append)
    assert [p.read_bytes() for p in paths] == [FILES[n] for n in names]
    assert [(e.done, e.total) for e in events] == [(1, 2), (2, 2)]
    Hub.asked = []
    assert fetch("someone/mountains", COMMIT, names, 100, silent) == paths and Hub.asked == []


def test_a_recipe_with_a_hub_source(hub, recipe, tmp_path, monkeypatch):
    assert find_prepared(recipe, tmp_path / "cache") is None
    assert not any("resolve" in path for path in Hub.asked)  # looking downloads nothing
    prepared = prepare(recipe, tmp_path / "cache", silent)
    entry = prepared.source("mountains")
    assert entry["origin"] == {"id": "someone/mountains", "revision": "main", "commit": COMMIT}
    assert entry["documents_in"] == entry["documents_out"] == 80

    turn_to(monkeypatch, "http://127.0.0.1:9", tmp_path / "hf")
    events = []
    assert prepare(recipe, tmp_path / "cache", events.append) == prepared  # without a network, as last time
    assert [COMMIT[:12] in e.text for e in events if isinstance(e, Caution)] == [True]


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"id": "someone/else"}, "no such data set, or a private one"),
        ({"revision": "v9"}, "it has no revision 'v9'"),
        ({"files": ["*.parquet"]}, r"none of its 4 files matches \*\.parquet; there are README.md, data/a.jsonl"),
        ({"id": "a/b/c"}, "not an id; write owner/name"),
    ],
)
def test_what_the_hub_does_not_have(hub, fields, told):
    with pytest.raises(BuddyError, match=told):
        resolve({0: source(**fields)})


def test_an_unreachable_hub_is_told_at_once(nobody):
    sources = {i: source(name=f"s{i}", size=i * 10**9 or None) for i in range(5)}
    start = time.monotonic()
    with pytest.raises(BuddyError) as caught:
        resolve(sources)
    assert time.monotonic() - start < 8
    assert [line.split(" cannot")[0] for line in caught.value.lines] == [
        "data.sources.0: s0: someone/mountains",
        *(f"data.sources.{i}: s{i}: someone/mountains ({i} GB)" for i in range(1, 5)),
    ]


def test_a_hub_that_never_answers(monkeypatch):
    monkeypatch.setattr("buddygpt.hub.download.PATIENCE", 0.05)
    done = threading.Event()
    monkeypatch.setattr("buddygpt.hub.download._ask", lambda source: done.wait(10))
    with pytest.raises(BuddyError, match=r"no answer within 0\.05 seconds"):
        resolve({0: source()})
    done.set()


def test_the_remedy_works(nobody, recipe, tmp_path):
    with pytest.raises(BuddyError) as caught:
        prepare(recipe, tmp_path / "cache", silent)
    assert not (tmp_path / "cache").exists()
    (line,) = caught.value.lines
    assert "(75 GB) cannot be had" in line
    override = re.search(r"--set (\S+=)'(.*)'$", line)
    assert override is not None
    local = tmp_path / "local"
    local.mkdir()
    (local / "a.jsonl").write_bytes(FILES["data/a.jsonl"])
    mended = load_recipe(tmp_path / "r.yaml", [override[1] + override[2].replace("/path", str(local))])
    replaced = mended.data.sources[1]
    assert (replaced.kind, replaced.columns, replaced.weight) == ("files", ["content"], 56)
    assert prepare(mended, tmp_path / "cache", silent).source("mountains")["documents_out"] == 40


def test_too_little_space_for_a_download(hub, monkeypatch):
    monkeypatch.setattr("buddygpt.hub.download.free_bytes", lambda path: 10)
    with pytest.raises(BuddyError, match=r"75 GB are needed to download someone/mountains, 10 bytes are free"):
        fetch("someone/mountains", COMMIT, ["data/a.jsonl"], 75 * 10**9, silent)


def test_a_download_that_fails(hub, monkeypatch):
    def broken(*args, **kwargs):
        raise ConnectionError("https://cdn.example/file?Signature=secret")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", broken)
    with pytest.raises(BuddyError, match="download failed") as caught:
        fetch("someone/mountains", COMMIT, ["data/a.jsonl"], 10, silent)
    assert "secret" not in str(caught.value)
