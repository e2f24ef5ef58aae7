"""What a run tells of its model: facts of its own files, and nothing where a file is missing."""

import json
import re

import pytest

from buddygpt.publishing.sources import describe, file_name, is_hub_id, public_name
from buddygpt.publishing.story import read_story
from buddygpt.recipe.data import CatalogSource, FilesSource, HubSource
from buddygpt.recipe.runs import Run, run_of
from tests.publishing.told_runs import FIGURES, MADE_ON, SCORE, recipe, write_model, write_run


def story_of(model):
    return read_story(model, run_of(model))


def test_a_run_tells_of_all_stages_that_led_to_the_model(tmp_path):
    story = story_of(write_run(tmp_path / "runs" / "sage"))
    assert (story.name, story.chat, story.whole, story.base) == ("sage", True, True, None)
    assert [stage.name for stage in story.stages] == ["pretrain", "sft", "dpo"]
    first, second, third = story.stages
    assert (first.steps, first.tokens, first.seconds) == (100, 40_000, 50.0)
    assert first.guarded == {"ceval": 1346} and first.contaminated == {"ceval": 12} and second.guarded == {}
    assert dict(first.made_on) == MADE_ON
    assert list(third.columns()) == ["sft", "dpo"] and third.columns()["dpo"] == FIGURES["dpo"]["after"]
    assert story.measured.scores == (SCORE,) and story.geometry.hidden_size == 32


def test_an_earlier_stage_is_told_without_those_after_it(tmp_path):
    write_run(tmp_path / "runs" / "sage")
    base = write_model(tmp_path / "runs" / "sage" / "pretrain" / "model", chat=False)
    story = story_of(base)
    assert [stage.name for stage in story.stages] == ["pretrain"] and not story.chat and story.measured is None


def test_tokens_are_parted_by_weights_and_in_tuning_by_sizes(tmp_path):
    first, second, third = story_of(write_run(tmp_path / "runs" / "sage")).stages
    # 40,000 tokens at 1 : 3 of 50,000 and 2,000
    assert [source.epochs for source in first.sources] == pytest.approx([0.2, 15.0])
    assert [source.epochs for source in (*second.sources, *third.sources)] == pytest.approx([1.5, 1.0])
    assert [(source.rows, source.tokens) for source in first.sources] == [(900, 50_000), (70, 2_000)]


def test_what_is_missing_on_disk_is_unknown_and_never_guessed(tmp_path):
    model = write_run(tmp_path / "runs" / "sage")
    run = tmp_path / "runs" / "sage"
    for name in ("data/manifest.json", "pretrain/metrics.jsonl", "pretrain/done.json", "eval/dpo/results.json"):
        (run / name).unlink()
    story = story_of(model)
    first = story.stages[0]
    assert (first.steps, first.tokens, first.seconds, first.guarded) == (None, None, None, None)
    assert not first.made_on and not first.final and all(s.tokens is s.epochs is None for s in first.sources)
    assert story.measured is None and not story.others_measured


def test_a_folder_of_no_run_has_no_story_but_its_shape(tmp_path):
    model = write_model(tmp_path / "runs" / "loose" / "model")
    assert run_of(model) is None
    story = read_story(model, None)
    assert (story.name, story.stages, story.measured, story.whole) == (None, (), None, False)
    assert story.geometry.num_hidden_layers == 2 and story.chat
    assert read_story(model, Run(tmp_path / "runs" / "loose")).stages == ()


def test_scores_of_other_weights_are_not_this_models(tmp_path):
    model = write_run(tmp_path / "runs" / "sage")
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    story = story_of(model)
    assert story.measured is None and story.others_measured


@pytest.mark.parametrize("given", ["models/mallory", "owner/name", "../x", "/home/mallory/base", "C:\\models\\base"])
def test_a_base_is_named_only_where_the_run_recorded_that_a_hub_gave_it(tmp_path, given):
    """A path that is gone looks like a hub's id."""
    told = recipe(**{"sft.model": given})
    story = story_of(write_run(tmp_path / "runs" / "sage", told, ("sft",)))
    assert (story.base, story.whole, len(story.stages)) == (None, False, 1)


def test_a_base_that_a_hub_gave_is_named(tmp_path):
    told = recipe(**{"sft.model": "Qwen/Qwen3-0.6B"})
    done = {"sft": {"hub_model": "Qwen/Qwen3-0.6B"}}
    story = story_of(write_run(tmp_path / "runs" / "sage", told, ("sft", "dpo"), done))
    assert (story.base, story.whole) == ("Qwen/Qwen3-0.6B", False)
    assert [stage.name for stage in story.stages] == ["sft", "dpo"]


def test_a_model_of_another_run_brings_its_story_along(tmp_path):
    write_run(tmp_path / "runs" / "first", stages=("pretrain",))
    told = recipe(name="second", **{"sft.model": "first"})
    story = story_of(write_run(tmp_path / "runs" / "second", told, ("sft",)))
    assert [stage.name for stage in story.stages] == ["pretrain", "sft"] and story.whole and story.name == "second"
    circle = recipe(**{"sft.model": "third"})
    story = story_of(write_run(tmp_path / "runs" / "third", circle, ("sft",)))  # began with itself: nothing is known
    assert len(story.stages) == 1 and not story.whole


@pytest.mark.parametrize(
    "source, licence, limits, id",
    [
        (CatalogSource(kind="catalog", dataset="alpaca"), "cc-by-nc-4.0", ["non-commercial"], "tatsu-lab/alpaca"),
        (CatalogSource(kind="catalog", dataset="belle-1m"), "gpl-3.0", ["research only"], "BelleGroup/train_1M_CN"),
        (CatalogSource(kind="catalog", dataset="coig-p"), None, [], "m-a-p/COIG-P"),
        (CatalogSource(kind="catalog", dataset="gone-since"), None, [], None),
        (
            HubSource(kind="hub", id="tatsu-lab/alpaca", files=["*"]),
            "cc-by-nc-4.0",
            ["non-commercial"],
            "tatsu-lab/alpaca",
        ),
        (HubSource(kind="hub", id="me/mine", files=["*"]), None, [], "me/mine"),
        (FilesSource(kind="files", paths=["a.jsonl"]), None, [], None),
    ],
)
def test_terms_of_a_source_are_the_catalogs_or_unknown(source, licence, limits, id):
    found = describe(source, 1, None)
    assert (found.licence.text, [english for _, english in found.licence.limits], found.id) == (licence, limits, id)


def test_every_licence_of_the_catalog_that_asks_for_something_is_noticed():
    from buddygpt.data.catalog import entries

    for entry in entries():
        words = " ".join([entry.licence or "", *entry.warnings])
        asks = re.search(r"-nc-|-nc$|non-commercial|research only|commercial use|community licence", words)
        limits = describe(CatalogSource(kind="catalog", dataset=entry.name), 1, None).licence.limits
        assert bool(limits) == bool(asks), entry.name


def test_a_path_is_no_hub_id_and_a_folder_has_no_public_name():
    for path in ("./a", "../a/b", "/a/b", "a", "a/b/c", "~/a", "C:\\a/b", "file://a", "a/..", "a--b/c", ""):
        assert not is_hub_id(path), path
    assert is_hub_id("Qwen/Qwen3-0.6B") and is_hub_id("m-a-p/COIG-P")
    assert file_name("/home/mallory/corpus/新闻.jsonl.gz") == "新闻.jsonl.gz" and file_name("C:\\u\\x.txt") == "x.txt"
    assert file_name("/home/mallory") is file_name("/home/mallory/") is file_name("~") is file_name("..") is None
    several = FilesSource(kind="files", paths=["/home/mallory", "x/a.jsonl", "x/b.jsonl"])
    assert public_name(several, 2) == "a.jsonl + 1"
    assert public_name(FilesSource(kind="files", paths=["/home/mallory"]), 2) == "files 2"


def test_figures_that_are_no_number_do_not_stop_a_story(tmp_path):
    model = write_run(tmp_path / "runs" / "sage")
    with (tmp_path / "runs" / "sage" / "dpo" / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(
            json.dumps({"step": 21, "tokens": 8_400, "loss": None, "seconds": None}) + "\n" + '{"step": 22, "tok'
        )
    story = story_of(model)
    assert story.stages[-1].tokens == 8_400 and story.stages[-1].seconds == 10.0
