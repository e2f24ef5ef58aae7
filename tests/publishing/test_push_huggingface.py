"""Pushing to Hugging Face: what a hub, a network or a token can do wrong, and that nothing half is ever to be seen."""

from __future__ import annotations

import hashlib
import json
import random
import time
from types import SimpleNamespace

import pytest

from buddygpt.events import silent
from buddygpt.hub.settings import read_settings
from buddygpt.publishing.delivery import Plan, Pushed, deliver, plan
from buddygpt.publishing.parcel import Item, Parcel
from buddygpt.publishing.remote import Held, NotThere, Remote, open_remote
from buddygpt.recipe.errors import BrokenOff, BuddyError
from buddygpt.recipe.hub import HubSection

from .huggingface.faults import QUOTA, Answer, Drop, Fault, Lose, Redirect, Wait, echo, quota

NAME = "someone/mountains-base"
LARGE = [f"model-0000{n}-of-00004.safetensors" for n in range(1, 5)]


@pytest.fixture
def items(tmp_path) -> list[Item]:
    """Four large files and two small ones."""
    random.seed(7)
    files = {"README.md": "---\ntags: [buddygpt]\n---\n# 山水\n".encode(), "config.json": b"{}"}
    files |= {name: random.randbytes(150_000 + n) for n, name in enumerate(LARGE)}
    (tmp_path / "out").mkdir()
    found = []
    for name, data in sorted(files.items()):
        (tmp_path / "out" / name).write_bytes(data)
        found.append(Item(name, tmp_path / "out" / name, len(data), hashlib.sha256(data).hexdigest()))
    return found


@pytest.fixture
def hub(huggingface, monkeypatch):
    """The stand-in, its token in the environment; nobody waits between tries."""
    monkeypatch.setenv("HF_TOKEN", huggingface.token)
    hurried = SimpleNamespace(**vars(time) | {"sleep": lambda seconds: None})
    monkeypatch.setattr("huggingface_hub.utils._http.time", hurried)
    monkeypatch.setattr("buddygpt.publishing.huggingface.time", hurried)
    monkeypatch.setattr("buddygpt.publishing.delivery.time", hurried)
    return huggingface


@pytest.fixture
def remote(hub) -> Remote:
    hub.make(NAME, private=True)
    return open_remote("huggingface", read_settings(HubSection()))


def send(remote: Remote, items: list[Item]) -> list[tuple[int, int]]:
    told: list[tuple[int, int]] = []
    remote.send(NAME, items, "小模型", lambda done, total: told.append((done, total)))
    return told


def held(items: list[Item]) -> dict[str, Held]:
    """How the hub is to list them."""
    found = {}
    for item in items:
        data = item.path.read_bytes()
        blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        found[item.name] = Held(item.size, f"sha256:{item.sha256}" if item.name in LARGE else f"git:{blob}")
    return found


def listed(remote: Remote) -> dict[str, Held]:
    found = remote.listing(NAME)
    found.pop(".gitattributes")  # the hub's own
    return found


def check_line(error: BuddyError, hub) -> None:
    """One line for people: no token, no signed address, no page of markup."""
    line = str(error)
    assert "\n" not in line and hub.token not in line and "signature=" not in line and "<" not in line
    assert "huggingface" in line


def test_a_push_is_one_commit_with_every_file_as_it_is(hub, remote, items, capfd):
    assert remote.login() == "someone" and remote.visibility(NAME) == "private"
    before = len(hub.repository(NAME).history())
    told = send(remote, items)
    assert listed(remote) == held(items)
    assert len(hub.repository(NAME).history()) == before + 1
    assert hub.repository(NAME).history()[0][2] == "小模型"
    assert told[-1] == (sum(i.size for i in items),) * 2
    assert not hub.leaks() and hub.token not in "".join(capfd.readouterr())
    assert not hub.asked("PUT", "/settings") and hub.repository(NAME).private


def test_the_visibility_of_a_repository_that_is_there_is_left_alone(hub, remote, items):
    hub.make("someone/open")
    assert remote.visibility("someone/open") == "public"
    remote.create("someone/open", private=True)
    assert remote.visibility("someone/open") == "public" and not hub.asked("PUT", "/settings")
    assert remote.visibility("someone/none") is None
    remote.create("someone/none", private=True)
    assert remote.visibility("someone/none") == "private"


def test_a_second_push_sends_nothing(hub, remote, items):
    send(remote, items)
    hub.requests.clear()
    send(remote, items)
    assert hub.sent == []


def test_the_listing_is_whole_over_many_pages(hub, remote, items):
    send(remote, items)
    hub.page = 2
    assert listed(remote) == held(items)


def test_in_parts_as_well(hub, remote, items):
    hub.part_size = 40_000
    hub.faults.append(Fault("PUT", "", Drop(20_000), skip=2, host="storage"))
    send(remote, items)
    assert listed(remote) == held(items) and not hub.leaks()


PASSING = {
    "a dropped upload": [Fault("PUT", "", Drop(70_000), host="storage")],
    "two dropped uploads": [Fault("PUT", "", Drop(1), times=2, skip=1, host="storage")],
    "the third file fails once": [Fault("PUT", "", Answer(500), skip=2, host="storage")],
    "the hub is busy": [Fault("POST", "/preupload/", Answer(503)), Fault("POST", "/batch", Answer(429))],
    "the commit fails once": [Fault("POST", "/commit/", Answer(502))],
    "the commit is dropped": [Fault("POST", "/commit/", Drop(100))],
    "the commit's answer is lost": [Fault("POST", "/commit/", Lose())],
    "slow": [Fault("PUT", "", Wait(0.2), times=4, host="storage"), Fault("POST", "/commit/", Wait(0.2))],
}


def fresh(faults: list[Fault]) -> list[Fault]:
    """The faults, none met yet."""
    return [Fault(f.method, f.path, f.act, f.times, f.skip, f.host) for f in faults]


@pytest.mark.parametrize("fault", PASSING)
def test_what_passes_is_tried_again_and_ends_in_one_commit(hub, remote, items, fault):
    before = len(hub.repository(NAME).history())
    hub.faults += fresh(PASSING[fault])
    send(remote, items)
    assert listed(remote) == held(items) and len(hub.repository(NAME).history()) == before + 1
    assert all(f.seen > f.skip for f in hub.faults)
    assert not hub.leaks()


LASTING = {
    "a wrong token": ([Fault("", "", Answer(401))], BuddyError, "log in"),
    "no room, told before": ([Fault("POST", "/batch", quota(403), None)], BuddyError, QUOTA.split(",")[0]),
    "no room, told at the commit": ([Fault("POST", "/commit/", quota(413), None)], BuddyError, "413"),
    "no room on the hub": ([Fault("POST", "/commit/", quota(507), None)], BuddyError, "507"),
    "no room in the store": ([Fault("PUT", "", quota(507), None, host="storage")], BuddyError, "507"),
    "every upload drops": ([Fault("PUT", "", Drop(9), None, host="storage")], BrokenOff, "push again"),
    "every third upload fails": ([Fault("PUT", "", Answer(500), None, 2, host="storage")], BrokenOff, "push again"),
    "the store fails": ([Fault("PUT", "", Answer(400, "<Error/>"), None, host="storage")], BuddyError, "400"),
    "the hub is down": ([Fault("POST", "/preupload/", Answer(503, "<html>down"), None)], BrokenOff, "503"),
    "the hub is down for cards": ([Fault("POST", "/validate-yaml", Answer(503, "<html>down"), None)], BrokenOff, ""),
    "no commit": ([Fault("POST", "/commit/", Answer(500), None)], BrokenOff, "500"),
    "a page instead of an answer": ([Fault("POST", "/batch", Answer(200, "<html>"), None)], BuddyError, ""),
    "a strange answer": ([Fault("POST", "/preupload/", Answer(200, '{"files": 1}'), None)], BuddyError, ""),
    "the token comes back": ([Fault("POST", "/commit/", echo(400), None)], BuddyError, "400"),
    "the token comes back, busy": ([Fault("POST", "/batch", echo(500), None)], BuddyError, "500"),
    "the token comes back, refused": ([Fault("POST", "/preupload/", echo(403), None)], BuddyError, "403"),
    "somebody else committed": ([Fault("POST", "/commit/", Answer(412, '{"error":"x"}'), None)], BuddyError, "412"),
}


@pytest.mark.parametrize("fault", LASTING)
def test_what_lasts_ends_in_one_line_and_nothing_is_to_be_seen(hub, remote, items, fault, monkeypatch, capfd, caplog):
    head = hub.repository(NAME).head()
    faults, kind, words = LASTING[fault]
    hub.faults += [f for f in fresh(faults) if f.method]
    if fault == "a wrong token":
        monkeypatch.setenv("HF_TOKEN", "hf_" + "wrong" * 5)
    with pytest.raises(kind) as stopped:
        send(remote, items)
    check_line(stopped.value, hub)
    assert words in str(stopped.value)
    assert hub.repository(NAME).head() == head and not hub.leaks()
    out = "".join(capfd.readouterr()) + caplog.text
    assert hub.token not in out and "signature=" not in out


def test_a_push_that_broke_off_goes_on_with_what_lacks(hub, remote, items):
    hub.faults.append(Fault("PUT", "", Drop(1000), None, skip=2, host="storage"))
    with pytest.raises(BrokenOff):
        send(remote, items)
    there = {name for name in hub.sent if hub.repository(NAME).holds(name)}
    assert len(there) == 2
    hub.faults.clear()
    hub.requests.clear()
    send(remote, items)
    lacking = {item.sha256 for item in items if item.name in LARGE} - there
    assert sorted(hub.sent) == sorted([*lacking, "commit"])
    assert listed(remote) == held(items)


@pytest.mark.parametrize("act", [quota(507), Drop(9), Answer(400)], ids=["refused", "dropped", "wrong"])
def test_when_a_push_has_stopped_nothing_of_it_goes_on(hub, remote, items, act, monkeypatch):
    monkeypatch.setattr("buddygpt.publishing.huggingface._WAITS", ())
    first = max(items, key=lambda item: item.size)
    hub.faults += [Fault("PUT", first.sha256, act, None), Fault("PUT", "", Wait(0.3), None, host="storage")]
    with pytest.raises(BuddyError):
        send(remote, items)
    asked = len(hub.requests)
    time.sleep(0.5)
    assert len(hub.requests) == asked


@pytest.mark.parametrize("token", [None, "hf_" + "wrong" * 5], ids=["none", "wrong"])
def test_who_may_not_is_told_how_to_log_in(hub, remote, monkeypatch, token):
    monkeypatch.setenv("HF_TOKEN", token) if token else monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(BuddyError, match="log in with `hf auth login`, or set HF_TOKEN") as stopped:
        remote.login()
    check_line(stopped.value, hub)


def test_a_token_that_only_reads_and_a_name_of_somebody_else_are_refused(hub, remote, items):
    with pytest.raises(BuddyError, match="403") as stopped:
        remote.create("another/model", private=True)
    check_line(stopped.value, hub)
    hub.role = "read"
    with pytest.raises(BuddyError, match="read"):
        remote.login()
    with pytest.raises(BuddyError, match="403"):
        send(remote, items)
    assert set(hub.repositories) == {("models", NAME)}


REDIRECTED = {
    "who": ("GET", "/api/whoami-v2", lambda remote, items: remote.login()),
    "whether": ("GET", f"/api/models/{NAME}$", lambda remote, items: remote.visibility(NAME)),
    "create": ("POST", "/api/repos/create", lambda remote, items: remote.create("someone/new", private=True)),
    "list": ("GET", "/tree/", lambda remote, items: remote.listing(NAME)),
    "mode": ("POST", "/preupload/", send),
    "batch": ("POST", "/batch", send),
    "verify": ("POST", "/verify", send),
    "commit": ("POST", "/commit/", send),
    "store": ("PUT", "", send),
}


@pytest.mark.parametrize(
    ("ask", "status"), [*((ask, 307) for ask in REDIRECTED), ("create", 302), ("commit", 302), ("store", 302)]
)
def test_a_redirect_to_another_host_is_told_no_token(hub, remote, items, ask, status):
    method, path, act = REDIRECTED[ask]
    head = hub.repository(NAME).head()
    with type(hub)(hub.folder / "thief").running() as thief:
        hub.faults.append(Fault(method, path, Redirect(thief.url, status), None))
        thief.faults += [Fault(verb, "", Answer(200, '{"success": true}'), None) for verb in ("GET", "POST", "PUT")]
        try:
            act(remote, items)
        except BuddyError as error:
            check_line(error, hub)
        assert thief.requests or hub.asked(method, path)
        assert not any(request.tells(hub.token) for request in thief.requests) and not hub.leaks()
    assert ask in ("verify", "store") or hub.repository(NAME).head() == head


def test_a_hub_that_is_too_slow_is_given_up(hub, remote, items, monkeypatch):
    monkeypatch.setattr("buddygpt.publishing.huggingface._ASKING", 0.1)
    monkeypatch.setattr("buddygpt.publishing.huggingface._SENDING", 0.1)
    monkeypatch.setattr("buddygpt.publishing.huggingface._WAITS", ())
    head = hub.repository(NAME).head()
    hub.faults.append(Fault("PUT", "", Wait(0.3), None, host="storage"))
    with pytest.raises(BrokenOff) as stopped:
        send(remote, items)
    check_line(stopped.value, hub)
    assert hub.repository(NAME).head() == head


def planned(remote: Remote, items: list[Item]) -> Plan:
    return plan(remote, NAME, remote.login(), Parcel(tuple(items)), public=False)


def push(remote: Remote, items: list[Item]) -> Pushed:
    return deliver(planned(remote, items), "小模型", silent)


def test_a_delivery_makes_a_private_repository_and_a_second_one_writes_nothing(hub, remote, items):
    hub.repositories.clear()
    hub.folder = hub.folder / "other"
    first = push(remote, items)
    assert (first.files, first.visibility) == (6, "private") and listed(remote) == held(items)
    hub.requests.clear()
    assert push(remote, items).files == 0
    assert {request.method for request in hub.requests} == {"GET"}


def test_a_delivery_sends_what_is_other_and_takes_stale_shards_away_in_one_commit(hub, remote, items):
    push(remote, items)
    before = len(hub.repository(NAME).history())
    hub.requests.clear()
    kept = [item for item in items if item.name != LARGE[3]]
    kept[0].path.write_text("---\ntags: [buddygpt]\n---\n# 新\n", "utf-8")
    data = kept[0].path.read_bytes()
    kept[0] = Item(kept[0].name, kept[0].path, len(data), hashlib.sha256(data).hexdigest())
    assert push(remote, kept).files == 1
    assert hub.sent == ["commit"] and listed(remote) == held(kept)
    assert len(hub.repository(NAME).history()) == before + 1


def test_a_hub_that_says_yes_and_keeps_nothing_is_found_out(hub, remote, items):
    hub.hollow = True
    with pytest.raises(NotThere, match="not there as sent") as stopped:
        push(remote, items)
    check_line(stopped.value, hub)
    assert stopped.value.exit_code == 1 and "commit" in hub.sent


def test_a_host_that_says_yes_in_the_hubs_stead_is_found_out(hub, remote, items):
    url = f"{hub.url}/{NAME}/commit/{'0' * 40}"
    yes = json.dumps({"success": True, "commitOid": "0" * 40, "commitUrl": url})
    hub.faults.append(Fault("POST", "/commit/", Redirect(hub.storage_url), None, host="hub"))
    hub.faults.append(Fault("POST", "/commit/", Answer(200, yes), None, host="storage"))
    with pytest.raises(NotThere):
        push(remote, items)
    assert not hub.leaks() and hub.asked("POST", "/commit/", "storage")


def test_a_file_that_changes_after_it_was_hashed_is_found_out(hub, remote, items):
    plans = planned(remote, items)
    before = plans.items[-1].path.read_bytes()
    plans.items[-1].path.write_bytes(before[:-1] + b"?")  # after it was hashed
    with pytest.raises(BuddyError):
        deliver(plans, "小模型", silent)
    assert hub.repository(NAME).files() == {}
