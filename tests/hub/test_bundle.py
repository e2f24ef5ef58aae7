"""Bundles: made where there is a network, used where there is none."""

from __future__ import annotations

import json
import shutil
import socket

import pytest
from huggingface_hub import constants

from buddygpt.data.tokenizer import load_tokenizer, tokenizer_hash, train_tokenizer
from buddygpt.events import silent
from buddygpt.hub.bundle import bundled
from buddygpt.hub.bundling import make_bundle
from buddygpt.hub.fetch import check_space, fetch, fetch_one
from buddygpt.hub.resolve import resolve
from buddygpt.hub.tokenizers import tokenizer_folder
from buddygpt.hub.wanted import Wanted
from buddygpt.recipe.errors import BrokenOff, BuddyError
from buddygpt.recipe.hub import HubSection

from .conftest import COMMIT, FILES, ROWS
from .test_resolve import RECIPE

ID = "someone/mountains"
WANTED = Wanted("here", ID, ID, ("data/[ab].jsonl",))


@pytest.fixture
def offline(monkeypatch, tmp_path, hubs):
    """Take away network, caches and home."""

    def take() -> None:
        for name in ("hf", "ms", "ms-home"):
            shutil.rmtree(tmp_path / name, ignore_errors=True)
        for name in ("HOME", "HF_HOME", "MODELSCOPE_CACHE", "MODELSCOPE_HOME", "BUDDY_CACHE"):
            monkeypatch.setenv(name, str(tmp_path / "empty"))
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "empty" / "hf"))

        def connect(*args):
            raise AssertionError("somebody asks the network")

        monkeypatch.setattr(socket.socket, "connect", connect)
        monkeypatch.setattr(socket, "getaddrinfo", connect)

    return take


@pytest.fixture
def tokenizer(hubs, tmp_path):
    """A tokenizer among the files of the repository."""
    made = train_tokenizer(ROWS, 280)
    made.save_pretrained(tmp_path / "made")
    for hub in (hubs.mirror, hubs.huggingface):
        hub.files |= {path.name: path.read_bytes() for path in (tmp_path / "made").iterdir()}
    return made


def prepared(runs) -> dict[str, bytes]:
    folder = (runs / "test" / "data").resolve()
    files = [path for path in folder.rglob("*") if path.is_file() and "logs" not in path.parts]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.mark.parametrize("name", ["mirror", "modelscope"])
@pytest.mark.parametrize("base", ["null", ID])
def test_a_bundle_moved_to_a_machine_without_network_gives_the_same_shards(
    buddy, hubs, tokenizer, offline, tmp_path, monkeypatch, name, base
):
    if base == ID and name == "modelscope":
        monkeypatch.setenv("BUDDY_HUBS", "modelscope,mirror")
    else:
        monkeypatch.setenv("BUDDY_HUBS", name)
    recipe = RECIPE.replace("{train: 300}", f"{{train: {'300' if base == 'null' else 'null'}, base: {base}}}")
    (tmp_path / "r.yaml").write_text(recipe, "utf-8")
    assert buddy("data", "r.yaml").code == 0
    expected = prepared(tmp_path / "runs")
    assert any(name.startswith("shards/") for name in expected)
    outcome = buddy("data", "fetch", "r.yaml", "--to", "bundle")
    assert (outcome.code, outcome.err) == (0, "")
    shutil.move(tmp_path / "bundle", tmp_path / "elsewhere")
    shutil.rmtree(tmp_path / "runs")
    offline()
    outcome = buddy("data", "r.yaml", "--set", "hub.bundle=elsewhere")
    assert (outcome.code, outcome.err) == (0, "")
    assert prepared(tmp_path / "runs") == expected
    shutil.rmtree(tmp_path / "runs")
    monkeypatch.setenv("BUDDY_BUNDLE", str(tmp_path / "elsewhere"))
    assert buddy("data", "r.yaml").code == 0 and prepared(tmp_path / "runs") == expected


def test_without_a_folder_all_is_fetched_into_the_caches(buddy, hubs, tmp_path):
    (tmp_path / "r.yaml").write_text(RECIPE, "utf-8")
    outcome = buddy("data", "fetch", "r.yaml")
    assert outcome.code == 0 and "to download from mirror" in outcome.out and "fetched: 2 files" in outcome.out
    hubs.mirror.asked.clear()
    assert buddy("data", "r.yaml").code == 0
    assert hubs.mirror.fetched == []


def make(tmp_path, *names: str, section: HubSection | None = None, wanted: Wanted = WANTED):
    section = section or HubSection()
    answer = resolve({0: wanted}, section)[0][0]
    make_bundle([answer], tmp_path / "bundle", section, silent, names)
    return answer, HubSection(bundle=str(tmp_path / "bundle"))


@pytest.mark.parametrize("name", ["mirror", "huggingface", "modelscope"])
def test_the_layout_and_the_index(hubs, tmp_path, name):
    answer, section = make(tmp_path, section=HubSection(order=[name]))
    folder = tmp_path / "bundle" / name / ID / answer.commit
    assert {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} == {
        f.name for f in answer.files
    }
    assert all((folder / f.name).read_bytes() == FILES[f.name] for f in answer.files)
    (entry,) = json.loads((tmp_path / "bundle" / "bundle.json").read_text("utf-8"))["answers"]
    assert entry == answer.as_dict() and "127.0.0.1" not in json.dumps(entry)
    assert resolve({0: WANTED}, section) == ({0: answer}, [])
    assert fetch(answer, section, silent) == (bundled(tmp_path / "bundle", answer), answer)
    assert fetch_one(answer, answer.files[0], tmp_path / "x", section) == folder / answer.files[0].name
    check_space([answer], section, silent)


def test_an_unfinished_bundle_is_none_and_is_completed_without_fetching_again(hubs, tmp_path, monkeypatch):
    hubs.mirror.spoil, section = 99, HubSection(order=["mirror"])
    part = Wanted("here", ID, ID, ("data/a.jsonl",))
    with pytest.raises(BrokenOff):
        make(tmp_path, section=section)
    with pytest.raises(BuddyError, match=r"bundle\.json: cannot be read"):
        resolve({0: WANTED}, HubSection(bundle=str(tmp_path / "bundle")))
    hubs.mirror.spoil = 0
    make(tmp_path, section=section, wanted=part)
    shutil.rmtree(tmp_path / "hf")
    hubs.mirror.asked.clear()
    answer, bundle = make(tmp_path, section=section)
    assert [name for name, _ in hubs.mirror.fetched] == ["data/b.jsonl"]
    assert resolve({0: WANTED, 1: part}, bundle)[0][0] == answer  # the other recipe's part stays


def test_a_damaged_copy_in_the_cache_never_comes_into_a_bundle(hubs, tmp_path):
    section = HubSection(order=["mirror"])
    answer = resolve({0: WANTED}, section)[0][0]
    (path, _), _ = fetch(answer, section, silent)
    data = path.read_bytes()
    path.resolve().write_bytes(data[:-2] + b"?\n")
    with pytest.raises(BrokenOff, match="the copy in the cache is not what mirror lists"):
        make_bundle([answer], tmp_path / "bundle", section, silent)
    make_bundle([answer], tmp_path / "bundle", section, silent)
    assert bundled(tmp_path / "bundle", answer)[0].read_bytes() == data


@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_a_file_that_is_missing_or_cut_is_told_in_one_line(hubs, tmp_path, damage):
    answer, section = make(tmp_path)
    path = bundled(tmp_path / "bundle", answer)[1]
    path.unlink() if damage == "gone" else path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(BuddyError, match=r"data/b\.jsonl: missing from the bundle, or not whole") as caught:
        resolve({0: WANTED}, section)
    assert len(caught.value.lines) == 1


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"huggingface": "someone/else"}, "has it not"),
        ({"files": ("data/*",)}, r"holds only data/\[ab\]\.jsonl at main"),
        ({"revision": COMMIT}, r"holds only data/\[ab\]\.jsonl at main"),
    ],
)
def test_what_was_not_asked_for_then_is_not_there_now(hubs, tmp_path, fields, told):
    _, section = make(tmp_path)
    given = {"where": "here", "huggingface": ID, "modelscope": ID, "files": WANTED.files} | fields
    with pytest.raises(BuddyError, match=told):
        resolve({0: Wanted(**given)}, section)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 99, "answers": []}', '{"format": 1, "answers": 3}'])
def test_a_file_that_is_no_index_is_refused(hubs, tmp_path, text):
    (tmp_path / "bundle.json").write_text(text, "utf-8")
    with pytest.raises(BuddyError, match="make it again"):
        resolve({0: WANTED}, HubSection(bundle=str(tmp_path)))


def test_a_tokenizer_by_id_comes_from_the_first_hub_that_has_it_and_later_from_the_cache(hubs, tokenizer):
    hubs.mirror.status = 503
    loaded = load_tokenizer(ID)
    assert tokenizer_hash(loaded) == tokenizer_hash(tokenizer) and loaded.name_or_path == ID
    assert not any(name.startswith("data/") for name, _ in hubs.huggingface.fetched)
    hubs.huggingface.status = 503
    assert tokenizer_hash(load_tokenizer(ID)) == tokenizer_hash(tokenizer)
    with pytest.raises(BuddyError, match=r"tokenizer 'a/b': a/b cannot be had: mirror: status 503; .* give 'qwen3'"):
        load_tokenizer("a/b")


def test_a_tokenizer_of_a_bundle(hubs, tokenizer, offline, tmp_path):
    _, section = make(tmp_path, ID)
    offline()
    assert tokenizer_folder(ID, section) == tmp_path / "bundle" / "mirror" / ID / COMMIT
    assert tokenizer_hash(load_tokenizer(ID, hubs=section)) == tokenizer_hash(tokenizer)
