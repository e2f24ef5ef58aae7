"""The export beside a model: found where it is the model's, made anew where not, never put over something else."""

import json
import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM

from buddygpt.data.tokenizer import train_tokenizer
from buddygpt.events import Note, silent
from buddygpt.model import BuddyGPTConfig, BuddyGPTForCausalLM, interop, proof
from buddygpt.model import exported as module
from buddygpt.model.exported import see_exported
from buddygpt.model.interop import load
from buddygpt.recipe.errors import BuddyError


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["春眠不觉晓，处处闻啼鸟。" * 3], 270)


@pytest.fixture(scope="module")
def done(tokenizer, tmp_path_factory):
    """A folder with a model and its export, what was returned and what was told."""
    place, told = tmp_path_factory.mktemp("exported"), []
    torch.manual_seed(0)
    config = BuddyGPTConfig(
        vocab_size=270, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1,
        intermediate_size=32, max_position_embeddings=64,
    )  # fmt: skip
    BuddyGPTForCausalLM(config).save_pretrained(place / "model")
    return place, see_exported(place / "model", place / "out" / "hf", tokenizer, told.append), told


@pytest.fixture
def source(done, tmp_path):
    """A copy of the model, with its export at `tmp_path / "hf"`."""
    shutil.copytree(done[0] / "model", tmp_path / "model")
    shutil.copytree(done[0] / "out", tmp_path, dirs_exist_ok=True)
    return tmp_path / "model"


@pytest.fixture
def counted(monkeypatch):
    """Folders that were exported to; without the process that loads them again, which takes seconds."""
    made, export = [], module.export

    def count(model, folder, **more):
        made.append(folder)
        return export(model, folder, **more)

    def believe(scratch, config, tokenizer):
        model = AutoModelForCausalLM.from_pretrained(scratch, dtype=torch.float32)
        return {"architecture": "known", "parameters": 1}, proof.logits_of(model, *proof.probe(config))

    monkeypatch.setattr(module, "export", count)
    monkeypatch.setattr(interop, "reload", believe)
    return made


def test_an_export_is_made_once_and_found_with_its_figures(done, tokenizer, counted):
    place, first, told = done
    again = see_exported(place / "model", place / "out" / "hf", tokenizer, told.append)
    assert counted == []
    assert again == first
    assert first.architecture == "Qwen2ForCausalLM" and first.parameters > 0 and first.largest > 0
    assert len(told) == 1 and isinstance(told[0], Note)
    assert sorted(p.name for p in (place / "out").iterdir()) == ["hf", "hf.json"]
    assert str(place) not in (place / "out" / "hf.json").read_text()


def another_weight(source):
    model = load(source)
    with torch.no_grad():
        model.get_input_embeddings().weight[3, 3] += 1
    model.save_pretrained(source)


def another_setting(source):
    file = source / "generation_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"temperature": 0.123}))


def another_file(source):
    (source / "chat_template.jinja").write_text("{{ messages }}")


@pytest.mark.parametrize("change", [another_weight, another_setting, another_file])
def test_a_model_that_became_another_is_exported_anew(source, tokenizer, tmp_path, counted, change):
    folder, told = tmp_path / "hf", []
    change(source)
    see_exported(source, folder, tokenizer, told.append)
    assert len(counted) == 1 and "anew" in told[0].text
    see_exported(source, folder, tokenizer, silent)
    assert len(counted) == 1
    ours, theirs = load(source), load(folder)
    assert torch.equal(ours.get_input_embeddings().weight, theirs.get_input_embeddings().weight)


def test_an_export_by_other_versions_is_made_anew(source, tokenizer, tmp_path, counted, monkeypatch):
    see_exported(source, tmp_path / "hf", tokenizer, silent)
    assert counted == []
    monkeypatch.setattr(module, "VERSIONS", ("0", "5.99"))
    see_exported(source, tmp_path / "hf", tokenizer, silent)
    assert len(counted) == 1


def strange_folder(folder):
    folder.mkdir()
    (folder / "thesis.txt").write_text("mine")


def file_in_its_place(folder):
    folder.write_text("mine")


def link_to_nowhere(folder):
    folder.symlink_to("nowhere")


@pytest.mark.parametrize("put", [strange_folder, file_in_its_place, link_to_nowhere])
def test_what_was_not_written_here_is_never_replaced(source, tokenizer, tmp_path, put):
    shutil.rmtree(tmp_path / "hf")
    put(tmp_path / "hf")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(BuddyError, match="move it away"):
        see_exported(source, tmp_path / "hf", tokenizer, silent)
    assert sorted(tmp_path.rglob("*")) == before


def file_added(folder):
    (folder / "README.md").write_text("mine")


def file_changed(folder):
    weights = folder / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)


def file_gone(folder):
    (folder / "tokenizer.json").unlink()


def record_cut(folder):
    record = folder.with_name("hf.json")
    record.write_text(record.read_text()[:40])


def record_gone(folder):
    folder.with_name("hf.json").unlink()


@pytest.mark.parametrize("change", [file_added, file_changed, file_gone, record_cut, record_gone])
def test_an_export_that_was_changed_is_neither_used_nor_replaced(source, tokenizer, tmp_path, change):
    change(tmp_path / "hf")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(BuddyError, match="move it away"):
        see_exported(source, tmp_path / "hf", tokenizer, silent)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("moment", ["write_atomically", "export", "_hashes"])
def test_a_kill_at_any_moment_leaves_nothing_that_is_refused(source, tokenizer, tmp_path, counted, monkeypatch, moment):
    another_weight(source)
    with monkeypatch.context() as broken:
        calls = iter(range(9))
        real = getattr(module, moment)

        def dies(*args, **more):
            if next(calls) < (2 if moment == "_hashes" else 0):  # the state, and what was there
                return real(*args, **more)
            real(*args, **more)
            raise KeyboardInterrupt

        broken.setattr(module, moment, dies)
        with pytest.raises(KeyboardInterrupt):
            see_exported(source, tmp_path / "hf", tokenizer, silent)
    see_exported(source, tmp_path / "hf", tokenizer, silent)
    assert torch.equal(load(source).get_input_embeddings().weight, load(tmp_path / "hf").get_input_embeddings().weight)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["hf", "hf.json", "model"]
