"""Scores from lm-eval's own results, by question and by subject; two models paired by what the items hold."""

import json
import math

import pytest

from buddygpt.evaluation.scoreboard import Asked, Mark, marks, paired, score, scores_of
from buddygpt.evaluation.significance import interval, share_error
from buddygpt.report.scores import Measured, measured_from, plain

CHOICE = Asked("toy", "toy", "acc,none", chance=0.25, shots=2)


def sample(doc_id, item, filter_="none", **metrics):
    return {"doc_id": doc_id, "doc_hash": item, "filter": filter_, "metrics": list(metrics), **metrics}


def results(subjects, root="toy", shots=None, total=None):
    """As lm-eval lays them out: subject to its samples."""
    names = [f"{root}_{subject}" for subject in subjects]
    numbers = {}
    for name, rows in zip(names, subjects.values(), strict=True):
        keys = {f"{metric},{row['filter']}": metric for row in rows for metric in row["metrics"]}
        numbers[name] = {"name": name, "alias": name, "sample_len": len(rows)} | {
            key: sum(row[m] for row in rows if m in row) / len(rows)
            for key, m in keys.items()
            if not isinstance(rows[0].get(m), (list, tuple))
        }
    return {
        "results": numbers,
        "group_subtasks": {root: names},
        "samples": dict(zip(names, subjects.values(), strict=True)),
        "n-shot": dict.fromkeys(names, 2) | {f"{root}_{s}": n for s, n in (shots or {}).items()},
        "n-samples": {n: {"original": total or len(r), "effective": len(r)} for n, r in zip(names, subjects.values())},
    }


def answered(right, wrong, name=""):
    return [sample(i, f"{name}{i}", acc=float(i < right)) for i in range(right + wrong)]


TWO = {"law": answered(10, 0, "law"), "art": answered(0, 30, "art")}


def test_questions_weigh_alike_in_one_mean_and_subjects_in_the_other():
    (found,) = scores_of(results(TWO), [CHOICE])
    assert found.value == 0.25 and found.subject_mean == 0.5
    assert (found.n, found.total) == (40, 40)
    assert found.subjects == {"law": (1.0, 10, *interval(1.0, 10)), "art": (0.0, 30, *interval(0.0, 30))}
    assert found.stderr == share_error(0.25, 40) and (found.low, found.high) == interval(0.25, 40)
    assert found.above_chance is False and found.shots == 2 and not found.fewer_shots


def test_a_task_alone_has_no_subjects_and_no_mean_of_them():
    (found,) = scores_of(results({"law": answered(3, 1)}), [CHOICE])
    assert found.subjects == {} and found.subject_mean is None and found.above_chance is True


def test_fewer_shots_and_a_limit_are_told():
    (found,) = scores_of(results(TWO, shots={"art": 1}, total=100), [CHOICE])
    assert found.fewer_shots == {"art": 1} and found.total == 200 and found.n == 40


def test_items_without_the_metric_do_not_count_and_a_metric_of_none_is_a_fault():
    rows = [*answered(3, 1), sample(9, "9", other=1.0)]
    (found,) = scores_of(results({"law": rows}), [CHOICE])
    assert (found.value, found.n) == (0.75, 4)
    with pytest.raises(ValueError, match="acc,strict"):
        scores_of(results(TWO), [Asked("toy", "toy", "acc,strict")])


def test_each_filter_is_a_metric_of_its_own():
    rows = [
        sample(i, str(i), f, exact_match=float(i < n)) for f, n in (("strict", 1), ("flexible", 3)) for i in range(4)
    ]
    for subjects in ({"law": rows}, {"law": rows, "art": rows}):
        (found,) = scores_of(results(subjects), [Asked("toy", "toy", "exact_match,strict")])
        assert found.value == 0.25 and found.n == 4 * len(subjects)
        if len(subjects) == 2:
            assert found.extra == {"exact_match,flexible": 0.75}


def test_further_metrics_are_kept_by_question():
    rows = {s: [dict(row, acc_norm=row["acc"] / 2, metrics=["acc", "acc_norm"]) for row in r] for s, r in TWO.items()}
    (found,) = scores_of(results(rows), [CHOICE])
    assert found.extra == {"acc_norm": 0.125}


def test_groups_within_groups_are_opened_and_a_subject_counts_once():
    inner = results(TWO)
    inner["group_subtasks"] = {"toy": ["toy_a", "toy_law"], "toy_a": ["toy_law", "toy_art"]}
    (found,) = scores_of(inner, [CHOICE])
    assert found.n == 40 and list(found.subjects) == ["law", "art"]


def test_lists_of_instructions_weigh_by_how_many_there_are():
    rows = [sample(0, "a", strict=[True, False, True]), sample(1, "b", strict=[False])]
    outcome = results({"law": rows})
    assert marks(outcome, Asked("t", "toy", "strict,none")) == {("law", "a"): (2, 3), ("law", "b"): (0, 1)}
    (found,) = scores_of(outcome, [Asked("t", "toy", "strict,none")])
    assert (found.value, found.n) == (0.5, 2) and 0 <= found.low < 0.5 < found.high <= 1


def test_bits_weigh_by_the_length_of_the_text():
    rows = [
        sample(0, "a", bits_per_byte=(-30 * math.log(2), 10)),
        sample(1, "b", bits_per_byte=[-10 * math.log(2), 10]),
    ]
    (found,) = scores_of(results({"law": rows}), [Asked("t", "toy", "bits_per_byte,none")])
    assert found.value == pytest.approx(2.0) and not found.share and found.above_chance is None
    assert found.high - found.value == pytest.approx(found.value - found.low) and found.stderr == pytest.approx(1.0)


def test_models_are_paired_by_subject_and_item_not_by_place():
    a = marks(results({"law": answered(8, 2), "art": answered(5, 5)}), CHOICE)
    some = [dict(row, doc_id=place) for place, row in enumerate(reversed(answered(2, 8)[1:5]))]
    b = marks(results({"law": some, "sea": answered(3, 0)}), CHOICE)
    found = paired("toy", "acc,none", ("a", a), ("b", b))
    # Items 1 to 4 of law: a has all right, b only item 1.
    assert (found.n, found.only_first, found.only_second, found.alone) == (4, 3, 0, 6 + 10 + 3)
    assert found.difference == 0.75 and found.p == 0.25 and found.better is None
    assert found.verdict == ("可能只是运气", "may be chance")


def test_a_question_that_stands_twice_is_two_items():
    twice = [sample(0, "x", acc=1.0), sample(1, "x", acc=0.0), sample(2, "y", acc=1.0)]
    found = marks(results({"law": twice}), CHOICE)
    assert list(found.values()) == [(1, 1), (0, 1), (1, 1)]
    assert marks(results({"law": twice[::-1]}), CHOICE) == found


def test_a_real_difference_is_told_with_who_is_better():
    a, b = (marks(results({"law": answered(n, 100 - n)}), CHOICE) for n in (60, 40))
    found = paired("toy", "acc,none", ("甲", a), ("乙", b))
    assert found.only_first == 20 and found.only_second == 0 and found.p == 2 / 2**20
    assert found.better == "甲" and found.verdict[1] == "the difference is real: 甲 is better"
    other = paired("toy", "acc,none", ("乙", b), ("甲", a))
    assert other.better == "甲" and other.p == found.p and other.difference == -found.difference
    assert found.stderr == pytest.approx(math.sqrt(0.2 * 0.8 / 99))


def test_fewer_bits_are_better_and_long_texts_weigh_more():
    a = {("t", str(i)): Mark(100.0 * (i + 1), 50.0 * (i + 1)) for i in range(20)}
    b = {key: Mark(mark.value * 1.1 + (-1) ** i, mark.weight) for i, (key, mark) in enumerate(a.items())}
    found = paired("text", "bits_per_character", ("a", a), ("b", b))
    assert found.better == "a" and found.difference == pytest.approx(-0.2) and found.only_first is None
    assert found.p == pytest.approx(1e-4)
    whole = [score(Asked("text", "", "bits_per_character"), side).value for side in (a, b)]
    assert whole[0] - whole[1] == pytest.approx(found.difference)


def test_nothing_in_common_and_no_numbers_are_no_difference():
    a, b = {("t", "1"): Mark(1.0)}, {("t", "2"): Mark(1.0)}
    found = paired("toy", "acc,none", ("a", a), ("b", b))
    assert (found.n, found.p, found.alone, found.better) == (0, None, 2, None)
    assert found.verdict == ("没有共同的题目", "no items in common")
    lost = paired(
        "text", "bits_per_byte", ("a", {("t", "1"): Mark(math.nan, 2.0)}), ("b", {("t", "1"): Mark(1.0, 2.0)})
    )
    assert lost.n == 0 and lost.alone == 1 and lost.better is None


def test_scores_come_back_from_json_as_they_were():
    (found,) = scores_of(results(TWO, shots={"art": 1}), [CHOICE])
    one = score(Asked("text", "", "bits_per_character", contaminated=3, cut=2), {("t", "1"): Mark(3.0, 2.0)})
    assert one.stderr is None and one.value == one.low == one.high == 1.5
    row = Measured("模型", (found, one))
    assert measured_from(json.loads(json.dumps(plain(row), allow_nan=False))) == row


def test_no_number_is_null_in_json_and_comes_back():
    row = Measured("a", (score(Asked("text", "", "bits_per_character"), {("t", "1"): Mark(math.nan, 2.0)}),))
    back = measured_from(json.loads(json.dumps(plain(row), allow_nan=False)))
    assert math.isnan(back.scores[0].value) and plain(back) == plain(row)


@pytest.fixture(scope="module")
def harness(tmp_path_factory):
    """Results of lm-eval itself, of a model that always says A."""
    lm_eval = pytest.importorskip("lm_eval")
    from lm_eval.api.model import LM
    from lm_eval.tasks import TaskManager

    class First(LM):
        def loglikelihood(self, requests):
            return [(-float("ABCD".index(r.args[1].strip())), False) for r in requests]

        def loglikelihood_rolling(self, requests):
            return [-float(len(r.args[0]) ** 2) for r in requests]

        def generate_until(self, requests):
            raise AssertionError

    folder = tmp_path_factory.mktemp("tasks")
    head = "dataset_path: json\ndataset_kwargs: {{data_files: {{test: {}}}}}\ntest_split: test\n"
    for name, right, wrong in (("law", 3, 2), ("art", 1, 5)):
        file = folder / f"{name}.jsonl"
        rows = [{"q": f"{name} {i}" * (i + 1), "a": int(i >= right)} for i in range(right + wrong)]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        (folder / f"toy_{name}.yaml").write_text(
            f"task: toy_{name}\n{head.format(file)}output_type: multiple_choice\ndoc_to_text: '{{{{q}}}}'\n"
            "doc_to_choice: [A, B, C, D]\ndoc_to_target: a\nmetric_list: [{metric: acc}, {metric: acc_norm}]\n",
            encoding="utf-8",
        )
    (folder / "toy.yaml").write_text(
        "group: toy\ntask: [toy_law, toy_art]\naggregate_metric_list: [{metric: acc}, {metric: acc_norm}]\n",
        encoding="utf-8",
    )
    (folder / "text.yaml").write_text(
        f"task: text\n{head.format(folder / 'art.jsonl')}output_type: loglikelihood_rolling\ndoc_to_text: ''\n"
        "doc_to_target: q\nmetric_list: [{metric: bits_per_byte}]\n",
        encoding="utf-8",
    )
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    return lm_eval.simple_evaluate(
        model=First(), tasks=["toy", "text"], task_manager=manager, bootstrap_iters=100, verbosity="ERROR"
    )


def test_scores_are_lm_evals_own(harness):
    text = Asked("text", "text", "bits_per_byte,none")
    toy, bits, law = scores_of(harness, [CHOICE, text, Asked("law", "toy_law", "acc,none")])
    own = harness["results"]
    assert toy.value == own["toy"]["acc,none"] == 4 / 11 and toy.extra == {"acc_norm": own["toy"]["acc_norm,none"]}
    assert {name: subject[:2] for name, subject in toy.subjects.items()} == {"law": (0.6, 5), "art": (1 / 6, 6)}
    assert (law.value, law.n, law.total) == (own["toy_law"]["acc,none"], 5, 5)
    assert law.stderr == pytest.approx(own["toy_law"]["acc_stderr,none"], rel=1e-12)
    assert bits.value == pytest.approx(own["text"]["bits_per_byte,none"], rel=1e-12) and bits.n == 6
    assert toy.fewer_shots == {"law": 0, "art": 0}
    assert paired("toy", "acc,none", ("a", marks(harness, CHOICE)), ("b", marks(harness, CHOICE))).n == 11
