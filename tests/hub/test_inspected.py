"""A look at a data set on the hubs, through their real clients: one file is fetched, whichever hub serves it."""

import json

import pytest

ID = "someone/mountains"


@pytest.fixture
def inspect(buddy, hubs, tmp_path):
    """Run `buddy data inspect` with a tokenizer that needs no hub; gives the outcome."""
    from buddygpt.data.tokenizer import train_tokenizer

    folder = tmp_path / "tokenizer"
    train_tokenizer(iter(["山高水长"] * 20), 272).save_pretrained(folder)
    return lambda *arguments: buddy("data", "inspect", *arguments, "--tokenizer", folder)


@pytest.mark.parametrize("name", ["mirror", "huggingface", "modelscope"])
def test_one_file_is_fetched_and_told_before(inspect, hubs, monkeypatch, name):
    monkeypatch.setenv("BUDDY_HUBS", name)
    outcome = inspect(ID)
    assert outcome.code == 0, outcome.err
    assert [file for file, _ in getattr(hubs, name).fetched] == ["data/a.jsonl"]
    for file in ("README.md", "data/b.jsonl", "data/jinyong.jsonl"):
        assert file in outcome.out  # listed, not fetched
    assert outcome.out.index(f"looking at data/a.jsonl of {ID} on {name}") < outcome.out.index("columns, as")
    assert "adapter: text, by names and values: text in content" in outcome.out
    assert "40 documents of all 40 rows" in outcome.out


def test_another_file_is_taken_by_a_glob(inspect, hubs):
    outcome = inspect(ID, "--file", "data/b*")
    assert outcome.code == 0, outcome.err
    assert [file for file, _ in hubs.mirror.fetched] == ["data/b.jsonl"]


def test_the_next_hub_serves_where_one_does_not_answer(inspect, hubs):
    hubs.mirror.status = hubs.huggingface.status = 503
    outcome = inspect(ID)
    assert outcome.code == 0, outcome.err
    assert f"of {ID} on modelscope" in outcome.out and "! " in outcome.out


def test_a_repository_that_no_hub_has_is_one_line(inspect):
    outcome = inspect("someone/nowhere")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "someone/nowhere cannot be had" in outcome.err and "no file or folder someone/nowhere here" in outcome.err


def test_columns_that_nobody_knows_are_shown_of_a_hubs_file_too(inspect, hubs):
    hubs.mirror.files["data/a.jsonl"] = (json.dumps({"frage": "问"}, ensure_ascii=False) + "\n").encode()
    outcome = inspect(ID)
    assert outcome.code == 2
    assert "frage: 问" in outcome.out and "--map" in outcome.err
