"""The one file that is looked at: what is asked of the hubs for it, and that no more than it is fetched."""

from dataclasses import replace

import pytest

from buddygpt.data import sample
from buddygpt.events import Caution, Note, Table
from buddygpt.hub.wanted import HubFile, HubFiles
from buddygpt.recipe.errors import BuddyError

LISTED = {
    "openbmb/Ultra-FineWeb": ["data/ultrafineweb_zh/ultrafineweb-zh-part-001-of-256.parquet", "README.md"],
    "YeungNLP/firefly-pretrain-dataset": ["jinyong.jsonl", "prose.jsonl", "thucnews.jsonl"],
    "someone/mixed": [
        *"README.md b/dataset_infos.json b/rows.jsonl.gz script.py".split(),
        *[f"z{n:02}.parquet" for n in range(30)],
    ],
    "someone/pictures": ["a.png", "b.bin"],
}


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """Hubs that hold `LISTED`; gives what was wanted, what was fetched and what was told."""
    asked, fetched, told = [], [], []

    def resolve(wanted, section):
        (question,) = wanted.values()
        asked.append(question)
        files = question.choose([HubFile(name, 1_000_000, "sha256:0") for name in LISTED[question.huggingface]])
        return {0: HubFiles(question, "huggingface", "c0ffee", files)}, ["taken from another hub"]

    def fetch(answer, section, emit):
        fetched.extend(file.name for file in answer.files)
        return [tmp_path / file.name for file in answer.files], replace(answer)

    monkeypatch.setattr(sample, "resolve", resolve)
    monkeypatch.setattr(sample, "fetch", fetch)
    monkeypatch.setattr(sample, "check_space", lambda answers, section, emit: None)
    monkeypatch.chdir(tmp_path)
    return asked, fetched, told


def test_of_a_named_data_set_one_file_is_fetched_with_what_the_catalog_knows(hub):
    asked, fetched, told = hub
    found = sample.find_sample("ultra-fineweb-zh", None, told.append)
    (question,) = asked
    assert (question.huggingface, question.modelscope) == ("openbmb/Ultra-FineWeb", "OpenBMB/Ultra-FineWeb")
    assert fetched == ["data/ultrafineweb_zh/ultrafineweb-zh-part-001-of-256.parquet"] == [found.name]
    assert (found.min_score, found.hint) == (0.85, "text")
    notes = [event.text for event in told if isinstance(event, Note)]
    assert any("1 MB" in note and found.name in note for note in notes)
    assert Caution("taken from another hub") in told


def test_what_a_data_set_leaves_out_is_not_looked_at_unless_it_is_named(hub):
    _, fetched, told = hub
    assert sample.find_sample("firefly-pretrain", None, told.append).name == "prose.jsonl"
    assert sample.find_sample("firefly-pretrain", "thuc*", told.append).name == "thucnews.jsonl"
    assert sample.find_sample("firefly-pretrain", "jinyong.jsonl", told.append).name == "jinyong.jsonl"
    assert len(fetched) == 3


def test_of_an_id_the_files_are_listed_and_the_first_of_a_known_kind_is_taken(hub):
    asked, fetched, told = hub
    found = sample.find_sample("someone/mixed", None, told.append)
    assert asked[0].huggingface == asked[0].modelscope == "someone/mixed"
    assert (found.map, found.hint) == (None, None)
    assert fetched == ["b/rows.jsonl.gz"]
    (table,) = [event for event in told if isinstance(event, Table)]
    assert "34 files, 34 MB" in table.title
    assert table.rows[-1] == ("... 14 more", "") and len(table.rows) == 21
    assert sample.find_sample("someone/mixed", "z0?.parquet", told.append).name == "z00.parquet"


def test_a_repository_without_rows_is_told(hub):
    with pytest.raises(BuddyError, match="none of its 2 files is of a known kind"):
        sample.find_sample("someone/pictures", None, lambda event: None)
    assert hub[1] == []


def test_the_line_of_a_failing_hub_says_that_nothing_of_this_name_is_here(hub, monkeypatch):
    def resolve(wanted, section):
        raise BuddyError(wanted[0].fault("no answer"))

    monkeypatch.setattr(sample, "resolve", resolve)
    with pytest.raises(BuddyError, match="someone/gone cannot be had: no answer; there is no file or folder"):
        sample.find_sample("someone/gone", None, lambda event: None)
    with pytest.raises(BuddyError, match="Ultra-FineWeb cannot be had: no answer; if you have a copy, give its path"):
        sample.find_sample("ultra-fineweb-en", None, lambda event: None)
