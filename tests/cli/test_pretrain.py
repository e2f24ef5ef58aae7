"""`buddy pretrain` and `buddy data` on small recipes, from start to a model that is talked to."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

from buddygpt.model.backends import Eager
from buddygpt.model.flash import BACKENDS
from tests.conftest import TOY

MLA = (
    "model.attention={kind: mla, num_attention_heads: 2, q_lora_rank: 8, kv_lora_rank: 8, qk_rope_head_dim: 4, "
    "qk_nope_head_dim: 8, v_head_dim: 12}"
)
MOE = (
    "model.mlp={kind: moe, n_routed_experts: 4, num_experts_per_tok: 2, n_shared_experts: 1, "
    "moe_intermediate_size: 24, router_aux_loss_coef: 1e-4}"
)
KEEP = ("tokenizer={base: qwen3, keep: 400, train: null}", "model.vocab_size=448")
KINDS = {"tiny": (), "0.1b": (), "0.1b-32k": KEEP, "0.3b": (), "0.3b-mla": (MLA,), "0.7b-moe": (MLA, MOE)}
"""Each recipe with the overrides that shrink its variants and keep their kinds."""


@pytest.mark.parametrize("name", KINDS)
def test_every_recipe_runs_two_steps(buddy, toy, tmp_path, name):
    outcome = buddy("pretrain", name, "--set", "name=toy", *toy(*KINDS[name]))
    assert outcome.code == 0, outcome.err
    run = tmp_path / "runs" / "toy" / "pretrain"
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in rows if "loss" in r] == [1, 2]
    assert all(("max_violation" in r) == (MOE in KINDS[name]) for r in rows if "loss" in r)
    assert "bits/char" in outcome.out and "5-gram" in outcome.out
    assert (run / "report.html").stat().st_size > 10_000
    assert {p.name for p in (run / "model").iterdir()} >= {"config.json", "model.safetensors", "tokenizer.json"}
    assert (tmp_path / "runs" / "toy" / "data" / "manifest.json").is_file()
    said = buddy("chat", "--prompt", "王", "--seed", "1", "--max-new-tokens", "5")
    assert said.code == 0, said.err
    assert "toy" in said.err  # says which model it took


def test_a_finished_run_says_so_and_another_recipe_is_refused(buddy, toy, tmp_path):
    assert buddy("pretrain", "tiny", *toy()).code == 0
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()}
    again = buddy("pretrain", "tiny", *toy())
    assert again.code == 0 and "finished already" in again.out
    other = buddy("pretrain", "tiny", *toy("pretrain.seed=1"))
    assert other.code == 2
    assert "belongs to a recipe that differs in pretrain.seed (0 there, 1 here)" in other.err
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()} == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    assert "exists and is not a run" in buddy("pretrain", "tiny", "--run", "mine", *toy()).err


def test_data_is_prepared_once_reported_and_verified(buddy, toy, tmp_path):
    text = tmp_path / "text.jsonl"
    rows = [{"text": f"第{i}篇：山高水长，春江潮水连海平，海上明月共潮生。"} for i in range(60)] + [
        {"text": "第3篇：山高水长，春江潮水连海平，海上明月共潮生。"},
        {"id": 7},
    ]
    text.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows))
    overrides = toy("data.sources=[{kind: files, paths: [text.jsonl]}]", "tokenizer.train=300", "data.validation=0.2")
    assert "nothing is prepared" in buddy("data", "verify", "tiny", *overrides).err
    first = buddy("data", "tiny", *overrides)
    assert first.code == 0, first.err
    assert "duplicate" in first.out and "text.jsonl:61" in first.out
    assert "no text column" in first.out and "text.jsonl:62" in first.out
    assert "山高水长" in first.out
    manifest = (tmp_path / "runs" / "tiny" / "data").resolve() / "manifest.json"
    stamp = manifest.stat().st_mtime_ns
    assert buddy("data", "tiny", *overrides).code == 0
    assert manifest.stat().st_mtime_ns == stamp
    assert "ok: " in buddy("data", "verify", "tiny", *overrides).out
    shard = next(manifest.parent.glob("shards/*/train/*.ds"))
    whole = shard.read_bytes()
    shard.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    damaged = buddy("data", "verify", "tiny", *overrides)
    assert damaged.code == 2 and "00000.ds" in damaged.err
    shard.write_bytes(whole)
    with text.open("a") as file:
        file.write('{"text": "新的一篇"}\n')
    changed = buddy("data", "verify", "tiny", *overrides)
    assert changed.code == 2 and "text.jsonl: changed since" in changed.err


SLOW = (
    *(s for s in TOY if not s.startswith(("pretrain.tokens=", "pretrain.tokens_per_batch"))),
    "pretrain.tokens=5120", "pretrain.tokens_per_batch=128", "pretrain.save_every=7", "pretrain.eval_every=15",
    "name=r",
)  # fmt: skip


def start(folder, *arguments):
    command = [
        sys.executable,
        "-m",
        "buddygpt",
        "pretrain",
        "tiny",
        *(p for s in SLOW for p in ("--set", s)),
        *arguments,
    ]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def losses(folder):
    file = folder / "runs" / "r" / "pretrain" / "metrics.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    return [(r["step"], r.get("loss"), r.get("eval/demo/loss")) for r in rows if "seconds_save" not in r]


def wait_for_step(process, folder, step):
    for _ in range(1200):
        try:
            if any(s >= step for s, _, _ in losses(folder)):
                return
        except ValueError:  # a line half written
            pass
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    raise AssertionError("too slow")


@pytest.mark.slow
def test_interrupted_then_resumed_equals_unbroken(tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    assert start(whole).wait() == 0

    process = start(broken)
    wait_for_step(process, broken, 9)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130
    assert "go on with: buddy pretrain tiny --set" in err and "--resume" in err and "Traceback" not in err

    process = start(broken, "--resume")
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert "going on from checkpoint-" in out
    assert losses(broken) == losses(whole)
    assert len([1 for _, loss, _ in losses(whole) if loss]) == 40
    weights = [f / "runs" / "r" / "pretrain" / "model" / "model.safetensors" for f in (whole, broken)]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_text_that_changed_since_the_checkpoint_is_refused(buddy, toy, tmp_path):
    (tmp_path / "t.txt").write_text("云想衣裳花想容，春风拂槛露华浓。名花倾国两相欢，常得君王带笑看。" * 200)
    (tmp_path / "v.txt").write_text("若非群玉山头见，会向瑶台月下逢。" * 40)
    train, held_out = "{kind: files, paths: [t.txt], validation: 0}", "{kind: files, paths: [v.txt], validation: 1}"
    overrides = toy(f"data.sources=[{train}, {held_out}]", "tokenizer.train=300")
    assert buddy("pretrain", "tiny", *overrides).code == 0
    (tmp_path / "runs" / "tiny" / "pretrain" / "done.json").unlink()
    (tmp_path / "t.txt").write_text("云想衣裳花想容，春风拂槛露华香。名花倾国两相欢，常得君王带笑看。" * 200)
    outcome = buddy("pretrain", "tiny", "--resume", *overrides)
    assert outcome.code == 2
    assert "was trained on other text" in outcome.err


def test_a_damaged_checkpoint_is_told_and_an_older_one_gives_the_same_model(buddy, toy, tmp_path):
    assert buddy("pretrain", "tiny", *toy()).code == 0
    run = tmp_path / "runs" / "tiny" / "pretrain"
    record, model = made(run), (run / "model" / "model.safetensors").read_bytes()
    (run / "done.json").unlink()  # as if killed between the last checkpoint and the end
    assert buddy("pretrain", "tiny", "--resume", *toy()).code == 0
    assert made(run) == record
    (run / "done.json").unlink()
    weights = run / "checkpoints" / "checkpoint-2" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    outcome = buddy("pretrain", "tiny", "--resume", *toy())
    assert outcome.code == 0, outcome.err
    assert re.search(r"checkpoint-2: model.safetensors has .* bytes of .*; passed over, going on from", outcome.out)
    assert made(run) == record and (run / "model" / "model.safetensors").read_bytes() == model
    (run / "done.json").unlink()
    for checkpoint in (run / "checkpoints").iterdir():
        (checkpoint / "optimizer.pt").unlink()
    outcome = buddy("pretrain", "tiny", "--resume", *toy())
    assert outcome.code == 2 and "no older checkpoint is whole; remove this folder to begin anew" in outcome.err


def made(run):
    record = json.loads((run / "done.json").read_text())
    assert record["made_on"].pop("peak_bytes")  # of the process, which grows
    return record


def test_how_a_batch_is_split_may_change_on_the_way_and_the_rates_may_not(buddy, toy, tmp_path):
    assert buddy("pretrain", "tiny", *toy()).code == 0
    run = tmp_path / "runs" / "tiny"
    (run / "pretrain" / "done.json").unlink()
    refused = buddy("pretrain", "tiny", "--resume", *toy("pretrain.optimizer.learning_rate=1e-3"))
    assert refused.code == 2 and "differs in pretrain.optimizer.learning_rate (" in refused.err
    refused = buddy("pretrain", "tiny", "--resume", *toy("pretrain.micro_batch_size=1", "pretrain.tokens=1M"))
    assert refused.code == 2 and "pretrain.tokens" in refused.err and "micro_batch_size" not in refused.err
    told = buddy("pretrain", "tiny", "--resume", *toy("pretrain.micro_batch_size=1", "pretrain.guard.patience=5"))
    assert told.code == 0, told.err
    assert re.search(r"pretrain.micro_batch_size: \d+ before, 1 from here on", told.out)
    assert "pretrain.guard.patience: 3 before, 5 from here on" in told.out
    assert "micro_batch_size: 1" in (run / "recipe.yaml").read_text()
    assert "already" in buddy("pretrain", "tiny", *toy("pretrain.micro_batch_size=1")).out


def test_a_checkpoint_of_another_model_is_refused(buddy, toy, tmp_path):
    for name, width in (("a", 32), ("b", 48)):
        assert buddy("pretrain", "tiny", *toy(f"name={name}", f"model.hidden_size={width}")).code == 0
        (tmp_path / "runs" / name / "pretrain" / "done.json").unlink()
    mine, theirs = (tmp_path / "runs" / name / "pretrain" / "checkpoints" for name in "ab")
    shutil.rmtree(mine)
    shutil.copytree(theirs, mine)
    outcome = buddy("pretrain", "tiny", "--resume", *toy("name=a", "model.hidden_size=32"))
    assert outcome.code == 2 and outcome.err.count("\n") == 1
    assert "is another model's checkpoint: model.hidden_size is 48 there, 32 here" in outcome.err


def test_attention_is_computed_by_what_the_recipe_names(buddy, toy, tmp_path, monkeypatch):
    refused = buddy("pretrain", "tiny", *toy("pretrain.attn_implementation=flash_attention_2"))
    assert refused.code == 2
    assert "pretrain.attn_implementation: attention by flash_attention_2: needs a CUDA device" in refused.err
    assert "use auto, which takes sdpa" in refused.err
    assert list(tmp_path.iterdir()) == []
    told = buddy("pretrain", "tiny", *toy(), "--dry-run").out
    assert re.search(r"attention by +sdpa *\n", told)
    assert "eager: the reference, slower" in told
    calls = []
    monkeypatch.setattr(Eager, "attend", lambda self, *a: calls.append(1) or BACKENDS["sdpa"].attend(*a))
    named = buddy("pretrain", "tiny", *toy("pretrain.attn_implementation=eager"))
    assert named.code == 0, named.err
    assert "eager, as the recipe says" in named.out
    assert calls
