"""The state of training without pickles: the same objects come back, and nothing is run on the way."""

import json
import os
import pickle
import random

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from buddygpt.publishing.state import read_state, training_state
from buddygpt.recipe.errors import BuddyError


def equal(a, b):
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(equal(a[key], b[key]) for key in a)
    return len(a) == len(b) and all(map(equal, a, b)) if isinstance(a, (list, tuple)) else a == b


@pytest.fixture
def chapter(tmp_path):
    """A chapter with a whole checkpoint, an older one, and one that was interrupted."""
    layer = torch.nn.Linear(3, 4)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(3)).sum().backward()
    optimizer.step()
    for step in (5, 30, 40):
        folder = tmp_path / "sft" / "checkpoints" / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        save_file({"w": torch.full((2,), float(step))}, folder / "model.safetensors")
        torch.save({"pair": [optimizer.state_dict(), {}]}, folder / "optimizer.pt")
        torch.save({"base_lrs": [1e-3], "last_epoch": step, "none": None, "ok": True}, folder / "scheduler.pt")
        state = {"python": random.getstate(), "numpy": np.random.get_state(), "cpu": torch.get_rng_state()}
        torch.save(state, folder / "rng_state.pth")
        (folder / "training_args.bin").write_bytes(b"pickle")
        (folder / "trainer_state.json").write_text(json.dumps({"global_step": step}))
        (folder / "recipe.yaml").write_text("schema: 1")
        if step != 40:
            (folder / "complete.json").write_text("{}")
    return tmp_path / "sft"


def test_the_newest_whole_checkpoint_goes_and_its_state_comes_back(chapter, tmp_path):
    (tmp_path / "scratch").mkdir()
    files = training_state(chapter, tmp_path / "scratch")
    assert set(files) == {
        f"training/{name}" for name in ("model.safetensors", "trainer_state.json", "state.safetensors", "state.json")
    }
    assert json.loads(files["training/trainer_state.json"].read_text())["global_step"] == 30
    back = read_state(tmp_path / "scratch")
    checkpoint = chapter / "checkpoints" / "checkpoint-30"
    assert set(back) == {"optimizer.pt", "scheduler.pt", "rng_state.pth"}
    for name, value in back.items():
        assert equal(value, torch.load(checkpoint / name, weights_only=False)), name
    random.setstate(back["rng_state.pth"]["python"])
    np.random.set_state(back["rng_state.pth"]["numpy"])


def test_the_optimizer_of_a_split_model_goes_too(chapter, tmp_path):
    checkpoint = chapter / "checkpoints" / "checkpoint-30"
    (checkpoint / "optimizer.pt").unlink()
    state = {"state": {"layer.weight": {"step": torch.tensor(3.0), "exp_avg": torch.ones(2)}}, "param_groups": []}
    torch.save(state, checkpoint / "optimizer.bin")
    torch.save({"w": torch.ones(2)}, checkpoint / "pytorch_model_fsdp.bin")
    files = training_state(chapter, tmp_path)
    assert "training/model.safetensors" in files
    back = read_state(tmp_path)
    assert set(back) == {"optimizer.bin", "scheduler.pt", "rng_state.pth"}
    assert equal(back["optimizer.bin"], state)


def test_nothing_that_goes_is_a_pickle(chapter, tmp_path):
    for path in training_state(chapter, tmp_path).values():
        data = path.read_bytes()
        assert not data.startswith((b"PK", b"\x80")), path


class Runs:
    """Unpickling it writes a file."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("save", ["torch", "pickle", "cut"])
def test_a_state_that_would_run_something_is_refused_and_does_not_run(chapter, tmp_path, save):
    file, mark = chapter / "checkpoints" / "checkpoint-30" / "optimizer.pt", tmp_path / "mark"
    if save == "torch":
        torch.save({"state": Runs(mark)}, file)
    elif save == "pickle":
        file.write_bytes(pickle.dumps(Runs(mark)))
    else:
        file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(BuddyError, match=r"optimizer\.pt: holds more than tensors and numbers"):
        training_state(chapter, tmp_path)
    assert not mark.exists()


def test_no_checkpoint_and_one_in_parts_are_told(chapter, tmp_path):
    (chapter / "checkpoints" / "checkpoint-30" / "pytorch_model_fsdp_0").mkdir()
    with pytest.raises(BuddyError, match="lies in parts"):
        training_state(chapter, tmp_path)
    with pytest.raises(BuddyError, match="no whole checkpoint"):
        training_state(tmp_path / "dpo", tmp_path)


def test_a_link_out_of_the_checkpoint_is_refused(chapter, tmp_path):
    file = chapter / "checkpoints" / "checkpoint-30" / "model.safetensors"
    file.unlink()
    file.symlink_to("/etc/passwd")
    with pytest.raises(BuddyError, match="leads out"):
        training_state(chapter, tmp_path)
