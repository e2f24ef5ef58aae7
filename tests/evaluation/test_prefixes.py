from hypothesis import given
from hypothesis import strategies as st

from buddygpt.evaluation.prefixes import PASS, Group, group_by_prefix

TREES = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=60).map(tuple), min_size=1, max_size=40, unique=True)


def cost(groups, sequences):
    return sum(
        sum(len(sequences[m]) - g.prefix for m in g.members) + (g.prefix + PASS if g.prefix else 0) for g in groups
    )


@given(TREES, st.data())
def test_every_sequence_is_in_one_group_and_its_prefix_is_its_own(sequences, data):
    judged = [data.draw(st.integers(1, len(s))) for s in sequences]
    groups = group_by_prefix(sequences, judged)
    assert sorted(m for g in groups for m in g.members) == list(range(len(sequences)))
    for group in groups:
        first = sequences[group.members[0]]
        for member in group.members:
            assert sequences[member][: group.prefix] == first[: group.prefix]
            assert len(sequences[member]) - group.prefix >= judged[member]


@given(TREES)
def test_nothing_costs_more_than_reading_all_of_everything(sequences):
    groups = group_by_prefix(sequences, [1] * len(sequences))
    assert cost(groups, sequences) <= sum(map(len, sequences))


def test_subjects_are_told_apart_by_their_examples():
    one, other = tuple(range(300)), (0, *range(500, 800))
    sequences = [(*prompt, 1000 + n) for n in range(4) for prompt in (one, other)]
    groups = group_by_prefix(sequences, [1] * 8)
    assert {(g.members, g.prefix) for g in groups} == {((0, 2, 4, 6), 300), ((1, 3, 5, 7), 301)}


def test_a_long_beginning_within_a_longer_one_wins_where_it_saves_more():
    sequences = [(*range(100), n) for n in range(20)] + [(*range(100), *range(200, 500), 1000 + n) for n in range(5)]
    groups = group_by_prefix(sequences, [1] * 25)
    assert {g.prefix for g in groups} == {100, 400}


def test_a_short_beginning_is_not_worth_a_pass():
    assert group_by_prefix([(1, 2, 3), (1, 2, 4)], [1, 1]) == [Group((0, 1), 0)]


def test_judged_tokens_stay_out_of_the_beginning():
    sequences = [(*range(200), 7), (*range(200), 8)]
    assert group_by_prefix(sequences, [1, 1])[0].prefix == 200
    assert group_by_prefix(sequences, [1, 50])[0].prefix == 151
