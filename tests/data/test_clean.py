"""Cleaning: what it must never change, what each filter catches and spares, and how little it takes from clean text."""

from __future__ import annotations

import gzip
import json
import pickle
import re
import runpy
import unicodedata
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from buddygpt.data.clean import CHECKS, Cleaner, normalise, phrases
from buddygpt.data.clean.characters import kinds_of
from buddygpt.data.clean.cleaner import BOILERPLATE, WIDTH
from buddygpt.data.clean.normal import CONTROLS, LINE_ENDS, MARKERS, NFC
from buddygpt.data.clean.repetition import find_words, repeats, times_of_commonest
from buddygpt.recipe.clean import CleanSection
from buddygpt.report.words import CHINESE

CORPUS = Path(__file__).parents[3] / "shared" / "data" / "corpus"

_texts = runpy.run_path(str(Path(__file__).with_name("cleaning_texts.py")))
GOOD, BAD, RAIN, STREET = (_texts[name] for name in ("GOOD", "BAD", "RAIN", "STREET"))

DEFAULT = Cleaner(CleanSection())
OFF = {
    "min_length": None,
    "mojibake": False,
    "languages": None,
    "advertising": None,
    "function_words": False,
    "repeated_lines": None,
    "repeated_ngrams": None,
    "common_ngram": None,
    "symbols": None,
    "punctuation": None,
    "no_punctuation": False,
    "digits": None,
    "short_lines": None,
    "ellipsis_lines": None,
}
"""What switches each filter off, in the order of `CHECKS`."""
FIELDS = dict(zip(CHECKS, OFF, strict=True))


# What is done to every text


def test_full_width_marks_and_compatibility_signs_are_left_alone():
    text = "你好，世界！（测试）：①㎏……Ａ１㈱½ﬁ"
    assert normalise(text) == (text, ())


@pytest.mark.parametrize("end", ["\r\n", "\r", "\v", "\f", "\x85", "\u2028", "\u2029"])
def test_every_line_end_becomes_a_line_feed(end):
    assert normalise(f"甲{end}乙") == ("甲\n乙", (LINE_ENDS,))


def test_invisible_characters_are_taken_out():
    hidden = "\x00\x07\x1b\x7f\x80\x9f\xad\u200b\u200e\u200f\u202a\u202e\u2060\u2066\u2069\ufeff\u061c\ufff9"
    for character in hidden:
        assert normalise(f"甲{character}乙\t丙\n丁") == ("甲乙\t丙\n丁", (CONTROLS,)), hex(ord(character))


@pytest.mark.parametrize(
    "text",
    ["👩‍👩‍👧 👨🏽‍🚀 ❤️‍🔥 🏳️‍🌈", "می‌خواهم", "क्‍ष", "ක්‍ෂ", "ന്‍", "ক্‌ত"],
    ids=["emoji", "persian", "hindi", "sinhala", "malayalam", "bengali"],
)
def test_joiners_stay_where_spelling_needs_them(text):
    assert normalise(text) == (text, ())


@pytest.mark.parametrize("text", ["中\u200d文", "a\u200cb", "\u200d甲", "😀\u200d", "می\u200c ", "甲\u200c"])
def test_joiners_go_where_they_join_nothing(text):
    assert normalise(text) == (re.sub("[\u200c\u200d]", "", text).strip(), (CONTROLS,))


def test_accents_are_composed_even_when_something_invisible_stood_between():
    assert normalise("e\u0301") == ("é", (NFC,))
    assert normalise("e\u200b\u0301") == ("é", (CONTROLS, NFC))


def test_end_markers_go_from_the_end_only():
    assert normalise("甲<|endoftext|>") == ("甲", (MARKERS,))
    assert normalise("甲 </s>\n<|im_end|> \n") == ("甲", (MARKERS,))
    assert normalise("甲<|endoftext|>乙") == ("甲<|endoftext|>乙", ())
    assert normalise("</s>") == ("", (MARKERS,))


ODD = "a甲e\u0301\r\n\x00\x85\u2028\u200b\u200c\u200d\ufe0f😀👩किم\u0646\ufeff \t</s><|im_end|>\ud800"


@given(st.text(alphabet=st.one_of(st.sampled_from(ODD), st.characters()), max_size=30))
@example("ا\u200b\u200cب")
def test_normalising_twice_changes_nothing(text):
    once, _ = normalise(text)
    assert normalise(once) == (once, ())
    assert unicodedata.is_normalized("NFC", once)


@given(st.text(alphabet=st.sampled_from("甲乙，。ab c\n\t①Ａ👍क"), max_size=30))
def test_ordinary_text_is_only_stripped(text):
    assert normalise(text) == (text.strip(), ())


# Filters


@pytest.mark.parametrize(("name", "text"), GOOD, ids=[name for name, _ in GOOD])
def test_good_text_stays_as_it_is(name, text):
    text, _ = normalise(text)
    cleaned = DEFAULT.clean(text)
    assert (cleaned.reason, cleaned.detail, cleaned.edits) == (None, "", ())
    assert cleaned.text is text


@pytest.mark.parametrize(("name", "reason", "text"), BAD, ids=[row[0] for row in BAD])
def test_bad_text_is_left_out_for_its_reason_with_a_figure(name, reason, text):
    cleaned = DEFAULT.clean(normalise(text)[0])
    assert cleaned.reason == reason
    assert re.fullmatch(r"[\w +.-]*\d [<>] \d\S*|\d+ letters < \d+", cleaned.detail), cleaned.detail


def test_every_filter_is_caught_at_work():
    assert {reason for _, reason, _ in BAD} == set(CHECKS)


@pytest.mark.parametrize("reason", CHECKS)
def test_a_filter_alone_finds_its_texts_and_switched_off_finds_none(reason):
    field = FIELDS[reason]
    others = {key: off for key, off in OFF.items() if key != field}
    if field == "function_words":  # looks at the languages that are kept
        others |= {"languages": ["zh", "en"], "language_share": 0}
    alone, without = Cleaner(CleanSection(**others)), Cleaner(CleanSection(**{field: OFF[field]}))
    for text in (normalise(text)[0] for _, expected, text in BAD if expected == reason):
        assert alone.clean(text).reason == reason
        assert without.clean(text).reason != reason


def test_with_all_filters_off_everything_stays():
    cleaner = Cleaner(CleanSection(**OFF))
    assert all(cleaner.clean(text).reason is None for _, _, text in BAD)


@pytest.mark.parametrize(
    ("language", "name"), [("ja", "japanese"), ("ko", "korean"), ("ru", "russian"), ("ar", "arabic")]
)
def test_a_language_that_is_asked_for_is_kept_and_alone_keeps_no_other(language, name):
    by_name = {row[0]: row[-1] for row in (*GOOD, *BAD)}
    cleaner = Cleaner(CleanSection(languages=[language]))
    assert cleaner.clean(by_name[name]).reason is None
    for other in {"japanese", "korean", "russian", "arabic", "hindi", "story", "english story"} - {name}:
        assert cleaner.clean(by_name[other]).reason == "language", other


@given(st.text(alphabet=st.one_of(st.sampled_from("甲乙ab1 \n，★\ufffdéひ加微信v"), st.characters()), max_size=60))
def test_any_text_can_be_judged_and_judged_again(text):
    cleaner = Cleaner(CleanSection(min_length=None, fold_width=True))
    cleaned = cleaner.clean(text)
    again = cleaner.clean(cleaned.text)
    assert (cleaned.reason is None) == (cleaned.detail == "")
    if BOILERPLATE not in again.edits:  # lines that met when one between them went may be a frame in their turn
        assert (again.reason, again.detail) == (cleaned.reason, cleaned.detail)


def test_a_cleaner_can_be_sent_to_another_process():
    cleaner = pickle.loads(pickle.dumps(Cleaner(CleanSection(min_length=3))))
    assert cleaner.clean("甲乙丙").reason is None and cleaner.clean("甲乙").reason == "too short"


def test_the_report_has_chinese_for_every_reason_and_edit():
    assert {*CHECKS, BOILERPLATE, WIDTH, LINE_ENDS, CONTROLS, NFC, MARKERS} <= set(CHINESE)


# Edits by recipe


FRAMES = """
上一篇：雨天的小桥
下一页
上一章 下一章
返回顶部
点击查看全文
【阅读原文】
展开剩余80%
相关阅读：
打印本页 关闭窗口
设为首页 | 加入收藏
【字号：大 中 小】
当前位置：首页 > 新闻 > 正文
分享到：微信 新浪微博 QQ空间
浏览次数：1024次
（责任编辑：王小明）
Copyright © 2019-2024 Example Inc.
© 2024 某某网 版权所有
All rights reserved.
京ICP备12345678号-1
粤公网安备 44030502001234号
免责声明：本文仅代表作者观点，与本站无关。
未经允许不得转载，转载请注明出处
长按识别二维码，关注我们
扫描下方二维码
欢迎关注微信公众号：老街夜话
Skip to main content
Read more »
Share this on Facebook
Previous post
We use cookies to improve your experience.
Accept all cookies
Please enable JavaScript to view this page
Subscribe to our newsletter for weekly tips
By using this website you agree to our terms.
"""
SENTENCES = """
上一篇文章里我们讲了怎样修桥，这一篇接着讲怎样修路。
下一页的图里有一座桥。
分享是一种快乐，他常常这样对学生说。
阅读全文之后，请回答下面三个问题。
责任编辑是出版社里最忙的人。
他在二维码旁边站了很久，不知道该怎么扫。
版权法保护作者的权利。
Read more books, and you will write better ones.
Share prices fell on Monday.
We use biscuits, milk and nuts for the cake base.
Advertisements were painted on the walls of the old town.
"""


@pytest.mark.parametrize("line", FRAMES.strip().split("\n"))
def test_lines_of_a_page_frame_are_cut_out(line):
    body = RAIN + "\n" + STREET
    for page in (f"{body}\n{line}", f"{line}\n{body}", f"{RAIN}\n  {line} \n{STREET}"):
        cleaned = DEFAULT.clean(page)
        assert (cleaned.text, cleaned.edits, cleaned.reason) == (body, (BOILERPLATE,), None)
        assert Cleaner(CleanSection(boilerplate=False)).clean(page).text == page


@pytest.mark.parametrize("line", SENTENCES.strip().split("\n"))
def test_sentences_that_begin_like_a_frame_stay(line):
    page = f"{RAIN}\n{line}\n{STREET}"
    assert DEFAULT.clean(page).text is page


def test_width_is_folded_only_when_asked_and_only_for_letters_and_digits():
    text = "编号Ａ１２ｂ，共３页！（第①版，１㎏～）价格￥５０。" + RAIN
    assert DEFAULT.clean(text).text is text
    cleaned = Cleaner(CleanSection(fold_width=True)).clean(text)
    assert cleaned.text == "编号A12b，共3页！（第①版，1㎏～）价格￥50。" + RAIN
    assert cleaned.edits == (WIDTH,)


# Inner parts


def test_every_advertising_phrase_can_be_found_by_its_first_characters():
    for phrase in (phrases._GOODS + phrases._CALLS).replace("␣", "_").split():
        plain = phrase.replace("_?", "").replace("_", " ")
        head = re.match(r"[a-z ]{5}(?![?*{])|[^\W_]{2}(?![?*{])", plain)
        assert head, phrase
        if plain.replace(" ", "").isalnum():
            for text in (plain, f"看{plain}吧", plain.upper(), f"so, {plain}."):
                assert phrases.count_advertising(text, kinds_of(text)[0], 0)[0] >= 1, text
    inside = "casinoscope and pokerface"
    assert phrases.count_advertising(inside, kinds_of(inside)[0], 0)[0] == 0


def test_no_advertising_phrase_can_run_on():
    # Matching starts anew at each beginning of a phrase: one without an end would take quadratic time.
    assert not re.search(r"[*+](?!\])|\{\d+,\}", phrases._GOODS + re.sub(r"\[:\+\]", "", phrases._CALLS))


def words_of(text: str) -> list[str]:
    return re.findall(r"[\u4e00-\u9fffぁ-ん]|[a-z0-9а-я]+", text)


@given(st.text(alphabet=st.sampled_from("甲乙丙ab1 ，ひя"), max_size=60), st.integers(1, 4))
def test_runs_of_words_are_counted_as_by_hand(text, length):
    words = words_of(text)
    runs = [tuple(words[i : i + length]) for i in range(len(words) - length + 1)]
    found = find_words(*kinds_of(text))
    assert len(found) == len(words)
    hashes = found.runs(length)
    assert repeats(hashes) == len(runs) - len(set(runs))
    if runs:
        assert times_of_commonest(hashes) == max(map(runs.count, runs))


# Real text


@pytest.mark.parametrize("name", ["python-docs-zh", "d2l-zh", "tidb-docs-zh", "javaguide", "php-docs-zh", "songci"])
def test_less_than_two_percent_of_clean_text_is_left_out(name):
    path = CORPUS / f"{name}.jsonl.gz"
    if not path.is_file():
        pytest.skip(f"{path.name} is not on this machine")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        documents = [json.loads(line)["text"] for line in file]
    out = [cleaned for text in documents if (cleaned := DEFAULT.clean(normalise(text)[0])).reason]
    assert len(out) < 0.02 * len(documents), [(c.reason, c.detail, c.text[:40]) for c in out[:20]]
