"""The command line as a user meets it."""

import json
import subprocess
import sys

import pytest

from buddygpt.recipe.reference import json_schema, reference_page
from buddygpt.recipe.shipped import shipped_recipes
from tests.conftest import ROOT


def test_help_and_recipes_import_no_torch():
    for arguments in (["--help"], ["recipes"], ["recipes", "check", "tiny"], ["pretrain", "nowhere.yaml"]):
        code = (
            f"import sys; sys.argv = ['buddy', *{arguments!r}]\n"
            "from buddygpt.cli.app import main\ntry: main()\nexcept SystemExit: pass\n"
            "bad = {'torch', 'transformers', 'numpy'} & set(sys.modules)\nassert not bad, bad"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_version_and_debug(buddy, tmp_path):
    assert buddy("--version").out.startswith("buddygpt ")
    assert "Traceback" not in buddy("pretrain", "nowhere.yaml").err
    assert "Traceback" in buddy("--debug", "pretrain", "nowhere.yaml").err


def test_recipes(buddy, tmp_path):
    listed = buddy("recipes").out
    assert all(f"{name} " in listed for name in ("tiny", "0.1b", "0.1b-32k", "0.3b", "0.3b-mla", "0.7b-moe"))
    assert buddy("recipes", "show", "tiny").out == (ROOT / "recipes" / "tiny.yaml").read_text()
    assert "validation: 0.03" in buddy("recipes", "show", "tiny", "--resolved").out
    for name in shipped_recipes():
        assert buddy("recipes", "check", f"recipes/{name}.yaml").out.startswith("ok: ")
    assert buddy("recipes", "copy", "0.3b", "mine.yaml").code == 0
    assert buddy("recipes", "check", "mine.yaml").out == buddy("recipes", "check", "0.3b").out
    assert buddy("recipes", "copy", "0.3b", "mine.yaml").code == 2
    assert "did you mean '0.3b-mla'" in buddy("recipes", "show", "0.3b-mle").err


def test_a_check_tells_what_the_geometry_costs(buddy):
    """Cautions, not faults: one line each below size and share, and exit code 0."""
    outcome = buddy("recipes", "check", "0.1b")
    assert outcome.code == 0
    first, size, *told = outcome.out.splitlines()
    assert first.startswith("ok: buddygpt-0.1b, digest ")
    assert size == "158,974,464 parameters, 73% of them embedding; native architecture: qwen2"
    assert len(told) == 3 and all(line.startswith("! model.") for line in told)
    assert "head size 48" in told[0]
    wider = buddy("recipes", "check", "0.1b", "--set", "model.attention.num_attention_heads=12", "--set",
                  "model.attention.num_key_value_heads=4")  # fmt: skip
    assert "head size" not in wider.out
    assert len(buddy("recipes", "check", "tiny").out.splitlines()) == 2  # nothing to remark


def test_what_is_made_from_the_schema_is_up_to_date():
    """`make docs` makes both."""
    assert (ROOT / "docs" / "recipe.md").read_text() == reference_page()
    assert json.loads((ROOT / "recipes" / "recipe.schema.json").read_text()) == json_schema()


@pytest.mark.parametrize("name", ["0.1b", "0.3b", "0.3b-mla", "0.7b-moe"])
def test_a_dry_run_tells_and_writes_nothing(buddy, tmp_path, name):
    outcome = buddy("pretrain", name, "--dry-run")
    assert outcome.code == 0, outcome.err
    assert "openbmb/Ultra-FineWeb" in outcome.out
    assert "35,0" in outcome.out
    assert "native architecture" in outcome.out and "about" in outcome.out and "a token in bf16" in outcome.out
    assert "! model.vocab_size: 151,669 is no multiple of 8" in outcome.out
    assert "nothing was written" in outcome.out
    assert buddy("plan", name).out.splitlines()[:30] == outcome.out.splitlines()[:30]  # one and the same
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("tiny", "--per-hour", "-1"), "--per-hour: -1 is no price"),
        (("tiny", "--per-hour", "0"), "--per-hour: 0 is no price"),
        (("tiny", "--per-hour", "nan"), "--per-hour: nan is no price"),
        (("tinny",), "did you mean 'tiny'"),
        (("tiny", "--set", "pretrain.tokens_per_batch=5000"), "is not a multiple of"),
        (("tiny", "--set", "pretrain.schedule.warmup=1.5"), "must be less than or equal to 1, not 1.5"),
        (("0.3b", "--stage", "dpo", "--per-hour", "3"), "are of pretraining"),
        (("tiny", "--set", "pretrain.precision=fp16"), "fp16 needs a GPU"),
    ],
)
def test_a_plan_of_something_impossible_is_refused_in_a_line(buddy, tmp_path, arguments, told):
    outcome = buddy("plan", *arguments)
    assert outcome.code == 2 and told in outcome.err and "Traceback" not in outcome.err, outcome.err
    assert list(tmp_path.iterdir()) == []


def test_memory_that_does_not_suffice_is_no_mystery(buddy, monkeypatch):
    def fail(*arguments, **more):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr("buddygpt.stages.plan.run", fail)
    outcome = buddy("plan", "tiny")
    assert outcome.code == 2 and outcome.err.startswith("buddy: memory does not suffice (RuntimeError: ")
    assert outcome.err.count("\n") == 1


def test_the_question_of_make_demo_is_about_a_fact_that_tuning_never_asked_for():
    from buddygpt.data import demo

    asked = next(line for line in (ROOT / "Makefile").read_text().splitlines() if "chat --prompt" in line)
    assert asked.split('"')[1] in {dialogue.question for dialogue in demo.examination(0, "test")}
