"""The benchmarks that need no download."""

import math
from collections import Counter

import pytest
import torch

from buddygpt.data.demo import multiple_choice, world
from buddygpt.data.demo.split import in_split
from buddygpt.evaluation.bench import make
from buddygpt.evaluation.builtin import bits_per_character, demo_rows, prose_rows
from buddygpt.evaluation.catalog import load_benchmark
from buddygpt.evaluation.session import Settings, examine
from buddygpt.events import silent


def test_each_question_of_the_demo_has_one_true_answer_among_four_that_differ_in_a_value_only():
    rows, items = list(demo_rows(3)), multiple_choice(3, "test")
    town = {(fact.relation, fact.subject): fact.value for fact in world(3).facts}
    assert len(rows) == len(items) > 300
    for row, item in zip(rows, items, strict=True):
        answers, fact = row["choices"], item.fact
        assert len(set(answers)) == 4 and row["question"] == item.question
        true = town[fact.relation, fact.subject]
        assert true in answers[row["answer"]] and true == item.choices[row["answer"]]
        # with the value taken out all four say the same
        assert len({answer.replace(value, "□") for answer, value in zip(answers, item.choices, strict=True)}) == 1
    places = Counter(row["answer"] for row in rows)
    assert max(places.values()) - min(places.values()) <= 1 and set(places) == {0, 1, 2, 3}


def test_only_facts_are_asked_that_training_never_asks_for():
    assert all(in_split(3, (item.fact,), "test") for item in multiple_choice(3, "test"))
    trained = {item.question for item in multiple_choice(3, "train")}
    assert not trained & {row["question"] for row in demo_rows(3)}


def test_a_seed_gives_the_same_questions_and_another_seed_others():
    assert list(demo_rows(3)) == list(demo_rows(3)) != list(demo_rows(4))
    assert list(prose_rows(3)) == list(prose_rows(4))


def test_passages_are_of_sixteen_registers_each_another_and_long_enough():
    rows = list(prose_rows(0))
    assert len(rows) == len({row["register"] for row in rows}) == len({row["text"] for row in rows}) == 16
    assert min(len(row["text"]) for row in rows) > 100


def test_bits_per_character_are_of_the_whole_text_not_a_mean_of_means(make_uniform, tokenizer, tmp_path):
    """A model that knows nothing spends log2 of the vocabulary on each token, whatever its length in characters."""
    ready = make(load_benchmark("bits-zh"), 0, tmp_path)
    results, _ = examine(make_uniform, tokenizer, [ready], Settings(), None, silent)
    texts = [row["text"] for row in prose_rows(0)]
    tokens = sum(len(tokenizer(text)["input_ids"]) for text in texts)
    expected = tokens * math.log2(len(tokenizer)) / sum(map(len, texts))
    assert results["results"]["bits-zh"]["bits_per_character,none"] == pytest.approx(expected, rel=1e-5)
    per_text = [len(tokenizer(text)["input_ids"]) / len(text) for text in texts]
    assert expected != pytest.approx(math.log2(len(tokenizer)) * sum(per_text) / 16, rel=1e-4)


@pytest.fixture
def make_uniform(make):
    """A model to which all tokens are alike."""
    model = make().eval()
    with torch.no_grad():
        model.get_output_embeddings().weight.zero_()
    return model


def test_characters_are_counted_not_bytes():
    assert bits_per_character({"text": "春眠不觉晓"}, [-7.5]) == {"bits_per_character": (-7.5, 5)}


def test_rows_that_are_made_again_are_the_same_file(tmp_path):
    """`datasets` keeps a table for each file and time of its: one that is written anew each time would fill a disk."""
    first, again, other = (make(load_benchmark("demo"), seed, tmp_path) for seed in (3, 3, 4))
    path = first.files["demo"]["test"]
    assert again.files == first.files != other.files
    before = path.stat()
    assert make(load_benchmark("demo"), 3, tmp_path).counts == {"test": len(list(demo_rows(3)))}
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
