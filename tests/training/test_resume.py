"""What a run that goes on trusts, and that an evaluation that breaks off costs nothing."""

import os
import pickle
from importlib import import_module
from types import SimpleNamespace

import pytest
import torch
from transformers import Trainer

from buddygpt.recipe.errors import BrokenOff, BuddyError
from buddygpt.training.alone import alone, hold
from buddygpt.training.checkpoints import seal
from tests.training.conftest import same_weights


def test_a_chapter_is_trained_by_one_command_at_a_time(tmp_path):
    with alone():
        hold(tmp_path / "sft")
        with pytest.raises(BuddyError, match="sft: another command is training here"):
            hold(tmp_path / "sft")
        hold(tmp_path / "dpo")
    with alone():
        hold(tmp_path / "sft")


@pytest.mark.parametrize("stage", ["pretrain", "sft", "dpo"])
def test_each_stage_lets_its_chapter_go(stage, monkeypatch):
    held = SimpleNamespace(close=lambda: held.closed.append(stage), closed=[])
    monkeypatch.setattr("buddygpt.training.alone._held", [held])
    recipe = SimpleNamespace(require=lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        import_module(f"buddygpt.stages.{stage}").run(recipe, None, cache=None, resume=False, emit=None)
    assert held.closed == [stage]


class Gadget:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_a_state_that_would_run_something_is_refused_and_does_not_run(toy_training, tmp_path, name):
    toy = toy_training("run")
    toy.stop_at(6)
    toy.train()
    file = toy.folder / "checkpoints" / "checkpoint-6" / name
    torch.save({"state": Gadget(tmp_path / "ran")}, file, pickle_module=pickle)
    seal(file.parent)  # whoever plants it seals it, too
    with pytest.raises(BuddyError, match=r"checkpoint-6: cannot be gone on from: .* nothing of that is run"):
        toy_training("run", resume=True).train()
    assert not (tmp_path / "ran").exists()


def test_no_pickle_of_settings_lies_in_a_checkpoint(toy_training):
    toy = toy_training("run")
    toy.stop_at(1)
    toy.train()
    files = {path.name for path in (toy.folder / "checkpoints" / "checkpoint-1").iterdir()}
    assert "training_args.bin" not in files and {"cursor.json", "complete.json", "model.safetensors"} <= files


def test_weights_of_another_model_are_refused(toy_training):
    toy = toy_training("run")
    toy.stop_at(1)
    toy.train()
    for name in ("config.json", "model.safetensors"):
        file = toy.folder / "checkpoints" / "checkpoint-1" / name
        file.write_bytes(file.read_bytes().replace(b"layers.0.", b"layerz.0."))
    seal(toy.folder / "checkpoints" / "checkpoint-1")
    with pytest.raises(BuddyError, match=r"the checkpoint's weights are another model's: model\.layers\.0"):
        toy_training("run", resume=True).train()


def test_an_evaluation_that_fails_costs_no_step_and_leaves_the_model_in_training(toy_training):
    whole = toy_training("whole", save_every=4)
    whole.train()
    toy = toy_training("run", save_every=4)
    asked = []

    def fail(windows):
        asked.append(toy.checkpoints())
        if len(asked) == 2:
            raise RuntimeError("no memory left")
        return nats(windows)

    nats, toy.trainer._nats = toy.trainer._nats, fail
    with pytest.raises(RuntimeError, match="no memory left"):
        toy.train()
    assert asked[0][-1] == "checkpoint-4" and asked[1][-1] == "checkpoint-8"  # saved before it is judged
    assert toy.trainer.model.training
    again = toy_training("run", resume=True, save_every=4)
    again.train()
    assert again.rows_of_evaluations() == whole.rows_of_evaluations()
    assert again.losses() == whole.losses() and same_weights(again.trainer, whole.trainer)


def test_when_to_save_and_judge_may_change_on_the_way(toy_training):
    toy = toy_training("run")
    toy.stop_at(6)
    toy.train()
    again = toy_training("run", resume=True, save_every=3, eval_every=100, keep_checkpoints=9)
    again.train()
    assert again.checkpoints() == [f"checkpoint-{step}" for step in (5, 6, 9, 12)]
    assert [row["step"] for row in again.rows_of_evaluations()] == [4, 12]


def test_checkpoints_of_lasting_steps_stay(toy_training):
    toy = toy_training("run", save_every=2, keep_checkpoints=1, keep_every=4)
    toy.train()
    assert toy.checkpoints() == [f"checkpoint-{step}" for step in (4, 8, 12)]


def test_memory_that_does_not_suffice_is_told_with_what_takes_less(toy_training, monkeypatch):
    def full(*_):
        raise fault

    fault = RuntimeError("DefaultCPUAllocator: can't allocate memory")  # torch's words on a CPU
    toy = toy_training("pretrain")
    monkeypatch.setattr(toy.trainer, "training_step", full)
    told = r"pretrain.micro_batch_size: 4: .* does not suffice; .* --resume and --set pretrain.micro_batch_size=2 "
    with pytest.raises(BrokenOff, match=told):
        toy.train()
    fault = torch.OutOfMemoryError("CUDA out of memory.")
    again = toy_training("pretrain", resume=True, micro_batch_size=1)
    monkeypatch.setattr(Trainer, "_load_optimizer_and_scheduler", full)  # below what trusts no checkpoint
    with pytest.raises(BrokenOff, match=r"size: 1: .* --resume and --set pretrain.gradient_checkpointing=true; `buddy"):
        again.train()
