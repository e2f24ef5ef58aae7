"""Benchmarks in lm-eval's words: built by lm-eval itself, with the same requests as from its own files."""

import csv
import io
import json
import logging
import zipfile
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

import pytest

from buddygpt.evaluation.bench import Ready, find_rows
from buddygpt.evaluation.catalog import data_of, load_benchmark, subjects_of
from buddygpt.evaluation.wording import Plan, plan, tasks_of, write_tasks
from buddygpt.recipe.errors import BuddyError
from buddygpt.recipe.hub import HubSection
from tests.conftest import SHARED

datasets = pytest.importorskip("datasets")
lm_eval_tasks = pytest.importorskip("lm_eval.tasks")
REAL = SHARED / "bench"
real = pytest.mark.skipif(not REAL.is_dir(), reason=f"needs the files of {REAL}")
OWN = Path(lm_eval_tasks.__file__).parent
CHOICES = {"A": "a", "B": "b", "C": "c", "D": "d"}
ROWS = {
    "cmmlu": {"Question": "问？", **CHOICES, "Answer": "C"},
    "ceval": {"question": "问？", **CHOICES, "answer": "C"},
    "mmlu": {"question": "Which?", "choices": list("abcd"), "answer": 2},
    "mmlu_continuation": {"question": "Which?", "choices": list("abcd"), "answer": 2},
    "gpqa": {"Question": "Which?", "Correct Answer": "a"} | {f"Incorrect Answer {n}": f"no {n}" for n in (1, 2, 3)},
    "ifeval": {"key": 1, "prompt": "Write.", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]},
    "aime24": {"Problem": "1+1", "Answer": 2},
    "math-500": {"problem": "1+1", "solution": "It is $\\boxed{2}$.", "answer": "2"},
    "hellaswag": {"activity_label": "x", "ctx_a": "A", "ctx_b": "b", "endings": list("abcd"), "label": 2},
    "piqa": {"goal": "g", "sol1": "a", "sol2": "b", "label": 1},
    "arc_easy": {"question": "q", "choices": {"text": list("abcd"), "label": list("ABCD")}, "answerKey": "C"},
}


@pytest.fixture(autouse=True)
def quiet(monkeypatch, tmp_path):
    """No bars; whatever goes to the cache of `datasets` shows."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "not-here")
    datasets.disable_progress_bars()
    yield
    assert not (tmp_path / "not-here").exists()


def toy(name, folder, rows=2):
    """A few rows for every subject of a benchmark."""
    benchmark = load_benchmark(name)
    splits = data_of(benchmark)[1].splits
    folder = folder / name
    folder.mkdir(parents=True)
    line = json.dumps(ROWS[name], ensure_ascii=False) + "\n"
    files = {subject: {s: folder / f"{subject}.{s}.jsonl" for s in splits} for subject in subjects_of(benchmark)}
    for paths in files.values():
        for path in paths.values():
            path.write_text(line * rows, "utf-8")
    return Ready(benchmark, files, dict.fromkeys(splits, rows * len(files)), "toy")


def load(folder, names):
    return lm_eval_tasks.TaskManager(include_path=folder, include_defaults=False).load(names)


def judges(name):
    return name != "ifeval" or (find_spec("langdetect") and find_spec("immutabledict"))


@pytest.mark.parametrize("name", [name for name in ROWS if judges(name) and name != "mmlu_continuation"])  # see below
def test_lm_eval_builds_every_benchmark_without_a_network_or_a_warning(name, tmp_path, caplog):
    ready = toy(name, tmp_path, rows=5)
    with caplog.at_level(logging.WARNING, "lm_eval"):
        names = write_tasks([plan(ready, context=512)], tmp_path / "tasks")
        loaded = load(tmp_path / "tasks", names)
    assert [record.message for record in caplog.records if record.name.startswith("lm_eval")] == []
    tops = tasks_of(ready.benchmark)
    assert names == list(tops)
    assert set(loaded["tasks"]) == {task for tasks in tops.values() for task in tasks}
    for task in loaded["tasks"].values():
        assert len(task.eval_docs) == 5
        assert task.fewshot_context(task.eval_docs[0], task.config.num_fewshot)
    if len(ready.files) > 1:
        assert set(names) <= set(loaded["groups"])
        assert sorted(tops[names[0]].values()) == sorted(ready.files)


def test_groups_within_groups_are_there_and_benchmarks_do_not_mix(tmp_path):
    plans = [plan(toy(name, tmp_path), context=512, shots=2) for name in ("mmlu", "mmlu_continuation")]
    names = write_tasks(plans, tmp_path / "tasks")
    loaded = load(tmp_path / "tasks", names)
    assert {"mmlu", "mmlu_stem", "mmlu_humanities", "mmlu_continuation"} <= set(loaded["groups"])
    assert len(loaded["tasks"]) == 2 * 57
    assert loaded["tasks"]["mmlu_anatomy"].doc_to_choice(ROWS["mmlu"]) == list("ABCD")
    assert loaded["tasks"]["mmlu_anatomy_continuation"].doc_to_choice(ROWS["mmlu"]) == list("abcd")


def test_shots_are_the_benchmarks_the_users_or_a_subjects_own(tmp_path):
    ready = toy("ceval", tmp_path, rows=5)
    assert plan(ready, context=512).shots == 5
    assert plan(ready, context=512, shots=0).shots == 0
    write_tasks([Plan(ready, 5, {"law": 1, "ceval-valid_logic": 3})], tmp_path / "tasks")
    tasks = load(tmp_path / "tasks", ["ceval-valid_law", "ceval-valid_logic", "ceval-valid_physician"])["tasks"]
    assert [task.config.num_fewshot for task in tasks.values()] == [1, 3, 5]
    prompt = tasks["ceval-valid_logic"].fewshot_context(ROWS["ceval"], 3)
    assert prompt.count("答案： C") == 3 and prompt.endswith("答案：")


def test_fixed_shots_stay_whatever_is_asked_for(tmp_path):
    assert plan(toy("ifeval", tmp_path), context=512, shots=5).shots == 0
    assert plan(toy("math-500", tmp_path), context=512, shots=5).shots == 0


def test_more_shots_than_examples_are_refused_with_how_many_there_are(tmp_path):
    with pytest.raises(BuddyError, match="cmmlu: 3 shots, but agronomy has 2 examples; take --shots 2"):
        plan(toy("cmmlu", tmp_path), context=512, shots=3)
    ready = toy("piqa", tmp_path)
    without = Ready(ready.benchmark, {"piqa": {"validation": ready.files["piqa"]["validation"]}}, {"validation": 2}, "")
    with pytest.raises(BuddyError, match="piqa: 1 shots, but there are no rows for examples; run it with --shots 0"):
        plan(without, context=512, shots=1)
    names = write_tasks([plan(without, context=512)], tmp_path / "tasks")
    assert len(load(tmp_path / "tasks", names)["tasks"]["piqa"].eval_docs) == 2


@pytest.mark.parametrize("context, limit", [(512, 256), (4096, 1024)])
def test_a_written_answer_is_limited_to_half_the_context_and_stops_as_lm_eval_says(context, limit, tmp_path):
    names = write_tasks([plan(toy("math-500", tmp_path), context=context)], tmp_path / "tasks")
    task = load(tmp_path / "tasks", names[:1])["tasks"]["hendrycks_math500"]
    given = task.config.generation_kwargs
    assert given == {"until": ["Problem:"], "do_sample": False, "temperature": 0, "max_gen_toks": limit}


@pytest.mark.parametrize("name", ["hellaswag", "piqa", "arc_easy"])
def test_examples_asked_for_are_drawn_from_the_rows_for_them(name, tmp_path):
    ready = toy(name, tmp_path)
    column = next(key for key, value in ROWS[name].items() if isinstance(value, str))
    examples = [ROWS[name] | {column: f"example {number}"} for number in range(3)]
    ready.files[name]["train"].write_text("".join(json.dumps(row) + "\n" for row in examples), "utf-8")
    names = write_tasks([plan(ready, context=512, shots=2)], tmp_path / "tasks")
    task = load(tmp_path / "tasks", names)["tasks"][name]
    assert task.fewshot_context(task.eval_docs[0], 2).count("example ") == 2


def test_choices_carry_no_limit(tmp_path):
    names = write_tasks([plan(toy("piqa", tmp_path), context=512)], tmp_path / "tasks")
    assert load(tmp_path / "tasks", names)["tasks"]["piqa"].config.generation_kwargs is None


def test_the_chat_template_is_used_as_the_benchmark_says(tmp_path):
    ready = toy("ifeval", tmp_path)
    assert plan(ready, context=512, chat=True).chat and not plan(ready, context=512, chat=False).chat
    never = Ready(ready.benchmark.model_copy(update={"chat": "never"}), ready.files, ready.counts, "toy")
    assert not plan(never, context=512, chat=True).chat


def test_files_of_an_earlier_time_are_gone_and_two_contents_are_not_confused(tmp_path):
    first, second = (toy("aime24", tmp_path / place) for place in ("one", "two"))
    path = second.files["aime24"]["train"]
    path.write_text(json.dumps({"Problem": "2+2", "Answer": 4}) + "\n", "utf-8")
    write_tasks([plan(toy("piqa", tmp_path), context=512)], tmp_path / "tasks")
    for ready, problem in ((first, "1+1"), (second, "2+2")):
        names = write_tasks([plan(ready, context=512)], tmp_path / "tasks")
        assert load(tmp_path / "tasks", names)["tasks"]["aime24"].eval_docs[0]["Problem"] == problem
        assert (ready.files["aime24"]["train"].parent / "arrow").is_dir()
    assert sorted(path.name for path in (tmp_path / "tasks").iterdir()) == ["aime24.yaml"]


def test_a_second_reading_is_left_out_where_its_packages_are_not_installed():
    both = {"hendrycks_math500", "minerva_math500"}
    assert set(tasks_of(load_benchmark("math-500"))) == (both if find_spec("math_verify") else {"hendrycks_math500"})


def test_a_task_of_ours_keeps_its_functions(tmp_path):
    if not find_spec("buddygpt.evaluation.livecodebench"):
        pytest.skip("buddygpt.evaluation.livecodebench is not there yet")
    ROWS["livecodebench"] = {
        "question_id": "1", "question_content": "Add.", "starter_code": "", "metadata": "{}",
        "public_test_cases": "[]", "private_test_cases": "[]",
    }  # fmt: skip
    names = write_tasks([plan(toy("livecodebench", tmp_path), context=512)], tmp_path / "tasks")
    task = load(tmp_path / "tasks", names)["tasks"]["livecodebench"]
    assert "Add." in task.fewshot_context(task.eval_docs[0], 0)
    assert task.config.generation_kwargs["max_gen_toks"] == 256
    assert task.UNSAFE_CODE


def rows_of_zip(name, member, header=None):
    """Rows as the `csv` module reads them, with nothing of ours."""
    with zipfile.ZipFile(REAL / name) as archive:
        text = io.StringIO(archive.read(member).decode("utf-8-sig"), newline="")
    return list(csv.DictReader(text, header))


def lines_of(name):
    return [json.loads(line) for line in (REAL / name).read_text("utf-8").split("\n") if line]


def theirs(name, subject):
    """What lm-eval's own loading gives for a data set's name and part, made by hand from the publishers' files."""
    if name == "haonan-li/cmmlu":
        return {split: rows_of_zip("cmmlu.zip", f"{split}/{subject}.csv") for split in ("dev", "test")}
    if name == "ceval/ceval-exam":
        return {split: rows_of_zip("ceval.zip", f"{split}/{subject}_{split}.csv") for split in ("dev", "val")}
    if name == "cais/mmlu":
        columns = ["question", *"ABCD", "answer"]
        found = {s: rows_of_zip("mmlu.zip", f"data/{s}/{subject}_{s}.csv", columns) for s in ("dev", "test")}
        return {
            split: [
                {"question": r["question"], "subject": subject, "choices": [r[x] for x in "ABCD"]}
                | {"answer": "ABCD".index(r["answer"])}
                for r in rows
            ]
            for split, rows in found.items()
        }
    if name == "google/IFEval":
        rows = lines_of("ifeval_input_data.jsonl")
        return {"train": [row | {"kwargs": json.dumps(row["kwargs"])} for row in rows]}
    if name == "HuggingFaceH4/MATH-500":
        return {"test": lines_of("math500_test_ori.jsonl")}
    assert name == "Maxwell-Jia/AIME_2024"
    rows = lines_of("aime24_test.jsonl")
    return {"train": [{"ID": r["id"], "Problem": r["problem"], "Answer": int(r["answer"])} for r in rows]}


@real
@pytest.mark.parametrize(
    "name, folder, tasks",
    [
        ("cmmlu", "cmmlu", ["cmmlu_agronomy", "cmmlu_chinese_history"]),
        ("ceval", "ceval", ["ceval-valid_law", "ceval-valid_computer_network"]),
        ("mmlu", "mmlu/default", ["mmlu_abstract_algebra", "mmlu_formal_logic"]),
        ("mmlu_continuation", "mmlu/continuation", ["mmlu_abstract_algebra_continuation"]),
        ("ifeval", "ifeval", ["ifeval"]),
        ("math-500", "hendrycks_math", ["hendrycks_math500"]),
        ("math-500", "minerva_math", ["minerva_math500"]),
        ("aime24", "aime", ["aime24"]),
    ],
)
def test_real_requests_are_those_of_lm_evals_own_files(name, folder, tasks, tmp_path, monkeypatch):
    if not judges(name) or (folder == "minerva_math" and not find_spec("math_verify")):
        pytest.skip("its packages are not installed")
    ready = find_rows(load_benchmark(name), REAL, HubSection(), tmp_path / "cache", print)
    write_tasks([plan(ready, context=100_000)], tmp_path / "tasks")
    ours = load(tmp_path / "tasks", tasks)["tasks"]

    def by_hand(path, name=None, **kwargs):
        splits = theirs(path, name)
        return datasets.DatasetDict({split: datasets.Dataset.from_list(rows) for split, rows in splits.items()})

    monkeypatch.setattr(datasets, "load_dataset", by_hand)
    own = load(OWN / folder, tasks)["tasks"]
    for task in tasks:
        got, right = ours[task], own[task]
        shots = got.config.num_fewshot
        assert shots == (ready.benchmark.shots if right.config.num_fewshot is None else right.config.num_fewshot)
        assert list(got._metric_fn_list) == list(right._metric_fn_list)
        assert got.aggregation().keys() == right.aggregation().keys()
        assert (got.OUTPUT_TYPE, got.VERSION) == (right.OUTPUT_TYPE, right.VERSION)
        assert len(got.eval_docs) == len(right.eval_docs)
        for our_doc, their_doc in islice(zip(got.eval_docs, right.eval_docs, strict=True), 60):
            context = got.fewshot_context(our_doc, shots)
            assert context == right.fewshot_context(their_doc, shots)
            assert got.doc_to_target(our_doc) == right.doc_to_target(their_doc)
            if got.OUTPUT_TYPE == "multiple_choice":
                pairs = [
                    [request.args for request in each.construct_requests(doc=doc, ctx=context, metadata=(task, 0, 1))]
                    for each, doc in ((got, our_doc), (right, their_doc))
                ]
                assert pairs[0] == pairs[1]
        until = [(each.config.generation_kwargs or {}).get("until") for each in (got, right)]
        assert until[0] == until[1]
