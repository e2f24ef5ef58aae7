"""The data page and its samples: closed to hostile text, honest about figures, the same for any order of workers."""

from __future__ import annotations

import json
import random
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from buddygpt.data.samples import KEPT, LONGEST, Samples
from buddygpt.report import cleaning
from buddygpt.report.cleaning import DataReport, Drop, Pair, Sample, SourceReport, Stage, render, write_data_report

HOSTILE = """<script>alert(1)</script> & ]]> "'><img src=x onerror=alert(2)> {{ 7 * 7 }} </style>"""


class Reader(HTMLParser):
    """Tags, and the text that stands within each kind of tag; sees that tags close in order."""

    def __init__(self, html: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.within: dict[str, list[str]] = {}
        self.open: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "br"}:
            self.open.append(tag)
            self.within.setdefault(tag, []).append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        for tag in set(self.open):
            self.within[tag][-1] += data

    def text(self) -> str:
        return "".join(self.within["main"])


@pytest.fixture
def report() -> DataReport:
    source = SourceReport(
        name="web",
        facts=[("origin", "owner/name")],
        stages=[Stage("read", 20000, 5_000_000), Stage("cleaned", 15000, 4_000_000), Stage("train", 14999, 3_900_000)],
        drops=[Drop("low score", 1, 0.000001, "b.jsonl:9"), Drop("advertising", 4999, 0.2499, "a.jsonl:3")],
        edits={"boilerplate lines": 12},
        tokens=1_000_000,
        epochs=2.0,
    )
    samples = [
        Sample("web", "advertising", "a.jsonl:3", "加微信领彩金", "phrases in 100 words 33.33 > 2"),
        Sample("web", "boilerplate lines", "a.jsonl:8", "正文\n下一页\n结尾", "", "正文\n结尾"),
    ]
    pairs = [Pair("老街的小桥", "老街的石桥", "a.jsonl:12")]
    return DataReport("clean", [source], samples, pairs, {"ceval": 1234})


def test_page_needs_nothing_but_itself(report):
    html = render(report)
    reader = Reader(html)
    assert {"script", "link", "iframe", "img", "object", "base", "a"}.isdisjoint(tag for tag, _ in reader.tags)
    assert not any(name in attributes for _, attributes in reader.tags for name in ("src", "href", "onclick"))
    assert not re.search(r"https?:|@import|url\(", html)
    assert "default-src 'none'" in html


def test_hostile_text_stays_text_wherever_it_comes_from(report):
    source = replace(
        report.sources[0],
        name=HOSTILE,
        facts=[(HOSTILE, HOSTILE)],
        stages=[Stage(HOSTILE, 2, 2), Stage("train", 1, 1)],
        drops=[Drop(HOSTILE, 1, 0.5, HOSTILE)],
        edits={HOSTILE: 1},
    )
    sample = Sample(HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE)
    samples = [sample, replace(sample, after=HOSTILE[5:]), replace(sample, text="\ud800")]
    page = DataReport(HOSTILE, [source], samples, [Pair(HOSTILE, HOSTILE[3:], HOSTILE)], {HOSTILE: 1})
    reader = Reader(render(page))
    assert {"script", "img"}.isdisjoint(tag for tag, _ in reader.tags)
    assert reader.text().count("alert(1)") >= 16
    assert "49" not in reader.text()


def test_figures_are_those_of_the_report(report):
    text = re.sub(r"\s+", " ", Reader(render(report)).text())
    assert "74.9%" in text  # 14,999 of 20,000, never rounded up
    assert "读入 20,000，保留 14,999" in text
    assert "24.99%" in text
    assert "< 0.01%" in text
    assert "广告 advertising" in text and "a.jsonl:3" in text
    assert "网页套话 boilerplate lines12" in text
    assert "1,234" in text
    assert text.index("广告 advertising") < text.index("分数过低 low score")  # the most first


def test_all_is_said_to_be_kept_only_where_nothing_was_lost(report):
    def kept(last: int) -> str:
        stages = [Stage("read", 100_000, 10), Stage("train", last, 10)]
        page = render(replace(report, sources=[replace(report.sources[0], stages=stages)]))
        return re.findall(r'<p class="figure">(.*?)</p>', page)[0]

    assert (kept(100_000), kept(99_999), kept(0)) == ("100%", "99.9%", "0.0%")


def test_bars_are_as_long_as_their_figures(report):
    html = render(report)
    funnel = html[html.index('<table class="funnel">') :].split("</table>")[0]
    assert re.findall(r"width: ([\d.]+)%", funnel) == ["100.00", "100.00", "75.00", "80.00", "75.00", "78.00"]


def test_what_training_sees_counts_the_epochs(report):
    twice = report.sources[0]
    once = replace(twice, name="book", epochs=1.0, tokens=2_000_000)
    unknown = replace(twice, name="later", tokens=None)
    html = render(replace(report, sources=[twice, once, unknown]))
    mixture = html[html.index('<table class="mixture">') :].split("</table>")[0]
    assert mixture.count("50.00%") == 2 + 2  # shares, and lengths of bars
    assert "later" not in mixture


def test_an_edit_is_marked_where_it_changed_the_text(report):
    reader = Reader(render(replace(report, pairs=[])))
    assert reader.within["del"] == ["下一页↵\n"]
    assert "ins" not in reader.within


def test_where_a_long_text_is_cut_its_going_on_is_no_change(report):
    long = "".join(map(chr, range(0x4E00, 0x4E00 + 900)))
    sample = Sample("web", "boilerplate lines", "a", long, "", long[:100] + long[120:])
    reader = Reader(render(replace(report, samples=[sample], pairs=[])))
    assert reader.within["del"] == [long[100:120]]
    assert "ins" not in reader.within


def test_near_duplicates_differ_where_they_are_marked(report):
    reader = Reader(render(replace(report, samples=[])))
    assert (reader.within["del"], reader.within["ins"]) == (["石"], ["小"])
    assert "老街的石桥" in reader.text() and "老街的小桥" in reader.text()


def test_what_cannot_be_seen_is_named(report):
    sample = Sample("web", "control characters", "a", "甲\u200b乙\x00丙\ufeff", "", "甲乙丙")
    assert "".join(Reader(render(replace(report, samples=[sample], pairs=[]))).within["del"]) == "U+200BU+0000U+FEFF"


def test_long_texts_are_shortened(report):
    sample = Sample("web", "too long", "a", "长" * 5000)
    text = Reader(render(replace(report, samples=[sample]))).text()
    assert text.count("长") == cleaning.LONGEST and "长…" in text


def test_the_same_report_gives_the_same_bytes_and_no_source_is_no_fault(report, tmp_path):
    for name in ("a", "b"):
        write_data_report(tmp_path / "new" / name, report)
    assert (tmp_path / "new" / "a").read_bytes() == (tmp_path / "new" / "b").read_bytes()
    assert "还没有任何来源" in render(DataReport("empty", []))
    assert Reader(render(DataReport("bare", [SourceReport("x", [], [])]))).text()


# Samples


def offered(count: int) -> list[tuple[str, str, str]]:
    return [(f"reason {i % 3}", f"file.jsonl:{i}", f"text {i % (count * 2 // 3)}") for i in range(count)]


def collect(rows) -> Samples:
    samples = Samples()
    for reason, place, text in rows:
        samples.add(reason, place, text, "detail")
    return samples


@pytest.mark.parametrize("parts", [1, 2, 7])
def test_samples_are_the_same_for_any_order_and_any_parts(parts):
    rows = offered(300)
    expected = collect(rows).as_dict()
    random.Random(parts).shuffle(rows)
    merged = Samples()
    for i in range(parts):
        part = collect(rows[i::parts])
        merged.merge(Samples.from_dict(json.loads(json.dumps(part.as_dict()))))
    found = merged.as_dict()["taken"]
    assert {reason: found[reason] for reason in expected["taken"]} == expected["taken"]
    assert all(len(samples) == KEPT for samples in found.values())
    assert all(len({s["text"] for s in samples}) == KEPT for samples in found.values())  # a copy is no second sample


def test_samples_are_bounded_and_show_the_first_change():
    samples = Samples()
    long = "".join(map(chr, range(0x4E00, 0x4E00 + 5000)))
    samples.add("edit", "a", long, "", long[:3000] + long[3010:])
    samples.add("drop", "a", "\ud800" + long)
    (edit,), (drop,) = samples.taken["edit"], samples.taken["drop"]
    assert long[2995:3015] in edit.text and edit.after is not None and long[3000:3010] not in edit.after
    assert max(map(len, (edit.text, edit.after, drop.text))) <= LONGEST + 2
