"""The page of an evaluation: every score with how sure it is, what others report apart, nothing hidden."""

import itertools
import json
import math
import re
from dataclasses import replace

import pytest

from buddygpt.evaluation.scoreboard import Asked, Mark, paired, score
from buddygpt.report.evaluation import Evaluation, render, write_evaluation
from buddygpt.report.published import published
from buddygpt.report.scores import COLUMNS, Measured, Score, Subject, measured_from, plain
from buddygpt.report.subjects import FEW, subject_bars
from tests.report.evaluation_data import SUBJECTS, drawn, evaluation
from tests.report.test_page import HOSTILE, Reader


@pytest.fixture(scope="module")
def whole() -> Evaluation:
    return evaluation()


@pytest.fixture(scope="module")
def html(whole) -> str:
    return render(whole)


def text_of(report: Evaluation) -> str:
    return Reader(render(report)).all_text()


def one(task="cmmlu", right=30, n=100, chance=0.25, **more) -> Score:
    marks = {("", str(i)): Mark(float(i < right)) for i in range(n)}
    return replace(score(Asked(task, "", "acc,none", chance, 5), marks), **more)


def alone(*scores: Score, **more) -> Evaluation:
    return Evaluation("t", [Measured("m", scores)], **more)


def cells(html: str, label: str) -> list[str]:
    """Text of the measured table's cells of one task."""
    found = re.findall(rf'<td class="number( guessing)?" data-label="{label}"><div class="cell">(.*?)</td>', html)
    return [("grey " if grey else "") + " ".join(re.sub("<[^>]*>", " ", cell).split()) for grey, cell in found]


def test_page_needs_nothing_but_itself(html):
    reader = Reader(html)
    assert {"script", "link", "iframe", "img", "object", "base"}.isdisjoint(tag for tag, _ in reader.tags)
    assert not reader.attributes("src") and not re.search(r"https?:|@import|url\((?!#)", html)
    ids = reader.attributes("id")
    assert len(ids) == len(set(ids)) and len(html) < 800_000
    colours = re.findall(r"(?:fill|stroke): ([^;\"]+)", " ".join(reader.attributes("style")))
    assert colours and all(c == "none" or c.startswith("var(--") for c in colours)


def test_the_same_evaluation_gives_the_same_bytes_also_by_way_of_json(whole, html, tmp_path):
    rows = json.loads(json.dumps([plain(row) for row in whole.rows], allow_nan=False))
    again = replace(whole, rows=[measured_from(row) for row in rows])
    write_evaluation(tmp_path / "eval" / "report.html", again)
    assert (tmp_path / "eval" / "report.html").read_text("utf-8") == html


def test_columns_are_the_origins_then_the_others(html):
    tables = re.findall(r'<table class="held-out scores">.*?</table>', html, re.DOTALL)
    heads = [re.findall(r'<th class="number">([^<]*)<', table) for table in tables]
    assert heads == [list(COLUMNS), ["hellaswag", "piqa", "mmlu_continuation", "bits_per_character"]]
    names = [re.findall(r'<th scope="row">([^<]*)<', table) for table in tables]
    assert names == [["0.1b-base", "0.1b-chat"]] * 2


def test_a_cell_tells_score_error_n_and_whether_it_is_guessing():
    (cell,) = cells(render(alone(one(right=30))), "cmmlu")
    assert cell == "grey 30.00 ± 9.21 不高于随机 not above chance acc · 5-shot · 随机 chance 25 n 100"
    (cell,) = cells(render(alone(one(right=60))), "cmmlu")
    assert cell == "60.00 ± 9.85 acc · 5-shot · 随机 chance 25 n 100"
    (cell,) = cells(render(alone(one("aime24", 0, 30, 0.0))), "aime24")
    assert cell.startswith("grey 0.00 0.00–11.35 不高于随机")
    assert "warn" not in render(alone(one())).split("</style>")[1]


def test_what_is_not_above_chance_is_counted_on_top():
    text = text_of(alone(one("cmmlu", 30), one("mmlu", 60), one("ifeval", 0, chance=None)))
    assert "1 of 2 scores are not above chance" in text and "2 个分数中有 1 个" in text
    assert "not above chance:" not in text_of(alone(one(right=60)))


def test_both_means_stand_in_the_cell():
    marks = {("law", str(i)): Mark(1.0) for i in range(10)} | {("art", str(i)): Mark(0.0) for i in range(30)}
    (cell,) = cells(render(alone(score(Asked("ceval", "", "acc,none", 0.25, 5), marks))), "ceval")
    assert "25.00 ±" in cell and "50.00 科目平均 by subject" in cell


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"total": 1000}, "100 of 1,000 items asked"),
        ({"cut": 1}, "1 prompt cut to fit the context"),
        ({"contaminated": 7}, "7 training documents with pieces of its items, left out of training"),
        ({"fewer_shots": {"cmmlu": 3}}, "3 shots, for the context has no room for 5"),
        ({"contaminated": 0}, None),
    ],
)
def test_what_is_unusual_has_a_numbered_note(more, told):
    html = render(alone(one(**more), one("mmlu", **more)))
    notes = re.findall(r"<li>(.*?)</li>", html)
    assert len(notes) == (told is not None) and (told is None or told in notes[0])
    assert [cell.split()[2] for cell in cells(html, "cmmlu") + cells(html, "mmlu")] == ["1" if told else "±"] * 2


def test_notes_name_some_subjects_and_count_the_others():
    fewer = {f"subject_{i}": i for i in range(5)}
    subjects = {name: Subject(0.3, 20, 0.1, 0.5) for name in fewer}
    text = text_of(alone(one(subjects=subjects, fewer_shots=fewer)))
    assert (
        "fewer than 5 shots in 5 subjects, for want of context: subject 0 0, subject 1 1, subject 2 2, subject 3 3 + 1"
        in text
    )


def test_template_and_shots_are_told_once_where_they_are_the_same_and_in_cells_where_not():
    same = render(alone(one(chat=True), one("mmlu", chat=True)))
    assert same.count('对话模板 <span lang="en">chat template') == 1 and "不用对话模板" not in same
    mixed = render(alone(one(chat=True), one("mmlu")))
    assert "对话模板 chat template" in cells(mixed, "cmmlu")[0] and "no chat template" in cells(mixed, "mmlu")[0]
    rows = [Measured("a", [one(shots=5)]), Measured("b", [one(shots=3)])]
    assert [c.split()[-1] for c in cells(render(Evaluation("t", rows)), "cmmlu")] == ["5-shot", "3-shot"]


def test_published_scores_stand_apart_with_source_and_setting(whole, html):
    measured, others = html.split('<section class="others">')
    assert "MiniMind" not in measured and "None of these was measured here" in others
    assert "0.1b-chat" not in others.split("</section>")[0]
    body = Reader("<table" + others.split("<table", 1)[1].split("</table>")[0] + "</table>").all_text()
    assert all(row.model in body and f"{row.source}: {row.setting}" in body for row in published(COLUMNS))
    assert "77.6<sup>R</sup>" in others and "26.12</span>" in others
    assert 'class="others"' not in render(alone(one("of our own")))


def test_only_columns_that_were_asked_show_published_scores():
    others = render(alone(one("gpqa"))).split('<section class="others">')[1]
    assert "24.75" in others and "47.5" not in others and "MiniMind" not in others


def test_comparisons_tell_numbers_and_verdict(whole, html):
    (section,) = [part for part in re.findall(r"<section>.*?</section>", html, re.DOTALL) if "item by item" in part]
    text = Reader(section).all_text()
    for c in whole.comparisons:
        assert f"{c.n:,}" in text and all(part in text for part in c.verdict)
        if c.only_first is not None:
            assert f"{c.only_first:,} : {c.only_second:,}" in text
    assert "Of 12 comparisons about 0.6 would count as real by luck" in text
    nothing = paired("cmmlu", "acc,none", ("a", {("", "1"): Mark(1.0)}), ("b", {("", "2"): Mark(1.0)}))
    assert "no items in common" in text_of(alone(one(), comparisons=[nothing]))


def bars_of(count, chance=0.25):
    marks = drawn(1, 0.3, SUBJECTS[:count], 60, spread=0.1)
    return score(Asked("cmmlu", "", "acc,none", chance), marks)


def placed(svg):
    """Words of a drawing with how far down they stand."""
    return {text: float(y) for y, text in re.findall(r'<text [^>]* y="([\d.]+)"[^>]*>([^<]*)<', svg)}


@pytest.mark.parametrize("count", [2, FEW, FEW + 1, 67])
def test_subjects_are_sorted_all_there_and_none_upon_another(count):
    found = bars_of(count)
    drawings = subject_bars("m", found).drawings
    assert len(drawings) == 1 + (count > FEW)
    names = {name.replace("_", " ") for name in found.subjects}
    order = []
    for svg in drawings:
        down = sorted((y, text) for text, y in placed(svg).items() if text in names)
        order += [text.replace(" ", "_") for _, text in down]
        assert all(b - a > 15 for (a, _), (b, _) in itertools.pairwise(down))
        width, height = map(int, re.search(r'viewBox="0 0 (\d+) (\d+)"', svg).groups())
        assert width == 430 and height < 800
    values = [found.subjects[name].value for name in order]
    assert len(order) == count and values == sorted(values, reverse=True)


def test_bars_are_as_long_as_the_values_and_chance_stands_where_it_is():
    (svg,) = subject_bars("m", bars_of(5)).drawings
    ends = [float(x) for x in re.findall(r'd="M [\d.]+ [\d.]+\s+L ([\d.]+) [\d.]+\s+L [\d.]+ [\d.]+\s+L', svg)]
    values = sorted((s.value for s in bars_of(5).subjects.values()), reverse=True)
    lines = [
        float(a) for a, b in re.findall(r'd="M ([\d.]+) [\d.]+\s+L ([\d.]+) [\d.]+\s*"[^>]*dasharray', svg) if a == b
    ]
    scale = (ends[0] - ends[-1]) / (values[0] - values[-1])
    begin = ends[0] - scale * values[0]
    assert [begin + scale * v for v in values] == pytest.approx(ends, abs=0.1)
    assert lines == pytest.approx([begin + 0.25 * scale], abs=0.5)


def test_of_bits_the_fewest_come_first_and_what_is_no_number_is_not_drawn():
    subjects = {"a": Subject(2.5, 9, 2.4, 2.6), "b": Subject(1.5, 9, 1.4, 1.6)}
    found = one("bits", metric="bits_per_character", value=2.0, chance=None, subjects=subjects)
    (svg,) = subject_bars("m", found).drawings
    assert placed(svg)["b"] < placed(svg)["a"] and placed(svg)["1.50"] < placed(svg)["2.50"] and "%" not in svg
    assert render(alone(found)).count("<svg") == 1
    lost = replace(found, subjects=subjects | {"c": Subject(math.nan, 9, math.nan, math.nan)})
    assert "<svg" not in render(alone(lost))


def test_subjects_above_chance_are_counted_and_coloured():
    subjects = {"a": Subject(0.9, 40, 0.8, 0.95), "b": Subject(0.3, 40, 0.2, 0.45)}
    bars = subject_bars("m", replace(bars_of(2), subjects=subjects))
    assert "of 2 subjects 1 lie above it" in bars.note[1]
    fills = re.findall(r"fill: (var\(--[a-z]+\)); opacity", bars.drawings[0])
    assert fills == ["var(--accent)", "var(--muted)"]
    assert "chance" not in subject_bars("m", replace(bars_of(2), chance=None)).note[1]


def test_long_and_strange_names_of_subjects_are_drawn(recwarn):
    strange = {
        "中文 $x_1$": Subject(0.5, 5, 0.2, 0.8),
        HOSTILE: Subject(0.4, 5, 0.1, 0.7),
        "long_" * 20: Subject(0.3, 5, 0, 1),
    }
    (svg,) = subject_bars(HOSTILE, replace(bars_of(2), subjects=strange)).drawings
    reader = Reader(svg)
    assert {"script", "img"}.isdisjoint(tag for tag, _ in reader.tags) and "中文 $x 1$" in reader.all_text()
    assert not [w for w in recwarn if "Glyph" in str(w.message)]


def test_hostile_text_stays_text():
    strange = one(HOSTILE, extra={HOSTILE: 0.5}, subjects={HOSTILE: Subject(0.5, 5, 0, 1)}, fewer_shots={HOSTILE: 1})
    report = Evaluation(
        HOSTILE,
        [Measured(HOSTILE, [strange])],
        [paired(HOSTILE, "acc,none", (HOSTILE, {("", "1"): Mark(1.0)}), (HOSTILE, {("", "1"): Mark(0.0)}))],
        {HOSTILE: [(HOSTILE, HOSTILE)]},
    )
    reader = Reader(render(report))
    assert {"script", "img"}.isdisjoint(tag for tag, _ in reader.tags) and reader.all_text().count(HOSTILE) >= 10


def test_a_page_stands_with_each_part_absent(whole):
    assert "还没有任何分数" in text_of(Evaluation("t", []))
    assert "还没有任何分数" in text_of(Evaluation("t", [Measured("m", [])]))
    small = replace(whole, rows=[replace(row, scores=row.scores[-2:]) for row in whole.rows])
    for part in ({"rows": []}, {"comparisons": []}, {"facts": {}}):
        Reader(render(replace(small, **part)))
    lost = score(Asked("bits", "", "bits_per_character"), {("t", "1"): Mark(math.nan, 2.0)})
    (cell,) = cells(render(alone(lost)), "bits")
    assert cell == "— — bits per character n 1"


def test_settings_and_sources_are_told_in_both_languages(html):
    text = Reader(html).all_text()
    assert "设置 settings" in text and "数据出处 sources of the data" in text and "ceval/ceval-exam @ 3923b51" in text
