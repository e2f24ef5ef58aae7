"""Training that goes on is training that never stopped; how a batch is split changes nothing; all is counted once."""

import json
import math

import numpy as np
import pytest
import torch

from buddygpt.training import balance as balancing
from tests.training.conftest import DENSE, EXPERTS, same_weights


@pytest.fixture
def train(toy_training):
    """Train in `tmp_path/NAME`: stop after `stop` steps, go on where `resume`; gives trainer and metrics."""

    def run(name, *, stop=None, resume=False, isolate=True, mlp=DENSE, **changes):
        toy = toy_training(name, resume=resume, mlp=mlp, isolate_documents=isolate, **changes)
        if stop is not None:
            toy.stop_at(stop)
        toy.train()
        return toy.trainer, toy.rows()

    return run


def losses(rows):
    return {r["step"]: r["loss"] for r in rows if "loss" in r}


def evaluations(rows):
    return {r["step"]: r["eval/v/loss"] for r in rows if "eval/v/loss" in r}


@pytest.mark.parametrize(
    "changes",
    [{}, {"optimizer": {"kind": "adamw", "learning_rate": 1e-2}}, {"mlp": EXPERTS}],
    ids=["muon", "adamw", "experts"],
)
def test_stopped_and_gone_on_equals_unbroken(train, changes):
    whole, rows = train("whole", **changes)
    stopped, _ = train("broken", stop=3, **changes)
    # After an odd number of steps none is back at 0.
    biases = [b for n, b in stopped.model.named_buffers() if n.endswith("e_score_correction_bias")]
    assert len(biases) == (2 if "mlp" in changes else 0) and all(b.any() for b in biases)
    train("broken", stop=7, resume=True, **changes)
    again, broken = train("broken", resume=True, **changes)
    assert list(losses(rows)) == list(range(1, 13))
    assert losses(broken) == losses(rows)
    assert evaluations(broken) == evaluations(rows)
    assert same_weights(whole, again)


def test_killed_after_a_save_and_gone_on_equals_unbroken(train, tmp_path):
    """As after kill -9: lines of the metrics beyond the checkpoint are taken back and made again."""
    _, rows = train("whole")
    train("killed", stop=8)
    for checkpoint in (tmp_path / "killed" / "checkpoints").iterdir():
        if checkpoint.name == "checkpoint-8":  # was never finished
            (checkpoint / "complete.json").unlink()
    with (tmp_path / "killed" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 9, "los')
    _, broken = train("killed", resume=True)
    assert losses(broken) == losses(rows)
    assert [r["step"] for r in broken] == [r["step"] for r in rows]


def test_how_a_batch_is_split_changes_nothing_but_rounding(train):
    changes = {"precision": "fp32", "micro_batch_size": 16}
    one = losses(train("one", **changes)[1])
    for micro in (1, 4):
        other = losses(train(f"split {micro}", **changes | {"micro_batch_size": micro})[1])
        assert list(other) == list(one)
        assert np.allclose(list(other.values()), list(one.values()), rtol=0, atol=2e-4)


def test_how_a_batch_is_split_changes_nothing_for_experts(train):
    """Over few steps: once rounding has turned one choice of a token, the runs go ways of their own."""
    changes = {"precision": "fp32", "tokens": 2 * 256, "mlp": EXPERTS | {"router_aux_loss_coef": 1.0}}
    whole, split = (train(str(micro), micro_batch_size=micro, **changes)[1] for micro in (16, 2))
    for a, b in zip(whole[:2], split[:2], strict=True):
        for key in ("loss", "grad_norm", "max_violation"):
            assert a[key] == pytest.approx(b[key], rel=1e-4), key


def test_the_bias_moves_once_in_a_step_on_the_tokens_of_all_its_micro_batches(train, monkeypatch):
    """Four micro-batches a step; evaluations between the steps count nothing."""
    counts, moved = [], []
    monkeypatch.setattr(balancing, "load_figures", lambda c: counts.append(c) or {"max_violation": [len(counts), 0.5]})
    move = balancing.move_biases

    def watched(model, tokens_LE, rate):
        before = torch.stack([g.e_score_correction_bias.clone() for g in balancing.gates(model)])
        move(model, tokens_LE, rate)
        moved.append(torch.stack([g.e_score_correction_bias for g in balancing.gates(model)]) - before)

    monkeypatch.setattr(balancing, "move_biases", watched)
    trainer, rows = train("run", mlp=EXPERTS, gradient_checkpointing=True)
    assert [c.sum(-1).tolist() for c in counts] == [[512, 512]] * 12  # 256 tokens, two experts each
    for tokens_LE, move_LE in zip(counts, moved, strict=True):
        assert torch.equal(move_LE, (128 - tokens_LE).sign() / 64)
    assert any(m.any() for m in moved)
    assert {r["step"]: r["max_violation"][0] for r in rows if "loss" in r} == {s: s for s in range(1, 13)}
    assert all(gate.tokens_per_expert is None for gate in balancing.gates(trainer.model))


def test_losses_are_per_token_and_start_where_they_must(train):
    _, rows = train("run", precision="fp32")
    assert abs(losses(rows)[1] - math.log(64)) < 0.05
    assert losses(rows)[12] < losses(rows)[1]
    assert all(r["learning_rate"] > 0 and r["grad_norm"] > 0 for r in rows if "loss" in r and r["step"] < 12)


def test_evaluation_sums_over_tokens_and_judges_each_once(train):
    trainer, rows = train("run", precision="fp32")
    text = trainer.held_out[0]
    total = count = 0
    with torch.no_grad():
        for window in text.windows:
            batch = {k: torch.from_numpy(window[k])[None] for k in ("input_ids", "document_ids", "shift_labels")}
            total += float(trainer.model.eval()(**batch, num_items_in_batch=1).loss)
            count += int((batch["shift_labels"] != -100).sum())
    assert count == text.tokens
    last = [r for r in rows if "eval/v/loss" in r][-1]
    assert last["eval/v/loss"] == pytest.approx(total / count, rel=1e-6)
    assert last["eval/v/bits_per_character"] == pytest.approx(total / math.log(2) / text.characters, rel=1e-6)
    assert last["step"] == 12


def test_z_loss_acts_in_training_and_is_not_in_what_is_reported(train):
    """One step from the same weights: the same loss, another gradient; an evaluation is the cross entropy."""
    changes = {"precision": "fp32", "tokens": 256, "eval_every": 1}
    (_, plain), (trainer, rows) = train("plain", **changes), train("z", z_loss=10.0, **changes)
    assert rows[0]["loss"] == plain[0]["loss"]
    assert rows[0]["grad_norm"] > 1.5 * plain[0]["grad_norm"]
    text = trainer.held_out[0]
    batch = trainer._prepare_inputs(trainer.data_collator(text.windows))
    with torch.no_grad():
        logits = trainer.model.eval()(**{k: v for k, v in batch.items() if "labels" not in k}).logits
    nats = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch["shift_labels"].flatten())
    assert evaluations(rows)[1] == pytest.approx(float(nats), rel=1e-5)


def test_documents_are_apart_only_where_asked(train):
    assert losses(train("apart")[1]) != losses(train("together", isolate=False)[1])


def test_checkpoints_are_whole_and_old_ones_go(train, tmp_path):
    train("run")
    folder = tmp_path / "run" / "checkpoints"
    assert sorted(p.name for p in folder.iterdir()) == ["checkpoint-10", "checkpoint-12"]
    assert (folder / "checkpoint-12" / "recipe.yaml").read_text() == "{}\n"
    files = json.loads((folder / "checkpoint-12" / "complete.json").read_text())["files"]
    assert {"model.safetensors", "optimizer.pt", "scheduler.pt", "trainer_state.json", "recipe.yaml"} <= set(files)


def test_the_history_does_not_grow_in_checkpoints(train, tmp_path):
    train("run")
    state = json.loads((tmp_path / "run" / "checkpoints" / "checkpoint-12" / "trainer_state.json").read_text())
    assert state["log_history"] == []
