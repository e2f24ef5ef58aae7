"""Groups of near duplicates: components against brute force, and nothing depends on order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from buddygpt.data.clusters import bucket_edges, choose_kept, components

NUMBERS = st.integers(0, 12) | st.just(2**63 + 5)
EDGES = st.lists(st.tuples(NUMBERS, NUMBERS), max_size=40)


def words(values) -> np.ndarray:
    return np.array(values, np.uint64)


def connect_slowly(edges: list[tuple[int, int]]) -> dict[int, int]:
    """The least document that each reaches, by walking."""
    labels = {node: node for edge in edges for node in edge}
    for _ in labels:
        for a, b in edges:
            labels[a] = labels[b] = min(labels[a], labels[b])
    return labels


@given(EDGES, st.randoms())
def test_components_are_those_of_brute_force_in_any_order_and_direction(edges, random):
    expected = connect_slowly(edges)
    for _ in range(3):
        nodes, labels = components(words([a for a, _ in edges]), words([b for _, b in edges]))
        assert dict(zip(nodes.tolist(), labels.tolist(), strict=True)) == expected
        assert nodes.tolist() == sorted(expected)
        random.shuffle(edges)
        edges = [edge if random.random() < 0.5 else edge[::-1] for edge in edges]


@pytest.mark.parametrize("shape", ["path", "shuffled path", "star of the largest", "comb"])
def test_long_chains_are_one_component(shape):
    numbers = np.arange(200_001, dtype=np.uint64)
    if shape == "shuffled path":
        numbers = np.random.default_rng(0).permutation(numbers)
    a, b = numbers[:-1], numbers[1:]
    if shape == "star of the largest":
        a = np.full_like(b, numbers.max())
        b = numbers[:-1]
    if shape == "comb":  # every second number only reaches its neighbours through a far larger one
        a, b = np.concatenate((a, b)), np.concatenate((a, b)) + words(10**9)
        a[: len(a) // 2] += words(1)
    nodes, labels = components(a, b)
    assert len(nodes) == len(np.union1d(a, b))
    assert len(np.union1d(labels, [])) == 1


@given(st.lists(st.integers(0, 4), max_size=12), st.randoms())
def test_documents_with_equal_keys_are_tied_together_and_no_others(keys, random):
    numbers = random.sample(range(100), len(keys))
    a, b = bucket_edges(words(keys), words(numbers))
    groups: dict[int, list[int]] = {}
    for key, number in zip(keys, numbers, strict=True):
        groups.setdefault(key, []).append(number)
    expected = {(min(group), n) for group in groups.values() for n in group if n != min(group)}
    assert set(zip(a.tolist(), b.tolist(), strict=True)) == expected
    assert len(a) == len(expected)


DOCUMENT = st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 2), st.integers(0, 2))


@given(st.lists(DOCUMENT, max_size=15), st.randoms())
def test_of_each_component_the_longest_stays_then_the_smallest_hash_whatever_the_order(documents, random):
    rows = [(*document, number) for number, document in enumerate(documents)]
    best: dict[int, tuple] = {}
    for label, size, high, low, number in rows:
        rank = (-size, high, low, number)
        best[label] = min(best.get(label, rank), rank)
    random.shuffle(rows)
    columns = [words([row[i] for row in rows]) for i in range(5)]
    kept = choose_kept(columns[0], columns[1], columns[2], columns[3], columns[4])
    assert {row[4] for row, stays in zip(rows, kept.tolist(), strict=True) if stays} == {b[3] for b in best.values()}
