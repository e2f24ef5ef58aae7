"""What comes out of the box is plain data, whatever a program writes."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buddygpt.evaluation.sandbox.outcome import Kind, outcome_of
from buddygpt.evaluation.sandbox.values import pack, unpack

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.integers(-(1 << 900))
keys = scalars | st.tuples(scalars, scalars) | st.frozensets(scalars, max_size=3)
plain = st.recursive(
    keys | st.sets(keys, max_size=3) | st.complex_numbers(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=8,
)
names = st.sampled_from(
    ["int", "dict", "complex", "tuple", "set", "frozenset", "x", "value", "ended", "error", "memory"]
)
forged = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=2),
    max_leaves=8,
)


def kinds(value):
    """The types within, which equality alone does not see: 1, 1.0 and True are equal."""
    if isinstance(value, dict):
        return [kinds(part) for item in value.items() for part in item]
    if isinstance(value, list | tuple):
        return [type(value), *map(kinds, value)]
    return type(value)


@given(plain)
def test_plain_data_comes_back_as_it_went(value):
    back = unpack(json.loads(json.dumps(pack(value))))
    assert back == value
    assert kinds(back) == kinds(value)


@pytest.mark.parametrize("value", [object(), [print], {1: {2: b""}}, range(3), (x for x in ())])
def test_what_is_no_plain_data_is_refused(value):
    with pytest.raises(TypeError, match="no plain data"):
        pack(value)


@given(st.text(max_size=20) | st.builds(json.dumps, forged | st.fixed_dictionaries({"value": forged})), st.booleans())
def test_a_forged_answer_is_an_error_or_data(answered, called):
    reply = {"printed": "", "answered": answered, "code": 0, "stopped": "", "cpu": 0.0}
    outcome = outcome_of(reply, called, 1)
    assert outcome.kind in (Kind.ENDED, Kind.ERROR, Kind.OUT_OF_MEMORY)
    assert outcome.detail.isprintable()


def test_a_programs_words_cannot_steer_a_terminal():
    answered = json.dumps({"error": "E: \x1b[2J\n\x07" + "x" * 999})
    detail = outcome_of({"printed": "", "answered": answered, "code": 1, "stopped": "", "cpu": 0.0}, False, 1).detail
    assert detail.startswith("E:  [2J  x")
    assert len(detail) == 300
