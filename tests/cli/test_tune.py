"""`buddy sft` and `buddy dpo` on a tiny model, from start to a model that can be loaded and pages that can be read."""

import json
import math
import os
import signal

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from buddygpt.data.demo import paragraphs
from buddygpt.data.tokenizer import train_tokenizer
from buddygpt.model import BuddyGPTConfig, BuddyGPTForCausalLM
from buddygpt.training.callbacks import Meter

NAMES = "春夏秋冬东南西北山河湖海日月星云风花雪雨"
RECIPE = """
schema: 1
name: r
model:
  vocab_size: 400
  hidden_size: 32
  num_hidden_layers: 1
  max_position_embeddings: 64
  attention: {kind: gqa, num_attention_heads: 2, num_key_value_heads: 1}
  mlp: {kind: dense, intermediate_size: 48}
tokenizer: {train: 400}
data: {sources: [{kind: demo, characters: 20000}], validation: 0.1}
pretrain:
  sequence_length: 32
  tokens_per_batch: 128
  micro_batch_size: 2
  tokens: 256
  eval_tokens: 200
  optimizer: &optimizer {kind: adamw, learning_rate: 1e-3}
  schedule: &schedule {kind: wsd}
  save_every: 2
  eval_every: 2
sft:
  data: {sources: [{kind: files, paths: [talks.jsonl]}], validation: 0.3}
  batch_size: 4
  micro_batch_size: 2
  precision: fp32
  eval_tokens: 400
  eval_every: 4
  optimizer: *optimizer
  schedule: *schedule
dpo:
  data: {sources: [{kind: files, paths: [pairs.jsonl]}], validation: 0.3}
  batch_size: 4
  micro_batch_size: 2
  precision: fp32
  eval_every: 4
  optimizer: *optimizer
  schedule: *schedule
"""


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
    """Where `buddy` runs: the model, the recipe, some talks and some pairs."""
    (tmp_path / "base").symlink_to(base)
    (tmp_path / "r.yaml").write_text(RECIPE, "utf-8")
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
    """Run `buddy VERB r.yaml` from the model at random, with more overrides."""

    def run(verb, *overrides, resume=False, name="r"):
        sets = [part for one in (f"{verb}.model=base", f"name={name}", *overrides) for part in ("--set", one)]
        return buddy(verb, "r.yaml", *sets, *(["--resume"] if resume else []))

    return run


def rows(folder, chapter):
    file = folder / "runs" / "r" / chapter / "metrics.jsonl"
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def record(folder, chapter, name="done.json"):
    return json.loads((folder / "runs" / "r" / chapter / name).read_text("utf-8"))


def weights(folder, chapter, run="r"):
    return load_file(folder / "runs" / run / chapter / "model" / "model.safetensors")


def check_chat_model(path, positions):
    """What is saved loads as an ordinary model that ends a reply on both marks, and so say all three."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(path), AutoTokenizer.from_pretrained(path)
    ends = [tokenizer.convert_tokens_to_ids(mark) for mark in ("<|im_end|>", "<|endoftext|>")]
    assert model.config.eos_token_id == model.generation_config.eos_token_id == ends
    assert model.config.pad_token_id == model.generation_config.pad_token_id == tokenizer.pad_token_id == ends[1]
    assert tokenizer.eos_token_id == ends[0] and "generation" in tokenizer.chat_template
    assert model.config.max_position_embeddings == positions
    assert not list(path.glob("adapter*")) and not list(path.glob("*.md"))
    return model


@pytest.fixture
def stop_at(monkeypatch):
    """Press Ctrl-C when the figures of this step are told."""

    def set_step(step):
        tell = Meter._tell

        def told(self, state):
            tell(self, state)
            if state.global_step == step:
                monkeypatch.setattr(Meter, "_tell", tell)
                os.kill(os.getpid(), signal.SIGINT)

        monkeypatch.setattr(Meter, "_tell", told)

    return set_step


def test_the_whole_way_with_a_longer_context(buddy, folder):
    """pretrain -> sft at four times the context -> dpo, each beginning with what the one before has left."""
    for verb in ("pretrain", "sft", "dpo"):
        outcome = buddy(verb, "r.yaml", "--set", "sft.sequence_length=256")
        assert outcome.code == 0, outcome.err
        run = folder / "runs" / "r" / verb
        assert {"model", "metrics.jsonl", "report.html", "done.json"} <= {path.name for path in run.iterdir()}
        again = buddy(verb, "r.yaml", "--set", "sft.sequence_length=256")
        assert again.code == 0 and "finished already" in again.out

    sft = check_chat_model(folder / "runs/r/sft/model", 256)
    assert sft.config.rope_parameters["rope_type"] == "linear" and sft.config.rope_parameters["factor"] == 4
    dpo = check_chat_model(folder / "runs/r/dpo/model", 256)
    assert dpo.config.rope_parameters == sft.config.rope_parameters

    done = record(folder, "sft")
    assert done["began"] == "pretrain" and done["before"] == record(folder, "sft", "before.json")
    assert {"eval/talks/bits_per_character", "eval/talks/loss"} <= done["metrics"].keys()
    assert {"stops by itself", "repeats itself"} <= done["before"].keys() == done["after"].keys()
    context = record(folder, "sft", "context.json")
    assert (context["old"], context["new"], context["scaling"]) == (64, 256, "linear")
    assert context["text"] == "held-out text of pretraining" and context["windows"] >= 2
    assert list(context["models"]) == ["not extended", "extended, not tuned", "extended and tuned"]
    before, extended, tuned = (m["positions"] for m in context["models"].values())
    assert before["edges"] == list(range(0, 257, 16)) and before["characters"] == tuned["characters"]
    assert before["nats"] != extended["nats"] != tuned["nats"]
    page = (folder / "runs/r/sft/report.html").read_text("utf-8")
    assert "64 → 256 词元，linear 缩放" in page and "留出的回答" in page and "bits per character by position" in page

    done = record(folder, "dpo")
    assert done["began"] == "sft" and done["before"] == record(folder, "dpo", "before.json")
    keys = {f"eval/pairs/{name}" for name in ("accuracy", "margin", "chosen_log_ratio", "rejected_log_ratio")}
    assert keys | {"kl/reply", "kl/token"} <= done["metrics"].keys()
    steps = [row for row in rows(folder, "dpo") if "loss" in row]
    assert steps[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    page = (folder / "runs/r/dpo/report.html").read_text("utf-8")
    assert "偏好调优报告" in page and "KL to the reference" in page and "at first 0.693" in page
    for head in ("预训练", "微调", "偏好调优"):
        assert f">{head} <small" in page


MORE = {"sft": ("sft.sequence_length=64", "sft.epochs=2"), "dpo": ()}
LORA = "{verb}.lora={{rank: 4, dropout: 0.1}}"


@pytest.mark.parametrize(("verb", "lora"), [("sft", True), ("dpo", False)])
def test_stopped_and_resumed_equals_unbroken(tune, folder, stop_at, verb, lora):
    more = (*MORE[verb], f"{verb}.save_every=100", *([LORA.format(verb=verb)] if lora else []))
    assert tune(verb, *more, name="whole").code == 0
    stop_at(2)
    stopped = tune(verb, *more)
    assert stopped.code == 130 and "stopped at step 3, saved; go on with: buddy" in stopped.err
    assert "停在第 3 步" in (folder / "runs/r" / verb / "report.html").read_text("utf-8")
    before = record(folder, verb, "before.json")
    refused = tune(verb, *more)
    assert refused.code == 2 and "an unfinished run is there, saved at step 3; go on with --resume" in refused.err
    resumed = tune(verb, *more, resume=True)
    assert resumed.code == 0, resumed.err
    assert "going on from checkpoint-3" in resumed.out
    mine, whole = weights(folder, verb), weights(folder, verb, "whole")
    assert mine.keys() == whole.keys() == weights_of_base(folder).keys()
    assert all(torch.equal(mine[name], whole[name]) for name in whole)
    assert any(not torch.equal(tensor, weights_of_base(folder)[name]) for name, tensor in whole.items())
    done, unbroken = record(folder, verb), json.loads((folder / "runs/whole" / verb / "done.json").read_text())
    assert done["made_on"].pop("peak_bytes") and unbroken["made_on"].pop("peak_bytes")  # of the process, which grows
    assert done["before"] == before and done == unbroken
    check_chat_model(folder / "runs/r" / verb / "model", 64)


def weights_of_base(folder):
    return load_file(folder / "base" / "model.safetensors")


def test_where_no_prompt_leaves_room_for_a_reply_there_is_no_distance(tune, folder):
    outcome = tune("dpo", "dpo.sequence_length=40")
    assert outcome.code == 0, outcome.err
    assert "eval/pairs/margin" in record(folder, "dpo")["metrics"]
    assert not [key for key in record(folder, "dpo")["metrics"] if key.startswith("kl/")]
    assert "distance to the reference" not in outcome.out


def one_line(outcome, text):
    assert outcome.code == 2 and text in outcome.err, outcome.err
    assert outcome.err.strip().splitlines()[-1].startswith("buddy: ") and "Traceback" not in outcome.err


def test_pairs_longer_than_the_models_context(tune):
    one_line(tune("dpo", "dpo.sequence_length=65"), "dpo.sequence_length: 65 tokens, but the model has only 64")


def test_a_base_model_without_chat_marks(tune, folder, base, tmp_path):
    bare = tmp_path / "bare"
    bare.mkdir()
    for file in base.iterdir():
        text = file.read_bytes()
        (bare / file.name).write_bytes(text.replace(b"<|im_end|>", b"<|im_fin|>") if file.suffix == ".json" else text)
    one_line(tune("sft", "sft.model=bare"), "the base model's vocabulary lacks <|im_end|>")


def test_nothing_to_learn(tune, folder):
    write(folder / "talks.jsonl", [{"messages": [{"role": "user", "content": f"{a}？"}]} for a in NAMES])
    outcome = tune("sft")
    one_line(outcome, "talks: nothing is left of its 20 rows: 20 no answer (first talks.jsonl:1)")
    assert not (folder / "runs" / "r").exists()


def test_a_model_that_was_named_is_not_called_by_a_chapter(tune, folder):
    assert tune("sft").code == 0 and tune("dpo").code == 0
    assert record(folder, "sft")["began"] == record(folder, "dpo")["began"] == "before"
    page = (folder / "runs/r/dpo/report.html").read_text("utf-8")
    assert ">训练前 <small" in page and ">微调 <small" not in page
