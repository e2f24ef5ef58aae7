"""Trackers: each that is installed gets a real run's figures on this disk, without a network."""

import importlib.util
import json
import os
import sqlite3
import struct
import subprocess
import sys

import pytest

from buddygpt.recipe.pretrain import PretrainSection
from buddygpt.training import trackers
from buddygpt.training.trackers import tracked_name
from tests.conftest import ROOT, TOY
from tests.training.conftest import SECTION

ALONE = """
import socket, sys
real = socket.socket.connect
def connect(self, address):
    if self.family != getattr(socket, "AF_UNIX", None) and address[0] not in ("127.0.0.1", "::1"):
        print("NETWORK", address, file=sys.stderr)
        raise OSError("no network")
    return real(self, address)
socket.socket.connect = connect
lookup = socket.getaddrinfo
def getaddrinfo(host, *rest, **more):
    if host not in (None, "localhost", "127.0.0.1", "::1", "0.0.0.0"):
        print("NETWORK", host, file=sys.stderr)
        raise OSError("no network")
    return lookup(host, *rest, **more)
socket.getaddrinfo = getaddrinfo
from buddygpt.cli.app import main
main()
"""
RUN = (*(s for s in TOY if not s.startswith("pretrain.tokens=")), "pretrain.eval_every=2", "pretrain.save_every=2")
OFFLINE = {"WANDB_MODE": "offline", "SWANLAB_MODE": "offline", "OMP_NUM_THREADS": "1"}
CHOSEN = ("WANDB_DIR", "WANDB_PROJECT", "SWANLAB_LOG_DIR", "SWANLAB_PROJECT", "TRACKIO_DIR", "TENSORBOARD_LOGGING_DIR")


def arguments(tracker, steps, *more):
    overrides = (*RUN, "name=r", f"pretrain.tokens={128 * steps}", f"pretrain.trackers=[{tracker}]")
    return ["pretrain", "tiny", *(part for one in overrides for part in ("--set", one)), *more]


def told(folder):
    """Losses of training and of the held-out text by step, as metrics.jsonl has them."""
    file = folder / "runs" / "r" / "pretrain" / "metrics.jsonl"
    rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    losses = {row["step"]: row["loss"] for row in rows if "loss" in row}
    return losses, {row["step"]: row["eval/demo/loss"] for row in rows if "eval/demo/loss" in row}


def train(folder, tracker, steps):
    """In a process of its own: these trackers leave threads and settings behind."""
    environment = {k: v for k, v in os.environ.items() if k not in CHOSEN} | OFFLINE | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", ALONE, *arguments(tracker, steps)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment, timeout=200)
    assert done.returncode == 0, done.stderr
    assert "NETWORK" not in done.stderr
    return told(folder)


@pytest.mark.skipif(not importlib.util.find_spec("tensorboard"), reason="tensorboard is not installed")
def test_tensorboard_gets_the_figures_and_a_resumed_run_hides_what_it_makes_again(buddy, tmp_path, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def connect(self, address):
        raise AssertionError(f"went to the network: {address}")

    monkeypatch.setattr("socket.socket.connect", connect)
    assert buddy(*arguments("tensorboard", 3)).code == 0
    losses, evaluations = told(tmp_path)
    folder = tmp_path / "runs" / "r" / "pretrain"
    # As after a crash behind the checkpoint of step 2.
    for gone in ("done.json", "checkpoints/checkpoint-3/complete.json"):
        (folder / gone).unlink()
    assert buddy(*arguments("tensorboard", 3, "--resume")).code == 0
    again, _ = told(tmp_path)
    events = EventAccumulator(str(folder / "trackers" / "tensorboard"))
    events.Reload()
    assert again == losses
    assert {e.step: e.value for e in events.Scalars("train/loss")} == pytest.approx(losses)
    assert [e.step for e in events.Scalars("train/loss")] == [1, 2, 3]
    assert {e.step: e.value for e in events.Scalars("eval/demo/loss")} == pytest.approx(evaluations)
    assert len(events.Scalars("train/tokens_per_second")) == 3  # what the meter adds is told too


@pytest.mark.skipif(not importlib.util.find_spec("wandb"), reason="wandb is not installed")
def test_wandb_offline_gets_the_figures(tmp_path):
    losses, evaluations = train(tmp_path, "wandb", 2)
    folder = tmp_path / "runs" / "r" / "pretrain" / "trackers" / "wandb"
    (file,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    written = file.read_bytes()
    for value in (*losses.values(), *evaluations.values()):
        assert repr(value).encode() in written
    assert b"train/loss" in written and b"eval/demo/loss" in written and b"r-pretrain" in written
    assert (folder / "id").read_text() in file.name


@pytest.mark.skipif(not importlib.util.find_spec("swanlab"), reason="swanlab is not installed")
def test_swanlab_offline_gets_the_figures(tmp_path):
    losses, evaluations = train(tmp_path, "swanlab", 2)
    folder = tmp_path / "runs" / "r" / "pretrain" / "trackers" / "swanlab"
    (file,) = folder.glob("run-*/run-*.swanlab")
    written = file.read_bytes()
    for value in (*losses.values(), *evaluations.values()):
        assert struct.pack("<d", value) in written
    assert b"train/loss" in written and b"eval/demo/loss" in written and b"r-pretrain" in written


@pytest.mark.skipif(not importlib.util.find_spec("trackio"), reason="trackio is not installed")
def test_trackio_gets_the_figures_on_this_disk(tmp_path):
    losses, evaluations = train(tmp_path, "trackio", 2)
    (file,) = (tmp_path / "runs" / "r" / "pretrain" / "trackers" / "trackio").glob("*.db")
    rows = sqlite3.connect(file).execute("select run_name, metrics from metrics").fetchall()
    assert {name for name, _ in rows} == {"r-pretrain"}
    found = [json.loads(metrics) for _, metrics in rows]
    assert {row["train/global_step"]: row["train/loss"] for row in found if "train/loss" in row} == losses
    assert {row["train/global_step"]: row["eval/demo/loss"] for row in found if "eval/demo/loss" in row} == evaluations


@pytest.mark.parametrize("chapter", ["pretrain", "sft", "dpo"])
def test_a_tracker_that_is_not_installed_is_told_before_anything_is_written(buddy, toy, tmp_path, monkeypatch, chapter):
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    if chapter == "pretrain":
        outcome = buddy("pretrain", "tiny", *toy("pretrain.trackers=[wandb, trackio]"))
    else:
        outcome = buddy(chapter, "tiny", *toy(f"{chapter}.trackers=[wandb, trackio]"))
    assert outcome.code == 2
    assert outcome.err.splitlines() == [
        f"buddy: {chapter}.trackers: wandb and trackio not installed; pip install 'buddygpt[trackers]', or do without "
        f"(--set {chapter}.trackers=[])"
    ]
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_tracker_is_a_fault_of_the_recipe():
    assert PretrainSection.model_validate(SECTION | {"trackers": ["tensorboard"]}).trackers == ["tensorboard"]
    with pytest.raises(ValueError, match="'wandb', 'swanlab', 'tensorboard' or 'trackio'"):
        PretrainSection.model_validate(SECTION | {"trackers": ["tensorbord"]})


def test_a_run_has_an_id_of_its_own_and_keeps_it(tmp_path):
    """By its name alone a new run would go on with another of that name on the tracker's server."""
    first = trackers._identity(tmp_path, 0)
    assert trackers._identity(tmp_path, 7) == first
    assert trackers._identity(tmp_path, 0) != first
    assert tracked_name(tmp_path / "zh" / "sft" / "checkpoints") == "zh-sft"


def test_a_tracker_that_cannot_begin_is_told_with_its_remedy(tmp_path, monkeypatch):
    def begin(folder, name, step):
        raise RuntimeError("api_key not configured\n(no-tty)")

    monkeypatch.setitem(trackers._STARTS, "wandb", begin)
    with pytest.raises(Exception, match=r"wandb cannot begin: api_key not configured \(no-tty\); .*WANDB_MODE=offline"):
        trackers.start_trackers(["wandb"], tmp_path, 0)
