"""Two texts side by side, by cells."""

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from buddygpt.conversation.columns import Column, Columns, cells, shorten, visible


def lines(text, width):
    column = Column(width)
    for char in text:
        column.push(char)
    column.end()
    return list(column.lines)


def test_lines_are_broken_at_spaces_and_anywhere_between_wide_characters():
    assert lines("春眠不觉晓处处闻啼鸟", 8) == ["春眠不觉", "晓处处闻", "啼鸟"]
    assert lines("春眠不觉晓处处闻啼鸟", 9) == ["春眠不觉", "晓处处闻", "啼鸟"], "half a character does not fit"
    assert lines("the quick brown fox", 10) == ["the quick", "brown fox"]
    assert lines("abcdefghijkl", 5) == ["abcde", "fghij", "kl"]
    assert lines("用 Python 写", 8) == ["用", "Python", "写"]
    assert lines("一\n\n二\n", 8) == ["一", "", "二"]
    assert lines("a\tb", 8) == ["a    b"]


def test_marks_stay_with_the_word_that_they_belong_to():
    assert lines("春眠不觉。晓", 8) == ["春眠不", "觉。晓"]
    assert lines("他说了（好）", 8) == ["他说了", "（好）"]


def test_a_row_comes_when_both_have_it():
    columns = Columns(2, 24, " | ")
    assert list(columns.push(0, "一\n二\n")) == []
    assert list(columns.push(1, "1\n2")) == ["一         | 1"]
    assert list(columns.end(1)) == ["二         | 2"]
    assert list(columns.push(0, "三\n")) == ["三         |"]
    assert list(columns.end(0)) == []
    assert columns.beside(["runs/long/sft/model", "b"]) == "…sft/model | b"


TEXT = st.text(st.sampled_from("a b\n，。（“中文字𠮷👍é한\u0301\u200d\x1b\t"), max_size=80)


@given(TEXT, TEXT, st.integers(24, 90), st.lists(st.booleans(), max_size=200))
def test_nothing_is_lost_and_no_row_is_too_wide(left, right, width, turns):
    columns, rows, texts = Columns(2, width, " | "), [], [list(left), list(right)]
    for turn in (*turns, *[False] * len(left), *[True] * len(right)):
        if texts[turn]:
            rows += columns.push(turn, texts[turn].pop(0))
    rows += columns.end(0)
    rows += columns.end(1)
    assert all(cells(row) < width for row in rows)
    inside = (width - 4) // 2
    sides = ["", ""]
    for row in rows:
        taken = 0
        while taken < len(row) and cells(row[: taken + 1]) <= inside:
            taken += 1
        assert row[taken:].strip(" ").startswith("|") or not row[taken:]
        sides[0] += row[:taken]
        sides[1] += row[taken:].lstrip(" ")[2:]
    assert [squeeze(side) for side in sides] == [squeeze(left), squeeze(right)]


def squeeze(text):
    """What is seen of it, without the spaces that breaking takes."""
    return "".join(visible(text).split())


def test_what_is_visible_moves_no_cursor():
    every = "".join(map(chr, range(0x3000)))
    assert {char for char in visible(every) if unicodedata.category(char) == "Cc"} == {"\n", "\t"}
    assert visible("春眠 abc é👍\n") == "春眠 abc é👍\n"


def test_control_characters_are_shown():
    assert visible("\x1b[31m红\x1b]0;t\x07\r\x9b2J\x7f") == "␛[31m红␛]0;t␇␍\\x9b2J␡"
    assert shorten("一二三四", 5) == "…三四"
