"""Trimmed tokenizers: which entries stay, words segmented as before, text that comes back, and preparing with one."""

from __future__ import annotations

import json
import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from buddygpt.data.prepare import find_prepared, prepare
from buddygpt.data.tokenizer import (
    DocumentEncoder,
    choose_tokens,
    count_tokens,
    kept_tokens,
    load_tokenizer,
    tokenizer_hash,
    train_tokenizer,
    trim,
)
from buddygpt.data.tokenizer.bpe import assemble
from buddygpt.events import silent
from buddygpt.recipe.errors import BuddyError
from tests.data.test_tokenizer import CORPORA, QWEN3_ADDED, SNIPPETS, corpus_texts, mixed_texts, nfc

SIZE = 2048


@pytest.fixture(scope="module")
def full():
    return load_tokenizer("qwen3")


@pytest.fixture(scope="module")
def counts(full):
    return count_tokens(full, [mixed_texts(5, 200), [*SNIPPETS] * 20])


@pytest.fixture(scope="module")
def kept(full, counts):
    return choose_tokens(full, counts, SIZE)


@pytest.fixture(scope="module")
def trimmed(full, kept):
    return trim(full, kept)


@pytest.fixture(scope="module")
def encoder(trimmed):
    return DocumentEncoder(trimmed)


@pytest.fixture(scope="module")
def parts(full):
    """The two parts of each token that a merge makes, by id."""
    model = json.loads(full.backend_tokenizer.to_str())["model"]
    vocab = model["vocab"]
    return {vocab[left + right]: (vocab[left], vocab[right]) for left, right in model["merges"]}


def closed(tokens, parts):
    """The tokens with all that they are made of."""
    found, todo = set(), list(tokens)
    while todo:
        token = todo.pop()
        if token not in found:
            found.add(token)
            todo += parts.get(token, ())
    return found


def words_of(full, texts):
    """Distinct pre-tokens, as the model below the pipeline gets them."""
    pipeline = full.backend_tokenizer
    return {
        word
        for text in texts
        for word, _ in pipeline.pre_tokenizer.pre_tokenize_str(pipeline.normalizer.normalize_str(text))
    }


def see_same_words(full, trimmed, kept, words):
    """How many words have tokens that were all kept; see that each of them has the ids it had."""
    before, after, known, seen = full.backend_tokenizer.model, trimmed.backend_tokenizer.model, set(kept), 0
    for word in words:
        ids = [token.id for token in before.tokenize(word)]
        if known.issuperset(ids):
            assert [kept[token.id] for token in after.tokenize(word)] == ids, word
            seen += 1
    return seen


def test_sizes_and_order(full, trimmed, kept, parts):
    assert len(trimmed) == len(kept) == SIZE
    assert sorted(trimmed.get_vocab().values()) == list(range(SIZE))
    assert kept == sorted(kept) and set(kept) >= set(range(256)) | set(range(151_643, 151_669))
    assert closed(kept, parts) == set(kept)
    assert full.convert_ids_to_tokens(kept) == trimmed.convert_ids_to_tokens(list(range(SIZE)))
    assert [t.content for t in trimmed.added_tokens_decoder.values()] == QWEN3_ADDED
    assert list(trimmed.added_tokens_decoder) == list(range(SIZE - 26, SIZE))
    assert [t.special for t in trimmed.added_tokens_decoder.values()] == [True] * 14 + [False] * 12
    assert (trimmed.eos_token, trimmed.pad_token, trimmed.bos_token) == ("<|endoftext|>", "<|endoftext|>", None)


def test_the_merges_used_most_are_kept(counts, kept, parts):
    """Uses counted another way: down from every token of the text."""
    uses = Counter()
    for token in np.flatnonzero(counts).tolist():
        todo = [token]
        while todo:
            at = todo.pop()
            uses[at] += int(counts[token])
            todo += parts.get(at, ())
    least = min((uses[i], -i) for i in kept if i in parts)
    assert least > max((uses[i], -i) for i in parts.keys() - kept) and least[0] > 0


def test_what_no_text_uses_fills_up_by_rank(full, parts):
    counts = count_tokens(full, [["春眠不觉晓"]])
    used = closed(np.flatnonzero(counts).tolist(), parts)
    kept = choose_tokens(full, counts, 1024)
    others = [i for i in kept if i in parts and i not in used]
    assert len(kept) == 1024 and set(kept) > used
    assert others == [i for i in sorted(parts) if i not in used][: len(others)]


def test_counts_do_not_depend_on_order_or_blocks(trimmed, encoder):
    texts = mixed_texts(6, 60)
    mixed = random.Random(0).sample(texts, len(texts))
    one = count_tokens(trimmed, [texts])
    assert np.array_equal(one, count_tokens(trimmed, ([text] for text in mixed)))
    assert one.sum() == sum(map(len, encoder.encode(texts)))


@given(st.text() | st.lists(st.sampled_from([*SNIPPETS, *QWEN3_ADDED]) | st.text()).map("".join))
@settings(max_examples=300, deadline=None)
def test_every_text_comes_back(encoder, trimmed, text):
    (ids,) = encoder.encode([text])
    assert trimmed.decode(ids) == nfc(text)
    assert all(id_ < SIZE - 26 for id_ in ids)


@pytest.mark.parametrize("name", CORPORA)
def test_corpora_come_back_and_whole_words_are_the_same(name, full):
    texts = corpus_texts(name, characters=150_000)
    kept = choose_tokens(full, count_tokens(full, [texts]), 4096)
    tokenizer = trim(full, kept)
    for text, ids in zip(texts, DocumentEncoder(tokenizer).encode(texts), strict=True):
        assert tokenizer.decode(ids) == nfc(text)
    words = words_of(full, texts)
    assert 1000 < see_same_words(full, tokenizer, kept, words) < len(words)


@given(st.data())
@settings(max_examples=8, deadline=None)
def test_any_closed_subset_segments_whole_words_as_the_full_tokenizer_does(full, parts, data):
    """Not only subsets that counting chooses, and words glued together from kept tokens and others."""
    drawn = st.integers(256, 151_642)
    some = data.draw(st.lists(drawn, min_size=1, max_size=500))
    kept = sorted(closed(some, parts) | set(range(256)) | set(range(151_643, 151_669)))
    tokenizer = trim(full, kept)
    spelt = full.convert_ids_to_tokens(kept[:-26])
    words = data.draw(st.lists(st.lists(st.sampled_from(spelt), min_size=1, max_size=6).map("".join), min_size=50))
    assert see_same_words(full, tokenizer, kept, [*words, *full.convert_ids_to_tokens(some)]) >= len(set(some))


def test_it_tells_what_was_kept(full, trimmed, kept, tmp_path):
    trimmed.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen2"}))
    again = load_tokenizer(str(tmp_path))
    assert tokenizer_hash(again) == tokenizer_hash(trimmed)
    again.chat_template = "{{ messages }}"
    assert kept_tokens(again, full) == kept
    assert kept_tokens(full, full) == list(range(151_669))


def test_another_tokenizer_was_not_trimmed(full, trimmed, kept):
    grown = trim(full, kept)
    grown.add_tokens(["春眠不觉"])
    model = json.loads(trimmed.backend_tokenizer.to_str())["model"]
    merges = [tuple(pair) for pair in model["merges"][:-1]]
    idle = assemble(model["vocab"], merges, QWEN3_ADDED[:14], QWEN3_ADDED[14:])  # nothing makes its last token
    for other in (grown, idle, train_tokenizer(mixed_texts(1, 20), 300)):
        with pytest.raises(BuddyError, match="no trimmed 'qwen3'"):
            kept_tokens(other, full)


KEEP = {"base": "qwen3", "keep": 500}  # rounded up to 512


@pytest.fixture
def small_qwen3(trimmed, tmp_path, monkeypatch):
    """A Qwen3 of 2,048 entries in the place of the whole, which takes seconds to take apart."""
    trimmed.save_pretrained(tmp_path / "qwen3")
    monkeypatch.setattr("buddygpt.data.tokenizer.loader.saved_qwen3", lambda cache: tmp_path / "qwen3")
    return load_tokenizer("qwen3")


def test_prepared_with_what_its_training_text_uses(tmp_path, full, make_recipe, make_texts, write):
    path = write(tmp_path / "a.jsonl", make_texts(1, 100))
    held_out = {"kind": "files", "paths": [write(tmp_path / "b.jsonl", ["麒麟瑪瑙" * 2000])], "validation": 1}
    prepared = prepare(make_recipe(path, held_out, vocab_size=512, tokenizer=KEEP), tmp_path / "cache", silent)
    facts, tokenizer = prepared.manifest["tokenizer"], prepared.tokenizer()
    kept = kept_tokens(tokenizer, full)
    assert len(kept) == facts["entries"] == 512 and facts["dtype"] == "uint16" and facts["name"] == "qwen3"
    assert facts["chosen_on"]["bytes"] == prepared.source("a")["splits"]["train"]["bytes"]
    assert facts["kept"]["of"] == 151_669 and 0.9 < facts["kept"]["share_of_text"] <= 1
    assert len(tokenizer("海上明月")["input_ids"]) == 3  # 海上, 明, 月, as before
    assert len(tokenizer("麒麟")["input_ids"]) > 3  # stands in held-out text alone


def test_neither_workers_nor_the_order_of_documents_change_it(
    tmp_path, small_qwen3, monkeypatch, make_recipe, make_texts, write, contents
):
    monkeypatch.setattr("buddygpt.data.staging.BATCH_BYTES", 1)  # a task for each file
    many = {"kind": "files", "paths": [write(tmp_path / f"{n}.jsonl", make_texts(n)) for n in range(5)]}
    one, two = (
        prepare(make_recipe(many, vocab_size=512, tokenizer=KEEP, workers=w), tmp_path / f"cache{w}", silent)
        for w in (1, 2)
    )
    assert contents(one.path) == contents(two.path)
    turned = [text for n in range(5) for text in make_texts(n)][::-1]
    other = make_recipe(write(tmp_path / "turned.jsonl", turned), vocab_size=512, tokenizer=KEEP)
    again = prepare(other, tmp_path / "cache", silent).manifest["tokenizer"]
    assert again == one.manifest["tokenizer"]


def test_the_key_covers_what_is_kept(tmp_path, small_qwen3, monkeypatch, make_recipe, make_texts, write):
    path = write(tmp_path / "a.jsonl", make_texts(0))
    sizes = ((512, KEEP), (576, {"base": "qwen3", "keep": 576}), (SIZE, {"base": "qwen3"}))
    recipes = [make_recipe(path, vocab_size=size, tokenizer=section) for size, section in sizes]
    paths = [prepare(wanted, tmp_path / "cache", silent).path for wanted in recipes]
    assert len(set(paths)) == 3 and [find_prepared(wanted, tmp_path / "cache").path for wanted in recipes] == paths
    spelt = make_recipe(path, vocab_size=512, tokenizer={"base": "qwen3", "keep": 512})
    assert find_prepared(spelt, tmp_path / "cache").path == paths[0]
    monkeypatch.setattr("buddygpt.data.job.SAMPLE_BYTES", 1000)
    assert find_prepared(recipes[0], tmp_path / "cache") is None and find_prepared(recipes[2], tmp_path / "cache")


def test_of_much_text_a_sample_is_counted(tmp_path, small_qwen3, monkeypatch, make_recipe, write):
    path = write(tmp_path / "a.jsonl", [text * 3 for text in mixed_texts(7, 100)])
    wanted = make_recipe(path, vocab_size=512, tokenizer=KEEP)
    whole = prepare(wanted, tmp_path / "cache", silent).manifest["tokenizer"]
    for module in ("job", "vocabulary"):
        monkeypatch.setattr(f"buddygpt.data.{module}.SAMPLE_BYTES", whole["chosen_on"]["bytes"] // 2)
    part = prepare(wanted, tmp_path / "cache", silent).manifest["tokenizer"]
    assert whole["chosen_on"]["sampled_share"] == 1
    assert abs(part["chosen_on"]["sampled_share"] - 0.5) < 0.01 and part["hash"] != whole["hash"]


def test_nothing_is_counted_twice(tmp_path, small_qwen3, monkeypatch, make_recipe, make_texts, write, contents):
    wanted = make_recipe(write(tmp_path / "a.jsonl", make_texts(0)), vocab_size=512, tokenizer=KEEP)

    def stop(event):
        if getattr(event, "task", "") == "prepare: tokenise":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(wanted, tmp_path / "a", stop)
    with monkeypatch.context() as patch:
        patch.setattr("buddygpt.data.vocabulary.count_tokens", lambda *_: pytest.fail("counted again"))
        again = prepare(wanted, tmp_path / "a", silent)
    assert contents(again.path) == contents(prepare(wanted, tmp_path / "b", silent).path)


@pytest.mark.parametrize(
    ("section", "vocab_size", "told"),
    [
        ({"base": "qwen3", "keep": 500}, 500, "512 entries, but the model has 500 rows; set model.vocab_size to 512"),
        ({"base": "qwen3", "keep": 512}, 151_669, "512 entries, but the model has 151669 rows; set model.vocab_size"),
        ({"base": "other/one", "keep": 512}, 512, "only entries of `base: qwen3` can be chosen"),
        ({"train": 512, "keep": 512}, 512, "only entries of `base: qwen3` can be chosen"),
        ({"base": "qwen3", "keep": 319}, 320, "greater than or equal to 320"),
        ({"base": "qwen3", "keep": 151_617}, 151_669, "less than or equal to 151616"),
    ],
)
def test_faults(tmp_path, section, vocab_size, told, make_recipe):
    with pytest.raises(ValueError, match=told.replace("(", r"\(")):
        make_recipe("a.jsonl", vocab_size=vocab_size, tokenizer=section)
