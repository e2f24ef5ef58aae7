"""`--processes N`: one command starts several processes, stops them together, and tells once what went wrong."""

import io
import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from buddygpt.events import Note, silent
from buddygpt.recipe.errors import BrokenOff, BuddyError, Stopped
from buddygpt.training import launch
from buddygpt.training.setup import check_devices, find_device

ROOT = Path(__file__).parents[2]
LONG = ("pretrain.tokens=2M", "pretrain.save_every=1000", "pretrain.eval_every=1000", "pretrain.precision=fp32")


MET = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
"""What torchrun tells the first of two processes."""


def metrics(folder):
    file = folder / "pretrain" / "metrics.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def test_two_processes_train_stop_together_and_one_goes_on(buddy, toy, tmp_path):
    command = ["pretrain", "tiny", *toy(*LONG), "--processes", "2"]
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"} | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-m", "buddygpt", *command], env=environment, cwd=tmp_path,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace",
    )  # fmt: skip
    run = tmp_path / "runs" / "tiny"
    try:
        limit = time.monotonic() + 120
        while len(metrics(run)) < 3 and process.poll() is None and time.monotonic() < limit:
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)  # as Slurm does, to the parent alone
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, err[-2000:]
    step = metrics(run)[-1]["step"]
    (line,) = (line for line in err.splitlines() if line.startswith(("stopped", "buddy:")))
    assert f"stopped at step {step}, saved; go on with: buddy pretrain tiny" in line
    assert line.endswith("--processes 2 --resume")
    assert re.search(r"starting 2 processes, \d+ CPU threads? each", out)
    assert out.count("finishing this step") == 1 and out.count("held-out text") <= 1
    assert re.search(r"device +2 x cpu", out) and "2 windows x 32 x 2 processes" in out
    assert [row["step"] for row in metrics(run) if "loss" in row] == list(range(1, step + 1))
    assert (run / "pretrain" / "checkpoints" / f"checkpoint-{step}" / "complete.json").is_file()
    refused = buddy(*command)  # before anything is started
    assert refused.code == 2 and "go on with --resume" in refused.err


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """`launch.launch` with a shell script in the place of `python -m buddygpt`."""

    def start(script, emit=silent, arguments=("pretrain", "tiny")):
        program = tmp_path / "program"
        program.write_text("#!/bin/sh\n" + script)
        program.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(program))
        for name in ("OMP_NUM_THREADS", launch.OURS, "TORCHELASTIC_SIGNALS_TO_HANDLE"):
            monkeypatch.setenv(name, "")  # taken back at the end
            monkeypatch.delenv(name)
        return launch.launch(arguments, 2, emit)

    yield start
    logging.disable(logging.NOTSET)


def test_a_process_that_dies_ends_the_run_and_is_named(stand_in):
    begun = time.monotonic()
    with pytest.raises(BrokenOff) as told:
        # The other one first hears of it from its connection, and leaves with the code for that.
        stand_in(f"[ $RANK = 1 ] && kill -9 $$\nsleep 0.1; exit {launch.LOST}\n")
    assert time.monotonic() - begun < 60
    (line,) = told.value.lines
    assert re.fullmatch(
        r"process 1 of 2 \(id \d+\) was ended by SIGKILL, as when memory runs out; "
        r"go on with: buddy pretrain tiny --resume",
        line,
    )


@pytest.mark.parametrize("rank", [0, 1])
def test_what_a_process_told_is_not_told_again(stand_in, rank):
    assert stand_in(f"[ $RANK = {rank} ] && exit 2\nsleep 60\n") == 2


def test_success_is_that_of_all(stand_in, monkeypatch):
    notes = []
    assert stand_in('[ $WORLD_SIZE = 2 ] && [ -n "$OMP_NUM_THREADS" ]\n', notes.append) == 0
    threads = max(1, torch.get_num_threads() // 2)
    assert notes == [Note(f"starting 2 processes, {threads} CPU thread{'s' * (threads > 1)} each")]


@pytest.fixture
def send(tmp_path):
    """Send this process signals, each half a second after the one before, once both shell scripts have begun."""

    def later(*numbers):
        while len(list(tmp_path.glob("begun-*"))) < 2:
            time.sleep(0.05)
        for number in numbers:
            time.sleep(0.5)
            os.kill(os.getpid(), number)

    return lambda *numbers: threading.Thread(target=later, args=numbers, daemon=True).start()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_what_does_not_heed_the_first(stand_in, send, tmp_path, number):
    begun = time.monotonic()
    send(number, number)
    with pytest.raises(Stopped):
        stand_in(f"trap '' INT\n: > {tmp_path}/begun-$RANK\nsleep 60\nsleep 60\n")
    assert time.monotonic() - begun < 25


def test_a_signal_that_they_heed_ends_with_their_exit_code(stand_in, send, tmp_path):
    send(signal.SIGTERM)
    script = f"trap 'exit 130' INT\n: > {tmp_path}/begun-$RANK\nwhile :; do sleep 0.1; done\n"
    assert stand_in(script) == 130


@pytest.mark.parametrize(
    "environment, processes, told",
    [
        ({"WORLD_SIZE": "2"}, 3, "3 are asked for, but the launcher has started 2"),
        ({"WORLD_SIZE": "1"}, 2, "2 are asked for, but the launcher has started 1 (WORLD_SIZE says so"),
        ({"ACCELERATE_DYNAMO_USE_FULLGRAPH": "False"}, 2, "2 are asked for, but the launcher has started 1"),
        ({"ACCELERATE_DYNAMO_USE_FULLGRAPH": "False", "MASTER_ADDR": "127.0.0.1"}, None, "has started one"),
        ({"WORLD_SIZE": "two"}, None, "WORLD_SIZE: 'two' in the environment is no number"),
        ({"WORLD_SIZE": "0"}, None, "RANK 0 of WORLD_SIZE 0 in the environment: there is no such process"),
        (MET | {"RANK": "2"}, None, "RANK 2 of WORLD_SIZE 2"),
        ({"WORLD_SIZE": "2", "RANK": "0"}, None, "does not say LOCAL_RANK, MASTER_ADDR, MASTER_PORT"),
        ({"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1"}, None, "SLURM_STEP_NUM_TASKS is 2: this command was"),
        ({"OMPI_COMM_WORLD_SIZE": "4"}, 2, "OMPI_COMM_WORLD_SIZE is 4: this command was started that many times"),
    ],
)
def test_processes_that_are_not_those_asked_for_are_refused(buddy, tmp_path, monkeypatch, environment, processes, told):
    monkeypatch.setattr(launch, "HOLD", 0.0)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    commands = [("pretrain", "--processes", processes)] if processes else [("pretrain",), ("plan",)]
    for command, *options in commands:
        outcome = buddy(command, "tiny", *options)
        assert outcome.code == 2 and told in outcome.err and len(outcome.err.splitlines()) == 1
    assert not any(tmp_path.iterdir())


def test_the_number_asked_for_passes(monkeypatch):
    launch.check_launched(4)
    with monkeypatch.context() as patch:  # a shell that Slurm has given somebody
        patch.setenv("SLURM_STEP_NUM_TASKS", "4")
        patch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
        launch.check_launched(4)
    for name, value in MET.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")  # srun has started two of torchrun
    launch.check_launched(2)
    launch.check_launched(None)
    monkeypatch.setenv("RANK", "1")
    assert launch.rank() == 1


def test_a_fault_is_found_before_anything_is_prepared(buddy, toy, tmp_path):
    outcome = buddy("pretrain", "tiny", *toy(), "--processes", "3")
    assert outcome.code == 2 and "does not divide by 3 processes" in outcome.err
    alone = buddy("pretrain", "tiny", *toy("pretrain.parallel={kind: fsdp}"))
    assert alone.code == 2 and "start them with --processes N" in alone.err
    split = ("sft.parallel={kind: fsdp}", "sft.lora={rank: 4}")
    adapted = buddy("sft", "tiny", *toy(*split), "--processes", "2")
    assert adapted.code == 2 and "leave one of the two out" in adapted.err
    assert "leave it at ddp" in buddy("dpo", "tiny", *toy("dpo.parallel={kind: fsdp}"), "--processes", "2").err
    assert not any(tmp_path.iterdir())


def test_fewer_devices_than_processes_are_told(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 1)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: "cuda")
    check_devices(1)
    with pytest.raises(BuddyError, match="2 processes need 2 devices, one each; this machine shows 1"):
        check_devices(2)


@pytest.mark.parametrize("kind", [torch.distributed.DistNetworkError, torch.distributed.DistStoreError])
def test_a_place_where_processes_cannot_meet_is_told(monkeypatch, kind):
    """Its port belongs to another program, or somebody does not come."""

    def meet(**settings):
        raise kind("the server socket has failed to listen: EADDRINUSE\nat line 1")

    for name, value in MET.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("accelerate.PartialState", meet)
    with pytest.raises(
        BuddyError, match=r"127.0.0.1:29500: the 2 processes do not meet there \(.*EADDRINUSE at line 1"
    ):
        find_device()


def test_a_fault_of_all_is_told_by_one(monkeypatch):
    slept = []
    monkeypatch.setattr(time, "sleep", slept.append)
    launch.hold_back(lost=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    launch.hold_back(lost=False)
    assert slept == []
    monkeypatch.setenv("RANK", "1")
    launch.hold_back(lost=False)
    launch.hold_back(lost=True)
    assert slept == [launch.HOLD, launch.SECOND]


def test_a_lost_process_is_told_of_once(monkeypatch):
    lost = RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer")
    assert not launch.is_peer_lost(lost)  # a process alone has nobody to lose
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert launch.is_peer_lost(lost) and not launch.is_peer_lost(RuntimeError("shapes differ"))
    lines = []
    for rank in "01":
        monkeypatch.setenv("RANK", rank)
        lines += launch.loss_lines(lost)
    assert len(lines) == 1
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv(launch.OURS, "1")
    assert launch.loss_lines(lost) == ()  # `launch` says which one it was
