"""Tables of .csv and .tsv: any text survives, and every fault has its line."""

from __future__ import annotations

import csv
import gzip
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buddygpt.data.files import tables
from buddygpt.data.readers import read_rows
from buddygpt.recipe.errors import BuddyError

cells = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


def read(tmp_path, name: str, data: bytes) -> list:
    (tmp_path / name).write_bytes(data)
    return list(read_rows(tmp_path / name, name))


@given(
    st.lists(st.tuples(cells, cells)),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from([",", "\t"]),
    st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
)
def test_any_table_that_python_writes(tmp_path_factory, rows, end, delimiter, quoting):
    if quoting == csv.QUOTE_MINIMAL:  # of which Python leaves out the quotes around a lone carriage return
        rows = [(a.replace("\r", ""), b.replace("\r", "")) for a, b in rows]
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter, lineterminator=end, quoting=quoting).writerows([("id", "正文"), *rows])
    name = "a.csv" if delimiter == "," else "a.tsv"
    read_back = read(tmp_path_factory.mktemp("csv"), name, text.getvalue().encode())
    assert [row for _, row in read_back] == [{"id": a, "正文": b} for a, b in rows]


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("packed", [False, True])
def test_rows_carry_the_line_on_which_they_begin(tmp_path, mark, end, packed):
    text = mark + end.join(['"text",n', '"一\u2028二\u0085三",1', "", f'"四{end}五, ""六""",2', "七,3"])
    data = gzip.compress(text.encode()) if packed else text.encode()
    assert read(tmp_path, "a.csv.gz" if packed else "a.csv", data) == [
        (2, {"text": "一\u2028二\u0085三", "n": "1"}),
        (4, {"text": f'四{end}五, "六"', "n": "2"}),
        (6, {"text": "七", "n": "3"}),
    ]


def test_a_field_longer_than_the_csv_module_takes_by_itself(tmp_path):
    assert len(read(tmp_path, "a.csv", b"text\n" + b"x" * 300_000)[0][1]["text"]) == 300_000


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"a,b\n1,2\n1,2,3\n", "a.csv:3: 3 fields where the header has 2"),
        (b'a,b\n"1\n2",2\n1\n', "a.csv:4: 1 fields where the header has 2"),
        (b"a,b\n1,2\n1,\0\n", "a.csv:3: a NUL byte"),
        (b'a,b\n1,2\n"1,2\n3,4\n', "a.csv:3: not a row of a table: unexpected end of data"),
        (b'a,b\n1,2\n"1"x,2\n', "a.csv:3: not a row of a table: "),
        (b"a,b,a\n1,2,3\n", "a.csv:1: two columns are called 'a'"),
        ("a,b\n1,2\n3,春江潮水连海平\n".encode("gb18030"), "a.csv:3: not UTF-8, it reads as GB18030"),
        ("a,b\n1,2\n".encode("utf-16"), "a.csv:1: UTF-16, not UTF-8; convert the file: `iconv -f UTF-16 "),
    ],
)
def test_faults_name_the_line(tmp_path, data, told):
    with pytest.raises(BuddyError) as caught:
        read(tmp_path, "a.csv", data)
    assert caught.value.lines[0].startswith(told)


def test_a_quote_without_an_end_is_found_before_it_fills_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "LIMIT", 10_000)
    with pytest.raises(BuddyError, match=r"^a.csv:2: a row of more than .*; has a quote there no end\?"):
        read(tmp_path, "a.csv", b'a,b\n"1,2\n' + b"3,4\n" * 9999)


def test_a_header_alone_has_no_rows(tmp_path):
    assert read(tmp_path, "a.csv", b"a,b\n") == [] == read(tmp_path, "b.csv", b"")
