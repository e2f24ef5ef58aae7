"""Runs side by side: every run on every curve, only what differs, the best marked where it can be compared."""

import re
import shutil

import pytest

from buddygpt.recipe.loader import load_recipe
from buddygpt.recipe.shipped import find_recipe
from buddygpt.report.comparison import Side, differences, render, shared_chapters
from buddygpt.report.normal import Size
from buddygpt.report.page import Report
from buddygpt.report.page import render as render_page
from buddygpt.report.usage import time_parts
from tests.report.test_page import HOSTILE, Reader, eval_row, step_row

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PARTS = {"seconds_data": 0.02, "seconds_forward": 0.15, "seconds_backward": 0.2, "seconds_optimizer": 0.08}
USAGE = {"flops_per_second": 3e14, "mfu": 0.4, "mfu_body": 0.1, "mfu_head": 0.3, "peak_bytes": 61_000_000_000}


def metrics(loss, bits, **more):
    rows = [step_row(step, loss=loss + 3 / step, **PARTS, **USAGE, **more) for step in range(1, 41)]
    return [*rows, eval_row(20, "demo", bits + 1), eval_row(40, "demo", bits) | {"seconds_eval": 1.5}]


def side(name, loss=3.0, bits=2.0, recipe="0.1b", overrides=(), chapters=("pretrain",)):
    checked = load_recipe(find_recipe(recipe), overrides)
    return Side(name, checked, {chapter: metrics(loss, bits) for chapter in chapters}, frozenset(chapters[:1]))


@pytest.fixture
def sides():
    return [side("one"), side("two", 2.5, 1.75, overrides=["pretrain.seed=7", "name=two"]), side("three", 2.75, 1.9)]


def test_every_run_is_on_every_curve_by_number_and_colour(sides):
    html = render(sides)
    reader = Reader(html)
    drawings = [a for tag, a in reader.tags if tag == "svg"]
    assert len(drawings) == 8  # bits and loss: over tokens wide and narrow, over FLOPs, over time
    for drawing in drawings:
        assert all(name in drawing["aria-label"] for name in ("1 one", "2 two", "3 three"))
    for end in ("2 two 1.750", "2 two 2.578"):  # the table's figures
        assert sum(end in drawing["aria-label"] for drawing in drawings) == 4
    for drawn in re.findall(r"<svg.*?</svg>", html, re.DOTALL):
        assert all(f"stroke: var(--line-{n})" in drawn for n in (1, 2, 3))
        assert all(f">{n}</text>" in drawn for n in (1, 2, 3))
    assert {"script", "link", "img"}.isdisjoint(tag for tag, _ in reader.tags)
    ids = reader.attributes("id")
    assert len(ids) == len(set(ids))


def test_only_fields_that_differ_are_listed(sides):
    found = differences([one.recipe.as_dict() for one in sides])
    assert [(line.chinese, list(line.values)) for line in found] == [("pretrain.seed", ["0", "7", "0"])]
    muon = {"kind": "muon", "learning_rate": 0.02}
    found = differences([{"optimizer": {"kind": "adamw"}, "list": [1]}, {"optimizer": muon, "list": [1, 2]}])
    assert {line.chinese: list(line.values) for line in found} == {
        "optimizer.kind": ["adamw", "muon"], "optimizer.learning_rate": ["—", "0.02"], "list": ["[1]", "[1, 2]"]
    }  # fmt: skip
    same = Reader(render([side("one"), side("two")])).all_text()
    assert "除名称外完全相同" in same


def test_the_best_is_marked_and_losses_of_other_tokens_are_not_compared(sides):
    def best(html):
        return re.findall(r'better" data-label="(\d) \w+"><span>([^<]+)', html)

    assert best(render(sides)) == [("2", "2.578"), ("2", "1.750")]
    other = [sides[0], side("small", 2.0, 1.5, recipe="0.1b-32k")]
    assert best(render(other)) == [("2", "1.500")]
    assert "Tokenizers differ" in render(other) and "Tokenizers differ" not in render(sides)


def test_chapters_that_all_runs_have_are_shown_and_no_other():
    both = side("a", chapters=("pretrain", "sft"))
    assert shared_chapters([both, side("b")]) == ["pretrain"]
    assert shared_chapters([side("a", chapters=("sft",)), side("b")]) == []
    assert "微调" not in render([both, side("b")])


def test_runs_without_the_newer_figures_and_with_gaps_are_shown(sides):
    bare = Side("bare", sides[0].recipe, {"pretrain": [step_row(1, loss=None), step_row(2, seconds=None)]}, frozenset())
    text = Reader(render([sides[0], bare])).all_text()
    assert "未完成 unfinished" in text and "—" in text


def test_names_are_text(sides):
    html = render([sides[0], side(HOSTILE)])
    assert "<script" not in html and HOSTILE in Reader(html).all_text()


def test_where_the_time_went_adds_up_to_all_of_it():
    parts = {part.name[1]: part.share for part in time_parts(metrics(3.0, 2.0))}
    assert list(parts) == ["data", "forward", "backward", "optimizer", "rest", "evaluation"]
    assert sum(parts.values()) == pytest.approx(1)
    assert parts["forward"] == pytest.approx(40 * 0.15 / (40 * 0.5 + 1.5))
    assert parts["rest"] == pytest.approx(40 * 0.05 / (40 * 0.5 + 1.5))
    assert time_parts([step_row(1)]) == []


def test_a_page_tells_what_a_run_cost_and_which_steps_were_skipped():
    rows = metrics(3.0, 2.0)
    rows[6] |= {"skipped": "the loss is not finite"}
    text = Reader(html := render_page(Report("tiny", {}, rows, [], {}, "x", True))).all_text()
    for told in (
        "跳过了 1 步",
        "the loss is not finite",
        "40.0%",
        "各层 10.0% + 输出头 30.0%",
        "61 GB",
        "时间花在哪里",
    ):
        assert told in text
    assert "红色刻度：跳过的步" in text and "stroke: var(--warn)" in html
    assert "跳过" not in Reader(render_page(Report("tiny", {}, metrics(3.0, 2.0), [], {}, "x", True))).all_text()


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
@pytest.mark.parametrize("width", [390, 1280])
def test_pages_fit_a_phone_and_a_desk(sides, tmp_path, width):
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    size = Size(int(159e6), int(42e6), 151_669, {"demo": 1.0}, {"demo": 2.5})
    long = side("a-run-with-a-name-that-is-very-long-as-names-of-runs-are", overrides=["pretrain.seed=7"])
    many = [row | {"tokens": row["tokens"] * 100_000} for row in metrics(3.0, 2.0)]
    report = Report("t", {}, many, [], {"demo": 2.1}, "x", True, size=size)
    (tmp_path / "one.html").write_text(render_page(report), "utf-8")
    (tmp_path / "many.html").write_text(render([*sides, long]), "utf-8")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": 900})
        for name in ("one", "many"):
            page.goto((tmp_path / f"{name}.html").as_uri())
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            beyond = (
                "[...document.querySelectorAll('main *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1)"
            )
            assert page.evaluate(f"{beyond}.map(e => e.outerHTML.slice(0, 80))") == []
        browser.close()
