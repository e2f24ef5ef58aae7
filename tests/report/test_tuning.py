"""Pages of fine-tuning and preference tuning: every number given is shown, what is absent leaves no hole."""

import math
import re
from dataclasses import replace

import pytest

from buddygpt.evaluation.judgement import FIGURES
from buddygpt.report.context import FoundCell
from buddygpt.report.page import Report, render
from buddygpt.report.reach import BEFORE, EXTENDED, NAMES, TUNED, Context, Reached
from buddygpt.report.tuning import REPEATS, STOPS, Changes, Tuning, tuning_cautions
from buddygpt.report.words import CHINESE
from tests.report.test_page import HOSTILE, Reader, eval_row, step_row


def pair_step(step, chosen=0.4, rejected=-0.9, **more):
    rewards = {"chosen": chosen, "rejected": rejected, "margins": chosen - rejected, "accuracies": 0.75}
    figures = {f"rewards/{name}": value for name, value in rewards.items()}
    figures |= {"logps/chosen": -61.5, "logps/rejected": -72.25}
    return step_row(step, loss=math.log(2) - step / 1000, **figures) | more


def pair_eval(step, source="demo", accuracy=0.8125, margin=1.234, chosen=2.5, rejected=-9.84):
    figures = {"accuracy": accuracy, "margin": margin, "chosen_log_ratio": chosen, "rejected_log_ratio": rejected}
    return {"step": step, "tokens": step * 1000} | {f"eval/{source}/{name}": value for name, value in figures.items()}


CHANGES = Changes(
    ("nearest question", "pretrain", "sft"),
    [("facts held out", "12.3%", "0.0%", "71.4%"), ("stops by itself", "", "3.1%", "99.2%")],
    {name: meaning for name, (_, meaning) in FIGURES.items()},
)
EDGES = tuple(range(0, 257, 16))


def reached(old, new, found=0.5):
    cells = [FoundCell(length, depth, found) for length in (64, 256) for depth in (0.0, 1.0)]
    return Reached(EDGES, [old] * 4 + [new] * 12, [0.01] * 16, old, new, cells, found, found / 2)


CONTEXT = Context(
    64, 256, "linear", {BEFORE: reached(2.0, 7.125), EXTENDED: reached(2.75, 3.5), TUNED: reached(2.016, 1.875, 0.96)},
    "held-out text of pretraining", 17, 4, ["the filler is too short"],
)  # fmt: skip


@pytest.fixture
def dpo():
    metrics = [pair_step(step) for step in range(1, 41)] + [pair_eval(40), pair_eval(40, "other", 0.625)]
    samples = [{"step": 40, "prompt": "春天", "text": "到了", "distinct_4grams": 0.87}]
    tuning = Tuning("dpo", CHANGES, {STOPS: 1.0}, {STOPS: 1.0}, (3.21, 0.0512), math.log(2))
    return Report("tiny", {"model": [("began with", "a")]}, metrics, samples, {}, "buddy chat x", True, tuning)


@pytest.fixture
def sft():
    metrics = [step_row(step) for step in range(1, 41)] + [eval_row(40, "talks", 1.375)]
    return Report("tiny", {}, metrics, [], {}, "buddy chat x", True, Tuning("sft", CHANGES, context=CONTEXT))


def text_of(report):
    return Reader(render(report)).all_text()


def labels(report):
    return [a["aria-label"] or "" for tag, a in Reader(render(report)).tags if tag == "svg"]


def test_preference_page_shows_the_numbers_given(dpo):
    text = text_of(dpo)
    assert "偏好调优报告" in text and "bits per character" not in text and "5-gram" not in text
    for number in ("81.2%", "62.5%", "1.234", "+2.50", "−9.84", "3.21", "0.0512", "12.3%", "71.4%", "99.2%"):
        assert number in text
    keys = re.findall(r"</i>([^<]*)</li>", render(dpo))
    assert {"较好的 chosen 0.400", "较差的 rejected −0.900", "较好的 chosen −61.500", "较差的 rejected −72.250"} <= set(
        keys
    )
    assert {"demo 0.812", "other 0.625", "训练 training, mean of ±2 steps 0.750", "起点 at first 0.693"} <= set(keys)
    assert {"demo 较好的 chosen 2.500", "demo 较差的 rejected −9.840"} <= set(keys)


def test_preference_page_draws_every_figure_once(dpo):
    drawn = ("preference accuracy", "training loss", "reward margin", "rewards", "log-probabilities",
             "change of log-probabilities", "learning rate", "gradient norm", "tokens per second")  # fmt: skip
    heads = re.findall(r"<figcaption><strong>[^<]* <small[^>]*>([^<]*)</small>", render(dpo))
    assert tuple(heads) == drawn
    assert len(labels(dpo)) == len(drawn) + 1  # accuracy for wide and for narrow pages


def test_the_line_of_the_first_loss_is_only_where_it_is_known(dpo):
    other = replace(dpo, tuning=replace(dpo.tuning, first_loss=None))
    assert "at first" in text_of(dpo) and "at first" not in text_of(other)


def test_fine_tuning_page_says_that_answers_are_judged(sft):
    text = text_of(sft)
    assert "微调报告" in text and "留出的回答" in text and "bits per character of held-out answers" in text
    assert "1.375" in text and "5-gram" not in text and "留出文本 held" not in text
    assert any(label.startswith("留出的回答的每字符比特数") for label in labels(sft))


def test_every_figure_of_a_model_and_its_meaning_have_chinese():
    assert set(FIGURES) | {meaning for _, meaning in FIGURES.values()} <= CHINESE.keys()
    assert {STOPS, REPEATS} <= FIGURES.keys() and set(NAMES) <= CHINESE.keys()


def test_changes_name_stages_figures_and_meanings(sft):
    text = text_of(sft)
    for words in ("最相近问题 nearest question", "预训练 pretrain", "没问过的事实 facts held out", "训练中从没问过"):
        assert words in text
    none = replace(sft, tuning=replace(sft.tuning, changes=replace(CHANGES, rows=[])))
    assert "what each stage changed" in text and "what each stage changed" not in text_of(none)


def test_longer_context_is_told_drawn_and_judged(sft):
    text = text_of(sft)
    assert "64 → 256 词元，linear 缩放" in text and "17 段文本，预训练的留出文本" in text and "4 of each length" in text
    rows = re.findall(r'<tr><th scope="row">(\S+) <small[^>]*>[^<]*</small></th>(.*?)</tr>', render(sft))
    told = {name: re.findall(r">([^<]+)</td>", cells) for name, cells in rows}
    assert told["未扩展"] == ["2.000", "7.125", "50%", "25%"]
    assert told["扩展，未训练"] == ["2.750", "3.500", "50%", "25%"]
    assert told["扩展并训练"] == ["2.016", "1.875", "96%", "48%"]
    assert "原长度内每字符比特 +0.8%" in text and "the filler is too short" in text
    assert sum("needles found" in label for label in labels(sft)) == 3
    assert any("by position" in label for label in labels(sft))


@pytest.mark.parametrize(("tuned", "told"), [(2.019, False), (2.021, True), (1.5, False)])
def test_old_positions_worse_by_more_than_a_hundredth_are_a_caution(tuned, told):
    context = replace(CONTEXT, models=CONTEXT.models | {TUNED: reached(tuned, 1.9)})
    cautions = [english for _, english in tuning_cautions([], Tuning("sft", context=context))]
    assert bool(cautions) == told
    if told:
        assert "worse by 1.0%" in cautions[0] or "worse by 1.1%" in cautions[0]
        assert "2.000 -> 2.021" in cautions[0]


def test_what_was_not_measured_is_a_dash(sft):
    partly = replace(CONTEXT, models={BEFORE: Reached(), EXTENDED: reached(2.5, 3.0)}, windows=0, needles=0)
    report = replace(sft, tuning=replace(sft.tuning, context=partly))
    text = text_of(report)
    assert "段文本" not in text and "口令" not in text and "原长度内每字符比特" not in text
    assert sum("needles found" in label for label in labels(report)) == 1
    Reader(render(replace(sft, tuning=replace(sft.tuning, context=replace(CONTEXT, models={})))))


@pytest.mark.parametrize(
    ("chosen", "rejected", "told"), [(-1.5, -9.0, True), (-0.5, -9.0, False), (3.0, -9.0, False), (-1.5, 2.0, False)]
)
def test_chosen_answers_that_fell_too_are_a_caution(chosen, rejected, told):
    held_out = [pair_eval(20, chosen=5.0), pair_eval(40, chosen=chosen, rejected=rejected)]
    training = [pair_step(step, chosen / 10, rejected / 10) for step in range(1, 41)]
    for metrics in (held_out, training):
        cautions = [english for _, english in tuning_cautions(metrics, Tuning("dpo"))]
        assert bool(cautions) == told
        if told:
            assert "chosen" in cautions[0] and "less probable" in cautions[0]
        assert not list(tuning_cautions(metrics, Tuning("sft")))


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ({STOPS: 0.98, REPEATS: 0.02}, {STOPS: 0.90, REPEATS: 0.02}, ["fewer replies end by themselves than before"]),
        ({STOPS: 0.98, REPEATS: 0.02}, {STOPS: 0.98, REPEATS: 0.11}, ["more replies repeat themselves than before"]),
        ({STOPS: 0.98, REPEATS: 0.02}, {STOPS: 0.95, REPEATS: 0.05}, []),
        ({STOPS: 0.0, REPEATS: 0.9}, {STOPS: 1.0, REPEATS: 0.0}, []),
        ({STOPS: 0.98}, {}, []),
        ({}, {REPEATS: 0.9}, []),
    ],
)
def test_health_that_got_worse_is_a_caution(dpo, before, after, words):
    tuning = replace(dpo.tuning, before=before, after=after)
    cautions = list(tuning_cautions(dpo.metrics, tuning))
    assert [english.split(":")[0] for _, english in cautions] == words
    text = text_of(replace(dpo, tuning=tuning))
    assert all(chinese in text and english in text for chinese, english in cautions)


PARTS = {"changes": CHANGES, "kl": (1.0, 0.1), "first_loss": 0.693, "context": CONTEXT}


@pytest.mark.parametrize("chapter", ["sft", "dpo"])
def test_a_page_stands_with_each_part_absent(chapter):
    steps = {"sft": [step_row(1), step_row(2)], "dpo": [pair_step(1), pair_step(2)]}[chapter]
    judged = {"sft": [eval_row(2, "a", 1.5)], "dpo": [pair_eval(2)]}[chapter]
    whole = Tuning(chapter, **PARTS)
    for metrics in ([], steps, judged, steps + judged):
        Reader(render(Report("t", {}, metrics, [], {}, "c", bool(metrics), whole)))
    for name in PARTS:
        tuning = Tuning(chapter, **{part: value for part, value in PARTS.items() if part != name})
        Reader(render(Report("t", {}, steps + judged, [], {}, "c", True, tuning)))
    assert "还没有任何训练记录" in text_of(Report("t", {}, [], [], {}, "c", False, Tuning(chapter)))


@pytest.mark.parametrize("gap", [None, math.nan, math.inf])
def test_gaps_are_told(dpo, gap):
    metrics = [pair_step(s, **({"rewards/chosen": gap, "loss": gap} if s == 7 else {})) for s in range(1, 41)]
    metrics.append(pair_eval(40, margin=gap, accuracy=gap, chosen=gap, rejected=gap))
    html = render(replace(dpo, metrics=metrics))
    text = Reader(html).all_text()
    assert "损失在 1 步不是有限数" in text and "demo 的评估不是有限数：第 40 步" in text
    assert not re.search(r' d="[^"]*(nan|inf)', html, re.IGNORECASE)


def test_pairs_about_facts_held_out_have_a_chinese_name(dpo):
    text = text_of(replace(dpo, metrics=[pair_eval(40, "facts held out", 0.9)]))
    assert "没问过的事实 偏好正确率" in text and "90.0%" in text


def test_hostile_text_stays_text(dpo, sft):
    changes = Changes((HOSTILE,), [(HOSTILE, HOSTILE)], {HOSTILE: HOSTILE})
    context = replace(CONTEXT, scaling=HOSTILE, text=HOSTILE, notes=[HOSTILE])
    for report, row in ((dpo, pair_eval(40, HOSTILE, chosen=-5.0)), (sft, eval_row(40, HOSTILE, 2.0))):
        tuning = replace(report.tuning, changes=changes, context=context)
        html = render(replace(report, tuning=tuning, metrics=[*report.metrics, row]))
        assert {"script", "img"}.isdisjoint(tag for tag, _ in Reader(html).tags)
        assert Reader(html).all_text().count(HOSTILE) >= 8


def test_ids_are_unique_and_the_bytes_the_same(dpo, sft):
    for report in (dpo, sft, replace(dpo, tuning=replace(dpo.tuning, context=CONTEXT))):
        html = render(report)
        ids = Reader(html).attributes("id")
        assert len(ids) == len(set(ids)) and html == render(report)
