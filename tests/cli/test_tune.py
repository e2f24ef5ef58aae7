"""`buddy sft` and `buddy dpo` on a tiny model, from start to a model that can be loaded and pages that can be read."""

import json
import signal

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from buddygpt.data.demo import paragraphs
from buddygpt.data.tokenizer import train_tokenizer
from buddygpt.model import BuddyGPTConfig, BuddyGPTForCausalLM
from buddygpt.recipe.runs import Run

NAMES = "春夏秋冬东南西北山河湖海日月星云风花雪雨"
SFT = (
    "sft={model: base, batch_size: 4, micro_batch_size: 2, precision: fp32, eval_tokens: 400, epochs: 1, "
    "optimizer: {kind: adamw, learning_rate: 1e-3}, schedule: {kind: wsd}, "
    "data: {sources: [{kind: files, paths: [talks.jsonl]}], validation: 0.3}}"
)
DPO = (
    "dpo={model: base, batch_size: 4, micro_batch_size: 2, precision: fp32, epochs: 1, "
    "optimizer: {kind: adamw, learning_rate: 1e-3}, schedule: {kind: wsd}, "
    "data: {sources: [{kind: files, paths: [pairs.jsonl]}], validation: 0.3}}"
)


def write(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    """A model with weights drawn at random, its context 64 tokens, and a tokenizer of 300 entries."""
    folder = tmp_path_factory.mktemp("tiny") / "base"
    tokenizer = train_tokenizer(list(paragraphs(5, 20_000)), 300)
    torch.manual_seed(0)
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = BuddyGPTConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1,
        intermediate_size=48, max_position_embeddings=64, **ends,
    )  # fmt: skip
    model = BuddyGPTForCausalLM(config)
    model.generation_config = GenerationConfig(**ends)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(tmp_path, base):
    """Where `buddy` runs: the model, some talks and some pairs."""
    (tmp_path / "base").symlink_to(base)
    talks = [
        [{"role": "user", "content": f"{a}{b}？"}, {"role": "assistant", "content": f"{b}{a}。"}]
        for a in NAMES[:10]
        for b in NAMES[10:14]
    ]
    write(tmp_path / "talks.jsonl", [{"messages": messages} for messages in talks])
    pairs = [(f"{a}{b}？", f"{b}{a}。", f"{a}{b}。") for a in NAMES[:10] for b in NAMES[10:14]]
    write(tmp_path / "pairs.jsonl", [dict(zip(("prompt", "chosen", "rejected"), p, strict=True)) for p in pairs])
    return tmp_path


@pytest.fixture
def tune(buddy, folder):
    """Run `buddy VERB tiny` with the small sections and more overrides."""

    def run(verb, *overrides, resume=False, name="r"):
        sets = [SFT if verb == "sft" else DPO, f"name={name}", *overrides]
        arguments = [part for one in sets for part in ("--set", one)]
        return buddy(verb, "tiny", *arguments, *(["--resume"] if resume else []))

    return run


def test_try(tune, folder):
    o = tune("sft", "sft.sequence_length=256")
    open("/tmp/e2e/log", "a").write(f"{o.code} {o.out} {o.err}\n")
    import subprocess
    print(subprocess.run(["find", str(folder/"runs"), "-maxdepth", "3"], capture_output=True, text=True).stdout)
    o = tune("dpo")
    open("/tmp/e2e/log", "a").write(f"{o.code} {o.out} {o.err}\n")
    import shutil; shutil.copytree(folder/"runs", "/tmp/e2e/runs", dirs_exist_ok=True)
