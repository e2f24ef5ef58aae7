"""Files fetched: once, whole, from where an earlier try stopped, and from another hub when one breaks off."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time

import pytest

from buddygpt.events import Note, silent
from buddygpt.hub.fetch import check_space, fetch, fetch_one
from buddygpt.hub.resolve import resolve
from buddygpt.hub.wanted import HubFiles, Wanted
from buddygpt.recipe.errors import BrokenOff, BuddyError
from buddygpt.recipe.hub import HubSection

from .conftest import FILES

ID = "someone/mountains"
A = "data/a.jsonl"
BOTH = pytest.mark.parametrize("name", ["mirror", "modelscope"])


def order(*names: str) -> HubSection:
    return HubSection.model_validate({"order": list(names)})


def answer_of(section: HubSection, *files: str) -> HubFiles:
    return resolve({0: Wanted("here", ID, ID, files or ("data/[ab].jsonl",))}, section)[0][0]


def other(name: str) -> str:
    return {"mirror": "modelscope", "modelscope": "mirror"}[name]


@BOTH
def test_files_are_fetched_once(hubs, name):
    hub, events = getattr(hubs, name), []
    answer = answer_of(order(name))
    paths, served = fetch(answer, order(name), events.append)
    assert [p.read_bytes() for p in paths] == [FILES[f.name] for f in answer.files] and served == answer
    assert [(e.done, e.total) for e in events] == [(1, 2), (2, 2)]
    hub.asked.clear()
    assert fetch(answer, order(name), silent) == (paths, answer) and hub.asked == []


def test_what_lies_in_one_hubs_cache_is_not_fetched_from_another(hubs):
    fetch(answer_of(order("modelscope")), order("modelscope"), silent)
    fetch(answer_of(order("mirror")), HubSection(), silent)
    assert hubs.mirror.fetched == []


@BOTH
def test_a_broken_connection_goes_on_where_it_stopped(hubs, name):
    hub = getattr(hubs, name)
    hub.cut = [1000]
    (path,), _ = fetch(answer_of(order(name), A), order(name), silent)
    assert path.read_bytes() == FILES[A]
    assert hub.fetched == [(A, None), (A, "bytes=1000-")]


@BOTH
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_download_ends_at_once_and_goes_on_where_it_stopped(hubs, name, tmp_path, sent):
    hub = getattr(hubs, name)
    hub.files[A] = b"".join(b'{"content": "%d"}\n' % n for n in range(400_000))  # more than a buffer holds
    hub.stall = threading.Event()
    code = (
        "import sys, json; from buddygpt.hub.fetch import fetch; from buddygpt.hub.resolve import resolve;"
        "from buddygpt.hub.wanted import Wanted; from buddygpt.recipe.hub import HubSection;"
        f"s = HubSection(order=['{name}']); a = resolve({{0: Wanted('here', '{ID}', '{ID}', ('{A}',))}}, s)[0][0];"
        "fetch(a, s, print)"
    )
    environment = os.environ | {"HF_HUB_CACHE": str(tmp_path / "hf"), "HF_HOME": str(tmp_path / "home")}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment, stderr=subprocess.DEVNULL)
    half = len(hub.files[A]) // 2
    while not any(p.stat().st_size >= half // 2 for p in tmp_path.rglob("*.incomplete")):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(sent)
    process.wait(timeout=15)  # the server would keep it for longer
    hub.stall.set()
    hub.stall = None
    hub.asked.clear()
    (partial,) = [p for p in tmp_path.rglob("*.incomplete") if p.stat().st_size]
    size = partial.stat().st_size
    answer, notes = answer_of(order(name), A), []
    check_space([answer], order(name), notes.append)
    assert len(notes) == 1  # and of what lies here, nothing is counted again
    (path,), _ = fetch(answer, order(name), silent)
    assert path.read_bytes() == hub.files[A]
    assert hub.fetched == [(A, f"bytes={size}-")] and size >= half // 2
    assert not partial.exists()


@BOTH
def test_a_corrupted_file_is_fetched_once_more(hubs, name):
    hub = getattr(hubs, name)
    hub.spoil = 1
    (path,), _ = fetch(answer_of(order(name), A), order(name), silent)
    assert path.read_bytes() == FILES[A] and hub.fetched == [(A, None), (A, None)]


@BOTH
def test_a_file_that_stays_corrupted_is_refused_and_removed(hubs, name, tmp_path):
    getattr(hubs, name).spoil = 99
    with pytest.raises(BrokenOff, match=f"{ID}: {A}: what {name} sends is not what it lists") as caught:
        fetch(answer_of(order(name), A), order(name), silent)
    assert len(caught.value.lines) == 1 and "\n" not in caught.value.lines[0]
    left = [path for path in tmp_path.rglob("*") if path.is_file() and b"content" in path.read_bytes()]
    assert left == []


@BOTH
def test_a_file_of_another_length_than_listed_is_refused(hubs, name):
    answer = answer_of(order(name), A)
    getattr(hubs, name).files[A] += b"{}\n"
    with pytest.raises(BrokenOff, match="is not what it lists"):
        fetch(answer, order(name), silent)


def test_a_damaged_copy_in_the_cache_is_replaced(hubs):
    answer = answer_of(order("mirror"), A)
    (path,), _ = fetch(answer, order("mirror"), silent)
    path.resolve().write_bytes(b"cut")
    (path,), _ = fetch(answer, order("mirror"), silent)
    assert path.read_bytes() == FILES[A]


@BOTH
def test_another_hub_serves_when_one_breaks_off_in_the_middle(hubs, name):
    section = order(name, other(name))
    answer = answer_of(section)
    hub = getattr(hubs, name)
    fetch(answer_of(section, A), section, silent)
    hub.status = 502
    paths, served = fetch(answer, section, silent)
    assert [p.read_bytes() for p in paths] == [FILES[f.name] for f in answer.files]
    assert served.origin()["from_other_hubs"] == {"data/b.jsonl": other(name)} and served.hub == name
    assert [n for n, _ in getattr(hubs, other(name)).fetched] == ["data/b.jsonl"]


@BOTH
def test_another_hubs_other_file_never_takes_its_place(hubs, name):
    section = order(name, other(name))
    answer = answer_of(section, A)
    getattr(hubs, other(name)).files[A] = FILES[A][:-2] + b"!\n"  # as long
    getattr(hubs, name).status = 502
    with pytest.raises(BuddyError) as caught:
        fetch(answer, section, silent)
    (line,) = caught.value.lines
    assert f"{name} does not serve it (status 502), and {other(name)} has another of that name" in line
    digests = [hashlib.sha256(getattr(hubs, hub).files[A]).hexdigest()[:12] for hub in (name, other(name))]
    assert all(digest in line for digest in digests)
    assert getattr(hubs, other(name)).fetched == []


@pytest.mark.parametrize("same", [True, False])
def test_where_a_hub_tells_no_hash_it_is_compared_after_the_download(hubs, same):
    section = order("mirror", "modelscope")
    answer = answer_of(section, A)
    hubs.mirror.status, hubs.modelscope.hashes = 502, False
    if not same:
        hubs.modelscope.files[A] = FILES[A][:-2] + b"!\n"
        with pytest.raises(BrokenOff, match=r"what modelscope sends is not what mirror lists"):
            fetch(answer, section, silent)
    else:
        (path,), _ = fetch(answer, section, silent)
        assert path.read_bytes() == FILES[A]


def test_a_hash_that_no_hub_told_is_recorded(hubs):
    hubs.modelscope.hashes = False
    answer = answer_of(order("modelscope"), A)
    assert answer.files[0].content.startswith("listed:listing-")
    _, served = fetch(answer, order("modelscope"), silent)
    assert served.files[0].content == f"sha256:{hashlib.sha256(FILES[A]).hexdigest()}"


def test_a_small_file_in_git_is_checked_by_its_blob(hubs, monkeypatch, tmp_path):
    blob = hashlib.sha1(b"blob %d\0" % len(FILES[A]) + FILES[A]).hexdigest()
    monkeypatch.setattr("buddygpt.hub.huggingface._content", lambda sibling, commit: f"git:{blob}")
    fetch(answer_of(order("mirror"), A), order("mirror"), silent)
    hubs.mirror.spoil = 9
    with pytest.raises(BrokenOff, match=r"git \w+ instead of"):
        fetch_one(
            answer := answer_of(order("mirror"), "data/b.jsonl"), answer.files[0], tmp_path / "x", order("mirror")
        )


def test_no_hub_left(hubs):
    answer = answer_of(HubSection())
    for hub in vars(hubs).values():
        hub.status = 502
    with pytest.raises(BrokenOff) as caught:
        fetch(answer, HubSection(), silent)
    assert caught.value.lines == (
        f"{ID}: download failed (mirror: status 502; huggingface: status 502; modelscope: status 502); "
        "start again to go on where it stopped",
    )


def test_size_is_told_and_space_checked_for_all_sources_together(hubs, monkeypatch):
    answers, notes = [answer_of(order("mirror")), answer_of(order("modelscope"), A)], []
    need = sum(answer.size for answer in answers)
    monkeypatch.setattr("buddygpt.hub.fetch.free_bytes", lambda path: need)
    check_space(answers, HubSection(), notes.append)
    assert [re.sub(r"[\d.]+ kB", "N", n.text) for n in notes if isinstance(n, Note)] == [
        f"{ID}: 2 files, N, to download from mirror",
        f"{ID}: 1 files, N, to download from modelscope",
    ]
    monkeypatch.setattr("buddygpt.hub.fetch.free_bytes", lambda path: need - 1)
    with pytest.raises(BrokenOff, match="are needed for what is missing"):
        check_space(answers, HubSection(), silent)
    fetch(answers[0], HubSection(), silent)
    check_space(answers, HubSection(), silent)


@BOTH
def test_a_full_disk_is_told_as_one(hubs, name, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    answer = answer_of(order(name))
    monkeypatch.setattr("buddygpt.hub.huggingface.HuggingFace._get", full)
    monkeypatch.setattr("modelscope_hub.HubApi.download_file", full)
    with pytest.raises(BrokenOff, match=f"no space left for {ID}; start again to go on"):
        fetch(answer, order(name), silent)


@BOTH
def test_one_file_outside_the_cache(hubs, name, tmp_path):
    answer = answer_of(order(name))
    path = fetch_one(answer, answer.files[0], tmp_path / "one", order(name))
    assert path == tmp_path / "one" / A and path.read_bytes() == FILES[A]
    kept = [
        p for cache in ("hf", "ms") for p in (tmp_path / cache).rglob("*") if p.is_file() and p.stat().st_size > 999
    ]
    assert kept == []


@BOTH
def test_nothing_signed_is_told_or_logged(hubs, name, capfd, monkeypatch):
    answer = answer_of(order(name))
    hub = getattr(hubs, name)
    hub.beyond = "http://127.0.0.1:9/cdn?Signature=secret"
    with pytest.raises(BuddyError) as caught:
        fetch(answer, order(name), silent)
    out, err = capfd.readouterr()
    assert "secret" not in str(caught.value) + out + err and err == ""


def test_answers_are_plain_data(hubs):
    answer = answer_of(HubSection())
    assert "127.0.0.1" not in json.dumps(answer.as_dict()) + json.dumps(answer.origin())
