"""`buddy export`: a folder that transformers loads alone, or one line and nothing."""

import json

import pytest
import torch

from buddygpt.data.tokenizer import load_tokenizer, train_tokenizer
from buddygpt.model import BuddyGPTConfig, BuddyGPTForCausalLM

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
)


@pytest.fixture
def model(tmp_path):
    """A run with a finished chat model."""
    tokenizer = train_tokenizer(["春眠不觉晓，处处闻啼鸟。夜来风雨声，花落知多少。" * 3], 270)
    tokenizer.chat_template = TEMPLATE
    torch.manual_seed(0)
    config = BuddyGPTConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, max_position_embeddings=128,
        num_attention_heads=2, num_key_value_heads=1, intermediate_size=32, initializer_range=0.3,
        eos_token_id=tokenizer.convert_tokens_to_ids("<|im_end|>"), pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    folder = tmp_path / "runs" / "demo" / "pretrain" / "model"
    BuddyGPTForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (tmp_path / "runs" / "demo" / "recipe.yaml").write_text("schema: 1\n")
    (folder.parent / "done.json").write_text("{}")
    return folder


def files(folder):
    return sorted(p.relative_to(folder) for p in folder.rglob("*"))


def test_a_run_is_exported_beside_its_chapters(buddy, model, tmp_path):
    outcome = buddy("export")
    assert outcome.code == 0, outcome.err
    assert "pretrain/model" in outcome.out and "Qwen2ForCausalLM" in outcome.out and "fp32 logits within" in outcome.out
    folder = tmp_path / "runs" / "demo" / "export" / "hf"
    names = {p.name for p in folder.iterdir()}
    assert names >= {"config.json", "model.safetensors", "generation_config.json", "tokenizer.json"}
    assert json.loads((folder / "config.json").read_text())["architectures"] == ["Qwen2ForCausalLM"]
    assert load_tokenizer(str(folder)).chat_template == TEMPLATE
    assert not [p for p in folder.iterdir() if str(tmp_path) in p.read_text(errors="ignore")]
    said = [buddy("chat", f, "--prompt", "春", "--temperature", "0", "--max-new-tokens", "9") for f in (model, folder)]
    assert said[0].out == said[1].out != "\n"
    before = files(tmp_path)
    again = buddy("export", "demo")
    assert again.code == 2 and "exists already" in again.err and again.err.count("buddy: ") == 1
    native = buddy("export", folder, "--output", "other")
    assert native.code == 2 and "is a Qwen2ForCausalLM already" in native.err
    assert files(tmp_path) == before


def test_an_export_that_is_not_equal_fails_and_leaves_nothing(buddy, model, tmp_path, monkeypatch):
    """Both ways wrong in the same manner, so that only the other process can tell."""
    from buddygpt.model import architectures

    true = architectures._NATIVE_PARTS | {"gate_proj": "up_proj", "up_proj": "gate_proj"}
    monkeypatch.setattr(architectures, "_NATIVE_PARTS", true)
    monkeypatch.setattr(architectures, "_OUR_PARTS", {b: a for a, b in true.items()})
    before = files(tmp_path)
    outcome = buddy("export", model, "--output", "new/out")
    assert outcome.code == 2 and outcome.err.count("buddy: ") == 1
    assert "loaded again as Qwen2ForCausalLM it gives other logits" in outcome.err
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--arch", "qwen4"), "arch 'qwen4': unknown; one of auto, qwen2"),
        (("--arch", "deepseek_v3"), "qwen2 holds it"),
        (("--to", "gguf"), "not in this version"),
        (("--to", "ollama"), "not in this version"),
        (("--to", "hff"), "did you mean 'hf'"),
        (("--output", "runs"), "runs: exists already"),
    ],
)
def test_faults(buddy, model, tmp_path, arguments, told):
    before = files(tmp_path)
    outcome = buddy("export", model, *arguments)
    assert outcome.code == 2 and outcome.err.count("buddy: ") == 1
    assert told in outcome.err
    assert files(tmp_path) == before


def test_a_target_that_is_nothing(buddy, tmp_path):
    assert "no such run, folder or hub id" in buddy("export", "nowhere").err
    assert "no finished model" in buddy("export").err
