"""Parquet: types that differ from file to file, texts that are none, memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from buddygpt.data.readers import column_names, read_rows
from buddygpt.recipe.errors import BuddyError

ROOT = Path(__file__).parents[3]
TURNS = [{"from": "human", "value": "问"}, {"from": "gpt", "value": None}]


def read(path, columns=None) -> list:
    return [row for _, row in read_rows(path, path.name, columns)]


@pytest.mark.parametrize(
    ("column", "values"),
    [
        (pa.array([None, None], pa.null()), [None, None]),
        (pa.array(["甲", None], pa.string()), ["甲", None]),
        (pa.array(["甲", "\u2028"], pa.large_string()), ["甲", "\u2028"]),
        (pa.array(["甲", "甲"]).dictionary_encode(), ["甲", "甲"]),
        (pa.array([TURNS, []]), [TURNS, []]),
        (pa.array([[["a"], None], None], pa.large_list(pa.list_(pa.string()))), [[["a"], None], None]),
        (pa.array([{"a": {"b": [1]}}, None]), [{"a": {"b": [1]}}, None]),
        (pa.array([0.5, 1], pa.float32()), [0.5, 1.0]),
    ],
)
def test_columns_of_any_type_arrive_as_python_values(tmp_path, column, values):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"id": [1, 2], "x": column}), path)
    assert read(path) == [{"id": i, "x": value} for i, value in enumerate(values, 1)]
    assert read(path, ["x"]) == [{"x": value} for value in values]
    assert read(path, ["y"]) == [{}, {}] and column_names(path, path.name) == ["id", "x"]


@pytest.mark.parametrize("kind", ["string", "dictionary", "nested"])
def test_a_text_that_is_no_utf8_is_named_by_row(tmp_path, kind):
    raw = [b"ok"] * 1500
    raw[1234] = "你".encode("gb18030")
    column = pa.array(raw, pa.binary()).view(pa.string())
    if kind == "dictionary":
        column = column.dictionary_encode()
    if kind == "nested":
        column = pa.StructArray.from_arrays([column], ["value"])
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"id": range(1500), "text": column}), path, row_group_size=700)
    with pytest.raises(BuddyError) as caught:
        read(path)
    assert caught.value.lines == ("a.parquet: row 1235: text: not UTF-8; write the file again as UTF-8",)
    assert len(read(path, ["id"])) == 1500


def test_a_file_cut_short(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["x" * 99] * 999}), path)
    whole = path.read_bytes()
    for data in (b"", b"PAR1", whole[:-3], whole[:99], whole[:40] + b"\xff" * 40 + whole[80:]):
        path.write_bytes(data)
        with pytest.raises(BuddyError) as caught:
            read(path)
        (line,) = caught.value.lines
        assert line.startswith("a.parquet: ") and line.endswith("fetch it again") and "\n" not in line


MEASURE = """
import sys
from pathlib import Path
import pyarrow.parquet
from buddygpt.data.readers import read_rows
def peak():  # KB, of this program alone
    return int(Path("/proc/self/status").read_text("utf-8").split("VmHWM:")[1].split()[0])
before = peak()
rows = sum(1 for _ in read_rows(Path(sys.argv[1]), "a.parquet", ["text"]))
print(rows, (peak() - before) >> 10)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_a_large_row_group_is_never_in_memory_whole(tmp_path):
    path = tmp_path / "a.parquet"
    texts = [f"{i:09d}" * 300 for i in range(50_000)]  # 135 MB, in one row group
    pq.write_table(pa.table({"text": texts}), path, row_group_size=10**6, use_dictionary=False, compression="none")
    del texts
    run = [sys.executable, "-c", MEASURE, str(path)]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=True)
    rows, grown = map(int, done.stdout.split())
    assert rows == 50_000 and grown < 70
