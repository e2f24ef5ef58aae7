"""`buddy plan`: what it tells agrees with itself and with a run; nothing is written."""

import dataclasses

import pytest

from buddygpt.events import Caution, Note, Table
from buddygpt.recipe.errors import BuddyError
from buddygpt.recipe.loader import load_recipe
from buddygpt.recipe.runs import Run
from buddygpt.recipe.shipped import find_recipe
from buddygpt.stages import plan
from buddygpt.training.forecast import Hours, measured_hours, spell_cost, spell_hours
from buddygpt.training.probe import Probe, probe
from buddygpt.training.room import Room
from buddygpt.training.setup import Device
from tests.conftest import TOY

PROBE = Probe(
    micro_batch_size=4, accumulation=3, step=4.6, fetch=0.1, first=1.0, further=1.5, end=0.3, warm_up=2.0, judging=0.4,
    steps=9, peak_bytes=10**9, reserved_bytes=None,
)  # fmt: skip


@pytest.fixture
def told(tmp_path):
    """The events of a plan."""

    def tell(*changes, name="tiny", **options):
        events = []
        recipe = load_recipe(find_recipe(name), changes)
        plan.run(recipe, Run(tmp_path / "run"), cache=tmp_path / "cache", emit=events.append, **options)
        assert list(tmp_path.iterdir()) == []
        return events

    return tell


def table(events, title):
    return next(e for e in events if isinstance(e, Table) and title in e.title)


def lines(events):
    return "\n".join(e.text for e in events if isinstance(e, (Note, Caution)))


def test_the_largest_micro_batch_is_told_with_the_setting_that_takes_it(told, monkeypatch):
    monkeypatch.setattr(plan, "find_room", lambda device: Room(16 * 10**9, 24 * 10**9))
    events = told(name="0.1b")
    columns = table(events, "memory").columns
    assert columns[:2] == ("", "micro-batch 16") and len(columns) == 3
    larger = int(columns[2].split()[1])
    assert larger > 16 and 1280 % larger == 0
    assert f"--set pretrain.micro_batch_size={larger}" in lines(events)
    again = told(f"pretrain.micro_batch_size={larger}", name="0.1b")
    assert table(again, "memory").columns == ("", f"micro-batch {larger}")
    assert "the device has 24 GB, 16 GB of them free" in lines(again)


def test_checkpoints_that_last_are_counted_on_the_disk(told):
    row = dict(table(told("pretrain.keep_every=200"), "disk").rows)["checkpoints"]
    assert "6 that stay and a new one" in row  # the newest 2, and 200, 400, 600, 800 of 831 steps


def test_too_large_a_micro_batch_is_told_with_one_that_fits(told, monkeypatch):
    monkeypatch.setattr(plan, "find_room", lambda device: Room(5 * 10**9, 24 * 10**9))
    assert "micro-batches of 16 windows do not fit; --set pretrain.micro_batch_size=" in lines(told(name="0.1b"))
    monkeypatch.setattr(plan, "find_room", lambda device: Room(10**9, 24 * 10**9))
    assert "not even one fits; try --set pretrain.gradient_checkpointing=true" in lines(told(name="0.1b"))
    recomputed = lines(told("pretrain.gradient_checkpointing=true", name="0.1b"))
    assert "not even one fits; try a smaller pretrain.sequence_length" in recomputed


def test_cards_are_told_with_time_and_cost(told):
    cards = table(told(name="0.3b", per_hour=2.0), "data sheets")
    rows = {row[0]: row for row in cards.rows}
    assert cards.columns[-1] == "at 2 an hour"
    assert rows["RTX 3090"][3] != rows["H200"][3]
    hours, cost = rows["A100 80GB"][5].split()[0], rows["A100 80GB"][6]
    assert float(cost.replace(",", "")) == pytest.approx(2 * float(hours.replace(",", "")), rel=0.01)
    assert "assumed: 12% of the bf16 peak" in lines(told(name="0.3b"))


def test_a_disk_that_does_not_suffice_is_told(told, monkeypatch):
    monkeypatch.setattr(plan, "free_bytes", lambda path: 6 * 10**9)
    few = lines(told(name="0.1b"))
    assert "run/pretrain: 6.4 GB are needed for checkpoints and model, 6 GB free" in few
    assert (
        "cache: token files that are not there yet take 140 GB where the text is as long as the budget, and 6 GB" in few
    )
    enough = lines(told(name="0.1b-32k", chapter="sft"))
    assert "are needed" not in enough and "token files" not in enough


def test_what_would_stop_training_stops_the_plan(told, monkeypatch):
    for fault, changes in (
        ("no such run", ["pretrain.start_from=none"]),
        ("pretrain.trackers: wandb not installed", ["pretrain.trackers=[wandb]"]),
    ):
        monkeypatch.setattr("buddygpt.training.trackers.find_spec", lambda name: None)
        with pytest.raises(BuddyError, match=fault):
            told(*changes)


def test_time_of_a_run_that_starts_from_another_is_of_the_steps_that_are_left(told, monkeypatch, tmp_path):
    monkeypatch.setattr(plan, "branch_point", lambda recipe, run, emit: tmp_path / "checkpoint-500")
    monkeypatch.setattr(plan, "free_bytes", lambda path: 10**12)
    whole, branch = (
        told(*changes, name="0.1b") for changes in ((), ("pretrain.start_from=a", "pretrain.tokens=1.31B"))
    )
    assert "are of the 500 steps after it" in lines(branch)
    hours = [float(table(events, "data sheets").rows[0][5].split()[0].replace(",", "")) for events in (whole, branch)]
    assert hours[1] == pytest.approx(hours[0] * 500 / 26_703, rel=0.01)
    assert "checkpoints: 1, one every 500 steps" in lines(branch)


def test_a_card_that_does_not_suffice_is_told(told):
    """A model of 1.6 GB of parameters has 26 GB of weights, gradients and moments."""
    rows = {row[0]: row for row in table(told("model.num_hidden_layers=200", name="0.3b"), "data sheets").rows}
    assert rows["RTX 4090"][3] == "0: does not fit" and rows["H200"][3][0] != "0"


def test_time_on_a_known_card_is_told_without_a_probe(told, monkeypatch):
    assert "no data sheet of this device is here" in lines(told())
    named = dataclasses.replace(Device("cpu", "", 1), name="NVIDIA A100 80GB PCIe")
    monkeypatch.setattr(plan, "find_device", lambda: named)
    rows = dict(table(told(name="0.3b", per_hour=10.0), "assumed").rows)
    assert rows["utilisation (MFU)"] == "12.0%" and "days" in rows["training"] and "at 10 an hour" in rows["cost"]


def test_a_step_has_the_micro_batches_that_the_probes_lacks():
    assert PROBE.step_seconds(3) == 4.6
    assert PROBE.step_seconds(5) == pytest.approx(4.6 + 2 * (0.1 + 1.5))
    section = load_recipe(find_recipe("0.1b"), ["pretrain.micro_batch_size=4"]).pretrain
    hours = measured_hours(PROBE, section, 2, 1)
    assert hours.tokens_per_second == pytest.approx(section.tokens_per_batch / PROBE.step_seconds(320))
    assert hours.training == pytest.approx(section.steps * PROBE.step_seconds(320) / 3600)
    assert hours.judging == pytest.approx(54 * 2 * 1e6 / 4096 * 0.4 / 3600)  # evaluations, sources, tokens of each


def test_a_probe_trains_and_tells_speed_and_memory(told, monkeypatch):
    monkeypatch.setattr(plan, "probe", lambda *args: probe(*args, seconds=2.0))
    told_here = told(*TOY, "pretrain.tokens_per_batch=512", probed=True, per_hour=3.0)
    rows = dict(table(told_here, "measured in").rows)
    assert rows["micro-batch"] == "2 windows, 8 in a step"
    assert float(rows["tokens a second"].replace(",", "")) > 100
    assert "predicted" in rows["memory"] and "at 3 an hour" in rows["cost"]


def test_what_does_not_fit_is_tried_smaller(told, monkeypatch):
    tries = []

    def short_of_memory(recipe, size, accumulation):
        tries.append((size, accumulation))
        return dataclasses.replace(PROBE, micro_batch_size=size) if size <= 4 else None

    monkeypatch.setattr(plan, "probe", short_of_memory)
    monkeypatch.setattr(plan, "find_room", lambda device: Room(10**12, 10**12))
    events = told("pretrain.micro_batch_size=16", probed=True)
    assert tries == [(16, 1), (8, 2), (4, 4)]
    assert "trying --set pretrain.micro_batch_size=4" in lines(events)
    assert dict(table(events, "measured").rows)["micro-batch"] == "4 windows, 4 in a step"


def test_a_probe_leaves_a_failure_in_one_line():
    recipe = load_recipe(find_recipe("tiny"), TOY)
    broken = recipe.model_copy(update={"model": recipe.model.model_copy(update={"vocab_size": 1})})
    with pytest.raises(BuddyError, match="the probe failed"):
        probe(broken, 2, 1, 1.0)


@pytest.mark.parametrize("chapter", ["sft", "dpo"])
def test_tuning_tells_memory_and_disk(told, chapter):
    events = told(name="0.1b", chapter=chapter)
    assert dict(table(events, chapter).rows)["batch"].startswith("64 ")
    assert dict(table(events, "disk").rows)["checkpoints"].startswith("5.7 GB")
    memory = dict(row[:2] for row in table(events, "memory").rows)
    assert memory["activations"] == "3.8 GB"  # 16,384 tokens in both: a pair is two texts
    with pytest.raises(BuddyError, match="steps of tuning are known once"):
        told(name="0.1b", chapter=chapter, probed=True)


def test_low_rank_updates_take_less_memory_and_disk(told):
    whole, few = (told(*changes, name="0.1b", chapter="sft") for changes in ((), ("sft.lora={rank: 8}",)))
    gradients = [dict(row[:2] for row in table(events, "memory").rows)["gradients"] for events in (whole, few)]
    assert gradients == ["635.9 MB", "3.1 MB"]
    checkpoints = [dict(table(events, "disk").rows)["checkpoints"] for events in (whole, few)]
    assert [row.rpartition("stay and a new one, ")[2] for row in checkpoints] == ["1.9 GB each", "9.4 MB each"]
    assert dict(table(few, "disk").rows)["model"] == dict(table(whole, "disk").rows)["model"] == "635.9 MB"


def test_a_split_model_lies_on_the_disk_twice(told):
    for split, size in ((), "1.9 GB"), (("pretrain.parallel={kind: fsdp}",), "2.5 GB"):
        assert dict(table(told(*split, name="0.1b"), "disk").rows)["checkpoints"].endswith(f" {size} each")


def test_times_and_costs_are_spelt_for_readers():
    assert [spell_hours(h) for h in (0.005, 0.5, 3.4, 71)] == ["18 s", "30 min", "3.4 h", "71 h (3.0 days)"]
    assert [spell_cost(h, 12) for h in (0.01, 100)] == ["0.12", "1,200"]
    assert Hours(1.0, 2.0, 0.5).total == 2.5
