"""What a push decides on a hub: what goes, what is asked before, and whether it came."""

import json

import pytest

from buddygpt.events import Caution, Note, Progress, silent
from buddygpt.publishing import delivery
from buddygpt.publishing.delivery import deliver, plan
from buddygpt.publishing.parcel import pack
from buddygpt.publishing.remote import NotThere
from buddygpt.recipe.errors import BuddyError, Stopped

from .memory import Memory

REPO = "someone/mountains-chat"
CARD = "---\ntags:\n- buddygpt\n---\n# 山\n"
CONFIG = {"architectures": ["Qwen2ForCausalLM"], "hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 600}


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    monkeypatch.setattr(delivery, "_LOOKS", (0.0, 0.0))


@pytest.fixture
def parcel(tmp_path):
    return make(tmp_path / "m")


def make(folder, **files):
    folder.mkdir(exist_ok=True)
    content = {"README.md": CARD, "config.json": json.dumps(CONFIG), "chat_template.jinja": "{}"}
    content |= {"model.safetensors": "w" * 5000} | files
    for name, text in content.items():
        (folder / name).write_text(text, "utf-8")
    return pack({name: folder / name for name in content})


def push(remote, parcel, public=False, told=None):
    return deliver(plan(remote, REPO, "someone", parcel, public=public), "m", (told or []).append)


def test_a_first_push_makes_a_private_repository_and_a_second_sends_nothing(parcel):
    remote, told = Memory(), []
    first = plan(remote, REPO, "someone", parcel, public=False)
    assert first.remarks == ("a new private repository",) and not first.foreign and remote.writes == []
    done = deliver(first, "m", told.append)
    assert (done.visibility, done.files, done.bytes) == ("private", 4, parcel.size)
    assert [event for event in told if isinstance(event, Progress)][-1].done == -(-parcel.size // 1000)
    remote.writes.clear()
    again = plan(remote, REPO, "someone", parcel, public=False)
    assert again.remarks == () and again.items == ()
    assert deliver(again, "m", told.append).files == 0
    assert remote.writes == [] and "already there" in told[-1].text


def test_only_what_differs_is_sent(parcel, tmp_path):
    remote = Memory()
    push(remote, parcel)
    remote.writes.clear()
    push(remote, make(tmp_path / "n", **{"model.safetensors": "v" * 5000}))
    assert remote.writes == [("send", REPO, ["model.safetensors"], [])]


@pytest.mark.parametrize(("public", "seen"), [(False, "private"), (True, "public")])
def test_visibility_is_as_asked_and_one_that_is_there_stays(parcel, public, seen):
    remote = Memory()
    assert push(remote, parcel, public).visibility == seen
    told = []
    other = plan(remote, REPO, "someone", make(parcel.items[0].path.parent, x="y"), public=not public)
    assert other.seen_by == seen
    assert deliver(other, "m", told.append).visibility == seen and remote.private[REPO] == (seen == "private")
    assert any("stays so" in e.text for e in told if isinstance(e, Note)) == (seen == "private")


def test_a_hub_that_makes_it_public_all_the_same_gets_nothing(parcel):
    remote = Memory(always_public=True)
    with pytest.raises(BuddyError, match="was made public, private was asked for; nothing was sent"):
        push(remote, parcel)
    assert [write[0] for write in remote.writes] == ["create"]


def test_a_hub_that_says_yes_and_keeps_nothing_is_not_believed(parcel):
    with pytest.raises(NotThere, match=r"chat_template.jinja, config.json.* not there as sent") as error:
        push(Memory(hollow=True), parcel)
    assert error.value.exit_code == 1


def test_a_hub_that_keeps_something_else_is_not_believed(parcel):
    remote = Memory()
    send = remote.send

    def spoil(repo, items, *more):
        send(repo, items, *more)
        remote.files[repo]["model.safetensors"] = b"v" * 5000  # of the same size

    remote.send = spoil
    with pytest.raises(NotThere, match=r"has model.safetensors not there as sent"):
        push(remote, parcel)


def test_a_list_that_lags_is_waited_for(parcel):
    remote = Memory()
    listing, looks = remote.listing, []

    def lag(repo):
        looks.append(repo)
        return {} if len(looks) == 2 else listing(repo)  # after the push; the first is the plan's

    remote.listing = lag
    push(remote, parcel)
    push(remote, parcel)
    assert len(looks) > 2


def test_shards_of_an_earlier_push_go_in_the_same_commit_and_nothing_of_others(parcel, tmp_path):
    remote, told = Memory(), []
    push(remote, parcel)
    remote.files[REPO] |= {"LICENSE": b"x", "model.gguf": b"x", "onnx/model.safetensors": b"x", "figures/sft.png": b"x"}
    shards = {f"model-0000{n}-of-00002.safetensors": str(n) for n in (1, 2)}
    for name, text in shards.items():
        (tmp_path / name).write_text(text)
    paths = {item.name: item.path for item in parcel.items if item.name not in ("model.safetensors", "README.md")}
    sharded = pack(paths | {name: tmp_path / name for name in shards} | {"README.md": parcel.items[0].path})
    remote.writes.clear()
    deliver(plan(remote, REPO, "someone", sharded, public=False), "m", told.append)
    assert len(remote.writes) == 1 and remote.writes[0][3] == ["figures/sft.png", "model.safetensors"]
    assert {"LICENSE", "model.gguf", "onnx/model.safetensors", ".gitattributes"} <= set(remote.files[REPO])
    assert "model.safetensors" not in remote.files[REPO]
    assert any(
        "figures/sft.png, model.safetensors, of an earlier push" in e.text for e in told if isinstance(e, Caution)
    )


def of(**files):
    return Memory(
        files={REPO: {name.replace("__", "."): text.encode() for name, text in files.items()}}, private={REPO: False}
    )


def test_a_repository_made_on_the_hubs_page_is_empty(parcel):
    remote = of(__gitattributes="x", README__md="# hello")
    found = plan(remote, REPO, "someone", parcel, public=False)
    assert found.remarks == ("an empty public repository",) and not found.foreign


@pytest.mark.parametrize("card", [None, "---\nlicense: mit\n---\n# Qwen of mine"])
def test_a_repository_that_holds_something_else_is_foreign_and_told_by_its_files(parcel, card):
    files = {"config__json": "{}", "model__safetensors": "x", "notes__md": "x"} | ({"README__md": card} if card else {})
    found = plan(of(**files), REPO, "someone", parcel, public=False)
    assert found.foreign
    lost = "README.md, config.json, model.safetensors" if card else "config.json, model.safetensors"
    assert f"replaces or removes {lost}" in found.remarks[0].replace("README.md, config", "README.md, config")
    assert "public repository that holds something else" in found.remarks[0] and "notes.md" in found.remarks[0]


def test_another_model_of_ours_is_told_by_what_differs(parcel, tmp_path):
    remote = Memory()
    push(remote, parcel)
    other = {**CONFIG, "architectures": ["Qwen3ForCausalLM"], "hidden_size": 64}
    found = plan(remote, REPO, "someone", make(tmp_path / "n", **{"config.json": json.dumps(other)}), public=False)
    assert found.remarks == (
        "another model of yours (architectures Qwen2ForCausalLM there, Qwen3ForCausalLM here; "
        "hidden_size 32 there, 64 here)",
    )
    base = pack({item.name: item.path for item in parcel.items if item.name != "chat_template.jinja"})
    assert plan(remote, REPO, "someone", base, public=False).remarks == (
        "another model of yours (a chat model there, a base model here)",
    )


def test_a_repository_of_somebody_else_is_told(parcel):
    assert plan(Memory(), "group/x", "someone", parcel, public=True).remarks == (
        "group is not your name there, which is someone", "a new public repository",
    )  # fmt: skip


def test_ctrl_c_publishes_nothing_and_the_next_push_goes_on(parcel):
    remote = Memory()

    def stop():
        raise KeyboardInterrupt

    remote.before_commit = stop
    with pytest.raises(Stopped, match="push again to go on"):
        push(remote, parcel)
    assert set(remote.files[REPO]) == {".gitattributes"}
    remote.before_commit = lambda: None
    assert push(remote, parcel).files == 4
    assert plan(remote, REPO, "someone", parcel, public=False).items == ()


def test_a_config_that_is_none_is_no_traceback(parcel):
    remote = Memory()
    push(remote, parcel)
    for text in (b"", b"[]", b"\xff\xfe"):
        remote.files[REPO]["config.json"] = text
        assert plan(remote, REPO, "someone", parcel, public=False).remarks
    deliver(plan(remote, REPO, "someone", parcel, public=False), "m", silent)
