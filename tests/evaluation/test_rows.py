"""Rows in every shape that files of benchmarks have, in the one that lm-eval expects."""

import csv
import io
import json
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from buddygpt.evaluation.catalog import Choice, Column, Data, Split
from buddygpt.evaluation.rows import RowFile, _choice_row, read_file
from buddygpt.recipe.errors import BuddyError

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1).filter(str.strip)


def spellings(question, choices, answer):
    """The same row as each publisher has it."""
    letter = "ABCD"[answer]
    columns = dict(zip("ABCD", choices, strict=True))
    yield {"": "0", "Question": question, **columns, "Answer": letter}
    yield {"id": 0, "question": question, **columns, "answer": letter, "explanation": ""}
    yield {"question": question, "subject": "x", "choices": list(choices), "answer": answer}
    labelled = [f"({mark}) {text}" for mark, text in columns.items()]
    yield {"question": question, "category": "x", "choices": labelled, "answer": f"({letter})"}
    yield {"question": question, "category": "x", "choices": labelled, "answer": labelled[answer]}


@given(TEXT, st.lists(TEXT.map(str.strip), min_size=4, max_size=4), st.integers(0, 3))
def test_a_question_is_the_same_row_however_it_is_spelt(question, choices, answer):
    letters, listed = Choice(question="Question", answer="Answer", form="letters"), Choice(form="list")
    for row in spellings(question, choices, answer):
        assert _choice_row(row, letters, "f:1") == {
            "Question": question, **dict(zip("ABCD", choices, strict=True)), "Answer": "ABCD"[answer],
        }  # fmt: skip
        assert _choice_row(row, listed, "f:1") == {"question": question, "choices": choices, "answer": answer}


def test_choices_keep_a_mark_that_is_not_the_publishers():
    row = {"question": "q", "choices": ["(A) and (B)", "(B) alone", "(A)", "neither"], "answer": 0}
    assert _choice_row(row, Choice(form="list"), "f:1")["choices"] == row["choices"]


@pytest.mark.parametrize(
    "change, told",
    [
        ({"Answer": "E"}, "no answer among A, B, C and D: 'E'"),
        ({"Answer": ""}, "no answer among A, B, C and D: ''"),
        ({"Answer": 4}, "no answer among A, B, C and D: 4"),
        ({"Answer": True}, "no answer among A, B, C and D: True"),
        ({"Answer": None}, "no column 'answer', also called Answer; there are Question, A, B, C, D, Answer"),
        ({"Question": " "}, "column 'Question' holds no text: ' '"),
        ({"C": None}, "not four choices, in columns A to D or in a list `choices`"),
        ({"choices": ["a", "b", "c"]}, "not four choices"),
    ],
)
def test_a_bad_row_is_told_with_its_line(change, told):
    row = {"Question": "q", "A": "1", "B": "2", "C": "3", "D": "4", "Answer": "A"} | change
    with pytest.raises(BuddyError, match=f"^f.csv:3: {told}") as fault:
        _choice_row(row, Choice(form="letters"), "f.csv:3")
    assert len(fault.value.lines) == 1


def data(**fields):
    return Data(splits={"test": Split(rows=[1])}, local=["x"], files=["x"], places=[], licence=None, **fields)


def rows_of(path, data, subjects=("x",)):
    return list(read_file(RowFile(path, path.name, "test", None), data, subjects))


def test_columns_are_found_under_their_other_names_and_others_left_out(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"problem": "1+1", "answer": "002", "url": "u"}) + "\n", "utf-8")
    columns = {"Problem": Column(names=["problem"]), "Answer": Column(names=["answer"], type="number")}
    assert rows_of(path, data(columns=columns)) == [("x", {"Problem": "1+1", "Answer": 2})]


@pytest.mark.parametrize("value", [7, "7", "007", "\\boxed{7}", 7.0])
def test_a_whole_number_is_taken_from_any_spelling(tmp_path, value):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"answer": value}) + "\n", "utf-8")
    assert rows_of(path, data(columns={"answer": Column(type="number")})) == [("x", {"answer": 7})]


@pytest.mark.parametrize("value", ["two", "", 2.5, float("inf"), None, [2]])
def test_what_is_no_whole_number_is_refused(tmp_path, value):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"answer": value}) + "\n", "utf-8")
    with pytest.raises(BuddyError, match=r"^a\.jsonl:1: .*answer"):
        rows_of(path, data(columns={"answer": Column(type="number")}))


def test_csv_without_a_header_is_read_from_its_first_line(tmp_path):
    rows = [["Which, then?", "1", "2", 'a "b"\nc', "4", "C"], ["q", "5", "6", "7", "8", "A"]]
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    path = tmp_path / "m.csv"
    path.write_bytes(text.getvalue().encode("utf-8-sig"))
    shape = data(choice=Choice(form="list"), header=["question", "A", "B", "C", "D", "answer"])
    assert [row for _, row in rows_of(path, shape)] == [
        {"question": "Which, then?", "choices": ["1", "2", 'a "b"\nc', "4"], "answer": 2},
        {"question": "q", "choices": ["5", "6", "7", "8"], "answer": 0},
    ]


def test_the_same_rows_come_from_parquet(tmp_path):
    table = pa.table({"question": ["q"], "choices": [["1", "2", "3", "4"]], "answer": [3], "subject": ["x"]})
    pq.write_table(table, tmp_path / "m.parquet")
    (row,) = rows_of(tmp_path / "m.parquet", data(choice=Choice(form="letters")))
    assert row == ("x", {"question": "q", "A": "1", "B": "2", "C": "3", "D": "4", "answer": "D"})


def test_a_column_tells_the_subject_where_the_name_does_not(tmp_path):
    row = {"question": "q", "choices": ["1", "2", "3", "4"], "answer": 0}
    path = tmp_path / "m.jsonl"
    path.write_text(
        json.dumps(row | {"category": "world history"}) + "\n" + json.dumps(row | {"subject": "y"}), "utf-8"
    )
    shape = data(choice=Choice(form="letters"), subjects=["world_history", "y"])
    assert [subject for subject, _ in rows_of(path, shape, shape.subjects)] == ["world_history", "y"]
    path.write_text(json.dumps(row | {"category": "cooking"}), "utf-8")
    with pytest.raises(BuddyError, match=r"m.jsonl:1: 'cooking' is no subject; there are world_history, y"):
        rows_of(path, shape, shape.subjects)
    path.write_text(json.dumps(row), "utf-8")
    with pytest.raises(BuddyError, match=r"m.jsonl:1: no column tells the subject"):
        rows_of(path, shape, shape.subjects)


def test_csv_in_gb18030_is_told_with_its_line(tmp_path):
    path = tmp_path / "m.csv"
    path.write_bytes("question,A,B,C,D,answer\n问题,一,二,三,四,A\n".encode("gb18030"))
    with pytest.raises(BuddyError, match=r"^m\.csv:2: not UTF-8"):
        rows_of(path, data(choice=Choice(form="letters")))


def test_a_line_that_is_no_row_is_told(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_text("[1]\n", "utf-8")
    with pytest.raises(BuddyError, match=r"m.jsonl:1: not a row with columns, but list"):
        rows_of(path, data(choice=Choice(form="letters")))


def test_nothing_leaves_an_archive(tmp_path):
    from buddygpt.data.archives import list_members

    with zipfile.ZipFile(tmp_path / "m.zip", "w") as archive:
        archive.writestr("../test/agronomy.csv", "x")
    with pytest.raises(BuddyError, match="leads out of the archive"):
        list_members(tmp_path / "m.zip", "m.zip")
