"""Parameters as they are typed."""

import pytest

from buddygpt.conversation.params import change, check, describe
from buddygpt.model.sampling import Sampling
from buddygpt.recipe.errors import BuddyError

BEFORE = Sampling(64, 0.8, 0.9, 3)


def test_what_is_named_changes_and_nothing_else():
    assert change(BEFORE, "temperature=0 top_p=.5") == Sampling(64, 0.0, 0.5, 3)
    assert change(BEFORE, "max-new-tokens=9 SEED=none") == Sampling(9, 0.8, 0.9, None)
    assert change(Sampling(), describe(BEFORE)) == BEFORE
    assert change(BEFORE, describe(Sampling())) == Sampling()


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("temprature=1", "did you mean 'temperature'"),
        ("top_k=3", "there is max_new_tokens, temperature, top_p, seed"),
        ("0.5", "there is"),
        ("temperature", "type e.g. temperature=0.8"),
        ("temperature=warm", "temperature=warm: give a number from 0 on"),
        ("temperature=nan", "give a number from 0 on"),
        ("temperature=inf", "give a number from 0 on"),
        ("temperature=-1", "give a number from 0 on"),
        ("top_p=1.1", "give a number from 0 to 1"),
        ("max_new_tokens=0", "give a whole number from 1 on"),
        ("max_new_tokens=1.5", "give a whole number from 1 on"),
        ("seed=-1", "give a whole number from 0"),
        ("seed=99999999999999999999", "give a whole number from 0"),
        ("temperature=none", "give a number from 0 on"),
    ],
)
def test_what_is_wrong_is_told_and_nothing_changes(typed, told):
    with pytest.raises(BuddyError, match=told):
        change(BEFORE, f"max_new_tokens=9 {typed}")


def test_options_are_held_to_the_same():
    with pytest.raises(BuddyError, match="temperature=nan"):
        check(Sampling(temperature=float("nan")))
