"""Which hub answers for what is wanted, and what is told when none does."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import ssl
import threading
from pathlib import Path

import pytest
from huggingface_hub import constants

from buddygpt.data.catalog import find
from buddygpt.data.prepare import find_prepared, prepare
from buddygpt.events import Caution, silent
from buddygpt.hub.protocol import NoAnswer
from buddygpt.hub.resolve import resolve
from buddygpt.hub.wanted import HubFile, HubFiles, Wanted
from buddygpt.recipe.data import CatalogSource
from buddygpt.recipe.errors import BuddyError
from buddygpt.recipe.hub import HubSection
from buddygpt.recipe.loader import load_recipe

from .conftest import COMMIT, FILES, _ModelScope, serve

ID = "someone/mountains"
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
      modelscope: someone/mountains
      files: ["data/*.jsonl"]
      exclude: ["data/jin*"]
      map: {text: content}
      size: 75B
      weight: 56
"""


def wanted(**fields) -> Wanted:
    given = {"where": "here", "huggingface": ID, "modelscope": ID, "files": ("data/*.jsonl",), "remedy": "copy it"}
    return Wanted(**given | fields)


def order(*names: str, **fields) -> HubSection:
    return HubSection.model_validate({"order": list(names)} | fields)


def answer_of(section: HubSection, **fields) -> HubFiles:
    return resolve({3: wanted(**fields)}, section)[0][3]


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "r.yaml").write_text(RECIPE, "utf-8")
    return load_recipe(tmp_path / "r.yaml")


@pytest.mark.parametrize("name", ["huggingface", "mirror", "modelscope"])
def test_each_hub_lists_files_at_one_commit(hubs, name):
    answers, cautions = resolve({3: wanted(exclude=("*jinyong*",))}, order(name))
    answer = answers[3]
    assert cautions == [] and answer.hub == name and answer.id == ID
    assert [(f.name, f.size) for f in answer.files] == [(n, len(FILES[n])) for n in ("data/a.jsonl", "data/b.jsonl")]
    assert all(re.fullmatch("sha256:[0-9a-f]{64}", file.content) for file in answer.files)
    assert HubFiles.from_dict(json.loads(json.dumps(answer.as_dict())), answer.wanted) == answer
    if name == "modelscope":  # a name for the state of the whole repository
        assert answer.commit.startswith("listing-") and answer.revision == "master"
        hubs.modelscope.files["README.md"] = b"# changed"
        assert answer_of(order(name)).commit != answer.commit
    else:
        assert (answer.commit, answer.revision) == (COMMIT, "main")


def test_all_pages_of_a_long_list_are_read(hubs):
    hubs.modelscope.files = {f"data/{n:03d}.jsonl": b"{}\n" for n in range(450)}
    assert len(answer_of(order("modelscope")).files) == 450


def test_the_order_is_the_recipes_then_the_environments_then_the_mirror_first(hubs, monkeypatch):
    assert answer_of(HubSection()).hub == "mirror"
    monkeypatch.setenv("BUDDY_HUBS", "modelscope, huggingface")
    assert answer_of(HubSection()).hub == "modelscope"
    assert answer_of(order("huggingface", "modelscope")).hub == "huggingface"
    monkeypatch.delenv("BUDDY_HUBS")
    monkeypatch.delenv("HF_ENDPOINT")
    assert answer_of(HubSection()).hub == "huggingface"
    assert answer_of(order("mirror", "modelscope")).hub == "modelscope"
    assert len(hubs.mirror.asked) == 1  # by the first question; those answered by others ask no more


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("BUDDY_HUBS", "modelscop", "no hub 'modelscop'; known are huggingface, mirror, modelscope; did you mean"),
        ("HF_ENDPOINT", "hf-mirror.com", "HF_ENDPOINT: not an address; write https://host"),
    ],
)
def test_variables_that_name_no_hub(hubs, monkeypatch, name, value, told):
    monkeypatch.setenv(name, value)
    with pytest.raises(BuddyError, match=told):
        answer_of(HubSection())


def test_a_mirror_without_an_address(hubs, monkeypatch):
    monkeypatch.delenv("HF_ENDPOINT")
    with pytest.raises(BuddyError, match="HF_ENDPOINT, which is to name it, is not set"):
        answer_of(order("mirror"))


def self_signed(folder) -> ssl.SSLContext:
    x509 = pytest.importorskip("cryptography.x509")
    from datetime import UTC, datetime, timedelta

    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name, now = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")]), datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "cert.pem").write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem")
    return context


@pytest.mark.parametrize("fault", ["refused", "status 503", "unknown there", "wrong certificate", "silent", "no hub"])
@pytest.mark.parametrize("first", ["mirror", "modelscope"])
def test_the_next_hub_is_asked_when_one_does_not_answer(hubs, monkeypatch, tmp_path, first, fault):
    second = {"mirror": "modelscope", "modelscope": "huggingface"}[first]
    variable = {"mirror": "HF_ENDPOINT", "modelscope": "MODELSCOPE_ENDPOINT"}[first]
    hub = getattr(hubs, first)
    fields = {}
    if fault == "refused":
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    elif fault == "status 503":
        hub.status = 503
    elif fault == "unknown there":
        fields = {"huggingface" if first == "mirror" else "modelscope": "someone/else"}
    elif fault == "no hub":
        hub.files = {}
        monkeypatch.setattr(hub, "status", 200)  # an empty page
    with serve(_ModelScope, context=self_signed(tmp_path), hub=hub) as unsafe, socket.create_server(("", 0)) as dumb:
        if fault == "wrong certificate":
            monkeypatch.setenv(variable, unsafe)
        elif fault == "silent":
            monkeypatch.setattr("buddygpt.hub.resolve.PATIENCE", 0.5)
            monkeypatch.setenv(variable, f"http://127.0.0.1:{dumb.getsockname()[1]}")
        answers, (caution,) = resolve({0: wanted(**fields)}, order(first, second))
    assert answers[0].hub == second
    assert caution.startswith(f"{ID}: taken from {second} ({first}: ")
    told = {"status 503": "status 503", "unknown there": "no such data set", "silent": "no answer within 0.5 seconds"}
    assert told.get(fault, "") in caution


@pytest.mark.parametrize(
    ("name", "fields", "told"),
    [
        ("mirror", {"huggingface": "someone/else"}, "mirror: no such data set, or a private one"),
        ("modelscope", {"modelscope": "someone/else"}, "modelscope: no such data set, or a private one"),
        ("mirror", {"revision": "v9"}, "it has no revision 'v9'"),
        ("mirror", {"files": ("*.parquet",)}, r"none of its 4 files matches \*\.parquet; there are README.md, data/a"),
        ("modelscope", {"files": ("*.parquet",)}, r"none of its 4 files matches \*\.parquet; there are README.md"),
        ("mirror", {"huggingface": "a/b/c"}, "not an id; write owner/name"),
        ("mirror", {"huggingface": None}, "someone/mountains cannot be had: it is on none of the hubs asked"),
    ],
)
def test_what_a_hub_does_not_have(hubs, name, fields, told):
    with pytest.raises(BuddyError, match=told):
        answer_of(order(name), **fields)


def test_a_revision_that_is_not_there_is_not_replaced_by_another_hubs_branch(hubs):
    with pytest.raises(BuddyError, match=r"mirror: it has no revision 'v9'; huggingface: it has no .*'v9'; copy"):
        answer_of(HubSection(), revision="v9")
    assert hubs.modelscope.asked == []
    hubs.mirror.status = 500
    answers, cautions = resolve({0: wanted(revision=COMMIT)}, order("mirror", "modelscope"))
    assert answers[0].hub == "modelscope" and f"not for {COMMIT}" in cautions[1]


def test_a_gated_set_says_where_to_accept_its_terms_and_an_open_copy_serves(hubs):
    hubs.huggingface.gated = hubs.modelscope.gated = True
    with pytest.raises(BuddyError) as caught:
        answer_of(order("huggingface", "modelscope"))
    (line,) = caught.value.lines
    assert f"accept the terms on https://huggingface.co/datasets/{ID}, then `hf auth login`" in line
    assert f"accept the terms on {hubs.modelscope.url}/datasets/{ID}, then `modelscope login`" in line
    hubs.modelscope.gated = False
    assert answer_of(order("huggingface", "modelscope")).hub == "modelscope"


def test_the_answer_of_last_time_serves_when_no_hub_answers_but_not_when_they_say_no(hubs):
    earlier = {0: answer_of(order("modelscope"))}
    for hub in vars(hubs).values():
        hub.status = 502
    answers, (caution,) = resolve({0: wanted()}, HubSection(), earlier)
    assert answers == earlier and earlier[0].commit[:20] in caution and caution.count("status 502") == 3
    with pytest.raises(BuddyError, match="no such data set"):
        for hub in vars(hubs).values():
            hub.status = None
        resolve({0: wanted(huggingface="a/b", modelscope="a/b")}, HubSection(), earlier)


def test_other_files_than_last_time_from_another_hub_are_told(hubs):
    earlier = {0: answer_of(order("mirror"))}
    hubs.mirror.status, hubs.modelscope.files = 500, FILES | {"data/new.jsonl": b"{}\n"}
    _, cautions = resolve({0: wanted()}, order("mirror", "modelscope"), earlier)
    assert cautions[1] == f"{ID}: modelscope has other files than mirror had last time"


def test_one_line_a_source_and_all_asked_at_once(hubs, monkeypatch):
    monkeypatch.setattr("buddygpt.hub.resolve.PATIENCE", 5)
    barrier = threading.Barrier(5)

    def list_all_at_once(hub, repository):
        barrier.wait()
        raise NoAnswer("no")

    monkeypatch.setattr("buddygpt.hub.huggingface.HuggingFace.list", list_all_at_once)
    questions = {i: wanted(where=f"s{i}", size=i * 10**9 or None) for i in range(5)}
    with pytest.raises(BuddyError) as caught:
        resolve(questions, order("mirror"))
    assert not barrier.broken
    assert [line.split(" cannot")[0] for line in caught.value.lines] == [
        f"s0: {ID}", *(f"s{i}: {ID} ({i} GB)" for i in range(1, 5)),
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["../up.jsonl", "/etc/up.jsonl", "data/../../up.jsonl", "data\\up.jsonl"])
@pytest.mark.parametrize("hub", ["mirror", "modelscope"])
def test_files_that_would_leave_their_folder_are_refused(hubs, hub, name):
    getattr(hubs, hub).files = {name: b"{}\n"}
    with pytest.raises(BuddyError, match="lists a file that cannot be"):
        answer_of(order(hub), files=("*",))


@pytest.mark.parametrize(("commit", "content"), [("../..", "git:0"), ("a", "git:../0"), ("", "git:0")])
def test_commits_and_hashes_that_would_leave_their_folder_are_refused(commit, content):
    with pytest.raises(BuddyError, match="cannot be"):
        HubFiles(wanted(), "mirror", commit, (HubFile("a", 1, content),))


def test_a_recipe_with_a_hub_source(hubs, recipe, tmp_path):
    assert find_prepared(recipe, tmp_path / "cache") is None
    assert not hubs.mirror.fetched  # looking downloads nothing
    prepared = prepare(recipe, tmp_path / "cache", silent)
    entry = prepared.source("mountains")
    assert entry["origin"] == {"hub": "mirror", "id": ID, "revision": "main", "commit": COMMIT}
    assert entry["documents_in"] == entry["documents_out"] == 80
    for hub in vars(hubs).values():
        hub.status = 500
    events = []
    assert prepare(recipe, tmp_path / "cache", events.append) == prepared  # without a network, as last time
    assert [COMMIT[:12] in e.text for e in events if isinstance(e, Caution)] == [True]


def test_the_same_data_are_prepared_whichever_hub_serves(hubs, recipe, tmp_path, monkeypatch):
    first = prepare(recipe, tmp_path / "cache", silent)
    monkeypatch.setenv("BUDDY_HUBS", "modelscope")
    assert prepare(recipe, tmp_path / "cache", silent).path == first.path


def test_a_streamed_source_leaves_no_copy_behind(hubs, recipe, tmp_path):
    whole = prepare(recipe, tmp_path / "cache", silent)
    sources = [s.model_copy(update={"stream": True}) if s.kind == "hub" else s for s in recipe.data.sources]
    streamed = recipe.model_copy(update={"data": recipe.data.model_copy(update={"sources": sources})})
    caches = [Path(constants.HF_HUB_CACHE), Path(os.environ["MODELSCOPE_CACHE"])]
    for cache in caches:
        shutil.rmtree(cache, ignore_errors=True)
    prepared = prepare(streamed, tmp_path / "other", silent)
    left = [p for cache in (*caches, tmp_path / "other") for p in cache.rglob("*.jsonl") if p.is_file()]
    assert left == []
    for split in ("train", "validation"):
        for a, b in zip(whole.open("mountains", split), prepared.open("mountains", split), strict=True):
            assert a.tokens.tobytes() == b.tokens.tobytes()
    assert prepared.source("mountains")["origin"] == whole.source("mountains")["origin"]


def test_a_catalogs_data_set_is_taken_as_the_catalog_says(hubs, recipe, tmp_path, monkeypatch):
    entry = find("firefly-pretrain").model_copy(
        update={"huggingface": ID, "modelscope": ID, "files": ["data/*.jsonl"], "exclude": ["data/jin*"]}
    )
    monkeypatch.setattr("buddygpt.data.sources.find", {"firefly-pretrain": entry}.__getitem__)
    source = CatalogSource(kind="catalog", dataset="firefly-pretrain")
    data = recipe.data.model_copy(update={"sources": [recipe.data.sources[0], source]})
    prepared = prepare(recipe.model_copy(update={"data": data}), tmp_path / "cache", silent)
    told = prepared.source("firefly-pretrain")
    assert (told["kind"], told["documents_out"], told["origin"]["id"]) == ("catalog", 80, ID)


def test_the_remedy_works(hubs, recipe, tmp_path):
    for hub in vars(hubs).values():
        hub.status = 500
    with pytest.raises(BuddyError) as caught:
        prepare(recipe, tmp_path / "cache", silent)
    assert not (tmp_path / "cache").exists()
    (line,) = caught.value.lines
    assert line.startswith(f"data.sources.1: mountains: {ID} (75 GB) cannot be had: mirror: status 500; huggingface")
    override = re.search(r"--set (\S+=)'(.*)'$", line)
    assert override is not None
    local = tmp_path / "local"
    local.mkdir()
    (local / "a.jsonl").write_bytes(FILES["data/a.jsonl"])
    mended = load_recipe(tmp_path / "r.yaml", [override[1] + override[2].replace("/path", str(local))])
    replaced = mended.data.sources[1]
    assert (replaced.kind, replaced.map, replaced.weight) == ("files", {"text": "content"}, 56)
    assert prepare(mended, tmp_path / "cache", silent).source("mountains")["documents_out"] == 40
