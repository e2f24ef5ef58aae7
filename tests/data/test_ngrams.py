"""N-grams: what the units are, and that equal n-grams and only those have equal hashes."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from buddygpt.data.ngrams import BLOCK, ngram_blocks, ngram_hashes, ngram_spans

LETTERS = "天地玄黄宇宙洪荒日月"


def pieces(text: str, words: int, characters: int) -> list[str]:
    return [text[start:stop] for start, stop in zip(*ngram_spans(text, words, characters), strict=True)]


@pytest.mark.parametrize(
    ("text", "units"),
    [
        ("我喜欢健身。", ["我", "喜", "欢", "健", "身"]),
        ("用Python3写的，好！", ["用", "Python3", "写", "的", "好"]),
        ("Don’t stop—now", ["Don", "t", "stop", "now"]),
        ("カタカナ・ひらがな ー 々", ["カ", "タ", "カ", "ナ", "ひ", "ら", "が", "な", "ー", "々"]),
        ("한국어 текст café", ["한국어", "текст", "café"]),
        ("ไทย", ["ไ", "ท", "ย"]),
        ("𠮷野家 x_1 \\frac{a}{b}", ["𠮷", "野", "家", "x", "1", "frac", "a", "b"]),
        ("⚠️ 🎉 —— \u3000\u200b\n", []),
        ("a\ud800b", ["a", "b"]),
        ("", []),
    ],
)
def test_a_han_character_is_a_unit_and_a_word_is_one_and_the_rest_counts_for_nothing(text, units):
    assert pieces(text, 1, 1) == units


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("我喜欢，健身", "我 喜欢\n健身！"),
        ("HELLO World", "hello, world"),
        ("Ｐｙｔｈｏｎ３", "python3"),
        ("A. 是 (B) 否", "（a）是【b】否"),
    ],
)
def test_white_space_punctuation_case_and_width_change_no_hash(one, other):
    assert ngram_hashes([one], 1, 1)[0].tolist() == ngram_hashes([other], 1, 1)[0].tolist()


@pytest.mark.parametrize(
    ("one", "other"), [("ab c", "a bc"), ("ab", "ba"), ("我们", "们我"), ("a a", "a"), ("天a", "a天"), ("1", "１ 1")]
)
def test_other_units_are_other_ngrams(one, other):
    size = len(pieces(one, 1, 1))
    a, b = (ngram_hashes([text], size, size)[0].tolist() for text in (one, other))
    assert a != b


def cut_slowly(text: str) -> list[tuple[str, bool]]:
    """Units one character at a time: of each its text, and whether it is a Han character."""
    units: list[tuple[str, bool]] = []
    inside = False
    for c in text:
        if "\u4e00" <= c <= "\u9fff":
            units.append((c, True))
            inside = False
        elif unicodedata.category(c)[0] in "LMN":
            if inside:
                units[-1] = units[-1][0] + c.lower(), False
            else:
                units.append((c.lower(), False))
            inside = True
        else:
            inside = False
    return units


def grams_slowly(text: str, words: int, characters: int) -> list[tuple[str, ...]]:
    units = cut_slowly(text)
    grams = []
    for start in range(len(units)):
        share = 0.0
        for stop in range(start, len(units)):
            share += 1 / characters if units[stop][1] else 1 / words
            if share > 1 - 1e-9:
                grams.append(tuple(text for text, _ in units[start : stop + 1]))
                break
    return grams


@given(st.lists(st.text(alphabet="天地人aB1，。 \n-", max_size=30), max_size=6), st.integers(1, 7), st.integers(1, 7))
def test_two_ngrams_have_one_hash_exactly_when_their_units_are_the_same(texts, words, characters):
    hashes, offsets = ngram_hashes(texts, words, characters)
    expected = [grams_slowly(text, words, characters) for text in texts]
    assert np.diff(offsets).tolist() == [len(grams) for grams in expected]
    flat = [gram for grams in expected for gram in grams]
    assert len(set(flat)) == len(set(hashes.tolist()))
    assert len(set(zip(flat, hashes.tolist(), strict=True))) == len(set(flat))
    for text, grams in zip(texts, expected, strict=True):
        assert [tuple(u for u, _ in cut_slowly(piece)) for piece in pieces(text, words, characters)] == grams


def de_bruijn(size: int, length: int) -> list[int]:
    """A cycle of `size` symbols in which each sequence of so many occurs once (Fredricksen, Kessler, Maiorana)."""
    word, cycle, index = [-1], [], length
    while word:
        word[-1] += 1
        if length % len(word) == 0:
            cycle += word
        index = len(word)
        while len(word) < length:
            word.append(word[-index])
        while word and word[-1] == size - 1:
            word.pop()
    return cycle


@pytest.mark.parametrize("separator", ["", " "], ids=["characters", "words"])
def test_a_million_ngrams_of_few_symbols_have_a_million_hashes_and_both_halves_are_as_good_as_chance(separator):
    symbols = LETTERS if not separator else "abcdefghij"
    cycle = de_bruijn(10, 6)
    text = separator.join(symbols[i] for i in cycle + cycle[:5])
    hashes, _ = ngram_hashes([text], 6, 6)
    assert len(hashes) == len(set(hashes.tolist())) == 10**6
    expected = 10**12 / 2 / 2**32  # pairs of 32 bit words that chance makes equal
    for half in (hashes >> np.uint64(32), hashes & np.uint64(0xFFFFFFFF)):
        assert abs(10**6 - len(set(half.tolist())) - expected) < 5 * expected**0.5


def test_hashes_are_the_same_on_every_machine():
    hashes, offsets = ngram_hashes(["我喜欢Python", "", "我 喜 欢"], 3, 3)
    assert offsets.tolist() == [0, 2, 2, 3]
    assert [hex(h) for h in hashes.tolist()] == ["0xb0b620e224854463", "0xa5822e427884bfae", "0xb0b620e224854463"]
    assert hashes.dtype == np.uint64


def test_a_text_too_short_for_an_ngram_has_none_and_takes_none_from_its_neighbours():
    hashes, offsets = ngram_hashes(["天地", "玄", "黄宇宙", "。。。"], 3, 3)
    assert offsets.tolist() == [0, 0, 0, 1, 1]
    assert hashes.tolist() == ngram_hashes(["黄宇宙"], 3, 3)[0].tolist()
    assert ngram_hashes([], 3, 3)[1].tolist() == [0]


@pytest.mark.parametrize("script", ["han", "words"])
def test_blocks_lose_no_ngram_of_a_long_text_and_mix_up_no_short_ones(script):
    rng = np.random.default_rng(0)
    if script == "han":
        long = "".join(map(chr, rng.integers(0x4E00, 0x9FA6, 2 * BLOCK + 77)))
    else:
        long = " ".join(f"w{i}" for i in rng.integers(0, 10**6, BLOCK // 4))
    texts = ["天地玄黄" * 5, long, "", "宇宙洪荒" * 3, "日月"]
    parts: dict[int, list[int]] = {number: [] for number in range(len(texts))}
    blocks = 0
    for owners, hashes, offsets in ngram_blocks(texts, 5, 5):
        blocks += 1
        for owner, start, stop in zip(owners.tolist(), offsets[:-1], offsets[1:], strict=True):
            parts[owner] += hashes[start:stop].tolist()
    assert blocks > 1
    for number, text in enumerate(texts):
        whole = ngram_hashes([text], 5, 5)[0].tolist()
        assert set(whole) <= set(parts[number])
        assert len(set(parts[number]) - set(whole)) <= 2 * blocks
    assert parts[0] == ngram_hashes([texts[0]], 5, 5)[0].tolist()
    assert parts[3] == ngram_hashes([texts[3]], 5, 5)[0].tolist()
