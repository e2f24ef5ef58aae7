"""What must not leave is found wherever it stands, and never repeated."""

import json

import pytest
import torch
from safetensors.torch import save_file

from buddygpt.publishing import secrets
from buddygpt.publishing.parcel import pack
from buddygpt.publishing.secrets import Machine, find_secrets, redact, this_machine

NOBODY = Machine((), (), ())
# Put together here, so that no scanner of repositories takes them for real.
PLANTED = {
    "a Hugging Face token": "hf" + "_" + "a1B2" * 9,
    "a ModelScope token": "ms" + "-12345678-90ab-cdef-1234-567890abcdef",
    "a key of a model service": "sk" + "-" + "proj-" + "Zz09" * 6,
    "a GitHub token": "ghp" + "_" + "a1B2" * 9,
    "a GitLab token": "glpat" + "-" + "a1B2" * 5,
    "a key of a cloud": "AKIA" + "ABCDEFGH12345678",
    "a Google key": "AIza" + "a1B2c" * 7,
    "a Slack token": "xoxb" + "-1234567890-abcdef",
    "a private key": "-----BEGIN RSA " + "PRIVATE KEY-----",
    "a password in an address": "https://me:" + "hunter2@host.example/x",
}


def parcel_of(folder, **files):
    folder.mkdir(exist_ok=True)
    paths = {}
    for name, data in files.items():
        paths[name] = folder / name
        paths[name].parent.mkdir(parents=True, exist_ok=True)
        paths[name].write_bytes(data if isinstance(data, bytes) else data.encode())
    return pack(paths).items


@pytest.mark.parametrize("kind", PLANTED)
@pytest.mark.parametrize("name", ["README.md", "config.json", "tokenizer.json", "figures/a.png", "chat_template.jinja"])
def test_a_token_is_found_by_its_form_in_every_kind_of_file(tmp_path, kind, name):
    secret = PLANTED[kind]
    data = b"\x89PNG\0\0" + secret.encode() if name.endswith("png") else json.dumps({"说明": f"see {secret} there"})
    found = find_secrets(parcel_of(tmp_path / "f", **{name: data, "clean.md": "春眠不觉晓"}), NOBODY)
    assert found == [f"{name}: {kind}"] and secret not in found[0]


@pytest.mark.parametrize("place", ["metadata", "name of a tensor", "tensor"])
def test_weights_are_searched_too(tmp_path, place):
    token = "unusual-" + "Q" * 20
    tensors = {"w": torch.zeros(4)}
    metadata = {"format": "pt"}
    if place == "metadata":
        metadata["note"] = token
    elif place == "name of a tensor":
        tensors[token] = torch.zeros(1)
    else:
        tensors["w"] = torch.tensor(list(token.encode()), dtype=torch.uint8)
    path = tmp_path / "model.safetensors"
    save_file(tensors, path, metadata)
    items = pack({path.name: path}).items
    assert find_secrets(items, Machine((token,), (), ())) == ["model.safetensors: a token of this machine"]
    assert find_secrets(items, NOBODY) == []


def test_a_header_that_holds_a_token_or_a_path_is_found_by_form(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"w": torch.zeros(1)}, path, {"a": PLANTED["a Hugging Face token"], "b": "/home/someone/x"})
    assert find_secrets(pack({path.name: path}).items, NOBODY) == [
        "model.safetensors: a Hugging Face token", "model.safetensors: a path on this machine",
    ]  # fmt: skip


@pytest.mark.parametrize("data", [b"", b"x", b"\xff" * 8, b"\xff" * 20, b"\0" * 9])
def test_weights_that_are_none_are_searched_without_a_fault(tmp_path, data):
    assert find_secrets(parcel_of(tmp_path / "f", **{"model.safetensors": data}), NOBODY) == []


@pytest.mark.parametrize(
    "path", ["/home/someone/x", "/Users/someone", "/root/x", "C:\\Users\\someone", "file:///x", "/srv/data/runs/tiny/a"]
)
def test_paths_of_this_machine_are_found(tmp_path, path):
    here = Machine((), ("/srv/data/runs/tiny",), ())
    assert find_secrets(parcel_of(tmp_path / "f", **{"config.json": json.dumps(path)}), here) == [
        "config.json: a path on this machine"
    ]


def test_paths_that_only_begin_alike_and_words_of_a_vocabulary_are_none(tmp_path):
    here = Machine((), ("/srv/data/runs/tiny",), ("gpu-box-7", "lihua"))
    clean = {
        "README.md": "/srv/data/runs/tiny-2, https://host/home, lihuang, gpu-box-77",
        "tokenizer.json": '{"/home/": 1, "lihua": 2, "/root/": 3}',
        "vocab.json": '{"/Users/": 1}',
    }
    assert find_secrets(parcel_of(tmp_path / "f", **clean), here) == []
    named = parcel_of(tmp_path / "g", **{"README.md": "by lihua on gpu-box-7"})
    assert find_secrets(named, here) == ["README.md: the name of this machine or its user"]


def test_a_secret_in_a_name_is_found(tmp_path):
    name = f"figures/{PLANTED['a Hugging Face token']}.png"
    assert find_secrets(parcel_of(tmp_path / "f", **{name: b"x"}), NOBODY)[0].endswith("a secret in its name")


def test_this_machine_knows_its_tokens_paths_and_names(tmp_path, monkeypatch):
    from huggingface_hub import constants

    (tmp_path / "token").write_text("from-a-file-1234\n")
    (tmp_path / "stored").write_text("[default]\nhf_token = stored-12345678\nexpires_at = 1234567890\n")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_STORED_TOKENS_PATH", str(tmp_path / "stored"))
    monkeypatch.setenv("MODELSCOPE_API_TOKEN", "11111111-2222-3333-4444-555555555555")
    monkeypatch.setenv("WANDB_API_KEY", "f" * 40)
    monkeypatch.setenv("DB_PASSWORD", "short")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false-and-longer")
    monkeypatch.setenv("HOME", "/srv/people/lihua")
    monkeypatch.setattr(secrets.getpass, "getuser", lambda: "lihua")
    monkeypatch.setattr(secrets.socket, "gethostname", lambda: "gpu-box-7")
    machine = this_machine(tmp_path, public=["someone"])
    known = {"from-a-file-1234", "stored-12345678", "11111111-2222-3333-4444-555555555555", "f" * 40}
    assert known <= set(machine.tokens)
    assert not {"short", "1234567890", "[default]", "false-and-longer"} & set(machine.tokens)
    assert str(tmp_path) in machine.paths and "/srv/people/lihua" in machine.paths and "/" not in machine.paths
    assert machine.names == ("gpu-box-7", "lihua")
    assert this_machine(public=["lihua"]).names == ("gpu-box-7",)


def test_redaction_leaves_no_token_and_no_signature(monkeypatch):
    monkeypatch.setenv("SOME_TOKEN", "plain-words-here")
    monkeypatch.setenv("OTHER_TOKEN", "plain-words-here-and-longer")
    text = f"401 for Bearer {PLANTED['a Hugging Face token']} and plain-words-here-and-longer, plain-words-here at "
    told = redact(text + "https://s3.example/key?X-Amz-Signature=abc&X=1 and https://h.example/page")
    assert told == "401 for Bearer (a secret) and (a secret), (a secret) at https://s3.example/key?... and " \
        "https://h.example/page"  # fmt: skip
    for secret in PLANTED.values():
        assert secret not in redact(f"<{secret}>")
