import math
import random
from collections import Counter, defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from buddygpt.data.ngram import UNICODE_SCALARS, fit, kneser_ney_bits_per_character

START, END, UNKNOWN = "start", "end", "unknown"


def slow_bits_per_character(train: list[str], heldout: list[str], order: int) -> float:
    """The same model written out with dictionaries and recursion, one symbol at a time."""
    known = set("".join(train))

    def padded(document: str) -> list[str]:
        return [START] * (order - 1) + [c if c in known else UNKNOWN for c in document] + [END]

    counts: list[Counter] = [Counter() for _ in range(order + 1)]
    for sequence in map(padded, train):
        for end in range(order - 1, len(sequence)):
            counts[order][tuple(sequence[end - order + 1 : end + 1])] += 1
    for n in range(order - 1, 0, -1):
        for gram in counts[n + 1]:
            counts[n][gram[1:]] += 1

    def discounts(n: int) -> list[float]:
        times = Counter(counts[n].values())
        n1, n2, n3, n4 = times[1], times[2], times[3], times[4]
        one = n1 / (n1 + 2 * n2) if n1 and n2 else 0.5
        if n1 and n2 and n3:
            three = [1 - 2 * one * n2 / n1, 2 - 3 * one * n3 / n2, 3 - 4 * one * n4 / n3]
            if 0 < three[0] <= 1 and 0 < three[1] <= 2 and 0 < three[2] <= 3:
                return three
        return [one] * 3

    discount = [[], *(discounts(n) for n in range(1, order + 1))]
    followers: list[defaultdict] = [defaultdict(list) for _ in range(order + 1)]
    for n in range(1, order + 1):
        for gram, count in counts[n].items():
            followers[n][gram[:-1]].append(count)

    def probability(context: tuple, symbol: str) -> float:
        n = len(context) + 1
        lower = probability(context[1:], symbol) if context else 1 / (len(known) + 2)
        seen = followers[n][context]
        if not seen:
            return lower
        count = counts[n][(*context, symbol)]
        kept = count - discount[n][min(count, 3) - 1] if count else 0.0
        freed = sum(discount[n][min(c, 3) - 1] for c in seen)
        return (kept + freed * lower) / sum(seen)

    bits = 0.0
    for sequence in map(padded, heldout):
        for end in range(order - 1, len(sequence)):
            p = probability(tuple(sequence[end - order + 1 : end]), sequence[end])
            bits -= math.log2(p / (UNICODE_SCALARS - len(known)) if sequence[end] == UNKNOWN else p)
    return bits / sum(map(len, heldout))


documents = st.lists(st.text("ab甲乙😀", max_size=30), min_size=1, max_size=8).filter(any)


@given(documents, documents, st.integers(1, 5))
@settings(max_examples=150, deadline=None)
def test_equals_the_dictionary_model(train, heldout, order):
    expected = slow_bits_per_character(train, heldout, order)
    assert kneser_ney_bits_per_character(train, heldout, order) == pytest.approx(expected, rel=1e-9)


def test_equals_the_dictionary_model_where_all_three_discounts_are_estimated():
    rng = random.Random(0)
    text = ["".join(rng.choices("天地玄黄宇宙洪荒", weights=range(1, 9), k=40)) for _ in range(60)]
    train, heldout = text[:50], [*text[50:], "天地日月"]
    expected = slow_bits_per_character(train, heldout, 3)
    assert kneser_ney_bits_per_character(train, heldout, 3) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("context", ["", "春", "春眠不", "春眠不觉晓处处", "从未见过", "春眠从"])
@pytest.mark.parametrize("order", [1, 2, 5])
def test_probabilities_sum_to_one(context, order):
    model = fit(["春眠不觉晓", "处处闻啼鸟", "夜来风雨声", "花落知多少", "春眠不觉寒"], order)
    seen, end, unseen = model.distribution(context)
    assert set(seen) == set("春眠不觉晓处处闻啼鸟夜来风雨声花落知多少寒")
    assert min(*seen.values(), end, unseen) > 0
    total = sum(seen.values()) + end + unseen * (UNICODE_SCALARS - len(seen))
    assert total == pytest.approx(1)


def test_distribution_agrees_with_bits():
    model = fit(["甲乙丙", "甲乙丁", "乙丙"], 3)
    expected = 0.0
    for prefix, symbol in (("", "甲"), ("甲", "乙"), ("甲乙", "丙")):
        expected -= math.log2(model.distribution(prefix)[0][symbol])
    expected -= math.log2(model.distribution("甲乙丙")[1])
    assert model.bits(["甲乙丙"]) == pytest.approx(expected)


def test_uniform_text_costs_the_logarithm_of_its_alphabet():
    rng = random.Random(1)
    alphabet = [chr(0x4E00 + i) for i in range(64)]
    text = ["".join(rng.choices(alphabet, k=1000)) for _ in range(110)]
    assert kneser_ney_bits_per_character(text[:100], text[100:]) == pytest.approx(6, abs=0.15)


def test_constant_text_costs_almost_nothing():
    assert kneser_ney_bits_per_character(["一" * 200] * 50, ["一" * 200]) < 0.1


def test_longer_contexts_help_where_they_matter():
    text = ["甲乙丙丁戊己庚辛" * 5, "辛庚己戊丁丙乙甲" * 5] * 20
    bits = [kneser_ney_bits_per_character(text, text[:2], order) for order in (1, 2, 3)]
    assert bits[0] > 2.5 > bits[1] > bits[2]
    assert bits[2] < 0.3


def test_an_unseen_character_is_dear_but_possible():
    bits = kneser_ney_bits_per_character(["山高月小", "水落石出"], ["龘"])
    assert 20 < bits < 40


def test_documents_are_independent():
    train = ["甲乙丙", "丁戊"] * 5
    together = kneser_ney_bits_per_character(train, ["甲乙丙", "丁戊"]) * 5
    apart = kneser_ney_bits_per_character(train, ["甲乙丙"]) * 3 + kneser_ney_bits_per_character(train, ["丁戊"]) * 2
    assert together == pytest.approx(apart)


def test_takes_any_iterable():
    train, heldout = ["甲乙丙", "乙丙甲"], ["甲丙"]
    expected = kneser_ney_bits_per_character(train, heldout)
    assert kneser_ney_bits_per_character(iter(train), iter(heldout)) == expected


@pytest.mark.parametrize(
    ("train", "heldout", "order", "message"),
    [
        ([], ["甲"], 5, "training text holds no character"),
        (["", ""], ["甲"], 5, "training text holds no character"),
        (["甲"], [], 5, "held-out text holds no character"),
        (["甲"], [""], 5, "held-out text holds no character"),
        (["甲"], ["甲"], 0, "order must be at least 1"),
    ],
)
def test_refuses_what_it_cannot_measure(train, heldout, order, message):
    with pytest.raises(ValueError, match=message):
        kneser_ney_bits_per_character(train, heldout, order)
