"""Two processes are one: the same losses, each window once, each file by process 0; a process that dies is noticed."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from buddygpt.model import BuddyGPTForCausalLM
from buddygpt.training.randomness import kept_states, seed_process
from tests.training.two_processes import EXPERTS, LONG, SPARSE, train

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """What two processes have made of the trainings of `tests.training.two_processes`, and their own accounts."""
    root = tmp_path_factory.mktemp("pair")
    folder = root / "two"
    train(folder / "one then two", stop=(5, 0), **LONG)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.training.two_processes", str(folder)],
            env=os.environ | common | {"RANK": str(r), "LOCAL_RANK": str(r), "OMP_NUM_THREADS": "1"},
            cwd=ROOT, stderr=subprocess.PIPE, text=True,
        )
        for r in (0, 1)
    ]  # fmt: skip
    try:
        errors = [process.communicate(timeout=150)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert processes[0].returncode == 0, errors[0][-3000:]
    assert processes[1].returncode == -9, errors[1][-3000:]  # as it was told to, at the very end
    return folder, [json.loads((root / f"{r}.json").read_text()) for r in (0, 1)]


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def same(some, others, tolerance=2e-5):
    """Whether two runs are one but for rounding; learning rates exactly. When they were saved is another matter."""
    some, others = ([row for row in run if "seconds_save" not in row] for run in (some, others))
    assert [row["step"] for row in some] == [row["step"] for row in others]
    for a, b in zip(some, others, strict=True):
        assert a.get("learning_rate") == b.get("learning_rate")
        for key in ("loss", "grad_norm", "eval/v/loss"):
            assert a.get(key, 0.0) == pytest.approx(b.get(key, 0.0), rel=tolerance), (a["step"], key)


def test_nine_batches_of_four_are_three_steps_and_every_window_is_read_once(pair, tmp_path):
    folder, told = pair
    _, alone, read = train(tmp_path)
    same(rows(folder / "nine"), alone)  # a rate a step: the schedule goes on once in a step, not in every process
    assert [row["step"] for row in alone if "loss" in row] == [1, 2, 3]
    mine, other = told[0]["read"], told[1]["read"]
    assert not set(mine) & set(other)
    assert sorted(mine + other) == sorted(read) == list(range(48))


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The long run, by one process."""
    return train(tmp_path_factory.mktemp("alone"), **LONG)[1]


def test_losses_norms_and_evaluations_are_those_of_one_process(pair, alone):
    """Also where targets are very unequal, and in the step in which one process has none."""
    found = rows(pair[0] / "whole")
    same(found, alone)
    assert all(np.isfinite(row["loss"]) and np.isfinite(row["grad_norm"]) for row in found if "loss" in row)
    assert [row["step"] for row in found if "eval/v/loss" in row] == [4, 8, 12]


def test_a_run_goes_on_with_another_number_of_processes(pair, alone):
    folder = pair[0]
    assert [row["step"] for row in rows(folder / "two then one") if "loss" in row][
        -1
    ] == 5  # both stopped where one was asked
    assert kept_states(folder / "two then one" / "checkpoints" / "checkpoint-5") == 2
    train(folder / "two then one", **LONG)
    same(rows(folder / "two then one"), alone)
    same(rows(folder / "one then two"), alone)


def test_experts_without_a_token_keep_nobody_waiting(pair, tmp_path):
    folder, told = pair
    found = rows(folder / "experts")
    assert [row["step"] for row in found if "loss" in row] == list(range(1, 21))
    assert any(share > 0 for row in found if "loss" in row for share in row["idle_experts"])
    assert all(one["finite"] for one in told)
    same(found, train(tmp_path, mlp=EXPERTS, **SPARSE)[1], 1e-3)


def test_a_split_model_trains_goes_on_and_is_saved_whole(pair, alone):
    folder, told = pair
    same(rows(folder / "split"), alone)
    assert all(one["share"] < 0.6 for one in told)
    newest = folder / "split" / "checkpoints" / "checkpoint-12"
    model = BuddyGPTForCausalLM.from_pretrained(newest)
    assert {t.dtype for t in load_file(newest / "model.safetensors").values()} == {torch.float32}
    other = BuddyGPTForCausalLM.from_pretrained(folder / "whole" / "checkpoints" / "checkpoint-12")
    for (name, a), b in zip(model.state_dict().items(), other.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4, msg=name)


def test_a_split_model_that_goes_back_to_its_begin_has_no_moments(pair, alone):
    same(rows(pair[0] / "back"), [row for row in alone if row["step"] <= 3])


def test_process_0_says_whether_a_run_that_goes_on_judges_first(pair):
    """Or one would judge alone, and wait for the others."""
    assert [one["again"] for one in pair[1]] == [False, False]


def test_process_0_alone_writes(pair):
    folder, told = pair
    assert any(path.endswith("metrics.jsonl") for path in told[0]["written"])
    assert told[1]["written"] == []  # its random state is torch's own to write
    for name in ("nine", "whole", "split", "experts"):
        steps = [row["step"] for row in rows(folder / name) if "loss" in row]
        assert len(steps) == len(set(steps))


def test_who_loses_a_process_knows_it_at_once(pair):
    told = pair[1][0]
    assert told["lost"] is True and told["seconds"] < 30


def test_new_processes_draw_new_numbers():
    """No two starts, steps or processes the same."""
    drawn = set()
    for seed, step, rank in ((0, 0, 0), (0, 0, 1), (0, 5, 0), (0, 5, 1), (1, 0, 0)):
        seed_process(seed, step, rank)
        drawn.add((torch.rand(1).item(), np.random.random()))
    assert len(drawn) == 5
    seed_process(0, 5, 1)
    again = torch.rand(1).item(), np.random.random()
    assert again in drawn
