"""The rows of benchmarks, from a folder, an archive, an earlier time or a hub; counted; whole or not at all."""

import csv
import io
import json
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from buddygpt.evaluation import rowstore
from buddygpt.evaluation.bench import find, find_rows, readiness, select
from buddygpt.evaluation.catalog import Place, Split, benchmark_names, load_benchmark, subjects_of
from buddygpt.evaluation.needs import lacking, needs_punkt
from buddygpt.events import Note
from buddygpt.recipe.errors import BuddyError
from buddygpt.recipe.hub import HubSection
from tests.conftest import SHARED
from tests.hub.conftest import COMMIT, hubs  # noqa: F401

REAL = SHARED / "bench"
SUBJECTS = ["agronomy", "anatomy"]
ROWS = {"test": 3, "dev": 2}
NOWHERE = HubSection(order=["huggingface"])


@pytest.fixture
def small():
    """CMMLU with two subjects and few rows, in a repository of the stand-ins for the hubs."""
    benchmark = load_benchmark("cmmlu")
    places = [
        Place(huggingface="someone/mountains", archive="cmmlu_v1_0_1.zip"),
        Place(modelscope="someone/mountains"),
    ]
    splits = {split: Split(rows=[2 * rows]) for split, rows in ROWS.items()}
    data = benchmark.data.model_copy(update={"subjects": SUBJECTS, "splits": splits, "places": places})
    return benchmark.model_copy(update={"data": data})


def row(subject, split, number):
    return {
        "": str(number),
        "Question": f"{subject} {split} {number}？",
        "A": "一",
        "B": "二,",
        "C": "三",
        "D": "四",
    } | {"Answer": "ABCD"[number % 4]}


def table(subject, split, rows):
    text = io.StringIO()
    writer = csv.DictWriter(text, list(row("", "", 0)))
    writer.writeheader()
    writer.writerows(row(subject, split, number) for number in range(rows))
    return text.getvalue().encode("utf-8-sig")


def files(rows=ROWS):
    return {f"{split}/{subject}.csv": table(subject, split, rows[split]) for split in rows for subject in SUBJECTS}


def packed(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return buffer.getvalue()


def write(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def mirrored(rows=ROWS):
    """The same rows as ModelScope's copy has them: a file for each split, other columns."""
    made = {}
    for split, count in rows.items():
        lines = [
            {
                "question": r["Question"], "choices": [f"({x}) {r[x]}" for x in "ABCD"],
                "answer": f"({r['Answer']})", "category": subject,
            }
            for subject in SUBJECTS
            for r in (row(subject, split, number) for number in range(count))
        ]  # fmt: skip
        made[f"data/{split}.jsonl"] = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()
    return made


def content(ready):
    return {
        (subject, split): [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]
        for subject, splits in ready.files.items()
        for split, path in splits.items()
    }


EXPECTED = {
    (subject, split): [
        {key: value for key, value in row(subject, split, number).items() if key} for number in range(rows)
    ]
    for subject in SUBJECTS
    for split, rows in ROWS.items()
}


def lay_zip(folder):
    (folder / "cmmlu.zip").write_bytes(packed(files()))


def lay_folder(folder):
    write(folder / "cmmlu", files())


def lay_deep_folder(folder):
    write(folder / "cmmlu" / "CMMLU-master" / "data", files())


def lay_here(folder):
    write(folder, files())


def lay_lines(folder):
    write(folder / "cmmlu", mirrored())


def lay_parquet(folder):
    for subject, split in EXPECTED:
        path = folder / "cmmlu" / subject / f"{split}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(EXPECTED[subject, split]), path)


@pytest.mark.parametrize("lay", [lay_zip, lay_folder, lay_deep_folder, lay_here, lay_lines, lay_parquet])
def test_the_same_rows_come_from_every_form_of_the_files(small, tmp_path, lay):
    (tmp_path / "in").mkdir()
    lay(tmp_path / "in")
    told = []
    ready = find(small, tmp_path / "in", NOWHERE, tmp_path / "cache", told.append)
    assert content(ready) == EXPECTED
    assert ready.counts == {"test": 6, "dev": 4}
    assert all(path.name == f"{s}.{split}.jsonl" for s, splits in ready.files.items() for split, path in splits.items())
    assert told == [Note(f"cmmlu: rows of {ready.source}: test 6, dev 4")]
    assert Path(ready.source).is_relative_to(tmp_path / "in")


def test_an_archive_goes_before_a_folder_and_other_files_do_not_matter(small, tmp_path):
    lay_zip(tmp_path)
    write(tmp_path / "cmmlu", {"test/agronomy.csv": b"broken"})
    write(tmp_path, {"dev/accountant_dev.csv": b"of another", "notes.txt": b"x"})
    assert content(find(small, tmp_path, NOWHERE, tmp_path / "cache", print)) == EXPECTED


def test_a_second_run_reads_nothing_again_and_needs_no_folder(small, tmp_path, monkeypatch):
    lay_zip(tmp_path)
    first = find(small, tmp_path, NOWHERE, tmp_path / "cache", print)
    monkeypatch.setattr(rowstore, "read_file", lambda *args: pytest.fail("read again"))
    assert find(small, tmp_path, NOWHERE, tmp_path / "cache", print) == first
    assert find(small, None, NOWHERE, tmp_path / "cache", print) == first
    assert readiness(small, None, NOWHERE, tmp_path / "cache") == (True, f"fetched before, from {first.source}")


def test_other_content_under_the_same_name_lies_elsewhere_and_both_stay(small, tmp_path):
    lay_zip(tmp_path)
    old = find(small, tmp_path, NOWHERE, tmp_path / "cache", print)
    changed = files() | {"test/agronomy.csv": table("agronomy", "test", 3).replace("一".encode(), "元".encode())}
    (tmp_path / "cmmlu.zip").write_bytes(packed(changed))
    new = find(small, tmp_path, NOWHERE, tmp_path / "cache", print)
    assert content(old) == EXPECTED
    assert content(new)["agronomy", "test"][0]["A"] == "元"
    assert find(small, None, NOWHERE, tmp_path / "cache", print).files == new.files


def test_rows_that_are_no_longer_whole_are_made_again(small, tmp_path):
    lay_zip(tmp_path)
    ready = find(small, tmp_path, NOWHERE, tmp_path / "cache", print)
    path = ready.files["anatomy"]["dev"]
    path.write_bytes(path.read_bytes()[:-5])
    assert readiness(small, None, NOWHERE, tmp_path / "cache")[0] is False
    assert content(find(small, tmp_path, NOWHERE, tmp_path / "cache", print)) == EXPECTED


def test_rows_of_an_older_form_are_not_taken_for_those_of_now(small, tmp_path, monkeypatch):
    lay_zip(tmp_path)
    find(small, tmp_path, NOWHERE, tmp_path / "cache", print)
    assert readiness(small, None, NOWHERE, tmp_path / "cache")[0]
    monkeypatch.setattr(rowstore, "_FORMAT", rowstore._FORMAT + 1)
    assert not readiness(small, None, NOWHERE, tmp_path / "cache")[0]
    assert content(find(small, tmp_path, NOWHERE, tmp_path / "cache", print)) == EXPECTED


def test_rows_that_another_process_wrote_meanwhile_are_taken(small, tmp_path, monkeypatch):
    lay_zip(tmp_path)
    other = find(small, tmp_path, NOWHERE, tmp_path / "cache", print)
    seen = iter([None])
    whole = rowstore.RowStore._manifest
    monkeypatch.setattr(rowstore.RowStore, "_manifest", lambda self, digest: next(seen, whole(self, digest)))
    assert find(small, tmp_path, NOWHERE, tmp_path / "cache", print).files == other.files


@pytest.mark.parametrize(
    "spoil, told",
    [
        (lambda f: packed(f)[:-40], r"cmmlu\.zip: no whole archive"),
        (lambda f: packed(f | {"../x.csv": b""}), r"cmmlu\.zip: \.\./x\.csv: leads out of the archive"),
        (lambda f: packed({k: v for k, v in f.items() if k != "test/anatomy.csv"}), "has no test of anatomy; fetch"),
        (lambda f: packed({k: v for k, v in f.items() if "dev" not in k}), "has no dev; fetch it again"),
        (lambda f: packed(files({"test": 2, "dev": 2})), r"4 rows in test where there are 6; fetch it again"),
        (
            lambda f: packed(f | {"test/anatomy.csv": f["test/anatomy.csv"].splitlines()[0]}),
            "no rows of anatomy in test",
        ),
        (
            lambda f: packed(f | {"dev/anatomy.csv": f["dev/anatomy.csv"].replace(b",B\r", b",F\r")}),
            r"csv:3: no answer",
        ),
        (lambda f: packed(f | {"dev/anatomy.csv": b"Question,A,B,C,Answer\n1,2,3,4,A"}), r"csv:2: not four choices"),
        (
            lambda f: packed(f | {"dev/anatomy.csv": f["dev/anatomy.csv"].decode("utf-8-sig").encode("gb18030")}),
            r"cmmlu.zip/dev/anatomy.csv:2: not UTF-8",
        ),
    ],
)
def test_damaged_files_are_told_in_one_line_and_leave_nothing(small, tmp_path, spoil, told):
    (tmp_path / "cmmlu.zip").write_bytes(spoil(files()))
    with pytest.raises(BuddyError, match=told) as fault:
        find(small, tmp_path, NOWHERE, tmp_path / "cache", print)
    assert len(fault.value.lines) == 1 and "cmmlu" in fault.value.lines[0]
    assert not list((tmp_path / "cache").rglob("*.jsonl"))


def test_a_folder_that_is_none_is_told(small, tmp_path):
    with pytest.raises(BuddyError, match=r"--data-dir .*/nothing: no such folder"):
        find(small, tmp_path / "nothing", NOWHERE, tmp_path / "cache", print)
    (tmp_path / "a.zip").write_bytes(b"")
    with pytest.raises(BuddyError, match="a file, not a folder; give the folder in which it lies"):
        find(small, tmp_path / "a.zip", NOWHERE, tmp_path / "cache", print)
    assert readiness(small, tmp_path / "a.zip", NOWHERE, tmp_path / "cache")[0] is False


def test_without_a_network_the_names_that_are_looked_for_are_told(small, tmp_path, hubs):  # noqa: F811
    hubs.huggingface.status = 503
    with pytest.raises(BuddyError) as fault:
        find(small, tmp_path, NOWHERE, tmp_path / "cache", print)
    (line,) = fault.value.lines
    assert line.startswith(f"cmmlu: {tmp_path} has none of cmmlu.zip, cmmlu_v1_0_1.zip, cmmlu, cmmlu_v1_0_1; ")
    assert "someone/mountains (1.1 MB) cannot be had: huggingface: status 503" in line
    assert line.endswith("give --data-dir with cmmlu.zip or cmmlu_v1_0_1.zip or cmmlu or cmmlu_v1_0_1")


def test_a_repository_with_a_script_is_read_through_its_archive(small, tmp_path, hubs):  # noqa: F811
    hubs.huggingface.files = {
        "cmmlu.py": b"raise SystemExit('run')", "README.md": b"", "cmmlu_v1_0_1.zip": packed(files())
    }  # fmt: skip
    ready = find(small, None, NOWHERE, tmp_path / "cache", print)
    assert content(ready) == EXPECTED
    assert ready.source == f"huggingface: someone/mountains @ {COMMIT[:20]}"
    assert [name for name, _ in hubs.huggingface.fetched] == ["cmmlu_v1_0_1.zip"]
    hubs.huggingface.status = 503
    assert find(small, None, NOWHERE, tmp_path / "cache", print) == ready


def test_the_other_hub_serves_its_own_files(small, tmp_path, hubs):  # noqa: F811
    hubs.huggingface.status = hubs.mirror.status = 503
    hubs.modelscope.files = mirrored() | {"README.md": b"", "other.csv": b"x"}
    ready = find(small, None, HubSection(), tmp_path / "cache", print)
    assert content(ready) == EXPECTED
    assert ready.source.startswith("modelscope: someone/mountains @ listing-")
    assert sorted(name for name, _ in hubs.modelscope.fetched) == ["data/dev.jsonl", "data/test.jsonl"]


def test_the_preferred_hub_is_asked_first_though_the_file_names_it_last(small, tmp_path, hubs):  # noqa: F811
    hubs.huggingface.files = {"cmmlu_v1_0_1.zip": packed(files())}
    hubs.modelscope.files = mirrored()
    find(small, None, HubSection(order=["modelscope", "huggingface"]), tmp_path / "cache", print)
    assert not hubs.huggingface.asked


def test_a_repository_without_all_files_is_passed_over(small, tmp_path, hubs):  # noqa: F811
    hubs.huggingface.files = {"README.md": b""}
    hubs.modelscope.files = {"data/test.jsonl": b"{}"}
    with pytest.raises(
        BuddyError, match=r"none of its 1 files matches.*someone/mountains on modelscope has no dev; give"
    ):
        find(small, None, HubSection(order=["huggingface", "modelscope"]), tmp_path / "cache", print)


def test_terms_are_told_with_where_to_accept_them_and_what_else_is_needed(tmp_path, hubs):  # noqa: F811
    hubs.huggingface.files = {"gpqa_diamond.csv": b"x"}
    hubs.huggingface.gated = True
    gpqa = load_benchmark("gpqa")
    assert "https://huggingface.co/datasets/Idavidrein/gpqa" in readiness(gpqa, None, NOWHERE, tmp_path)[1]
    place = gpqa.data.places[0].model_copy(update={"huggingface": "someone/mountains"})
    gated = gpqa.model_copy(update={"data": gpqa.data.model_copy(update={"places": [place]})})
    with pytest.raises(BuddyError) as fault:
        find(gated, None, NOWHERE, tmp_path, print)
    (line,) = fault.value.lines
    assert "asks for consent: accept the terms on" in line
    assert "huggingface.co/settings/tokens" in line and "hf auth login" in line
    assert "--data-dir with gpqa_diamond.csv" in line


def test_where_rows_are_missing_a_folder_the_cache_serves_and_says_so(small, tmp_path):
    lay_zip(tmp_path)
    first = find(small, tmp_path, NOWHERE, tmp_path / "cache", print)
    (tmp_path / "empty").mkdir()
    told = []
    assert find(small, tmp_path / "empty", NOWHERE, tmp_path / "cache", told.append) == first
    assert "has none of cmmlu.zip" in told[0].text and str(tmp_path / "cmmlu.zip") in told[0].text


def test_examples_that_a_benchmark_can_do_without_may_be_missing(tmp_path):
    hellaswag = load_benchmark("hellaswag")
    splits = {name: split.model_copy(update={"rows": [1]}) for name, split in hellaswag.data.splits.items()}
    one = hellaswag.model_copy(update={"data": hellaswag.data.model_copy(update={"splits": splits})})
    line = {"activity_label": "Cooking", "ctx_a": "A man", "ctx_b": "", "endings": list("abcd"), "label": "2"}
    (tmp_path / "hellaswag_val.jsonl").write_text(json.dumps(line | {"source_id": "x"}), "utf-8")
    ready = find(one, tmp_path, NOWHERE, tmp_path / "cache", print)
    assert ready.counts == {"validation": 1}
    assert content(ready) == {("hellaswag", "validation"): [line | {"label": 2}]}
    (tmp_path / "hellaswag_train.jsonl").write_text(json.dumps(line), "utf-8")
    assert find(one, tmp_path, NOWHERE, tmp_path / "cache", print).counts == {"validation": 1, "train": 1}


def test_readiness_asks_nobody_and_answers_for_every_benchmark(tmp_path, hubs):  # noqa: F811
    for name in benchmark_names():
        ready, line = readiness(load_benchmark(name), tmp_path, HubSection(), tmp_path / "cache")
        assert "\n" not in line and (ready or "--data-dir with" in line)
    assert not hubs.huggingface.asked and not hubs.mirror.asked and not hubs.modelscope.asked


def test_what_judges_is_looked_for_before_any_row_is(small, tmp_path):
    needy = small.model_copy(update={"needs": ["nothing-of-this-name>=2", "nltk_data/tokenizers/nothing"]})
    with pytest.raises(
        BuddyError, match=r'cmmlu: needs nothing-of-this-name>=2; install with `pip install "noth.*>=2"`'
    ):
        find(needy, tmp_path / "nothing", NOWHERE, tmp_path / "cache", print)
    lay_zip(tmp_path)
    assert content(find_rows(needy, tmp_path, NOWHERE, tmp_path / "cache", print)) == EXPECTED
    ready, line = readiness(needy, tmp_path, NOWHERE, tmp_path / "cache")
    assert not ready and line.startswith("needs nothing-of-this-name>=2; ") and "its rows: in" in line


def test_files_of_nltk_are_told_with_how_to_get_them(tmp_path, monkeypatch):
    nltk = pytest.importorskip("nltk")
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    assert "python -m nltk.downloader punkt_tab" in lacking(["nltk>=3.9.1", "nltk_data/tokenizers/punkt_tab"])
    (tmp_path / "tokenizers" / "punkt_tab").mkdir(parents=True)
    assert lacking(["nltk>=3.9.1", "nltk_data/tokenizers/punkt_tab"]) is None
    assert lacking(["nltk>=99"]).startswith("needs nltk>=99")


def test_a_part_of_the_rows_lies_under_a_name_of_its_own(small, tmp_path):
    lay_zip(tmp_path)
    ready = find(small, tmp_path, NOWHERE, tmp_path / "cache", print)
    part = select(ready, lambda row: row["Answer"] == "A", tmp_path / "parts")
    assert part.counts == {"test": 2, "dev": 2}
    assert all(row["Answer"] == "A" for rows in content(part).values() for row in rows)
    other = select(ready, lambda row: row["Answer"] != "A", tmp_path / "parts")
    assert other.files["agronomy"]["test"] != part.files["agronomy"]["test"]
    assert part.source == f"a part of {ready.source}"


real = pytest.mark.skipif(not REAL.is_dir(), reason=f"needs the files of {REAL}")


@real
@pytest.mark.parametrize(
    "name, counts",
    [
        ("cmmlu", {"test": 11582, "dev": 335}),
        ("ceval", {"val": 1346, "dev": 260}),
        ("mmlu", {"test": 14042, "dev": 285}),
        ("mmlu_continuation", {"test": 14042, "dev": 285}),
        ("ifeval", {"train": 541}),
        ("math-500", {"test": 500}),
        ("aime24", {"train": 30}),
    ],
)
def test_the_real_files_are_read_whole(name, counts, tmp_path):
    benchmark = load_benchmark(name)
    ready = find_rows(benchmark, REAL, NOWHERE, tmp_path, print)
    assert ready.counts == counts
    assert sorted(ready.files) == sorted(subjects_of(benchmark))
    assert readiness(benchmark, REAL, NOWHERE, tmp_path)[1]


@real
def test_unpacked_real_files_give_the_same_rows_as_their_archives(tmp_path):
    for name in ("cmmlu", "ceval", "mmlu"):  # all in one folder, as `unzip` leaves them
        with zipfile.ZipFile(REAL / f"{name}.zip") as archive:
            archive.extractall(tmp_path / "in")
    for name in ("cmmlu", "ceval", "mmlu"):
        packed_, plain = (
            find(load_benchmark(name), place, NOWHERE, tmp_path / f"cache-{place.name}", print)
            for place in (REAL, tmp_path / "in")
        )
        assert content(packed_) == content(plain), name


@real
def test_most_items_of_ifeval_need_no_file_of_nltk(tmp_path):
    ready = find_rows(load_benchmark("ifeval"), REAL, NOWHERE, tmp_path, print)
    free = select(ready, lambda row: not needs_punkt(row), tmp_path / "parts")
    assert free.counts["train"] == 541 - sum(map(needs_punkt, content(ready)["ifeval", "train"]))
    assert free.counts["train"] > 400


@real
def test_only_the_items_that_need_it_fail_without_punkt(tmp_path, monkeypatch):
    nltk = pytest.importorskip("nltk")
    pytest.importorskip("langdetect")
    pytest.importorskip("immutabledict")
    monkeypatch.setattr(nltk, "download", lambda name: False)  # which lm-eval calls at import
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    from lm_eval.tasks.ifeval import utils
    from lm_eval.tasks.ifeval.instructions_util import _get_sentence_tokenizer

    _get_sentence_tokenizer.cache_clear()
    rows = content(find_rows(load_benchmark("ifeval"), REAL, NOWHERE, tmp_path / "cache", print))["ifeval", "train"]
    first = {instruction: row for row in reversed(rows) for instruction in row["instruction_id_list"]}
    assert len(first) == 25
    for row in first.values():
        try:
            utils.process_results(row, ["It is good, my friend.\n\nVERY good."])
            failed = False
        except LookupError:
            failed = True
        assert failed == needs_punkt(row), row["instruction_id_list"]
