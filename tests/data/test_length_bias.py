"""Lengths of chosen against rejected answers: figures, and a warning only where they tell the choice."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from buddygpt.data.length_bias import compare_lengths


def test_figures_by_hand():
    bias = compare_lengths([1, 2, 9, 4], [2, 2, 3, 3])
    assert (bias.pairs, bias.chosen_mean, bias.chosen_median) == (4, 4.0, 3.0)
    assert (bias.rejected_mean, bias.rejected_median, bias.longer) == (2.5, 2.5, 0.625)
    assert bias.warning is None


@pytest.mark.parametrize(
    ("longer", "shorter", "equal", "told"),
    [
        (70, 30, 0, "the longer answer is the chosen one in 70.0% of 100 pairs"),
        (30, 70, 0, "the shorter answer is the chosen one in 70.0% of 100 pairs"),
        (50, 50, 0, None),
        (540, 460, 0, None),  # sure, but not far
        (4, 1, 0, None),  # far, but so might five coins fall
        (9, 0, 0, "the longer answer"),
        (20, 0, 200, None),  # most pairs say nothing
        (0, 0, 5, None),
    ],
)
def test_a_warning_needs_a_share_far_from_one_half_and_pairs_enough(longer, shorter, equal, told):
    chosen, rejected = [2] * longer + [1] * shorter + [1] * equal, [1] * longer + [2] * shorter + [1] * equal
    warning = compare_lengths(chosen, rejected).warning
    assert (told is None and warning is None) or (told is not None and told in (warning or ""))


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(1, 50)), min_size=1, max_size=60))
def test_swapping_the_sides_mirrors_the_share_and_keeps_the_warning(pairs):
    chosen, rejected = zip(*pairs, strict=True)
    one, other = compare_lengths(chosen, rejected), compare_lengths(rejected, chosen)
    assert one.longer == pytest.approx(1 - other.longer) and one.sure == other.sure
    assert one == compare_lengths(np.array(chosen), np.array(rejected))
