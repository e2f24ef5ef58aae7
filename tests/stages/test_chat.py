"""Opening a talk: the model that is meant, whole or refused."""

import json

import pytest
import torch

from buddygpt.data.tokenizer import train_tokenizer
from buddygpt.events import Note, silent
from buddygpt.model import BuddyGPTConfig, BuddyGPTForCausalLM
from buddygpt.model.interop import load
from buddygpt.model.sampling import Sampling
from buddygpt.recipe.errors import BuddyError
from buddygpt.recipe.runs import find_model
from buddygpt.stages.chat import open_conversation


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["春眠不觉晓，处处闻啼鸟。夜来风雨声，花落知多少。" * 3], 270)


@pytest.fixture(scope="module")
def model(tokenizer):
    torch.manual_seed(0)
    config = BuddyGPTConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, max_position_embeddings=128,
        num_attention_heads=2, num_key_value_heads=1, intermediate_size=32, initializer_range=0.3,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    return BuddyGPTForCausalLM(config).eval()


@pytest.fixture
def folder(model, tokenizer, tmp_path):
    path = tmp_path / "runs" / "demo" / "pretrain" / "model"
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    (tmp_path / "runs" / "demo" / "recipe.yaml").write_text("schema: 1\n")
    (path.parent / "done.json").write_text("{}")
    return path


def test_a_model_is_opened_ready_to_talk_and_the_newest_one_is_named(folder):
    events, runs = [], folder.parents[2]
    talk = open_conversation(None, runs, Sampling(max_new_tokens=2), events.append)
    assert events == [Note(f"model: {folder}")]
    assert not talk.model.training and not talk.converses and talk.context == 128
    assert open_conversation("demo", runs, Sampling(), silent).model.config.vocab_size == talk.model.config.vocab_size


def test_targets(folder, tmp_path, monkeypatch):
    runs = tmp_path / "runs"
    assert find_model(None, runs) == folder
    assert find_model("demo", runs) == folder
    assert find_model(str(runs / "demo"), runs) == folder
    assert find_model(str(folder), runs) == folder
    assert find_model("owner/name", runs) == "owner/name"
    with pytest.raises(BuddyError, match="did you mean 'demo'"):
        find_model("demi", runs)
    with pytest.raises(BuddyError, match="no such run, folder or hub id"):
        find_model("./nowhere", tmp_path / "empty")
    with pytest.raises(BuddyError, match="no finished model"):
        find_model(None, tmp_path / "empty")
    (folder.parent / "done.json").unlink()
    with pytest.raises(BuddyError, match="no stage of this run has finished"):
        find_model("demo", runs)


def test_broken_folders_are_told(folder):
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BuddyError, match="cannot be loaded"):
        load(folder)
    weights.write_bytes(whole)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 2}))
    with pytest.raises(BuddyError, match="missing"):
        load(folder)


def test_weights_that_are_not_finite_are_told(model, tokenizer, tmp_path):
    with torch.no_grad():
        before = float(model.model.norm.weight[0])
        model.model.norm.weight[0] = float("nan")
        model.save_pretrained(tmp_path)
        model.model.norm.weight[0] = before
    with pytest.raises(BuddyError, match=r"model.norm.weight holds numbers that are not finite"):
        load(tmp_path)
