"""Which models are meant and where their results go; what a score must tell of the run that it comes from."""

import json
import os
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from buddygpt.data.demo import paragraphs
from buddygpt.data.fingerprints import hash_weights
from buddygpt.data.prepare import prepare
from buddygpt.events import Caution, Note, Table, silent
from buddygpt.recipe.errors import BuddyError
from buddygpt.recipe.loader import load_recipe
from buddygpt.recipe.runs import Run
from buddygpt.report.scores import measured_in
from buddygpt.stages import eval as stage
from buddygpt.stages.eval import Options, Settings, choose, find_targets
from tests.toy_benchmarks import RECIPE, SUBJECTS, write_lines, write_run


@pytest.fixture
def ask(toys, tmp_path):
    """Run the stage over the toys' rows. Gives what was measured, and what was told."""

    def run(names, tasks, **settings):
        events = []
        options = Options(Settings(**settings), data_dir=toys / "data", device="cpu")
        rows = stage.run(list(map(str, names)), tasks, tmp_path / "runs", tmp_path / "bench", options, events.append)
        return rows, events

    return run


def test_results_go_into_the_run_by_chapter_or_below_runs(toys, tmp_path):
    runs = tmp_path / "runs"
    first = write_run(runs, "one", toys / "base")
    second = write_run(runs, "one", toys / "other", "sft")
    write_run(tmp_path / "elsewhere", "far", toys / "base")
    names = ["one", str(first), str(tmp_path / "elsewhere" / "far"), str(toys / "base")]
    found = find_targets(names, runs, None, silent)
    assert [target.source for target in found] == [
        second, first, tmp_path / "elsewhere" / "far" / "pretrain" / "model", toys / "base",
    ]  # fmt: skip
    assert [target.name for target in found] == ["one/sft", "one/pretrain", "far/pretrain", "base"]
    own = [target.folder for target in found]
    assert own[:3] == [runs / "one/eval/sft", runs / "one/eval/pretrain", tmp_path / "elsewhere/far/eval/pretrain"]
    assert own[3].parent == runs / "eval" and own[3].name.startswith("base-")
    assert [target.run and target.run.name for target in found] == ["one", "one", "far", None]


def test_folders_of_one_name_have_names_and_places_of_their_own(toys, tmp_path):
    names = []
    for place in ("a", "b"):
        (tmp_path / place / "export").mkdir(parents=True)
        (tmp_path / place / "export" / "config.json").write_text("{}")
        (tmp_path / place / "same").mkdir()
        (tmp_path / place / "same" / "config.json").write_text("{}")
        names += [str(tmp_path / place / "export"), str(tmp_path / place / "same")]
    for output in (None, tmp_path / "out"):
        found = find_targets(names, tmp_path / "runs", output, silent)
        assert len({target.folder for target in found}) == len({target.name for target in found}) == 4
    assert [target.name for target in found] == ["a/export", names[1], "b/export", names[3]]
    (alone,) = find_targets(names[:1], tmp_path / "runs", tmp_path / "out", silent)
    assert alone.folder == tmp_path / "out"


def test_a_model_given_twice_is_refused_however_it_is_spelt(toys, tmp_path, monkeypatch):
    model = write_run(tmp_path / "runs", "one", toys / "base")
    (tmp_path / "link").symlink_to(model)
    monkeypatch.chdir(tmp_path)
    spelt = ["one", str(model), "runs/one", "runs/one/pretrain/model", "runs/../runs/one/pretrain/model/", "link"]
    for other in spelt[1:]:
        with pytest.raises(BuddyError, match="given twice"):
            find_targets(["one", other], tmp_path / "runs", None, silent)


def test_a_hub_without_network_is_told_before_anything_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(BuddyError, match="owner/name: neither a folder here nor to be had from the hub"):
        find_targets(["owner/name"], tmp_path, None, silent)


def test_device_and_type_are_those_of_the_machine_or_as_asked(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    assert choose(None, None) == (torch.device("cpu"), "fp32")
    assert choose("cpu", "bf16") == (torch.device("cpu"), "bf16")
    for device, dtype, told in [
        (None, "fp16", "--dtype fp16: needs a GPU; bf16 or fp32 on a CPU"),
        (None, "half", "--dtype half: one of fp32, bf16, fp16"),
        ("tpu?", None, r"--device tpu\?: .*; here there is cpu"),
        ("mps", None, "--device mps: .*; here there is cpu"),
    ]:
        with pytest.raises(BuddyError, match=told):
            choose(device, dtype)


def test_training_documents_that_held_pieces_of_a_benchmark_are_told_beside_its_score(ask, toys, tmp_path):
    """Of the run's own data, and only where it was looked for."""
    question = "从前有一棵又高又大的橡树，它的叶子在秋天变成红色，村里的人都来看它，请问它有多高？"
    with zipfile.ZipFile(tmp_path / "trees.zip", "w") as archive:
        archive.writestr("test/oak.csv", f"question,A,B,answer\n{question},甲,乙,A\n")
    texts = [*paragraphs(5, 9_000), f"开头。{question}结尾。", f"又一次：{question}"]
    write_lines(tmp_path / "text.jsonl", [{"text": text} for text in texts])
    write_run(tmp_path / "runs", "one", toys / "base")
    write_run(tmp_path / "runs", "two", toys / "other")
    sources = f"{{kind: files, paths: [{tmp_path / 'text.jsonl'}]}}"
    for name, looked in (("one", f", decontaminate: {{paths: [{tmp_path / 'trees.zip'}]}}"), ("two", "")):
        file = tmp_path / "runs" / name / "recipe.yaml"
        data = f"data: {{sources: [{sources}], validation: 0.1{looked}}}\n"
        file.write_text(RECIPE.format(name=name, seed=0).partition("data:")[0] + data, "utf-8")
        Run(file.parent).link_data(prepare(load_recipe(file), tmp_path / "cache", silent).path)
    rows, events = ask(["one", "two"], ["trees", "sayings"], shots=0, limit=2)
    found = [[score.contaminated for score in row.scores] for row in rows]
    assert found == [[2, None], [None, None]]
    (told,) = [event.text for event in events if isinstance(event, Caution)]
    assert told == "trees: 2 training documents held pieces of it, and were left out"
    assert any("2 training documents with pieces of its items" in str(e) for e in events if isinstance(e, Table))


def test_two_runs_of_other_towns_have_no_question_in_common(ask, toys, tmp_path):
    write_run(tmp_path / "runs", "one", toys / "base", seed=1)
    write_run(tmp_path / "runs", "two", toys / "other", seed=2)
    _, events = ask(["one", "two"], ["demo"], limit=3)
    (compared,) = [event for event in events if isinstance(event, Table) and event.title.startswith("compared")]
    assert "no items in common" in str(compared.rows)


def test_a_benchmark_named_twice_is_asked_once(ask, toys):
    (row,), _ = ask([toys / "base"], ["trees", "wood", "trees"], shots=0)
    (score,) = row.scores
    assert score.task == "trees" and score.n == sum(SUBJECTS.values())


def test_a_second_reading_of_the_same_rows_stands_beside_the_score(ask, toys, tmp_path):
    (row,), _ = ask([toys / "base"], ["even"])
    (score,) = row.scores
    (file,) = (tmp_path / "runs" / "eval").glob("base-*/results.json")
    found = json.loads(file.read_text("utf-8"))["results"]
    assert (score.task, score.n, score.value) == ("even", 8, found["even_words"]["acc,none"])
    assert score.extra == {"even_digits: acc": found["even_digits"]["acc,none"]}


def test_programs_are_run_by_permission_only_and_what_contains_them_is_told(toys, tmp_path):
    runs, cache = tmp_path / "runs", tmp_path / "bench"
    for allow, told in ((False, "add --allow-code-execution"), (True, "no finished model")):
        events = []
        with pytest.raises(BuddyError, match=told):
            stage.run([], ["livecodebench"], runs, cache, Options(allow_code=allow), events.append)
        assert [isinstance(e, Note) and "programs run contained: " in e.text for e in events] == [True] * allow


def test_a_folder_without_permission_is_told_before_a_model_is_asked(ask, toys, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda place, mode: Path(place) != tmp_path)
    with pytest.raises(BuddyError, match=rf"runs/eval/base-.*: cannot be written: {tmp_path} cannot be written into"):
        ask([toys / "base"], ["trees"])


def test_scores_of_several_commands_stand_together_while_the_weights_are_the_same(ask, toys, tmp_path):
    model = write_run(tmp_path / "runs", "one", toys / "base")
    folder = tmp_path / "runs" / "one" / "eval" / "pretrain"

    def known():
        return measured_in(folder / "results.json", hash_weights(model))

    ask(["one"], ["trees"], shots=0, limit=2)
    (before,) = known().scores
    ask(["one"], ["sayings"])
    (row,), _ = ask(["one"], ["trees"], shots=0)
    assert [score.task for score in known().scores] == ["sayings", "trees"]
    assert known().score("trees") == row.score("trees") != before and row.score("sayings") is None
    assert known().score("sayings").settings.items() >= {"device": "cpu", "dtype": "fp32"}.items()
    assert "sayings" in (folder / "scores.md").read_text("utf-8")
    told = json.loads((folder / "results.json").read_text("utf-8"))
    assert "sayings" not in told["results"]  # lm-eval's own part is of the last command
    weights = model / "model.safetensors"
    tensors = load_file(weights)
    name = next(iter(tensors))
    save_file(tensors | {name: tensors[name] + 1}, weights, {"format": "pt"})
    assert known() is None
    ask(["one"], ["sayings"])
    assert [score.task for score in known().scores] == ["sayings"]
