"""`buddy eval` from the command to what it writes; and each fault in one line."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from buddygpt.evaluation.kept import Kept
from buddygpt.model.interop import export, load
from tests.toy_benchmarks import SUBJECTS, write_run

TREES = [f"trees_{subject}" for subject in SUBJECTS]


@pytest.fixture
def score(buddy, toys):
    """Run `buddy eval` over the toys' rows."""
    return lambda *arguments: buddy("eval", "--data-dir", toys / "data", *arguments)


def results(folder):
    return json.loads((Path(folder) / "results.json").read_text("utf-8"))


def items(folder, task):
    lines = (Path(folder) / "samples" / f"{task}.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def answers(folder):
    (file,) = Path(folder).glob("answers-*.jsonl")
    return file.read_text("utf-8").splitlines()


@pytest.fixture
def asked(monkeypatch):
    """Counts the answers that are kept."""
    count = []
    add = Kept.add
    monkeypatch.setattr(Kept, "add", lambda self, *told: count.append(told) or add(self, *told))
    return count


def test_two_models_are_scored_written_down_and_compared(score, toys, tmp_path):
    one = write_run(tmp_path / "runs", "one", toys / "base")
    write_run(tmp_path / "runs", "two", toys / "other")
    done = score("one", "two", "--tasks", "trees,sayings", "--samples", "--shots", "1")
    assert done.code == 0, done.err

    folder = tmp_path / "runs" / "one" / "eval" / "pretrain"
    found = results(folder)
    assert {"results", "groups", "group_subtasks", "configs", "versions", "n-shot", "n-samples", "config"} <= set(found)
    ours = found["buddygpt"]
    trees = next(score for score in ours["scores"] if score["task"] == "trees")
    right = [sum(item["acc"] for item in items(folder, task)) for task in TREES]
    assert trees["value"] == pytest.approx(sum(right) / 30) == found["results"]["trees"]["acc,none"]
    assert {name: (value, n) for name, (value, n, *_) in trees["subjects"].items()} == {
        name: (pytest.approx(some / n), n) for (name, n), some in zip(SUBJECTS.items(), right, strict=True)
    }
    assert (trees["n"], trees["total"], trees["shots"], trees["chat"], trees["chance"]) == (30, 30, 1, False, 0.25)
    assert trees["contaminated"] is None and trees["cut"] == 0
    assert ours["model"] == "one/pretrain" and dict(ours["facts"]["settings"])["dtype"] == "fp32"
    assert dict(ours["facts"]["data"])["trees"] == str(toys / "data" / "trees")

    line = next(line for line in done.out.splitlines() if line.startswith("trees ") and "one/pretrain" in line)
    assert f"{100 * trees['value']:.2f}" in line and "1-shot" in line
    assert ("not above chance" in line) == (trees["above_chance"] is False)
    for page in (folder / "report.html", tmp_path / "runs" / "eval" / "report.html"):
        text = page.read_text("utf-8")
        assert "one/pretrain" in text and "willow" in text
        assert f"report: {page.relative_to(tmp_path)}" in done.out.replace(f"{tmp_path}/", "")

    other = tmp_path / "runs" / "two" / "eval" / "pretrain"
    compared = json.loads((tmp_path / "runs" / "eval" / "comparison.json").read_text("utf-8"))
    assert [row["model"] for row in compared["rows"]] == ["one/pretrain", "two/pretrain"]
    (pair, _) = compared["pairs"]
    first, second = ([item["acc"] for task in TREES for item in items(at, task)] for at in (folder, other))
    both = list(zip(first, second, strict=True))
    assert (pair["n"], pair["only_first"], pair["only_second"]) == (30, both.count((1, 0)), both.count((0, 1)))
    assert "compared item by item" in done.out

    # the same by its folder as by its run's name
    again = score(one, "--tasks", "trees", "--samples", "--shots", "1", "--output", "again")
    assert again.code == 0
    assert [items("again", task) for task in TREES] == [items(folder, task) for task in TREES]


def test_without_a_target_the_newest_finished_model_is_taken_and_named(buddy, toys, tmp_path):
    write_run(tmp_path / "runs", "old", toys / "other", seed=4)
    newest = write_run(tmp_path / "runs", "new", toys / "base", seed=4)
    write_run(tmp_path / "runs", "unfinished", toys / "base")
    (tmp_path / "runs" / "unfinished" / "pretrain" / "done.json").unlink()
    for name, age in (("old", 200), ("new", 100)):
        for file in (tmp_path / "runs" / name).rglob("*"):
            os.utime(file, (time.time() - age,) * 2)
    done = buddy("eval", "--tasks", "demo,bits-zh", "--limit", "3", "--samples")
    assert done.code == 0, done.err
    assert f"model: {newest.relative_to(tmp_path)}" in done.out.splitlines()
    folder = tmp_path / "runs" / "new" / "eval" / "pretrain"
    names = {path.name.partition("-")[0] for path in folder.iterdir()}
    assert names == {"results.json", "scores.md", "report.html", "samples", "answers"}
    scores = {score["task"]: score for score in results(folder)["buddygpt"]["scores"]}
    assert set(scores) == {"demo", "bits-zh"}
    assert scores["bits-zh"]["metric"] == "bits_per_character,none" and 4 < scores["bits-zh"]["value"] < 40
    # the questions are about the town that this run was trained on
    from buddygpt.evaluation.builtin import demo_rows

    mine, others = ({row["question"] for row in demo_rows(seed)} for seed in (4, 0))
    questions = {item["doc"]["question"] for item in items(folder, "demo")}
    assert questions <= mine and not questions <= others


def test_a_folder_that_is_no_run_gets_its_results_below_runs(score, toys, tmp_path):
    assert score(toys / "base", "--tasks", "sayings").code == 0
    (folder,) = (tmp_path / "runs" / "eval").iterdir()
    assert folder.name.startswith("base-") and results(folder)["buddygpt"]["model"] == "base"
    assert not (folder / "samples").exists()


def test_several_targets_and_an_output_have_a_folder_each(score, toys, tmp_path):
    """Also where their folders have one name."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "base").symlink_to(toys / "other")
    done = score(toys / "base", "mine/base", "--tasks", "trees", "--shots", "0", "--output", "out")
    assert done.code == 0, done.err
    folders = [path for path in (tmp_path / "out").iterdir() if path.is_dir()]
    assert len(folders) == 2
    first, second = (results(folder)["results"] for folder in folders)
    assert first != second
    rows = json.loads((tmp_path / "out" / "comparison.json").read_text("utf-8"))["rows"]
    assert len({row["model"] for row in rows}) == 2
    assert not (tmp_path / "runs" / "eval").exists()


def test_a_part_of_the_items_is_told_and_has_a_wider_interval(score, toys, tmp_path):
    assert score(toys / "base", "--tasks", "trees", "--shots", "0", "--output", "all").code == 0
    assert score(toys / "base", "--tasks", "trees", "--shots", "0", "--output", "part", "--limit", "40%").code == 0
    (whole,), (part,) = (results(folder)["buddygpt"]["scores"] for folder in ("all", "part"))
    assert (part["n"], part["total"], whole["n"], whole["total"]) == (4 + 4 + 5, 30, 30, 30)
    assert part["high"] - part["low"] > whole["high"] - whole["low"]
    assert part["stderr"] is None or part["stderr"] > 0
    assert ["items", "40%, drawn with seed 0"] in results("part")["buddygpt"]["facts"]["settings"]


def test_fewer_shots_and_cut_prompts_mark_the_score(score, toys, tmp_path):
    done = score(toys / "narrow", "--tasks", "trees,drawn", "--output", "out")
    assert done.code == 0 and "! trees: 3 shots do not fit" in done.out
    trees, drawn = results("out")["buddygpt"]["scores"]
    assert trees["fewer_shots"].keys() == SUBJECTS.keys() and trees["fewer_shots"]["willow"] == 0
    assert trees["cut"] > 0 and trees["shots"] == 3
    assert drawn["fewer_shots"] == {"drawn": 1} and drawn["cut"] == 0
    line = next(line for line in done.out.splitlines() if line.startswith("trees "))
    assert "fewer than 3 shots in 3 subjects" in line and f"{trees['cut']} prompts cut" in line
    assert "1 shots, for the context has no room for 2" in done.out
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert "fewer than 3 shots" in page and "prompts cut" in page


def test_the_template_is_told_where_it_was_used(score, toys):
    done = score(toys / "chat", "--tasks", "trees,bits-zh", "--limit", "2", "--shots", "0", "--output", "out")
    assert done.code == 0, done.err
    trees, bits = results("out")["buddygpt"]["scores"]
    assert trees["chat"] and not bits["chat"]  # a text is judged as it is


SLOW = """
import sys, time
from pathlib import Path
from tests.toy_benchmarks import use_benchmarks
from buddygpt.evaluation.kept import Kept
use_benchmarks(Path(sys.argv.pop(1)))
add = Kept.add
def slowly(self, key, answer):
    add(self, key, answer)
    time.sleep(0.05)
Kept.add = slowly
from buddygpt.cli.app import main
main()
"""


def _nearly(value):
    if isinstance(value, list):
        return [_nearly(inner) for inner in value]
    return pytest.approx(value, abs=1e-4) if isinstance(value, float) else value


@pytest.mark.slow
def test_killed_then_started_again_only_what_is_missing_is_asked(score, asked, toys, tmp_path):
    arguments = [toys / "base", "--tasks", "trees,sayings", "--samples", "--batch-size", "2"]
    assert score(*arguments, "--output", "whole").code == 0
    total = len(asked)
    command = [sys.executable, "-c", SLOW, toys, "eval", *arguments, "--output", "broken", "--data-dir", toys / "data"]
    process = subprocess.Popen(
        [*map(str, command)], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])},
    )  # fmt: skip
    for _ in range(3000):
        if list((tmp_path / "broken").glob("answers-*")) and len(answers("broken")) > 11:
            break
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.kill()
    _, told = process.communicate()
    assert told == ""  # no bars of the libraries
    before = len(answers("broken"))
    assert 10 < before < total and not (tmp_path / "broken" / "results.json").exists()
    asked.clear()
    assert score(*arguments, "--output", "broken").code == 0
    assert before - 1 <= total - len(asked) <= before  # the last line may have been cut
    assert results("broken")["results"] == results("whole")["results"]
    for task in (*TREES, "sayings"):
        for ours, whole in zip(items("broken", task), items("whole", task), strict=True):
            # sums of other batches differ in the last digits
            assert ours.pop("resps") == _nearly(whole.pop("resps"))
            assert ours.pop("filtered_resps") == _nearly(whole.pop("filtered_resps"))
            assert ours == whole
    asked.clear()
    assert score(*arguments, "--output", "broken").code == 0
    assert asked == []


def test_stopped_by_ctrl_c_then_started_again_only_what_is_missing_is_asked(score, asked, toys, tmp_path, monkeypatch):
    arguments = [toys / "base", "--tasks", "trees", "--shots", "0", "--batch-size", "4"]
    assert score(*arguments, "--output", "whole").code == 0
    total = len(asked)
    add = Kept.add

    def press(self, *told):
        add(self, *told)
        if len(self) == 21:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as pressed:
        pressed.setattr(Kept, "add", press)
        stopped = score(*arguments, "--output", "broken")
    assert stopped.code == 130 and "Traceback" not in stopped.err and stopped.err.count("buddy: ") == 1
    assert not (tmp_path / "broken" / "results.json").exists()
    asked.clear()
    assert score(*arguments, "--output", "broken").code == 0
    assert len(asked) == total - len(answers("broken")[:21])
    assert results("broken")["results"] == results("whole")["results"]


def test_other_weights_in_the_same_folder_do_not_take_over_answers(score, asked, toys, tmp_path):
    folder = write_run(tmp_path / "runs", "one", toys / "base")
    assert score("one", "--tasks", "trees", "--shots", "0").code == 0
    total = len(asked)
    first = results("runs/one/eval/pretrain")["results"]
    weights = folder / "model.safetensors"
    weights.write_bytes((toys / "other" / "model.safetensors").read_bytes())
    asked.clear()
    assert score("one", "--tasks", "trees", "--shots", "0").code == 0
    assert len(asked) == total
    assert score(toys / "other", "--tasks", "trees", "--shots", "0", "--output", "other").code == 0
    assert results("runs/one/eval/pretrain")["results"] == results("other")["results"] != first
    asked.clear()
    assert score("one", "--tasks", "trees", "--shots", "0", "--dtype", "bf16").code == 0
    assert len(asked) == total  # nor answers of another precision


def test_files_of_the_users_own_stay_in_the_folder_of_the_results(score, toys, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "answers-of-mine.jsonl").write_text("kept\n")
    assert score(toys / "base", "--tasks", "sayings", "--output", "out").code == 0
    assert (tmp_path / "out" / "answers-of-mine.jsonl").read_text() == "kept\n"


@pytest.mark.slow
def test_an_exported_folder_says_the_same_under_lm_eval_alone(score, toys, tmp_path):
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoTokenizer

    assert score(toys / "base", "--tasks", "trees", "--samples", "--output", "ours", "--limit", "4").code == 0
    export(load(toys / "base"), tmp_path / "hf", tokenizer=AutoTokenizer.from_pretrained(toys / "base"))
    plain = HFLM(pretrained=str(tmp_path / "hf"), dtype="float32", device="cpu", batch_size=4)
    assert type(plain.model).__module__.startswith("transformers.")
    rows = [item for task in TREES for item in items("ours", task)]
    pairs = [tuple(pair) for item in rows for pair in item["arguments"]]
    asked = [Instance("loglikelihood", {}, pair, number) for number, pair in enumerate(pairs)]
    theirs = plain.loglikelihood(asked, disable_tqdm=True)
    ours = [response[0] for item in rows for response in item["resps"]]
    assert len(pairs) == 4 * 12
    for (mine, top), (right, likeliest) in zip(ours, theirs, strict=True):
        assert mine == pytest.approx(right, abs=1e-4) and top == likeliest


@pytest.fixture
def refused(score, toys, tmp_path):
    """Run `buddy eval`: it ends with code 2 and one line, and no result is written. Gives the line."""

    def run(*arguments):
        before = _files(tmp_path)
        outcome = score(*arguments)
        assert outcome.code == 2, (outcome.out, outcome.err)
        lines = [line for line in outcome.err.splitlines() if "it/s]" not in line and line.strip()]
        assert len(lines) == 1 and lines[0].startswith("buddy: ") and "Traceback" not in outcome.err, outcome.err
        assert _files(tmp_path) == before
        return lines[0]

    return run


def _files(root):
    """All but rows of benchmarks, which are kept wherever a run ends."""
    return sorted(path for path in root.rglob("*") if ".bench" not in path.parts and path.name != "runs")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--tasks", "treas"), "treas: no benchmark of this name; did you mean 'trees'?"),
        (("--tasks", "cmlu"), "did you mean 'cmmlu'"),
        ((), "--tasks: name benchmarks"),
        (("--tasks", " , "), "--tasks: name benchmarks"),
        (("--tasks", "trees", "--limit", "0"), "--limit 0: write a number of items"),
        (("--tasks", "trees", "--limit", "2.5"), "--limit 2.5: write"),
        (("--tasks", "trees", "--limit", "101%"), "--limit 101%: write"),
        (("--tasks", "trees", "--limit", "0%"), "--limit 0%: write"),
        (("--tasks", "trees", "--limit", "ten"), "--limit ten: write"),
        (("--tasks", "trees", "--batch-size", "0"), "--batch-size 0: write a number of rows, or auto"),
        (("--tasks", "trees", "--batch-size", "²"), "--batch-size ²: write"),
        (("--tasks", "trees", "--batch-size", "-3"), "--batch-size -3: write"),
        (("--tasks", "trees", "--dtype", "fp8"), "--dtype fp8: one of fp32, bf16, fp16"),
        (("--tasks", "trees", "--dtype", "fp16"), "--dtype fp16: needs a GPU"),
        (("--tasks", "trees", "--device", "cuda:77"), "--device cuda:77: "),
        (("--tasks", "trees", "--device", "gpu"), "--device gpu: "),
        (("--tasks", "trees", "--shots", "6"), "trees: 6 shots, but oak has 5 examples; take --shots 5"),
        (("--tasks", "demo,livecodebench"), "livecodebench: runs programs that the model writes; add --allow-code"),
    ],
)
def test_faults_of_the_command(refused, toys, monkeypatch, arguments, told):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    assert told in refused(toys / "base", *arguments)


@pytest.mark.parametrize("task", ["cmmlu", "hellaswag", "gpqa"])
def test_a_task_whose_data_is_missing_names_what_to_fetch(refused, toys, monkeypatch, task):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("BUDDY_HUBS", "mirror")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    told = refused(toys / "base", "--tasks", f"trees,{task}")
    named = {"cmmlu": "haonan-li/cmmlu", "hellaswag": "Rowan/hellaswag", "gpqa": "Idavidrein/gpqa"}[task]
    assert f"{task}: " in told and named in told and "--data-dir" in told


def test_rows_that_are_not_as_many_as_they_should_be_are_refused(refused, toys, tmp_path):
    import shutil

    shutil.copytree(toys / "data", tmp_path / "data")
    file = tmp_path / "data" / "trees" / "test" / "oak.csv"
    file.write_text("\n".join(file.read_text("utf-8").splitlines()[:-1]) + "\n", "utf-8")
    told = refused(toys / "base", "--tasks", "trees", "--data-dir", tmp_path / "data")
    assert "29 rows in test where there are 30" in told


def test_targets_that_are_nothing_or_are_given_twice(refused, toys, tmp_path):
    assert "no finished model" in refused("--tasks", "trees")
    assert "nowhere: no such run, folder or hub id" in refused("nowhere", "--tasks", "trees")
    model = write_run(tmp_path / "runs", "one", toys / "base")
    assert "did you mean 'one'" in refused("onee", "--tasks", "trees")
    for twice in ((toys / "base", toys / "base"), ("one", model), ("one", model.relative_to(tmp_path))):
        assert "given twice" in refused(*twice, "--tasks", "trees")


def test_weights_that_are_no_numbers(refused, toys, tmp_path):
    folder = write_run(tmp_path / "runs", "one", toys / "base")
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if name.endswith("norm.weight"))
    weights[name][0] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert name in refused("one", "--tasks", "trees,demo")


def test_a_tokenizer_without_an_end(refused, toys, tmp_path):
    folder = write_run(tmp_path / "runs", "one", toys / "base")
    file = folder / "tokenizer_config.json"
    settings = json.loads(file.read_text("utf-8"))
    file.write_text(json.dumps(settings | {"eos_token": None}), "utf-8")
    assert "the tokenizer has no end-of-text token" in refused("one", "--tasks", "trees,demo")


def test_a_folder_that_cannot_be_written_is_told_before_anything_is_asked(refused, asked, toys, tmp_path):
    (tmp_path / "file").write_text("")
    for output in ("file", "file/below"):
        assert f"{output}: cannot be written" in refused(toys / "base", "--tasks", "trees,sayings", "--output", output)
    assert "cannot be written" in refused(toys / "base", toys / "other", "--tasks", "trees", "--output", "file")
    assert asked == []
