"""Parts of large files: together they are the whole, each row with its own number."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from buddygpt.data.files.parts import PART_BYTES
from buddygpt.data.fingerprints import FileIndex, hash_file, survey_file
from buddygpt.data.readers import Part, find_parts, read_rows
from buddygpt.events import silent
from buddygpt.recipe.errors import BuddyError

lines = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"])).map(lambda t: json.dumps({"text": t}, ensure_ascii=False)),
    st.sampled_from(["", "  ", '"\u2028\u0085"', json.dumps("甲" * 300), "0"]),
)


@given(
    st.lists(lines, max_size=12),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(["", "\ufeff"]),
    st.booleans(),
    st.integers(1, 400),
    st.sampled_from([".jsonl", ".json"]),
)
def test_the_parts_of_lines_together_are_the_whole(tmp_path_factory, texts, end, mark, final, part_bytes, suffix):
    path = tmp_path_factory.mktemp("parts") / f"a{suffix}"
    data = (mark + end.join(texts) + (end if final else "")).encode()
    path.write_bytes(data)
    parts = find_parts(path, path.name, part_bytes)
    whole = list(read_rows(path, path.name))
    digest, surveyed = survey_file(path, path.name, part_bytes)
    assert (digest, surveyed) == (hash_file(path), parts)
    if not parts:  # one part would be the whole file: no line begins at or after the first border
        assert b"\n" not in data[part_bytes - 1 : -1]
        return
    assert [p.start for p in parts] == [0, *(p.stop for p in parts[:-1])] and parts[-1].stop == len(data)
    for part in parts:
        assert part.rows == data[: part.start].count(b"\n") and data[: part.start].endswith((b"\n", b""))
        assert part.stop == len(data) or part.stop - part.start >= 1
    assert [row for part in parts for row in read_rows(path, path.name, part=part)] == whole


def test_a_part_ends_with_the_first_line_that_reaches_its_bytes(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"1234567\n" * 4 + b'"' + b"x" * 40 + b'"\n' + b"7\n" * 3)
    assert find_parts(path, "a.jsonl", 16) == (
        Part(0, 16, 0), Part(16, 32, 2), Part(32, 75, 4), Part(75, 81, 5)
    )  # fmt: skip
    assert [n for n, _ in read_rows(path, "a.jsonl", part=Part(75, 81, 5))] == [6, 7, 8]


def test_a_fault_in_a_later_part_names_the_line_of_the_file(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "x"}\n' * 120_344 + b'{"text" "y"}\n' + b"\n" * 100)
    parts = find_parts(path, "a.jsonl", 1 << 19)
    assert len(parts) == 4
    for part in parts[:3]:
        assert sum(1 for _ in read_rows(path, "a.jsonl", part=part))
    with pytest.raises(BuddyError, match=r"^a.jsonl:120345: not JSON"):
        list(read_rows(path, "a.jsonl", part=parts[3]))


@pytest.mark.parametrize("part_bytes", [1, 3000, 9000])
def test_the_parts_of_a_parquet_file_are_row_groups(tmp_path, part_bytes):
    path = tmp_path / "a.parquet"
    rows = [{"id": i, "text": str(i) * 40} for i in range(950)]
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=100, compression="none", use_dictionary=False)
    parts = find_parts(path, path.name, part_bytes)
    assert parts == survey_file(path, path.name, part_bytes)[1]
    assert [p.start for p in parts] == [0, *(p.stop for p in parts[:-1])] and parts[-1].stop == 10
    assert part_bytes > 1 or len(parts) == 10
    pieces = [list(read_rows(path, path.name, ["text"], part=part)) for part in parts]
    assert [row for piece in pieces for row in piece] == [(n, {"text": row["text"]}) for n, row in enumerate(rows, 1)]
    assert all(len(piece) >= 100 for piece in pieces[:-1])


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.json", json.dumps([{"text": "x"}] * 9, indent=1).encode()),
        ("b.json", b"\xef\xbb\xbf\n [1,\n2]"),
        ("c.json", b'{"data": [\n{"text": "x"},\n{"text": "y"}\n]}'),
        ("a.txt", b"x\ny\nz\n"),
        ("a.csv", b"text\nx\ny\n"),
        ("a.jsonl.gz", gzip.compress(b"1\n2\n3\n", mtime=0)),
        ("a.jsonl", b""),
    ],
)
def test_other_kinds_are_not_split(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    assert find_parts(tmp_path / name, name, 2) == () == survey_file(tmp_path / name, name, 2)[1]


def test_rows_of_conversations_in_a_json_file_are_lines(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"messages": [{"role": "user", "content": "问"}]}\n' * 5, "utf-8")
    assert len(find_parts(path, path.name, 100)) == 3


def test_parts_are_remembered_with_the_hash(tmp_path, monkeypatch):
    path, memory = tmp_path / "a.jsonl", tmp_path / "files.json"
    with path.open("wb") as file:
        file.write(b"1\n")
        file.truncate(PART_BYTES - 2)  # a hole: it takes no room
        file.seek(PART_BYTES - 2)
        file.write(b"\n2\n3\n")
    os.utime(path, (1e9, 1e9))
    first = FileIndex(memory)
    first.learn([path], silent, remember=True)
    assert first.parts(path) == (Part(0, PART_BYTES + 1, 0), Part(PART_BYTES + 1, PART_BYTES + 3, 3))
    monkeypatch.setattr("buddygpt.data.fingerprints.survey_file", None)
    again = FileIndex(memory)
    again.learn([path], silent, remember=True)
    assert again.parts(path) == first.parts(path) and again.describe(path) == first.describe(path)
    monkeypatch.setattr("buddygpt.data.fingerprints.PART_BYTES", 5)
    with pytest.raises(TypeError):  # parts of another size: it would be read anew
        FileIndex(memory).learn([path], silent, remember=True)


def test_a_pipe_is_refused_before_it_is_hashed(tmp_path):
    os.mkfifo(tmp_path / "a.jsonl")
    with pytest.raises(BuddyError, match=r"a.jsonl: a pipe or device, not a file"):
        FileIndex(Path(tmp_path / "files.json")).learn([tmp_path / "a.jsonl"], silent, remember=True)
