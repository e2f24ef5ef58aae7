"""`buddy report`: pages from files alone, whatever became of the run; several runs side by side."""

import json
import subprocess
import sys

import pytest

from buddygpt.recipe.loader import load_recipe
from buddygpt.recipe.runs import Run
from buddygpt.recipe.shipped import find_recipe
from buddygpt.report import chapters
from buddygpt.report.chapters import Kept, keep
from tests.conftest import ROOT
from tests.report.test_page import eval_row, step_row

STEPS = ("pretrain.tokens=512", "pretrain.eval_every=2", "pretrain.save_every=2")


@pytest.fixture
def trained(tmp_path):
    """Two finished runs, `a` and `b`, that differ in their seeds."""
    for name, seed in (("a", 0), ("b", 1)):
        run = Run(tmp_path / "runs" / name)
        run.claim(load_recipe(find_recipe("tiny"), [f"name={name}", f"pretrain.seed={seed}"]))
        folder = run.chapter("pretrain")
        keep(folder, Kept({"model": [("parameters", "159")]}, {"demo": 3.0}, {"demo": 1.0}, {"demo": 2.5}))
        rows = [step_row(1), step_row(2), eval_row(2, "demo", 3.5), step_row(3), step_row(4), eval_row(4, "demo", 2.5)]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        (folder / "done.json").write_text('{"step": 4}', "utf-8")
    return tmp_path / "runs"


def test_a_page_made_again_is_the_same_page(buddy, toy, tmp_path):
    assert buddy("pretrain", "tiny", *toy(*STEPS, "name=a")).code == 0
    page = tmp_path / "runs" / "a" / "pretrain" / "report.html"
    before = page.read_bytes()
    page.unlink()
    outcome = buddy("report", "a")
    assert outcome.code == 0 and outcome.out == "pretraining, finished at step 4: runs/a/pretrain/report.html\n"
    assert page.read_bytes() == before
    assert buddy("report", "runs/a").code == 0  # a folder is a run's name too


def test_a_run_that_broke_off_has_a_page(buddy, trained):
    folder = trained / "a" / "pretrain"
    (folder / "done.json").unlink()
    rows = (folder / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "metrics.jsonl").write_bytes(b"".join(rows[:3]) + rows[3][:20])
    outcome = buddy("report", "a")
    assert outcome.code == 0 and "unfinished, at step 2" in outcome.out
    text = (folder / "report.html").read_text("utf-8")
    assert "到第 2 步为止" in text and "--resume" in text
    (folder / "report.json").unlink()  # as of a version that kept none
    assert buddy("report", "a").code == 0
    (folder / "report.json").write_text('{"facts": 3}')
    damaged = buddy("report", "a")
    assert damaged.code == 2 and damaged.err.count("\n") == 1 and "report.json: damaged" in damaged.err


def test_damaged_lines_are_told(buddy, trained):
    file = trained / "b" / "pretrain" / "metrics.jsonl"
    file.write_bytes(file.read_bytes() + b'{}\n{"step": "x", "tokens": 1}\n')
    for runs in (["b"], ["a", "b"]):
        outcome = buddy("report", *runs)
        assert outcome.code == 0 and "b/pretrain/metrics.jsonl: 2 damaged lines left out" in outcome.out, outcome


def test_several_runs_are_one_page(buddy, trained, tmp_path):
    outcome = buddy("report", "a", "b", "runs/a")
    assert outcome.code == 0 and outcome.out == "report: runs/report.html\n"
    text = (trained / "report.html").read_text("utf-8")
    assert "1 a" in text and "2 b" in text and "3 a" not in text and "pretrain.seed" in text
    assert buddy("report", "a", "b", "--out", "new/ab.html").code == 0
    assert (tmp_path / "new" / "ab.html").read_bytes() == (trained / "report.html").read_bytes()


def test_faults_are_told_in_one_line(buddy, trained, tmp_path):
    (trained / "fresh").mkdir()
    (trained / "fresh" / "recipe.yaml").write_bytes((trained / "a" / "recipe.yaml").read_bytes())
    (tmp_path / "mine").mkdir()
    (trained / "tuned" / "sft").mkdir(parents=True)
    (trained / "tuned" / "recipe.yaml").write_bytes((trained / "a" / "recipe.yaml").read_bytes())
    (trained / "tuned" / "sft" / "metrics.jsonl").write_text(json.dumps({"step": 1, "tokens": 9, "loss": 2.0}) + "\n")
    for arguments, told in (
        (["c"], "c: no such run below runs/"),
        (["fresg"], "did you mean 'fresh'?"),
        (["fresh"], "runs/fresh: nothing was trained in this run yet"),
        (["a", "fresh"], "runs/fresh: nothing was trained in this run yet"),
        (["mine"], "mine: is not a run"),
        (["a", "tuned"], "no chapter in common to lay side by side: a has pretrain; tuned has sft"),
        (["a", "--out", "x.html"], "--out: is for a page of several runs"),
    ):
        outcome = buddy("report", *arguments)
        assert outcome.code == 2 and outcome.err.count("\n") == 1 and told in outcome.err, outcome.err


def test_reports_are_drawn_while_training_goes_on_and_their_failure_ends_nothing(buddy, toy, tmp_path, monkeypatch):
    drawn = []
    write = chapters.write_report

    def watched(path, report):
        drawn.append((report.metrics[-1]["step"], report.finished, bool(report.facts)))
        write(path, report)
        if len(drawn) == 2:
            raise RuntimeError("no such font")

    monkeypatch.setattr(chapters, "write_report", watched)
    monkeypatch.setattr("buddygpt.training.meter.DRAWN", 1e9)  # however long it takes
    outcome = buddy("pretrain", "tiny", *toy(*STEPS, "name=a"))
    assert outcome.code == 0, outcome.err
    assert drawn == [(2, False, True), (2, False, True), (4, True, True)]
    assert outcome.out.count("the report is not written while training goes on: RuntimeError: no such font") == 1


def test_reports_need_no_torch(trained):
    code = (
        "import sys; sys.argv = ['buddy', 'report', 'a', 'b']\n"
        "from buddygpt.cli.app import main\n"
        "try: main()\n"
        "finally: assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=trained.parent, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0, done.stderr
