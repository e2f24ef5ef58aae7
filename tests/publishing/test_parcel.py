"""Which files of a folder may leave, and how a hub's list is compared with them."""

import hashlib
import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buddygpt.publishing.parcel import Item, choose_files, is_ours, is_same, pack
from buddygpt.publishing.remote import Held
from buddygpt.recipe.errors import BuddyError

SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
INDEX = "model.safetensors.index.json"


def write(folder, *names):
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


def write_index(folder, *shards):
    (folder / INDEX).write_text(json.dumps({"weight_map": {f"w{n}": shard for n, shard in enumerate(shards)}}))


def test_only_what_is_on_the_list_goes(tmp_path):
    wanted = ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"]
    others = [
        ".env", "log.txt", "optimizer.pt", "training_args.bin", "pytorch_model.bin", "trainer_state.json",
        "recipe.yaml",
        "notes.md", "Model.safetensors", "model.safetensors.bak", "xmodel.safetensors", "events.out.tfevents.1",
        "model-1-of-2.safetensors", "adapter_model.safetensors", "README.md.orig", "secrets.json",
        "checkpoint-30/model.safetensors", ".git/config", "figures/x.png",
    ]  # fmt: skip
    chosen, left = choose_files(write(tmp_path / "m", *wanted, *others))
    assert set(chosen) == set(wanted)
    assert set(left) == {name.partition("/")[0] + ("/" if "/" in name else "") for name in others}


@given(st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=40))
def test_a_name_that_is_not_on_the_list_is_not_ours(name):
    listed = ("config", "generation", "tokenizer", "model", "chat", "special", "added", "vocab", "merges", "README")
    assert not is_ours(name) or name.startswith(listed)
    assert not is_ours(f"training/{name}") and not is_ours(f"../{name}") and not is_ours(f".{name}")


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_link_that_leads_out_of_the_folder_is_refused(tmp_path, name):
    folder = write(tmp_path / "m", "config.json", "model.safetensors", "tokenizer.json")
    (folder / name).unlink()
    (folder / name).symlink_to("/etc/passwd")
    with pytest.raises(BuddyError, match=f"{name}: a link that leads out of the folder"):
        choose_files(folder)


def test_a_link_within_the_folder_goes_and_one_to_nothing_or_a_pipe_does_not(tmp_path):
    folder = write(tmp_path / "m", "config.json", "weights")
    (folder / "model.safetensors").symlink_to("weights")
    assert set(choose_files(folder)[0]) == {"config.json", "model.safetensors"}
    (folder / "weights").unlink()
    with pytest.raises(BuddyError, match="not a file"):
        choose_files(folder)
    (folder / "model.safetensors").unlink()
    os.mkfifo(folder / "model.safetensors")
    with pytest.raises(BuddyError, match="not a file"):
        choose_files(folder)


def test_a_folder_that_is_itself_a_link_is_as_good(tmp_path):
    write(tmp_path / "m", "config.json", "model.safetensors")
    (tmp_path / "l").symlink_to(tmp_path / "m")
    assert set(choose_files(tmp_path / "l")[0]) == {"config.json", "model.safetensors"}


@pytest.mark.parametrize(
    ("files", "index", "told"),
    [
        ([*SHARDS, "model-00003-of-00003.safetensors"], SHARDS, "model-00003-of-00003.safetensors is not in"),
        (SHARDS[:1], SHARDS, "model-00002-of-00002.safetensors, which .* names, is not there"),
        ([*SHARDS, "model.safetensors"], SHARDS, "of another save"),
        (SHARDS, None, "of another save"),
        ([*SHARDS, "model.safetensors"], None, "of another save"),
        ([], None, "no weights in safetensors"),
        (["pytorch_model.bin"], None, "pickles are never sent"),
        (SHARDS, [*SHARDS, "../../outside.safetensors"], "is not there"),
        (SHARDS, [5], "is not"),
    ],
)
def test_weights_of_another_save_are_refused(tmp_path, files, index, told):
    folder = write(tmp_path / "m", "config.json", *files)
    if index is not None:
        write_index(folder, *index)
    with pytest.raises(BuddyError, match=told) as error:
        choose_files(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": []}}'])
def test_an_index_that_is_none_is_told(tmp_path, text):
    folder = write(tmp_path / "m", "config.json", *SHARDS)
    (folder / INDEX).write_text(text)
    with pytest.raises(BuddyError, match="not an index of weights"):
        choose_files(folder)


def test_shards_and_their_index_go(tmp_path):
    folder = write(tmp_path / "m", "config.json", *SHARDS)
    write_index(folder, *SHARDS)
    assert set(choose_files(folder)[0]) == {"config.json", INDEX, *SHARDS}


def test_a_parcel_is_sorted_and_hashed(tmp_path):
    folder = write(tmp_path / "m", "b", "a/c", "a.json")
    parcel = pack({name: folder / name for name in ("b", "a/c", "a.json")})
    assert [item.name for item in parcel.items] == ["a.json", "a/c", "b"]
    assert parcel.items[0].sha256 == hashlib.sha256(b"a.json").hexdigest() and parcel.size == 6 + 3 + 1


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_a_content_is_known_by_both_kinds_of_hash(tmp_path_factory, data, other):
    path = tmp_path_factory.mktemp("f") / "x"
    path.write_bytes(data)
    item = Item("x", path, len(data), hashlib.sha256(data).hexdigest())
    blob = hashlib.sha1(b"blob %d\0" % len(other) + other).hexdigest()
    for digest in (f"sha256:{hashlib.sha256(other).hexdigest()}", f"git:{blob}"):
        assert is_same(item, Held(len(other), digest)) == (data == other)
    assert not is_same(item, None)
    assert not is_same(item, Held(len(data), f"sha256:{'0' * 64}")) and not is_same(item, Held(len(data), "listed:x"))


def test_what_an_earlier_push_left_is_stale_and_nothing_of_others_is(tmp_path):
    folder = write(tmp_path / "m", "config.json", "model.safetensors")
    parcel = pack({name: folder / name for name in ("config.json", "model.safetensors")})
    theirs = [".gitattributes", "LICENSE", "model.gguf", "pytorch_model.bin", "onnx/model.safetensors", "notes.md"]
    ours = [*SHARDS, INDEX, "chat_template.jinja", "figures/sft.png", "eval/results.json", "README.md"]
    held = {name: Held(1, "git:0") for name in (*theirs, *ours, "training/state.json", "config.json")}
    assert parcel.stale(held) == sorted(ours)
    (folder / "s").write_bytes(b"")
    with_state = pack({"training/trainer_state.json": folder / "s"})
    assert "training/state.json" in with_state.stale(held)
