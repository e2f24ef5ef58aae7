"""How sure a score is: against exact fractions, textbook numbers and what a statistics library gives."""

import math
from fractions import Fraction
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from buddygpt.evaluation.significance import (
    above_chance,
    interval,
    mcnemar,
    mean_error,
    share_error,
    sign_flip,
)

COUNTS = st.integers(1, 20_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


def discordant(first, second, both=3, neither=4):
    a = [True] * first + [False] * second + [True] * both + [False] * neither
    b = [False] * first + [True] * second + [True] * both + [False] * neither
    return a, b


@given(st.lists(st.booleans(), min_size=2, max_size=200))
def test_error_of_a_share_is_that_of_a_mean_of_zeros_and_ones(right):
    share = sum(right) / len(right)
    expected = float(np.std(right, ddof=1)) / math.sqrt(len(right))
    assert share_error(share, len(right)) == pytest.approx(expected, abs=1e-12)
    assert mean_error(right, [1.0] * len(right)) == pytest.approx(expected, abs=1e-12)


def test_errors_by_hand():
    assert share_error(0.25, 11_582) == pytest.approx(0.0040237, abs=1e-7)  # CMMLU: half a point at two errors is noise
    assert mean_error([2.0, 4.0, 9.0], [1.0] * 3) == pytest.approx(math.sqrt(13 / 3))
    assert math.isnan(share_error(1.0, 1)) and math.isnan(mean_error([1.0], [1.0]))


def test_error_of_a_ratio_is_what_redrawing_the_items_shows():
    rng = np.random.default_rng(1)
    weights = rng.integers(20, 400, 300).astype(float)
    sums = weights * rng.normal(4, 0.5, 300)
    drawn = rng.integers(0, 300, (4000, 300))
    spread = float((sums[drawn].sum(1) / weights[drawn].sum(1)).std())
    assert mean_error(sums, weights) == pytest.approx(spread, rel=0.05)
    assert mean_error(3 * weights, weights) == pytest.approx(0, abs=1e-12)  # every item the same: nothing is unsure


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    # scipy 1.17: binomtest(right, n).proportion_ci(0.95, "wilson")
    [(0, 30, 0.0, 0.113513), (10, 40, 0.141874, 0.401943), (30, 30, 0.886487, 1.0), (1, 2, 0.094531, 0.905469)],
)
def test_interval_is_wilsons(right, n, low, high):
    assert interval(right / n, n) == pytest.approx((low, high), abs=1e-5)


@given(COUNTS)
def test_interval_holds_the_share_stays_within_bounds_and_mirrors(counts):
    right, n = counts
    low, high = interval(right / n, n)
    assert 0 <= low <= right / n <= high <= 1 and low < high
    other_low, other_high = interval((n - right) / n, n)
    assert (1 - other_high, 1 - other_low) == pytest.approx((low, high), abs=1e-9)


def test_interval_of_nothing_is_everything():
    assert interval(0.0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("share", "n", "chance", "above"),
    [
        (0.2538, 11_582, 0.25, False),  # reported for a 0.1B model on CMMLU: guessing
        (0.2586, 11_582, 0.25, True),
        (0.2577, 11_582, 0.25, False),
        (0.40, 30, 0.25, False),  # 12 of 30
        (0.44, 30, 0.25, True),
        (0.10, 30, 0.25, False),  # far below is not above
        (0.0, 30, 0.0, False),
        (1 / 30, 30, 0.0, True),  # nothing is guessed right where chance is none
        (0.9, 30, None, None),
        (1.0, 2, 0.25, True),
        (0.5, 2, 0.25, False),
    ],
)
def test_above_chance_needs_more_than_two_errors_of_the_null(share, n, chance, above):
    assert above_chance(share, n, chance) is above


@pytest.mark.parametrize("n", [100, 1_346, 11_582])
def test_a_model_that_guesses_is_rarely_above_chance(n):
    rights = np.random.default_rng(3).binomial(n, 0.25, 20_000)
    told = np.mean([above_chance(right / n, n, 0.25) for right in rights])
    assert told == pytest.approx(1 - NormalDist().cdf(2), abs=0.008)


@pytest.mark.parametrize(
    ("first", "second", "p"),
    [
        (0, 0, 1.0),
        (1, 0, 1.0),
        (5, 5, 1.0),
        (6, 0, 2 / 64),
        (8, 2, 2 * (1 + 10 + 45) / 1024),
        # scipy 1.17: binomtest(k, n).pvalue
        (121, 59, 4.4344492637551645e-06),
        (5_200, 4_900, 0.002926506228023293),
    ],
)
def test_mcnemar_by_hand_and_against_known_values(first, second, p):
    assert mcnemar(*discordant(first, second)) == pytest.approx(p, rel=1e-9)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=300))
def test_mcnemar_is_a_probability_symmetric_and_blind_to_items_that_agree(pairs):
    a, b = [x for x, _ in pairs], [y for _, y in pairs]
    p = mcnemar(a, b)
    assert 0 < p <= 1 and p == mcnemar(b, a)
    apart = [(x, y) for x, y in pairs if x != y]
    assert p == mcnemar([x for x, _ in apart], [y for _, y in apart])
    assert p == mcnemar(a[::-1], b[::-1])


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_exact_binomial_tail(first, second):
    n = first + second
    tail = sum(Fraction(math.comb(n, k), 2**n) for k in range(min(first, second) + 1))
    assert mcnemar(*discordant(first, second)) == float(min(Fraction(1), 2 * tail))


def test_mcnemar_of_as_many_items_as_a_benchmark_has():
    a, b = discordant(7_121, 6_921)  # all of MMLU discordant
    assert mcnemar(a, b) == pytest.approx(2 * (1 - NormalDist().cdf(199 / math.sqrt(14_042))), rel=0.01)
    assert mcnemar(*discordant(14_042, 0)) == 0.0  # 2^-14041 is less than a float can hold


def test_lists_of_unlike_length_are_refused():
    with pytest.raises(ValueError):
        mcnemar([True], [True, False])


@given(st.lists(st.floats(-10, 10), max_size=60))
def test_sign_flip_is_a_probability_the_same_whoever_comes_first_and_every_time(differences):
    p = sign_flip(differences)
    assert 0 < p <= 1 and p == sign_flip(differences) and p == sign_flip([-d for d in differences])


def test_sign_flip_counts_the_patterns_of_few_items():
    for differences in ([1.0, 2.0, 3.0, 4.0, 5.0], [0.1, 0.2, 0.3, -0.05, 0.4, 0.15]):
        n = len(differences)
        signs = np.array([[1 if k >> i & 1 else -1 for i in range(n)] for k in range(2**n)])
        exact = np.mean(np.abs(signs @ np.array(differences)) >= abs(sum(differences)) - 1e-9)
        assert sign_flip(differences) == pytest.approx(exact, abs=0.01)
    assert sign_flip([]) == sign_flip([0.0, 0.0]) == 1.0


def test_sign_flip_agrees_with_the_t_test_where_that_is_right():
    rng = np.random.default_rng(0)
    for shift in (0.0, 0.1, 0.2):
        d = rng.normal(shift, 1, 400)
        t = d.mean() / (d.std(ddof=1) / 20)
        assert sign_flip(d) == pytest.approx(2 * (1 - NormalDist().cdf(abs(t))), abs=0.015)


def test_sign_flip_seldom_calls_noise_real_even_where_few_texts_weigh_most():
    rng = np.random.default_rng(5)
    noise = rng.standard_t(2, (300, 40)) * rng.lognormal(0, 1.5, (300, 40))
    assert np.mean([sign_flip(d) < 0.05 for d in noise]) < 0.09
