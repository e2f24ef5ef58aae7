"""The meter: what a step did, where its time went, how much of the device it used."""

import json

import pytest
import torch
from transformers import TrainerControl, TrainerState, TrainingArguments

from buddygpt.events import Progress
from buddygpt.model.cost import count_flops
from buddygpt.recipe.model import ModelSection
from buddygpt.recipe.pretrain import PretrainSection
from buddygpt.training import meter as metering
from buddygpt.training.cards import peak_flops
from buddygpt.training.facts import Work
from buddygpt.training.meter import Effort, Meter
from buddygpt.training.pace import Pace
from buddygpt.training.probe import Clock
from buddygpt.training.setup import Device
from buddygpt.training.stopwatch import Stopwatch
from tests.training.conftest import SECTION

MODEL = ModelSection.model_validate({
    "vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "max_position_embeddings": 32,
    "attention": {"kind": "gqa", "num_attention_heads": 4, "num_key_value_heads": 2},
    "mlp": {"kind": "dense", "intermediate_size": 48},
})  # fmt: skip
H100 = "NVIDIA H100 80GB HBM3"


def work(name="pretrain", device="x86", processes=1):
    section = PretrainSection.model_validate(SECTION)
    return Work(name, MODEL, section, 16, True, Device("cpu", device, processes))


def trained(toy):
    toy.train()
    return toy.rows()


@pytest.fixture
def meter(tmp_path):
    """A meter over four steps of 256 tokens; `step` tells it of one that took so many seconds."""
    events = []

    def make(work, start=0):
        now = [100.0]
        built = Meter(tmp_path / "metrics.jsonl", work, Pace(4, 16, 1, 2, 2, lambda s: s * 256), events.append, start)
        built.events = events

        def tell(seconds, number, call="on_log", **more):
            now[0] += seconds
            state = TrainerState(global_step=number, is_world_process_zero=True)
            getattr(built, call)(None, state, TrainerControl(), **more)

        built.tell = tell
        return built, now

    return make


@pytest.fixture
def clock(monkeypatch):
    def use(now):
        monkeypatch.setattr(metering.time, "perf_counter", lambda: now[0])

    return use


def test_the_parts_of_a_step_are_its_time_and_never_more(toy_training):
    rows = trained(toy_training("run", micro_batch_size=2))  # eight micro-batches a step
    steps = [row for row in rows if "loss" in row]
    parts = ("seconds_data", "seconds_forward", "seconds_backward", "seconds_optimizer")
    assert len(steps) == 12
    for row in steps:
        assert all(row[part] > 0 for part in parts)
        assert sum(row[part] for part in parts) <= row["seconds"] + 0.0003  # five roundings
    whole = sum(row["seconds"] for row in steps[1:])  # the first one sets the trainer up
    assert sum(row[part] for row in steps[1:] for part in parts) > 0.9 * whole


def test_saving_and_evaluating_have_times_of_their_own(toy_training):
    rows = trained(toy_training("run"))
    assert [row["step"] for row in rows if row.get("seconds_save", 0) > 0] == [5, 10, 12]
    evaluated = [row for row in rows if "eval/v/loss" in row]
    assert [row["step"] for row in evaluated] == [4, 8, 12] and all(row["seconds_eval"] > 0 for row in evaluated)


def test_a_step_takes_what_passed_since_the_one_before_without_saving(meter, clock, tmp_path):
    built, now = meter(work())
    clock(now)
    built.tell(7, 0, "on_train_begin")
    built.tell(2, 1, logs={"loss": 4.0, "learning_rate": 1e-3})
    built.tell(5, 1, "on_save")
    built.tell(3, 1, "on_evaluate", metrics={"eval/v/loss": 3.9})
    built.tell(4, 2, logs={"loss": 3.0, "learning_rate": 1e-3})
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row.get("seconds") for row in rows] == [2, None, None, 4]
    assert (rows[1]["seconds_save"], rows[2]["seconds_eval"], rows[2]["eval/v/loss"]) == (5, 3, 3.9)
    assert [row["tokens_per_second"] for row in rows if "loss" in row] == [128, 64]


def test_utilisation_is_useful_work_over_the_peak_of_all_devices(meter, clock):
    peak = peak_flops(H100, "bf16")
    built, now = meter(work(device=H100, processes=2))
    clock(now)
    built.tell(0, 0, "on_train_begin")
    logs = {"loss": 4.0, "learning_rate": 1e-3}
    built.tell(1e-4, 1, logs=logs)
    flops = count_flops(MODEL, 16)
    assert built.rows[0]["flops_per_second"] == pytest.approx(flops.training * 256 / 1e-4, rel=1e-3)
    assert built.rows[0]["mfu"] == pytest.approx(flops.training * 256 / 1e-4 / (2 * peak), abs=1e-5)
    assert built.rows[0]["mfu"] == pytest.approx(built.rows[0]["mfu_body"] + built.rows[0]["mfu_head"], abs=2e-5)
    assert Effort.of(work()).head == 3 * 2 * 64 * 32
    assert logs["mfu"] == built.rows[0]["mfu"]  # trackers are told it too


def test_no_utilisation_where_the_peak_is_not_known_and_none_of_tuning(meter, clock):
    built, now = meter(work())
    clock(now)
    built.tell(1, 1, logs={"loss": 4.0, "learning_rate": 1e-3})
    assert "flops_per_second" in built.rows[0] and not any(key.startswith("mfu") for key in built.rows[0])
    assert Effort.of(work("sft", H100)) is None
    assert peak_flops(H100, "fp32") is None


def test_what_other_watchers_found_stands_in_the_row_and_is_told_to_trackers(meter, clock):
    """The load of experts is one number a layer, of which trackers get the worst; a guard's reason is a text."""
    built, now = meter(work())
    clock(now)
    built.more = {"max_violation": [0.5, 1.25], "skipped": "loss is nan"}
    built.tell(1, 1, logs=(logs := {"loss": float("nan"), "learning_rate": 1e-3}))
    row = json.loads(built.file.read_text())
    assert row["skipped"] == "loss is nan" and row["loss"] is None and row["max_violation"] == [0.5, 1.25]
    assert logs["max_violation"] == 1.25 and logs["skipped"] == "loss is nan"


def test_what_is_told_while_training_has_speed_and_memory(meter, clock):
    built, now = meter(work(device=H100))
    clock(now)
    built.tell(1, 1, "on_evaluate", metrics={"eval/v/bits_per_character": 3.5})
    built.tell(1, 2, logs={"loss": 4.0, "learning_rate": 1e-3})
    told = [event for event in built.events if isinstance(event, Progress)]
    assert list(told[0].values) == ["loss", "bpc v", "tok/s", "MFU", "memory"]


class Queue:
    """A device whose queue takes one second between two events."""

    time = 0
    waited = 0

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            Queue.time += 1
            self.at = Queue.time

        def synchronize(self):
            Queue.waited += 1

        def elapsed_time(self, end):
            assert Queue.waited
            return 1000.0 * (end.at - self.at)


@pytest.fixture
def queue(monkeypatch):
    """A device that works behind the host."""
    monkeypatch.setattr(Queue, "waited", 0)
    monkeypatch.setattr("buddygpt.training.stopwatch.torch.get_device_module", lambda kind: Queue)
    return torch.device("cuda")


def test_nobody_waits_for_a_device_that_works_behind_the_host_before_the_end(queue):
    watch = Stopwatch(queue)
    for part in ("data", None, "forward", "backward", "forward", "backward", "optimizer"):
        watch.turn(part)
    assert Queue.waited == 0
    assert watch.take() == {"data": 1, "forward": 2, "backward": 2, "optimizer": 1}
    assert Queue.waited
    assert watch.take() == {}


def test_a_probe_waits_for_its_device_no_more_than_a_run_does(queue):
    clock, arguments = Clock(queue, 1000.0), TrainingArguments(use_cpu=True, gradient_accumulation_steps=3)
    control = TrainerControl()
    clock.on_train_begin(arguments, None, control)
    for step in (1, 2, 3):
        clock.on_step_begin(arguments, None, control)
        clock.on_substep_end(arguments, None, control)
        clock.on_substep_end(arguments, None, control)
        clock.on_pre_optimizer_step(arguments, None, control)
        clock.on_log(arguments, TrainerState(global_step=step), control)
    assert Queue.waited == 0
    found = clock.figures()
    assert (found["step"], found["steps"]) == (5, 2)
    assert (found["fetch"], found["first"], found["further"], found["end"]) == (pytest.approx(1 / 3), 1, 1, 1)


def test_a_step_that_broke_off_leaves_no_time_to_the_next(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("buddygpt.training.stopwatch.time.perf_counter", lambda: now[0])
    watch = Stopwatch(torch.device("cpu"))
    watch.begin("data")
    watch.turn("forward")
    now[0] = 100.0  # broke off here, went back to a checkpoint
    watch.begin("data")
    now[0] = 101.0
    watch.turn("forward")
    now[0] = 103.0
    assert watch.take() == {"data": 1.0, "forward": 2.0}
