"""Numbers in any usual spelling."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buddygpt.recipe.base import SUFFIXES, parse_count, parse_number, spell


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("2e-5", 2e-5),
        ("2E-5", 2e-5),
        ("2.0e-5", 2e-5),
        (".00002", 2e-5),
        (2e-5, 2e-5),
        ("2_000_000", 2_000_000),
        ("35B", 35_000_000_000),
        ("2.6M", 2_600_000),
        ("64Ki", 65_536),
        ("8Mi", 8 * 2**20),
        (" 1.5k ", 1500),
        ("-3", -3),
    ],
)
def test_spellings(written, meant):
    assert parse_number(written) == meant


@pytest.mark.parametrize("written", ["", "abc", "1.2.3", "2x", "64ki", "1e400", "nan", True, None, [1], math.inf])
def test_no_number(written):
    with pytest.raises(ValueError):
        parse_number(written)


def test_a_count_is_whole():
    assert parse_count("1.5k") == 1500
    assert isinstance(parse_count(3.0), int)
    with pytest.raises(ValueError, match="whole"):
        parse_count("1.5")


@given(st.integers(min_value=0, max_value=10**15), st.sampled_from(list(SUFFIXES)))
def test_what_is_spelt_is_read_back(number, suffix):
    number *= SUFFIXES[suffix]
    assert parse_count(spell(number)) == number
