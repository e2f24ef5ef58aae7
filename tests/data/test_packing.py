"""Pieces put into windows: each once, none overfull, little room left."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from buddygpt.data.packing import pack

ROOM = 50
LENGTHS = st.lists(st.integers(1, ROOM), max_size=60)


def plain_best_fit(lengths, room):
    """The rule, said plainly: the longest first, each where it leaves the least room."""
    windows, left = [], []
    for piece in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        fitting = [w for w in range(len(windows)) if left[w] >= lengths[piece]]
        if not fitting:
            windows.append([])
            left.append(room)
            fitting = [len(windows) - 1]
        best = min(fitting, key=lambda w: left[w])
        windows[best].append(piece)
        left[best] -= lengths[piece]
    return windows, left


@given(LENGTHS)
@settings(deadline=None, max_examples=300)
def test_each_piece_once_and_no_window_overfull(lengths):
    windows = pack(lengths, ROOM)
    assert sorted(piece for window in windows for piece in window.tolist()) == list(range(len(lengths)))
    assert all(0 < sum(lengths[piece] for piece in window) <= ROOM for window in windows)
    assert windows == [] or windows[0].dtype == np.int64


@given(LENGTHS)
@settings(deadline=None, max_examples=300)
def test_windows_are_as_full_as_best_fit_makes_them(lengths):
    """Where windows have equal room either may take a piece; how much is left in them is the same."""
    windows, left = plain_best_fit(lengths, ROOM)
    found = pack(lengths, ROOM)
    assert len(found) == len(windows)
    assert sorted(ROOM - sum(lengths[piece] for piece in window) for window in found) == sorted(left)


def test_the_same_pieces_give_the_same_windows():
    lengths = np.random.default_rng(0).integers(1, 513, 5000)
    first, second = pack(lengths, 512), pack(lengths.astype(np.int32).tolist(), 512)
    assert [w.tolist() for w in first] == [w.tolist() for w in second]


def test_talks_of_usual_lengths_leave_hardly_any_room():
    lengths = np.clip(np.random.default_rng(0).lognormal(5.3, 0.9, 20_000).astype(int), 8, 1024)
    assert lengths.sum() / (1024 * len(pack(lengths, 1024))) > 0.995


def test_full_pieces_have_windows_of_their_own():
    assert [w.tolist() for w in pack([8, 8, 3, 5], 8)] == [[0], [1], [3, 2]]


@pytest.mark.parametrize("lengths", [[0], [5, 9], [-1]])
def test_a_piece_that_no_window_holds_is_refused(lengths):
    with pytest.raises(ValueError, match="a window holds 1 to 8"):
        pack(lengths, 8)
