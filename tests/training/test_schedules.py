from itertools import pairwise

import pytest

from buddygpt.recipe.pretrain import PretrainSection
from buddygpt.recipe.training import WSD, Cosine, Linear
from buddygpt.training.schedules import rate_factor


@pytest.mark.parametrize("steps", [1, 2, 7, 100])
@pytest.mark.parametrize(
    "section",
    [
        Cosine(kind="cosine", warmup=0.1, min_ratio=0.1),
        Cosine(kind="cosine", warmup=0, min_ratio=0),
        Linear(kind="linear", warmup=0.1, min_ratio=0.1),
        Linear(kind="linear", warmup=0),
        WSD(kind="wsd", warmup=0.1, decay=0.3),
        WSD(kind="wsd", warmup=0, decay=0),
        WSD(kind="wsd", warmup=0.5, decay=0.5, min_ratio=0.2),
    ],
)
def test_rates_stay_between_zero_and_the_peak(section, steps):
    rates = [rate_factor(section, step, steps) for step in range(steps + 1)]
    assert all(0 <= rate <= 1 for rate in rates)
    assert rates[0] > 0 or steps == 1


def test_cosine():
    section = Cosine(kind="cosine", warmup=0.1, min_ratio=0.1)
    rates = [rate_factor(section, step, 100) for step in range(100)]
    assert rates[:3] == pytest.approx([0.1, 0.2, 0.3])
    assert rates[9] == rates[10] == 1
    assert rates[99] == pytest.approx(0.1)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rate_factor(section, 55, 101) == pytest.approx(0.55, abs=0.02)


def test_wsd():
    section = WSD(kind="wsd", warmup=0.05, decay=0.3)
    rates = [rate_factor(section, step, 100) for step in range(100)]
    assert rates[4:70] == [1.0] * 66
    assert rates[99] == 0
    assert rates[85] == pytest.approx(14 / 30)


def test_linear():
    section = Linear(kind="linear", warmup=0.1, min_ratio=0.1)
    rates = [rate_factor(section, step, 100) for step in range(100)]
    assert rates[:3] == pytest.approx([0.1, 0.2, 0.3])
    assert rates[9] == rates[10] == 1
    assert rates[99] == pytest.approx(0.1)
    falls = [a - b for a, b in pairwise(rates[10:])]
    assert falls == pytest.approx([0.9 / 89] * 89)


@pytest.mark.parametrize(
    ("schedule", "fault"),
    [
        ({"kind": "cosine", "warmup": 1}, "nothing is left for cosine to go down in"),
        ({"kind": "linear", "warmup": 1.0}, "nothing is left for linear to go down in"),
        ({"kind": "wsd", "warmup": 0.9, "decay": 0.2}, "more than the whole run"),
        ({"kind": "linear", "warmup": 1.5}, "less than or equal to 1"),
    ],
)
def test_a_schedule_longer_than_the_run_is_refused(schedule, fault):
    section = {
        "tokens": 100, "tokens_per_batch": 10, "sequence_length": 10, "micro_batch_size": 1, "save_every": 1,
        "eval_every": 1, "optimizer": {"kind": "adamw", "learning_rate": 1e-3}, "schedule": schedule,
    }  # fmt: skip
    with pytest.raises(ValueError, match=fault):
        PretrainSection.model_validate(section)
