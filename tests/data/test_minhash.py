"""MinHash: what is found agrees with the formula, from the threshold to the keys of bands."""

from __future__ import annotations

import pickle
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from buddygpt.data.minhash import MOST_HASHES, MinHash
from buddygpt.data.ngrams import BLOCK, ngram_hashes

HAN = np.arange(0x4E00, 0x9FA6)
WORDS = np.array([f"{a}{b}{c}" for a in "bdfgklmnprst" for b in "aeiou" for c in ("n", "r", "st", "ck", "lding")])


def random_han(rng: np.random.Generator, size: int) -> str:
    return "".join(map(chr, rng.choice(HAN, size)))


def make_pairs(shared: int, own: int, count: int, ngram: int = 5) -> list[str]:
    """Pairs of texts, one after the other, that share so many n-grams and have so many more each."""
    rng = np.random.default_rng(shared * 1000 + own)
    texts = []
    for _ in range(count):
        characters = [chr(c) for c in rng.choice(HAN, shared + ngram - 1 + 2 * own, replace=False)]
        common = "".join(characters[: shared + ngram - 1])
        ends = characters[shared + ngram - 1 :]
        texts += [common + "".join(ends[:own]), common + "".join(ends[own:])]
    return texts


def found(minhash: MinHash, texts: list[str]) -> float:
    """Share of the pairs that agree in a band."""
    keys, long_enough = minhash.bands_of(texts)
    assert long_enough.all()
    return float((keys[0::2] == keys[1::2]).any(axis=1).mean())


@pytest.mark.parametrize("threshold", [0.5, 0.6, 0.75, 0.85, 0.95])
@pytest.mark.parametrize(
    ("shared", "own"), [(180, 10), (60, 70), (180, 30), (120, 40), (170, 15)], ids=["0.9", "0.3", "0.75", "0.6", "0.85"]
)
def test_as_many_pairs_are_found_as_the_formula_says(threshold, shared, own):
    count, minhash = 600, MinHash(threshold)
    similarity = shared / (shared + 2 * own)
    texts = make_pairs(shared, own, count)
    grams = [set(ngram_hashes([text], 5, 5)[0].tolist()) for text in texts[:2]]
    assert len(grams[0] & grams[1]) / len(grams[0] | grams[1]) == similarity
    chance = minhash.probability(similarity)
    deviation = (chance * (1 - chance) / count) ** 0.5
    assert abs(found(minhash, texts) - chance) <= 4 * deviation + 1.01 / count


def test_at_the_default_nearly_all_pairs_at_similarity_0_9_are_found_and_none_at_0_3():
    assert found(MinHash(), make_pairs(180, 10, 600)) >= 0.98
    assert found(MinHash(), make_pairs(60, 70, 600)) == 0


@given(st.floats(0.5, 0.95))
def test_bands_and_rows_follow_from_the_threshold(threshold):
    minhash = MinHash(threshold)
    assert minhash.bands * minhash.rows <= MOST_HASHES
    assert abs(minhash.probability(threshold) - 0.5) <= 0.03
    assert minhash.probability(threshold + 0.05) > 0.6
    assert minhash.probability(threshold - 0.05) < 0.4
    keys, _ = minhash.bands_of(["天地玄黄" * 9])
    assert keys.shape == (1, minhash.bands)


def test_swapped_bands_and_rows_would_not_pass_for_the_same_curve():
    """13 bands of 60 rows find about 0.002 % at 0.8, 60 of 13 about 97 %: nothing here takes the two numbers, and the
    curve that `probability` states is measured above."""
    with pytest.raises(TypeError):
        MinHash(bands=12, rows=10)
    assert (MinHash().bands, MinHash().rows) == (12, 10)
    assert MinHash().probability(0.8) == pytest.approx(1 - (1 - 0.8**10) ** 12)


def test_the_choice_is_told_with_what_it_finds():
    assert MinHash(0.75).describe() == (
        "12 bands of 10 rows: a pair at similarity 0.9 is found with 99.4 %, at 0.3 with 0.00709 %"
    )
    assert MinHash(0.5).describe().endswith("at similarity 0.9 is found with over 99.9 %, at 0.3 with 5.21 %")


def test_short_texts_are_not_compared():
    texts = [
        "我喜欢健身",
        "我喜欢普洱茶",
        "",
        "。" * 100,
        "哈" * 5000,
        "天地玄黄宇宙洪荒日月盈昃辰宿列张寒来暑往秋收冬藏",
    ]
    assert not MinHash().bands_of([*texts[:5], texts[5][:23]])[1].any()
    assert MinHash().bands_of([texts[5][:24]])[1].all()  # 24 characters, 20 distinct n-grams


def with_changes(units: list[str], places: list[int]) -> list[str]:
    return [f"变{u}"[:1] if i in places else u for i, u in enumerate(units)]


def test_a_paragraph_of_300_characters_with_two_changed_is_caught():
    rng, texts = np.random.default_rng(3), []
    for _ in range(300):
        units = list(random_han(rng, 300))
        texts += ["".join(units), "".join(with_changes(units, rng.integers(0, 300, 2).tolist()))]
    assert found(MinHash(), texts) >= 0.99


def test_an_english_paragraph_of_200_words_with_two_changed_is_caught_and_another_is_not():
    rng, texts = np.random.default_rng(4), []
    for _ in range(300):
        units = rng.choice(WORDS, 200).tolist()
        texts += [" ".join(units), ", ".join(with_changes(units, rng.integers(0, 200, 2).tolist())).upper()]
    assert found(MinHash(), texts) >= 0.97
    assert found(MinHash(), [*texts[2:], *texts[:2]][1:-1]) == 0


def test_keys_of_a_text_depend_on_no_other_text():
    rng = np.random.default_rng(5)
    texts = [random_han(rng, int(size)) for size in rng.integers(0, 400, 300)]
    texts[7] = random_han(rng, BLOCK + 9000)
    keys, long_enough = MinHash().bands_of(texts)
    order = rng.permutation(len(texts))
    shuffled, shuffled_long = MinHash().bands_of([texts[i] for i in order])
    assert (shuffled == keys[order]).all()
    assert (shuffled_long == long_enough[order]).all()
    for number in (0, 7, 299):
        assert (MinHash().bands_of([texts[number]])[0][0] == keys[number]).all()


def test_a_text_longer_than_a_block_is_compared_as_a_whole():
    rng = np.random.default_rng(6)
    text = random_han(rng, 2 * BLOCK + 5000)
    half = len(text) // 2
    assert found(MinHash(), [text, "序" * 30 + text[:half] + "改" + text[half:]]) == 1
    assert found(MinHash(), [text, text[:half] + random_han(rng, half)]) == 0


def test_bands_have_their_own_keys():
    keys, _ = MinHash(0.95).bands_of([random_han(np.random.default_rng(8), 300)])
    assert len(set(keys.ravel().tolist())) == keys.size


def test_keys_are_the_same_on_every_machine_and_in_every_process():
    minhash = pickle.loads(pickle.dumps(MinHash()))
    keys, _ = minhash.bands_of(["天地玄黄宇宙洪荒日月盈昃辰宿列张寒来暑往秋收冬藏 Hello"])
    assert [hex(k) for k in keys[0, :3].tolist()] == ["0x1110ecba309e4b57", "0x7b5ff1457db459cb", "0x1fc9711f64801db8"]


def test_memory_does_not_grow_with_the_text():
    minhash = MinHash()
    minhash.bands_of(["天地玄黄" * 20])
    text = random_han(np.random.default_rng(9), 8 * BLOCK)
    texts = [text, *(text[i : i + 1000] for i in range(0, len(text), 1000))]
    tracemalloc.start()
    minhash.bands_of(texts)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 << 20
