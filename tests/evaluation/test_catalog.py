"""The benchmarks that come along: what each file says, and that lm-eval has what it names."""

import json
from importlib import import_module
from pathlib import Path

import pytest

from buddygpt.evaluation.catalog import (
    FOLDER,
    Benchmark,
    Function,
    benchmark_names,
    data_of,
    load_benchmark,
    subjects_of,
)
from buddygpt.recipe.errors import BuddyError

COLUMNS = ["cmmlu", "mmlu", "ceval", "gpqa", "ifeval", "aime24", "math-500", "livecodebench"]


def test_the_usual_eight_columns_come_first_then_what_moves_in_small_models():
    assert benchmark_names()[:8] == COLUMNS
    assert {"mmlu_continuation", "hellaswag", "piqa", "arc_easy"} <= set(benchmark_names())


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_file_is_named_as_its_benchmark_and_valid(path):
    benchmark = load_benchmark(path.stem)
    assert benchmark.name == path.stem
    name, data = data_of(benchmark)
    if data is not None:
        assert load_benchmark(name).data is data
        assert data.examples is None or data.examples in data.splits
        assert benchmark.shots == 0 or data.examples, "examples before a question need rows to take them from"
        assert len(set(subjects_of(benchmark))) == len(subjects_of(benchmark))


def test_lm_evals_names_are_taken_for_ours_and_no_name_means_two():
    assert load_benchmark("ceval-valid").name == "ceval"
    assert load_benchmark("hendrycks_math500").name == "math-500"
    every = [name for each in benchmark_names() for name in (each, *load_benchmark(each).aliases)]
    assert len(set(every)) == len(every)


def test_an_unknown_name_is_told_with_the_nearest():
    with pytest.raises(
        BuddyError, match=r"cmlu: no benchmark of this name; did you mean 'cmmlu'\?; there are cmmlu, mmlu"
    ):
        load_benchmark("cmlu")
    with pytest.raises(BuddyError, match="did you mean 'ceval-valid'"):
        load_benchmark("ceval_valid")


def test_shots_are_the_customary_ones_and_limits_are_lm_evals():
    assert {name: load_benchmark(name).shots for name in COLUMNS} == dict.fromkeys(COLUMNS, 0) | {
        "cmmlu": 5, "mmlu": 5, "ceval": 5,
    }  # fmt: skip
    fixed = {name for name in benchmark_names() if load_benchmark(name).fixed_shots and load_benchmark(name).data}
    assert fixed == {"gpqa", "ifeval", "aime24", "math-500", "livecodebench"}
    assert load_benchmark("ifeval").max_new_tokens == 1280
    assert load_benchmark("aime24").max_new_tokens == 32768


def test_a_function_keeps_its_tag():
    config = load_benchmark("livecodebench").config
    assert isinstance(config["process_results"], Function)
    assert not isinstance(config["output_type"], Function)
    assert json.dumps(config)  # all else is plain data


def test_functions_that_files_name_are_those_of_this_package():
    benchmark = load_benchmark("livecodebench")
    names = [str(value) for value in benchmark.config.values() if isinstance(value, Function)]
    for name in names:
        module, _, function = name.rpartition(".")
        assert module == "buddygpt.evaluation.livecodebench"
        if (Path(FOLDER).parent / "livecodebench.py").exists():
            assert callable(getattr(import_module(module), function))


@pytest.mark.parametrize("fault", [{"metrics": "acc"}, {"kind": "quiz"}, {"config": {"task": "x"}}, {"harness": []}])
def test_a_file_with_an_unknown_key_or_two_wordings_or_none_is_refused(fault):
    told = load_benchmark("cmmlu").model_dump() | fault
    with pytest.raises(ValueError):
        Benchmark.model_validate(told)


@pytest.mark.parametrize("name", benchmark_names())
def test_lm_eval_has_every_task_and_its_subjects_are_ours(name):
    from buddygpt.evaluation.wording import _index, _leaves

    benchmark = load_benchmark(name)
    for harness in benchmark.harness:
        index = _index(harness.folder)
        leaves = _leaves(harness.task, harness.folder)
        if len(subjects_of(benchmark)) > 1:
            assert sorted(index[leaf].cfg["dataset_name"] for leaf in leaves) == sorted(subjects_of(benchmark))
        else:
            assert leaves == [harness.task]
        metrics = [each["metric"] for each in index[leaves[0]].cfg.get("metric_list", [{"metric": "acc"}])]
        assert benchmark.metric.partition(",")[0] in metrics or harness is not benchmark.harness[0]
        used = {index[leaf].cfg.get(key) for leaf in leaves for key in ("test_split", "validation_split")}
        assert used & set(data_of(benchmark)[1].splits), "the split that lm-eval judges is one that we have"
