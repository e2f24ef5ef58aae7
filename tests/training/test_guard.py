"""A step that would harm the weights is not taken; a run that cannot get past some text goes around it."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from buddygpt.data.windows import Passing
from buddygpt.events import Caution
from buddygpt.recipe.errors import BuddyError
from buddygpt.recipe.guard import GuardSection
from buddygpt.training.guard import Guard, Rewind, Verdict
from tests.training.conftest import EXPERTS, same_weights
from tests.training.kept import Listed, keep
from tests.training.toys import make_tokenizer

BAD = (math.nan, math.inf, -math.inf)


def fed(guard, steps, seed=0):
    """The guard after so many ordinary steps."""
    rng = np.random.default_rng(seed)
    for step in range(steps):
        assert guard.judge(step + 1, 5 + 0.1 * rng.standard_normal(), 1 + 0.1 * rng.standard_normal()) is None
    return guard


@pytest.mark.parametrize("number", BAD)
@pytest.mark.parametrize("where", ["loss", "norm"])
def test_what_is_not_finite_is_skipped_from_the_first_step_on(where, number):
    guard = Guard(GuardSection(deviations=None))
    verdict = guard.judge(1, **({"loss": 5.0, "norm": 1.0} | {where: number}))
    assert verdict is not None and not verdict.finite and str(number) in verdict.reason
    assert guard.figures == {"skipped": verdict.reason}
    assert guard.judge(2, 5.0, 1.0) is None and guard.figures == {}


@pytest.mark.parametrize(("loss", "norm"), [(6.0, 1.0), (5.0, 2.0)])
def test_a_spike_is_skipped_once_there_are_steps_to_compare_with(loss, norm):
    section = GuardSection(window=32)
    assert fed(Guard(section), 31).judge(32, loss, norm) is None
    verdict = fed(Guard(section), 32).judge(33, loss, norm)
    assert verdict is not None and verdict.finite
    assert fed(Guard(section.model_copy(update={"deviations": None})), 32).judge(33, loss, norm) is None
    assert fed(Guard(section.model_copy(update={"deviations": 20.0})), 32).judge(33, loss, norm) is None


def test_a_spike_is_not_remembered_as_a_step_before(section=GuardSection(window=8)):
    guard = fed(Guard(section), 8)
    for step in range(9, 11):
        assert guard.judge(step, 50.0, 1.0) is not None  # the second is a spike, too


def test_a_falling_loss_and_a_ripple_of_a_flat_one_are_no_spikes():
    guard = Guard(GuardSection(window=16))
    for step in range(200):
        assert guard.judge(step + 1, 8 * 0.97**step + 1, 1.0) is None
    for step in range(64):
        assert guard.judge(200 + step, 1.0 + 1e-3 * (step % 7 == 0), 1.0) is None


def test_patience_is_lost_after_so_many_in_a_row_and_not_before():
    guard = Guard(GuardSection(patience=3))
    for step in (1, 2, 4, 5, 7, 8):  # two in a row, then a good one
        guard.lose_patience(guard.judge(step, math.nan, 1.0))
        if step in (2, 5, 8):
            guard.judge(step + 1, 5.0, 1.0)
    with pytest.raises(Rewind) as caught:
        for step in (10, 11, 12):
            guard.lose_patience(guard.judge(step, math.nan, 1.0))
    assert caught.value.steps == [10, 11, 12] and not caught.value.finite


def test_a_guard_that_goes_on_judges_as_one_that_never_stopped():
    whole, stopped = fed(Guard(GuardSection(window=16)), 40), fed(Guard(GuardSection(window=16)), 20)
    state = json.loads(json.dumps(stopped.state()))
    again = Guard(GuardSection(window=16))
    again.load(state)
    rng = np.random.default_rng(0)
    values = [(5 + 0.1 * rng.standard_normal(), 1 + 0.1 * rng.standard_normal()) for _ in range(40)]
    for step, (loss, norm) in enumerate(values[20:]):
        assert again.judge(21 + step, loss, norm) is None
    assert again.state() == whole.state()


@pytest.mark.parametrize("skipped", [[], [0], [3, 4, 5], [0, 1, 7, 2, 30], list(range(10))])
def test_passing_over_places_leaves_all_others_in_their_order(skipped):
    order = Passing(Listed(list(range(100))), skipped)
    expected = [place for place in range(200) if place not in skipped][:100]
    assert [order.place(index) for index in range(100)] == expected
    assert [order[index] for index in range(100)] == [place % 100 for place in expected]
    assert len(order) == 100
    order.skip([expected[50]])
    assert [order.place(index) for index in range(50)] == expected[:50]
    assert order.place(50) == expected[51]


def spoil(trainer, steps, what="gradient"):
    """Have the gradients, or the losses, of these steps be no numbers."""
    if what == "gradient":
        clip = trainer.accelerator.clip_grad_norm_

        def clipped(parameters, *args, **kwargs):
            parameters = list(parameters)
            if trainer.state.global_step + 1 in steps:
                next(p for p in parameters if p.grad is not None).grad.view(-1)[0] = math.inf
            return clip(parameters, *args, **kwargs)

        trainer.accelerator.clip_grad_norm_ = clipped
    else:
        compute = trainer.compute_loss
        trainer.compute_loss = lambda *a, **k: (
            compute(*a, **k) * (math.nan if trainer.state.global_step + 1 in steps else 1.0)
        )


@pytest.mark.parametrize("kind", ["adamw", "muon"])
@pytest.mark.parametrize("what", ["gradient", "loss"])
def test_a_skipped_step_changes_neither_weights_nor_moments(toy_training, kind, what):
    settings = {"optimizer": {"kind": kind, "learning_rate": 1e-2}}
    if kind == "muon":
        settings["optimizer"]["adamw_learning_rate"] = 1e-3
    toy = toy_training("run", mlp=EXPERTS, **settings)
    spoil(toy.trainer, {7}, what)
    seen = {}
    optimizer = toy.trainer.create_optimizer()
    optimizer_step = optimizer.step

    def watched(*args, **kwargs):
        before = snapshot(toy.trainer)
        optimizer_step(*args, **kwargs)
        seen[toy.trainer.state.global_step + 1] = (before, snapshot(toy.trainer))

    optimizer.step = watched
    toy.trainer.train()
    for step, (before, after) in seen.items():
        assert (before == after) == (step == 7), step
    assert sorted(seen) == list(range(1, 13))
    rows = [row for row in toy.rows() if "loss" in row]
    assert [row["step"] for row in rows if "skipped" in row] == [7]
    unknown = "loss" if what == "loss" else "grad_norm"  # of this step alone
    assert [row["step"] for row in rows if row[unknown] is None] == [7]
    assert len({row["learning_rate"] for row in rows}) > 3  # the schedule goes on
    text = (toy.folder / "skipped" / "step-7.txt").read_text("utf-8")
    assert "step 7 was skipped" in text and text.count("---- sample") == 16 and text.count("==== micro-batch") == 4
    assert "步" not in text and make_tokenizer().decode(toy.sample(6 * 16)["input_ids"]) in text


def snapshot(trainer):
    """Weights, biases of experts and optimizer state, to the bit."""
    state = trainer.optimizer.state_dict()
    parts = [*trainer.model.state_dict().items(), *flat(state, "optimizer")]
    return {name: value.numpy().tobytes() if torch.is_tensor(value) else value for name, value in parts}


def flat(value, path):
    if isinstance(value, dict):
        for key, item in value.items():
            if key != "param_groups":
                yield from flat(item, f"{path}.{key}")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from flat(item, f"{path}.{index}")
    else:
        yield path, value


def test_after_several_in_a_row_the_run_goes_back_and_around(toy_training):
    """Steps 7 to 9 cannot be passed: the run goes back to checkpoint-5, and trains on the windows after theirs."""
    told = []
    toy = toy_training("run", emit=told.append)
    bad = {toy.keeper.samples.place(index) for index in range(6 * 16, 9 * 16)}
    read = toy.note_places()
    spoil_places(toy, bad)
    step, _ = toy.train()
    assert step == 12
    assert toy.keeper.samples.skipped == sorted(bad)
    rows = [row for row in toy.rows() if "loss" in row]
    assert [row["step"] for row in rows] == list(range(1, 13)) and not any("skipped" in row for row in rows)
    cautions = [event.text for event in told if isinstance(event, Caution)]
    assert sum("is skipped" in text for text in cautions) == 3
    assert any(
        "steps 7 to 9 skipped in a row: going back to checkpoint-5, without the 48 samples" in t for t in cautions
    )
    # After going back: step 6 as before, then what comes after the bad places.
    assert read[-7 * 16 :] == [*range(5 * 16, 6 * 16), *range(9 * 16, 15 * 16)]
    cursor = json.loads((toy.folder / "checkpoints" / "checkpoint-12" / "cursor.json").read_text())
    assert cursor["step"] == 12 and cursor["passed_over"] == sorted(bad) and cursor["guard"]["rewound"] == 1


def test_what_lies_before_a_checkpoint_in_the_middle_of_skipped_steps_shifts_nothing(toy_training):
    """Steps 4 to 6 are skipped, and checkpoint-5 lies between: no sample is passed over that nobody has judged."""
    toy = toy_training("run", save_every=1)
    read = toy.note_places()
    spoil_places(toy, set(range(3 * 16, 6 * 16)))
    toy.train()
    assert toy.keeper.samples.skipped == [*range(5 * 16, 6 * 16)]
    assert toy.keeper.guard.rewound == 1
    assert read[-7 * 16 :] == [*range(6 * 16, 13 * 16)]


def test_going_back_forgets_the_steps_skipped_before(tmp_path):
    guard = Guard(GuardSection(patience=2))
    guard.judge(1, math.nan, 1.0)
    between = guard.state()
    guard.load(between)
    with pytest.raises(Rewind):
        guard.lose_patience(guard.judge(2, math.nan, 1.0))
    guard.rewound = 1
    guard.load(between)
    guard.lose_patience(guard.judge(2, math.nan, 1.0))  # the first in a row


def test_the_text_of_a_step_that_is_skipped_in_each_try_stays(tmp_path):
    keeper = keep(tmp_path, [{"input_ids": [n]} for n in range(8)], 4)
    keeper.skip(1, Verdict("loss is nan", False), [math.nan])
    keeper.pass_over(Rewind([1], Verdict("loss is nan", False)), tmp_path / "checkpoint-0", True)
    keeper.skip(1, Verdict("loss is nan", False), [math.nan])
    texts = {path.name: path.read_text("utf-8") for path in (tmp_path / "skipped").iterdir()}
    assert "[0]" in texts["step-1.txt"] and "[4]" in texts["step-1-try-2.txt"] and len(texts) == 2


@pytest.mark.parametrize(
    ("what", "factor", "skipped"), [("gradient", 64, []), ("gradient", 0.5, [7]), ("loss", 64, [7])]
)
def test_a_gradient_is_left_to_the_scaler_of_fp16_only_where_its_factor_may_be_why(toy_training, what, factor, skipped):
    toy = toy_training("run")
    toy.trainer.accelerator.scaler = SimpleNamespace(
        scale=lambda loss: loss, get_scale=lambda: factor, state_dict=dict, step=lambda *_: None, update=lambda: None
    )
    spoil(toy.trainer, {7}, what)
    toy.stop_at(8)
    toy.train()
    assert [row["step"] for row in toy.rows() if "skipped" in row] == skipped


def spoil_places(toy, bad):
    """Have every step that reads one of these places have a loss that is no number."""
    compute, batch = toy.trainer.compute_loss, toy.keeper.batch

    def computed(*args, **kwargs):
        first = toy.trainer.state.global_step * batch
        here = {toy.keeper.samples.place(index) for index in range(first, first + batch)}
        return compute(*args, **kwargs) * (math.nan if here & bad else 1.0)

    toy.trainer.compute_loss = computed


def test_a_run_killed_after_it_went_back_still_knows_what_to_pass_over(toy_training):
    toy = toy_training("whole")
    bad = set(range(6 * 16, 9 * 16))
    spoil_places(toy, bad)
    toy.train()
    stopped = toy_training("killed")
    spoil_places(stopped, bad)
    stopped.stop_at(6, times=2)  # the second time that it comes by: after going back
    stopped.train()
    assert not (stopped.folder / "checkpoints" / "checkpoint-10").exists()
    again = toy_training("killed", resume=True)
    spoil_places(again, bad)
    again.train()
    assert again.losses() == toy.losses()
    assert same_weights(toy.trainer, again.trainer)


def test_a_run_that_is_never_finite_stops_with_a_line(toy_training):
    toy = toy_training("run", guard={"rewinds": 2, "patience": 2})
    spoil(toy.trainer, set(range(3, 100)), "loss")
    with pytest.raises(BuddyError) as caught:
        toy.train()
    assert "steps 3 to 4 skipped (loss is nan), after going back 2 times; checkpoint-0 is whole" in str(caught.value)
    assert toy.checkpoints() == ["checkpoint-0"]


def test_spikes_pass_where_going_back_does_not_help(tmp_path):
    told = []
    keeper = keep(tmp_path, list(range(64)), 4, guard=GuardSection(window=8, rewinds=1, patience=1), emit=told.append)
    guard = fed(keeper.guard, 8)
    for step in (9, 10):
        with pytest.raises(Rewind) as caught:
            guard.lose_patience(guard.judge(step, 50.0, 1.0))
        keeper.pass_over(caught.value, tmp_path / "checkpoint-0", True)
    assert len(keeper.samples.skipped) == 4
    assert "lets spikes pass" in told[-1].text
    assert guard.judge(11, 50.0, 1.0) is None
    assert guard.judge(12, math.nan, 1.0) == Verdict("loss is nan", False)


def test_weights_that_are_not_finite_are_never_saved(toy_training):
    toy = toy_training("run")
    name, parameter = list(toy.trainer.model.named_parameters())[3]

    def ruin(*args, **kwargs):
        if toy.trainer.state.global_step == 10:
            parameter.data.view(-1)[0] = math.nan

    toy.before_saving(ruin)
    with pytest.raises(BuddyError) as caught:
        toy.train()
    assert f"at step 10 {name} is not finite; it is not saved" in str(caught.value)
    assert toy.checkpoints() == ["checkpoint-0", "checkpoint-5"]
