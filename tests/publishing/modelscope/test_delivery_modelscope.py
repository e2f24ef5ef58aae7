"""A push to ModelScope as a whole, from the plan to the look at what has arrived."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from buddygpt.events import Progress
from buddygpt.publishing.delivery import deliver, plan
from buddygpt.publishing.parcel import Item, Parcel
from buddygpt.publishing.remote import NotThere
from buddygpt.recipe.errors import BrokenOff, BuddyError, Stopped
from tests.publishing.modelscope.conftest import TOKEN, USER
from tests.publishing.modelscope.server import FRESH, PRIVATE, PUBLIC, Fault, Handler, Repository

REPO = f"{USER}/tiny"


@pytest.fixture
def parcel(items) -> Parcel:
    """With a card of ours."""
    card = items[0]
    text = b"---\nlicense: apache-2.0\ntags:\n- buddygpt\n---\n# Tiny\n"
    card.path.write_bytes(text)
    return Parcel((replace(card, size=len(text), sha256=hashlib.sha256(text).hexdigest()), *items[1:]))


@pytest.fixture
def push(remote, parcel, monkeypatch):
    """The whole of it, as the stage does after it has packed; gives what was told."""
    monkeypatch.setattr("buddygpt.publishing.delivery._LOOKS", (0.0, 0.0))
    told = []

    def run(parcel: Parcel = parcel, *, public: bool = False):
        told.clear()
        return deliver(plan(remote, REPO, remote.login(), parcel, public=public), "push", told.append)

    run.told = told
    return run


def contents(parcel: Parcel) -> dict[str, bytes]:
    return {item.name: item.path.read_bytes() for item in parcel.items}


def test_the_first_push_makes_a_private_repository_and_replaces_the_readme_that_the_hub_made(hub, push, parcel):
    pushed = push()
    held = hub.repositories[REPO]
    assert held.files == {".gitattributes": FRESH[".gitattributes"]} | contents(parcel)
    assert (held.visibility, held.commits) == (PRIVATE, ["push"])
    assert (pushed.visibility, pushed.files, pushed.bytes) == ("private", len(parcel.items), parcel.size)
    assert pushed.address == f"{hub.url}/models/{REPO}"
    bars = [event for event in push.told if isinstance(event, Progress)]
    assert bars[0].done == 0 and bars[-1].done == bars[-1].total


def test_a_second_push_sends_nothing(hub, push):
    push()
    hub.asked.clear()
    assert push().bytes == 0
    assert not hub.steps("create", "batch", "blob", "commit")


def test_a_public_repository_is_made_on_demand_and_stays_public(hub, push, parcel):
    assert push(public=True).visibility == "public"
    assert push().visibility == "public" and hub.repositories[REPO].visibility == PUBLIC


def test_only_what_changed_is_sent_and_what_an_earlier_push_left_is_removed(hub, push, parcel, tmp_path):
    push()
    hub.asked.clear()
    (tmp_path / "w").write_bytes(b"w" * 100_000)
    one = Item("model.safetensors", tmp_path / "w", 100_000, hashlib.sha256(b"w" * 100_000).hexdigest())
    kept = tuple(item for item in parcel.items if not item.name.startswith("model-"))
    push(Parcel(tuple(sorted((*kept, one), key=lambda item: item.name))))
    assert [len(asked.body) for asked in hub.steps("blob")] == [100_000]
    assert {name for name in hub.repositories[REPO].files if name.startswith("model")} == {"model.safetensors"}
    assert len(hub.repositories[REPO].commits) == 2


def test_files_that_are_not_a_pushs_are_left_alone(hub, push):
    push()
    hub.repositories[REPO].files |= {"notes.txt": b"mine", "configuration.json": b"{}"}
    push()
    assert {"notes.txt", "configuration.json"} < hub.repositories[REPO].files.keys()


def test_a_repository_of_something_else_is_seen_as_such(hub, remote, parcel):
    files = {**FRESH, "README.md": b"---\n---\nsomething else", "config.json": b"{}"}
    hub.repositories[REPO] = Repository(PUBLIC, "mit", files)
    assert plan(remote, REPO, USER, parcel, public=False).foreign


def test_a_hub_that_makes_a_private_repository_public_gets_nothing(hub, push, monkeypatch):
    create = Handler.do_create
    monkeypatch.setattr(Handler, "do_create", lambda self, body: create(self, body.replace(b": 1,", b": 5,")))
    with pytest.raises(BuddyError, match="nothing was sent"):
        push()
    assert not hub.steps("batch", "blob", "commit")


@pytest.mark.parametrize("step", ["blob", "commit"])
def test_a_hub_that_takes_everything_and_holds_nothing_fails_the_push(step, hub, push):
    hub.always[step] = Fault("forget")
    with pytest.raises(NotThere) as raised:
        push()
    assert raised.value.exit_code != 0 and len(raised.value.lines) == 1
    assert hub.repositories[REPO].files == FRESH


def test_a_push_that_broke_off_is_taken_up_with_what_lacks(hub, push, parcel):
    hub.plan["blob"] = [None, None]
    hub.always["blob"] = Fault("drop", after=5_000)
    with pytest.raises(BrokenOff):
        push()
    assert hub.repositories[REPO].files == FRESH
    there = set(hub.blobs)
    hub.always.clear()
    hub.asked.clear()
    push()
    assert len(there) == 2 and len(hub.steps("blob")) == len(hub.blobs) - 2
    assert contents(parcel).items() <= hub.repositories[REPO].files.items()


def test_ctrl_c_leaves_nothing_to_see_and_says_how_to_go_on(hub, remote, parcel):
    def interrupt(event) -> None:
        if isinstance(event, Progress) and event.done:
            raise KeyboardInterrupt

    with pytest.raises(Stopped, match="push again to go on"):
        deliver(plan(remote, REPO, USER, parcel, public=False), "push", interrupt)
    assert hub.repositories[REPO].files == FRESH


def test_the_token_is_nowhere_but_in_the_headers_for_the_hub(hub, push, capfd, caplog):
    push()
    out, err = capfd.readouterr()
    assert TOKEN not in out + err + caplog.text + "".join(map(repr, push.told))
    assert not any(TOKEN in asked.line or TOKEN.encode() in asked.body for asked in hub.asked)
