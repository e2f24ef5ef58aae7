import pytest

from buddygpt.recipe.training import WSD, Cosine
from buddygpt.training.schedules import rate_factor


@pytest.mark.parametrize("steps", [1, 2, 7, 100])
@pytest.mark.parametrize(
    "section",
    [
        Cosine(kind="cosine", warmup=0.1, min_ratio=0.1),
        Cosine(kind="cosine", warmup=0, min_ratio=0),
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
