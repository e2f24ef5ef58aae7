"""The report page: closed to the network and to hostile text, honest about gaps, small, and always the same bytes."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from buddygpt.report import page
from buddygpt.report.curves import POINTS, Series, column, smooth, thin
from buddygpt.report.page import Report, load_rows, read_rows, render, write_report
from buddygpt.report.plots import log_ticks
from buddygpt.report.words import spell_count, spell_duration, spell_steps

HOSTILE = """<script>alert(1)</script> & ]]> "'><img src=x onerror=alert(2)> {{ 7 * 7 }} </svg>"""
VOID = {"meta", "br", "img", "link", "input", "hr"}


class Reader(HTMLParser):
    """Collects tags, attributes and text, and sees that tags close in order."""

    def __init__(self, html: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    def attributes(self, name: str) -> list[str]:
        return [a[name] or "" for _, a in self.tags if name in a]

    def all_text(self) -> str:
        return "".join(self.text)


def step_row(step: int, **more):
    row = {"step": step, "tokens": step * 1000, "loss": 2 + 6 / (1 + step / 5), "learning_rate": 1e-3, "grad_norm": 0.5}
    return row | {"seconds": 0.5, "tokens_per_second": 2000.0} | more


def eval_row(step: int, source: str, bits: float | None):
    figures = {"loss": bits, "perplexity": bits and math.exp(bits), "bits_per_character": bits}
    return {"step": step, "tokens": step * 1000} | {f"eval/{source}/{k}": v for k, v in figures.items()}


@pytest.fixture
def report() -> Report:
    metrics = [step_row(step) for step in range(1, 101)]
    metrics[50:50] = [eval_row(50, "demo", 3.5)]
    metrics.append(eval_row(100, "demo", 2.5))
    samples = [{"step": s, "prompt": "春天", "text": f"到了{s}", "distinct_4grams": 0.87} for s in (50, 100)]
    return Report(
        title="tiny",
        facts={"model": [("parameters", "13,107,200")], "own": [("a", "b")]},
        metrics=metrics,
        samples=samples,
        baselines={"demo": 3.125},
        command="buddy chat runs/tiny/pretrain/model",
        finished=True,
    )


def test_page_needs_nothing_but_itself(report):
    html = render(report)
    reader = Reader(html)
    assert {"script", "link", "iframe", "img", "object", "base"}.isdisjoint(tag for tag, _ in reader.tags)
    assert reader.attributes("src") == []
    references = reader.attributes("href") + reader.attributes("xlink:href")
    assert references and all(r.startswith("#") for r in references)
    assert not re.search(r"https?:|//[a-z]|@import|url\((?!#)", html)
    assert "default-src 'none'" in html


def test_references_inside_the_drawings_resolve_and_ids_are_unique(report):
    reader = Reader(render(report))
    ids = reader.attributes("id")
    assert len(ids) == len(set(ids))
    used = {r[1:] for r in reader.attributes("xlink:href")} | set(re.findall(r"url\(#([^)]*)\)", render(report)))
    assert used <= set(ids)


def test_drawings_are_named_and_take_their_colours_from_the_page(report):
    reader = Reader(render(report))
    drawings = [a for tag, a in reader.tags if tag == "svg"]
    assert len(drawings) == 6  # five figures, one of them for wide and for narrow pages
    assert all(d["role"] == "img" and d["aria-label"] and "tokens" in d["aria-label"] for d in drawings)
    colours = re.findall(r"(?:fill|stroke): ([^;\"]+)", " ".join(reader.attributes("style")))
    assert colours and all(c == "none" or c.startswith("var(--") for c in colours)


def test_hostile_text_stays_text(report):
    row = {"step": 100, "prompt": HOSTILE, "text": HOSTILE, "distinct_4grams": 0.5}
    hostile = replace(
        report,
        title=HOSTILE,
        samples=[row],
        facts={HOSTILE: [(HOSTILE, HOSTILE)]},
        command=HOSTILE,
        metrics=[*report.metrics, eval_row(100, HOSTILE, 2.0)],
        baselines={HOSTILE: 3.0},
    )
    html = render(hostile)
    reader = Reader(html)
    assert {"script", "img"}.isdisjoint(tag for tag, _ in reader.tags)
    assert "<script" not in html and "onerror" not in {name for _, a in reader.tags for name in a}
    assert reader.all_text().count(HOSTILE) >= 8


def test_lone_surrogates_can_be_written(report, tmp_path):
    write_report(tmp_path / "a.html", replace(report, title="a\ud800b"))
    assert "a?b" in (tmp_path / "a.html").read_text("utf-8")


@pytest.mark.parametrize("gap", [None, math.nan, math.inf, -math.inf])
def test_a_gap_is_told_and_drawn_as_one(report, gap):
    metrics = [step_row(s, **({"loss": gap, "grad_norm": gap} if s in (7, 8, 20) else {})) for s in range(1, 101)]
    html = render(replace(report, metrics=metrics))
    text = Reader(html).all_text()
    assert "损失在 3 步不是有限数" in text and "7–8, 20" in text
    assert "var(--warn)" in html.split("</style>")[1]
    assert not re.search(r' d="[^"]*(nan|inf)', html, re.IGNORECASE)


def test_evaluation_that_is_not_finite_is_told(report):
    text = Reader(render(replace(report, metrics=[*report.metrics, eval_row(110, "demo", None)]))).all_text()
    assert "demo 的评估不是有限数：第 110 步" in text


def test_nothing_finite_at_all(report):
    metrics = [step_row(s, loss=None, grad_norm=None, learning_rate=None, seconds=None) for s in range(1, 5)]
    reader = Reader(render(replace(report, metrics=metrics, samples=[])))
    assert len([tag for tag, _ in reader.tags if tag == "svg"]) == 1  # the speed is known
    assert "not finite at 4 steps: 1–4" in reader.all_text()


def test_empty_run_says_so(report):
    reader = Reader(render(replace(report, metrics=[], samples=[], finished=False)))
    text = reader.all_text()
    assert "还没有任何训练记录" in text and "还没有样例" in text and "3.125" in text and "buddy chat" in text
    assert not [tag for tag, _ in reader.tags if tag == "svg"]


def test_unfinished_run_says_where_it_stopped(report):
    assert "到第 100 步为止" in Reader(render(replace(report, finished=False))).all_text()
    assert "步为止" not in Reader(render(report)).all_text()


@pytest.mark.parametrize("metrics", [[step_row(1)], [step_row(1), step_row(2)], [eval_row(0, "demo", 9.0)]])
def test_a_run_of_hardly_any_steps(report, metrics):
    Reader(render(replace(report, metrics=metrics)))


def test_baseline_is_drawn_and_told(report):
    with_it, without = render(report), render(replace(report, baselines={}))
    assert "stroke-dasharray" in with_it and "stroke-dasharray" not in without
    text = Reader(with_it).all_text()
    assert "比 5-gram 低 0.625 (20.0%)" in text and "−0.625 (−20.0%)" in text and "5-gram 3.125" in text
    worse = Reader(render(replace(report, baselines={"demo": 2.0}))).all_text()
    assert "比 5-gram 高 0.500 (25.0%)" in worse and "+0.500 (+25.0%)" in worse


def test_facts_are_shown_in_both_languages(report):
    text = Reader(render(report)).all_text()
    assert "参数量 parameters" in text and "13,107,200" in text and "own" in text


def test_samples_latest_first_older_folded(report):
    html = render(report)
    assert html.index("到了100") < html.index("<details>") < html.index("到了50")


def test_samples_of_a_resumed_run(report):
    """A step sampled twice shows once, as it was last; one beyond the run's end, from an earlier try, not at all."""
    texts = ((50, "旧"), (150, "远"), (50, "新"))
    samples = [{"step": s, "prompt": "春天", "text": t, "distinct_4grams": 1.0} for s, t in texts]
    text = Reader(render(replace(report, samples=samples))).all_text()
    assert "春天新" in text and "旧" not in text and "远" not in text


def test_many_samples_are_bounded_and_the_rest_counted(report):
    samples = [{"step": s, "prompt": "春天", "text": "长" * 9000, "distinct_4grams": 1.0} for s in range(100)]
    html = render(replace(report, samples=samples))
    assert html.count("春天") == page.OLDER + 1 and html.count("长") == (page.OLDER + 1) * page.LONGEST
    assert f"另有 {100 - page.OLDER - 1} 步" in html


def test_expert_load_is_drawn_and_told_by_layer(report):
    assert "expert load" not in render(report)
    metrics = [step_row(s, max_violation=[2 / s, 0.5], idle_experts=[0.25, 0.0]) for s in range(1, 101)]
    html = render(replace(report, metrics=metrics))
    reader, text = Reader(html), Reader(html).all_text()
    assert any("max violation" in d for d in reader.attributes("aria-label"))
    assert "worst layer 0.50" in text and "mean of layers 0.26" in text
    rows = re.findall(r'<tr><th scope="row">(\d)</th>(.*?)</tr>', html)
    told = [[n, *re.findall(r">([^<]+)</td>", cells)] for n, cells in rows]
    assert told == [["0", "1.04", "0.02", "25.0%"], ["1", "0.50", "0.50", "0.0%"]]


def test_same_report_same_bytes(report, tmp_path):
    write_report(tmp_path / "a.html", report)
    write_report(tmp_path / "b.html", report)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_the_users_matplotlib_settings_neither_change_the_page_nor_are_changed(report):
    import matplotlib

    expected = render(report)
    with matplotlib.rc_context({"font.size": 30, "svg.fonttype": "path", "axes.facecolor": "red"}):
        assert render(report) == expected
        assert matplotlib.rcParams["font.size"] == 30


def test_writing_is_atomic(report, tmp_path, monkeypatch):
    target = tmp_path / "pretrain" / "report.html"
    write_report(target, report)
    before = target.read_bytes()

    def fail(*args):
        raise RuntimeError("torn")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(RuntimeError, match="torn"):
        write_report(target, replace(report, title="another"))
    assert target.read_bytes() == before


def test_a_long_run_stays_small(report):
    metrics = [step_row(step) for step in range(1, 100_001)]
    metrics += [eval_row(step, "demo", 2 + 100 / step) for step in range(100, 100_001, 100)]
    html = render(replace(report, metrics=metrics))
    assert len(html.encode()) < 400_000
    longest = max(len(re.findall(r"[ML] ", d)) for d in Reader(html).attributes("d"))
    assert POINTS / 2 < longest <= POINTS


def test_thinning_keeps_ends_extremes_and_gaps():
    rng = np.random.default_rng(0)
    y = rng.normal(size=100_000)
    y[31_234], y[77_777], y[50_000] = 90.0, -90.0, np.nan
    series = Series(np.arange(100_000.0), y)
    short = thin(series)
    assert len(short) <= POINTS
    assert (short.x[0], short.x[-1]) == (0, 99_999)
    assert np.nanmax(short.y) == 90 and np.nanmin(short.y) == -90
    assert short.x[np.isnan(short.y)].tolist() == [50_000]
    assert (np.diff(short.x) > 0).all()
    assert thin(short) is short


def test_smoothing_is_a_plain_mean_that_passes_over_gaps():
    line = Series(np.arange(6000.0), 3 - np.arange(6000.0) / 6000)
    steady = smooth(line)
    assert len(steady) <= POINTS
    early = steady.x < 5800
    # The window is symmetric, so a straight line is kept, at the start too.
    np.testing.assert_allclose(steady.y[early], 3 - steady.x[early] / 6000)
    holes = line.y.copy()
    holes[1000:1050] = np.nan
    assert np.isfinite(smooth(Series(line.x, holes)).y).all()
    spike = np.ones(6000)
    spike[10] = 1e30
    assert smooth(Series(line.x, spike)).y[-1] == 1  # a running sum would have lost the ones


def test_column_takes_only_rows_that_have_the_figure():
    rows = [step_row(1), eval_row(1, "a", 2.0), step_row(2, loss=None), {"step": 3, "loss": 1.0}]
    series = column(rows, "loss")
    assert series.x.tolist() == [1000, 2000] and np.isnan(series.y[1])
    assert len(column([], "loss")) == 0


def test_load_rows_leaves_out_what_a_crash_cut(tmp_path):
    file = tmp_path / "rows.jsonl"
    whole = {"step": 1, "prompt": "零", "text": "一\u2028二\x85三"}
    cut = json.dumps({"step": 2, "text": "春天"}, ensure_ascii=False).encode()[:-4]  # within a character
    file.write_bytes(json.dumps(whole, ensure_ascii=False).encode() + b"\n" + cut)
    assert load_rows(file) == [whole]
    assert load_rows(tmp_path / "none.jsonl") == []
    with file.open("ab") as out:  # a resumed run writes on
        out.write(b'{"step": 2}\n{"step": 3, "tokens": 9, "loss": NaN}\n[1]\n')
    rows = load_rows(file)
    assert [row["step"] for row in rows] == [1, 3] and math.isnan(rows[1]["loss"])


@pytest.mark.parametrize(
    "line", ["{}", "[1]", "x", '{"step": "7", "tokens": 9}', '{"step": 7, "tokens": null}', '{"step": 7, "text": "x"}']
)
def test_lines_that_are_no_rows_are_left_out_and_counted(tmp_path, line):
    file, row = tmp_path / "rows.jsonl", '{"step": 1, "tokens": 9}'
    file.write_text(f"{row}\n{line}\n\n{row}\n{line}", "utf-8")
    assert read_rows(file) == ([{"step": 1, "tokens": 9}] * 2, 1)  # the last line may be in the writing


def test_log_ticks_are_few_and_round():
    for low, high in ((2.9, 8.1), (0.1, 10), (1e-6, 1e6), (3.1, 7.8), (0.02, 0.9)):
        ticks = log_ticks(low, high)
        assert 3 <= len(ticks) <= 7 and all(low <= t <= high for t in ticks)


def test_words():
    counts = {0: "0", 512: "512", 1_310_720: "1.31M", 999_900: "1M", 35e9: "35B", math.nan: "—"}
    assert [spell_count(v) for v in counts] == list(counts.values())
    assert [spell_duration(s) for s in (42.31, 59.97, 725, 12_000, 187_200)] == [
        "42.3 s", "1 min 0 s", "12 min 5 s", "3 h 20 min", "2 d 4 h",
    ]  # fmt: skip
    assert spell_steps([1, 2, 3, 9, 1200]) == "1–3, 9, 1,200"
    assert spell_steps(range(0, 100, 2)).endswith("14 …")
