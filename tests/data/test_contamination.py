"""Pieces of evaluation sets in training texts: what is found, what is no evidence, and how items are read."""

from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from buddygpt.data.contamination import MOST_ITEMS, Contamination, Guard
from buddygpt.data.items import read_items, spell_item
from buddygpt.data.ngrams import BLOCK
from buddygpt.recipe.errors import BuddyError

BENCH = Path(__file__).parents[3] / "shared" / "data" / "bench"
NEWS = "市政府昨日召开新闻发布会，介绍今年上半年的经济运行情况，并回答了记者的提问。"
EXAM = "一个水池有甲乙两根进水管，单开甲管三小时注满，单开乙管六小时注满，问两管齐开需要几小时？"
RIDDLE = "If four painters need nine hours for the long fence behind the old mill, how long do six painters need?"


def build(*items: tuple[str, str], ngram: int = 13) -> Contamination:
    return Contamination.build([(name, [text]) for name, text in items], ngram)


def random_text(rng: np.random.Generator, size: int, script: str) -> str:
    if script == "han":
        return "".join(map(chr, rng.integers(0x4E00, 0x9FA6, size)))
    return " ".join(f"w{i}" for i in rng.integers(0, 10**5, size))


@pytest.mark.parametrize(
    ("text", "piece"),
    [
        (NEWS + EXAM + NEWS, "一个水池有甲乙两根进水管，单开甲管三小时注"),
        (NEWS + EXAM.replace("，", " ，\n"), "一个水池有甲乙两根进水管 ，\n单开甲管三小时注"),
        (f"He said: {RIDDLE.upper()}", "IF FOUR PAINTERS NEED NINE HOURS FOR THE LONG FENCE BEHIND THE OLD"),
        (NEWS * 2, ""),
        (EXAM[:20], ""),  # 19 characters and a comma
        (" ".join(RIDDLE.split()[:12]), ""),
        ("", ""),
    ],
)
def test_a_piece_of_13_words_or_20_characters_is_found_and_shown_as_it_stands(text, piece):
    contamination = build(("exam", EXAM[:30] + "？"), ("riddles", RIDDLE))
    assert contamination.matched_piece(text) == piece
    assert (contamination.find([text])[0] >= 0) == bool(piece)


def test_a_mixture_of_both_scripts_counts_in_proportion():
    text = "训练集和验证集要分开 otherwise the validation loss looks far too good"  # 10 characters and 9 words
    contamination = build(("mixed", text))
    assert contamination.matched_piece("注意：" + text) == text.removesuffix(" good")
    assert contamination.find(["验证集要分开 otherwise the validation loss looks far too good"]).tolist() == [-1]


@given(st.integers(0, 10**6), st.sampled_from(["han", "words"]), st.integers(0, 400), st.integers(0, 400))
def test_wherever_an_item_is_planted_it_is_found_and_clean_text_never(seed, script, before, after):
    rng = np.random.default_rng(seed)
    items = [("set", random_text(rng, 40, script)) for _ in range(5)]
    contamination = build(*items)
    texts = [
        random_text(rng, before, script) + "。" + text + "。" + random_text(rng, after, script) for _, text in items
    ]
    clean = [random_text(rng, 400, script) for _ in range(5)]
    assert contamination.find([*texts, *clean]).tolist() == [0] * 5 + [-1] * 5


def test_in_a_very_long_text_and_across_its_pieces_an_item_is_found():
    rng = np.random.default_rng(0)
    contamination, long = build(("exam", EXAM)), random_text(rng, 3 * BLOCK, "han")
    for place in (0, BLOCK - 25, BLOCK + 4080, 2 * BLOCK - 3, len(long)):
        text = long[:place] + EXAM + long[place:]
        assert contamination.find([NEWS, text, NEWS]).tolist() == [-1, 0, -1]
        assert contamination.matched_piece(text) == EXAM[:21]


def test_a_text_with_pieces_of_several_sets_is_counted_for_the_first():
    contamination = build(("a", RIDDLE), ("b", EXAM), ("c", EXAM), ("a", NEWS))
    assert [g.name for g in contamination.guards] == ["a", "b", "c"]
    assert contamination.find([EXAM + RIDDLE, EXAM, NEWS]).tolist() == [0, 1, 0]


@pytest.mark.parametrize("spare", [0, 1])
def test_phrases_of_more_than_a_few_items_are_no_evidence(spare):
    phrase = "阅读下面的文字并根据上下文选出最恰当的一个选项填入横线处"
    rng = np.random.default_rng(1)
    items = [("set", phrase + random_text(rng, 30, "han")) for _ in range(MOST_ITEMS + 1 - spare)]
    items[0] = ("set", items[0][1] * 2)  # twice in one item counts once
    contamination = build(*items)
    assert (contamination.find([NEWS + phrase + NEWS])[0] >= 0) == bool(spare)
    assert contamination.find([text for _, text in items]).tolist() == [0] * len(items)
    assert contamination.guards == (Guard("set", len(items), len(items)),)


@pytest.mark.parametrize(
    "text", ["1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16", "a, b, c, d, e, f, g, h, i, j, k, l, m, n, o"]
)
def test_counting_is_no_evidence(text):
    contamination = build(("set", "Which comes next? " + text))
    assert contamination.find([f"[{text}]"]).tolist() == [-1]
    assert contamination.find(["Which comes next? " + text]).tolist() == [0]


def test_items_that_cannot_be_found_are_counted():
    contamination = build(("set", EXAM), ("set", EXAM[:15]), ("other", ""), ("set", "B"))
    assert contamination.guards == (Guard("set", 3, 1), Guard("other", 1, 0))
    nothing = Contamination.build([], 13)
    assert nothing.guards == ()
    assert nothing.find([EXAM, ""]).tolist() == [-1, -1]


def test_the_order_of_items_and_the_run_change_nothing(tmp_path):
    items = [("a", RIDDLE), ("b", EXAM), ("a", NEWS)]
    one, other = build(*items), build(items[2], items[0], items[1])
    one.save(tmp_path / "one.npz")
    loaded = Contamination.load(tmp_path / "one.npz")
    for contamination in (other, loaded, pickle.loads(pickle.dumps(one))):
        assert contamination.ngram == one.ngram
        assert contamination.guards == one.guards
        assert contamination.hashes.tolist() == one.hashes.tolist()
        assert contamination.sets.tolist() == one.sets.tolist()


@pytest.mark.parametrize("damage", ["cut", "empty", "other", "pickle"])
def test_a_damaged_file_is_refused_in_one_line(tmp_path, damage):
    path = tmp_path / "evaluation.npz"
    build(("a", EXAM)).save(path)
    data = path.read_bytes()
    if damage == "cut":
        path.write_bytes(data[:-30])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "other":
        np.savez(path, hashes=np.zeros(3, np.uint64))
    else:
        with np.load(path) as file:
            arrays = dict(file)
        np.savez(path, **(arrays | {"names": np.array(["a"], dtype=object)}), allow_pickle=True)
    with pytest.raises(BuddyError, match=r"evaluation\.npz: not a file of evaluation n-grams"):
        Contamination.load(path)


def test_rows_of_every_shape_become_the_same_item(tmp_path):
    columns = {"id": "7", "question": "天上有几个月亮", "A": "一", "B": "两个", "answer": "A", "explanation": "抬头看"}
    expected = ["天上有几个月亮\nA 一\nB 两个\n抬头看", "天上有几个月亮\n一\n两个\n抬头看"]
    assert spell_item(columns) == expected
    listed = {"id": 7, "question": "天上有几个月亮", "choices": ["一", "两个"], "answer": 0, "explanation": "抬头看"}
    assert spell_item(listed) == expected
    nested = {"question": "天上有几个月亮", "choices": {"text": ["一", "两个"], "label": ["A", "B"]}}
    assert spell_item(nested)[0].startswith("天上有几个月亮\nA 一\nB 两个")
    assert spell_item({"problem": RIDDLE, "level": 3, "extra": None}) == [RIDDLE]


def write_sets(folder: Path) -> list[Path]:
    table = '\ufeffquestion,A,B,answer,id\r\n"天上有\n几个月亮",一,"两,个",A,0\r\n地上呢,无,有,B,1\r\n'
    bare = "How many moons are there?,One,Two,A\n"
    lines = "\n".join(json.dumps({"question": q}, ensure_ascii=False) for q in (EXAM, RIDDLE)) + "\n"
    (folder / "table.csv").write_text(table, "utf-8")
    (folder / "lines.jsonl").write_text(lines, "utf-8")
    (folder / "array.json").write_text(json.dumps([{"question": EXAM}]), "utf-8")
    with zipfile.ZipFile(folder / "packed.zip", "w") as archive:
        archive.writestr("b/test/moon.csv", bare)
        archive.writestr("a/lines.jsonl", lines)
        archive.writestr("a/array.json", json.dumps([{"question": NEWS}]))
        archive.writestr("README.txt", "no items")
    return [folder / name for name in ("table.csv", "lines.jsonl", "array.json", "packed.zip")]


def test_items_are_read_from_tables_lines_arrays_and_archives_in_place(tmp_path):
    items = list(read_items(write_sets(tmp_path)))
    assert [(name, forms[0]) for name, forms in items] == [
        ("table", "天上有\n几个月亮\nA 一\nB 两,个"),
        ("table", "地上呢\nA 无\nB 有"),
        ("lines", EXAM),
        ("lines", RIDDLE),
        ("array", EXAM),
        ("packed", NEWS),
        ("packed", EXAM),
        ("packed", RIDDLE),
        ("packed", "How many moons are there?\nA One\nB Two"),
    ]
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("set.zip", b"PK\x03\x04 cut", "no whole archive"),
        ("set.csv", "问题,答案\n".encode("gb18030") * 2, "not UTF-8"),
        ("set.csv", b'question\n"a\n', "set.csv:2: not CSV"),
        ("set.doc", b"question", "unknown kind of file"),
        ("set.json", b'[{"question": ]', "not JSON"),
        ("missing.csv", None, "cannot be read"),
        ("missing.zip", None, "cannot be read"),
    ],
)
def test_a_set_that_cannot_be_read_is_named_in_one_line(tmp_path, name, data, told):
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(BuddyError, match=told) as fault:
        list(read_items([tmp_path / name]))
    assert name in str(fault.value)


def test_an_archive_without_items_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr("README.txt", "no items")
    with pytest.raises(BuddyError, match="no file with rows in it"):
        list(read_items([tmp_path / "set.zip"]))


@pytest.mark.skipif(not BENCH.is_dir(), reason="../shared/data/bench is absent")
def test_of_the_real_sets_nearly_every_item_is_found_where_it_is_printed():
    items = [item for name in ("cmmlu.zip", "gsm8k_test.jsonl") for item in read_items([BENCH / name])]
    contamination = Contamination.build(items, 13)
    assert [(g.name, g.items) for g in contamination.guards] == [("cmmlu", 11917), ("gsm8k_test", 1319)]
    assert all(g.guarded >= 0.998 * g.items for g in contamination.guards)
    found = contamination.find([f"{NEWS}\n{forms[0]}\n{NEWS}" for _, forms in items])
    assert (found >= 0).mean() >= 0.998
    assert contamination.find([NEWS, EXAM, RIDDLE]).tolist() == [-1, -1, -1]
