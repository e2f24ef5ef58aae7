"""A run that starts from another's checkpoint: what one schedule would have done from the first step, or refused."""

import json
import shutil

import torch
from safetensors.torch import load_file

LONG = (
    "name=long", "pretrain.tokens=1024", "pretrain.save_every=4", "pretrain.eval_every=4",
    "pretrain.schedule={kind: wsd, warmup: 0.1, decay: 0.25}",
)  # fmt: skip
SHORT = (
    "name=short", "pretrain.tokens=768", "pretrain.save_every=1", "pretrain.keep_checkpoints=3",
    "pretrain.eval_every=2", "pretrain.schedule={kind: wsd, warmup: 0.1, decay: 0.333}",
)  # fmt: skip
CHECKPOINT = "runs/long/pretrain/checkpoints/checkpoint-4"


def told(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]


def steps(folder):
    return {row["step"]: (row["loss"], row["learning_rate"]) for row in told(folder) if "loss" in row}


def test_a_branch_is_bit_for_bit_the_run_that_had_its_schedule_from_the_first_step(buddy, toy, tmp_path):
    """Both have warmed up by step 1 and are at their peak until step 4, where the branch begins."""
    assert buddy("pretrain", "tiny", *toy(*LONG)).code == 0
    done = buddy("pretrain", "tiny", *toy(*SHORT, f"pretrain.start_from={CHECKPOINT}"))
    assert done.code == 0, done.err
    assert "jumps" not in done.out + done.err and "going on from checkpoint-4" in done.out
    assert buddy("pretrain", "tiny", *toy(*SHORT, "name=whole")).code == 0
    long, short, whole = (tmp_path / "runs" / name / "pretrain" for name in ("long", "short", "whole"))
    assert list(steps(short)) == [1, 2, 3, 4, 5, 6] and steps(short) == steps(whole)
    assert told(short)[:4] == told(long)[:4] and steps(short)[6] != steps(long)[6]
    ours, theirs = (load_file(folder / "model" / "model.safetensors") for folder in (short, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    began = {"checkpoint": CHECKPOINT, "step": 4}
    record = json.loads((short / "done.json").read_text("utf-8"))
    assert record["start_from"] == began
    assert f"{CHECKPOINT}, step 4" in (short / "report.html").read_text("utf-8")
    kept = sorted(p.name for p in (short / "checkpoints").iterdir())
    assert kept == ["checkpoint-4", "checkpoint-5", "checkpoint-6"]  # the first is its own: it can always go back
    # Interrupted, it goes on from a checkpoint of its own; where it began need not be there any more.
    (short / "done.json").unlink()
    shutil.rmtree(short / "checkpoints" / "checkpoint-6")
    shutil.rmtree(tmp_path / "runs" / "long")
    again = buddy("pretrain", "tiny", "--resume", *toy(*SHORT, f"pretrain.start_from={CHECKPOINT}"))
    assert again.code == 0 and "going on from checkpoint-5" in again.out
    assert steps(short) == steps(whole)
    assert json.loads((short / "done.json").read_text("utf-8"))["start_from"] == began


def test_a_branch_that_cannot_be_is_refused_by_the_field_and_a_jump_of_the_rate_is_told(buddy, toy, tmp_path):
    assert buddy("pretrain", "tiny", *toy(*LONG)).code == 0

    def refused(*changes):
        outcome = buddy("pretrain", "tiny", *toy(*SHORT, *changes))
        assert outcome.code == 2 and not (tmp_path / "runs" / "short").exists()
        assert len(outcome.err.strip().splitlines()) == 1
        return outcome.err

    start = f"pretrain.start_from={CHECKPOINT}"
    for change, said in (
        ("pretrain.seed=1", "pretrain.seed is 0 there, 1 here"),
        ("pretrain.sequence_length=64", "pretrain.sequence_length is 32 there, 64 here"),
        ("pretrain.tokens_per_batch=64", "pretrain.tokens_per_batch is 128 there, 64 here"),
        ("pretrain.optimizer.learning_rate=1e-3", "pretrain.optimizer.learning_rate is 0.0025 there, 0.001 here"),
        ("pretrain.parallel={kind: fsdp}", "pretrain.parallel.kind is ddp there, fsdp here"),
        ("model.hidden_size=48", "model.hidden_size is 32 there, 48 here"),
        ("data.validation=0.2", "data.validation is 0.1 there, 0.2 here"),
        ("pretrain.tokens=512", "512 are 4 steps"),
    ):
        assert said in refused(start, change)
    gone = refused("pretrain.start_from=runs/long/pretrain/checkpoints/checkpoint-2")
    assert "there are checkpoint-4, checkpoint-8" in gone and "keep_checkpoints" in gone
    assert "no such run below" in refused("pretrain.start_from=lang") and "long" in refused("pretrain.start_from=lang")
    # The newest checkpoint of a finished run has decayed to nothing.
    jumped = buddy("pretrain", "tiny", *toy(*SHORT, "name=jump", "pretrain.tokens=1280", "pretrain.start_from=long"))
    assert jumped.code == 0, jumped.err
    assert "the learning rate jumps at step 8: 0 of its peak" in " ".join((jumped.out + jumped.err).split())
    (tmp_path / CHECKPOINT / "optimizer.pt").write_bytes(b"")
    assert "optimizer.pt has 0 bytes" in refused(start)
