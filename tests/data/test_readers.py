"""Files as rows: every format and compression, and the exact place of every fault."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from buddygpt.data.clean import normalise
from buddygpt.data.documents import read_documents
from buddygpt.data.intake import Intake
from buddygpt.data.readers import format_of, place, read_rows
from buddygpt.data.sources import InputFile, Source
from buddygpt.recipe.errors import BuddyError

TEXTS = ["春江潮水连海平", "海上明月\u2028共潮生\u0085滟滟随波", "第三\r\n行"]
CLEANED = ["春江潮水连海平", "海上明月\n共潮生\n滟滟随波", "第三\n行"]
"""The same as documents: line separators inside strings separate no rows."""
ROWS = [{"id": i, "text": text} for i, text in enumerate(TEXTS)]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()


def pack(data: bytes, suffix: str) -> bytes:
    return {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}[suffix](data)


def read(path: Path, text=None, min_score=None, named=True) -> tuple[list[str], Intake]:
    intake = Intake()
    file = InputFile(path.name, 0, "", path, named=named)
    source = Source("s", "files", (), 0, map={"text": text} if text else None, min_score=min_score)
    return [d.text for d in read_documents(file, source, None, intake)], intake


def write_rows(path: Path, rows: list) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def fault(path: Path, *args, **kwargs) -> str:
    with pytest.raises(BuddyError) as caught:
        read(path, *args, **kwargs)
    assert len(caught.value.lines) == 1 and "\n" not in caught.value.lines[0]
    return caught.value.lines[0]


@pytest.mark.parametrize("compression", ["", ".gz", ".zst"])
@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.jsonl", LINES),
        ("bom.jsonl", b"\xef\xbb\xbf" + LINES),
        ("crlf.jsonl", LINES.replace(b"\n", b"\r\n")),
        ("blank.jsonl", LINES.replace(b"\n", b"\n\n  \n").rstrip()),
        ("lines.json", LINES),
        ("array.json", json.dumps(ROWS, indent=1).encode()),
        ("bom.json", b"\xef\xbb\xbf" + json.dumps(ROWS).encode()),
    ],
)
def test_rows_of_json(tmp_path, name, data, compression):
    path = tmp_path / f"{name}{compression}"
    path.write_bytes(pack(data, compression))
    assert read(path)[0] == CLEANED
    assert [row["text"] for _, row in read_rows(path, path.name)] == TEXTS


@pytest.mark.parametrize("compression", ["", ".gz", ".zst"])
@pytest.mark.parametrize("suffix", [".txt", ".md"])
def test_one_text_file_is_one_document(tmp_path, suffix, compression):
    path = tmp_path / f"a{suffix}{compression}"
    path.write_bytes(pack("\ufeff 一\r\n二\u2028三 \n".encode(), compression))
    assert read(path)[0] == ["一\n二\n三"]


def test_parquet_reads_only_what_is_needed(tmp_path):
    rows = [{"text": text, "wide": {"a": [1]}, "score": 0.5} for text in TEXTS] * 500
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet", row_group_size=400)
    assert read(tmp_path / "a.parquet", min_score=0.5)[0] == CLEANED * 500
    assert next(read_rows(tmp_path / "a.parquet", "a.parquet", ["score"])) == (1, {"score": 0.5})


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1))
def test_any_text_survives_a_json_line(tmp_path_factory, texts):
    path = tmp_path_factory.mktemp("any") / "a.jsonl"
    path.write_text("".join(json.dumps({"text": t}, ensure_ascii=False) + "\n" for t in texts), "utf-8", newline="\n")
    assert [row["text"] for _, row in read_rows(path, path.name)] == texts


def test_zst_of_several_frames(tmp_path):
    path = tmp_path / "a.jsonl.zst"
    path.write_bytes(b"".join(zstandard.compress(line + b"\n") for line in LINES.splitlines()))
    assert read(path)[0] == CLEANED


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_compressed_file_cut_short(tmp_path, suffix):
    path = tmp_path / f"a.jsonl{suffix}"
    path.write_bytes(pack(LINES * 999, suffix)[:-5])
    assert fault(path).startswith(f"a.jsonl{suffix}: cut short or damaged")
    path.write_bytes(b"not compressed at all")
    assert fault(path).startswith(f"a.jsonl{suffix}: cut short or damaged")


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("a.jsonl", b'{"text": "x"}\n\n{"text": \n', "a.jsonl:3: not JSON: "),
        ("a.jsonl", b'{"text": "x"}\n{"text": "\xc4\xe3"}\n', "a.jsonl:2: not UTF-8"),
        ("a.json", b'[{"text": "x"},\n{"text" "y"}]', "a.json:2: not JSON: "),
        ("a.json", b'[\n\n{"text": "\xff"}]', "a.json:3: not UTF-8"),
        ("a.json", b'[{"text": "x"}] []', "a.json:1: not JSON: Extra data at column 17"),
        ("a.json", b'[{"text": "x"},\n {"text": "y"}\n', "a.json:3: not JSON: Expecting ',' delimiter at column 1"),
        ("a.json", b"[" * 99_999, "a.json: row 1: JSON that cannot be read"),
        ("a.txt", b"abc\xffd", "a.txt:1: byte 3: not UTF-8"),
        ("a.jsonl", b"[" * 99_999, "a.jsonl:1: "),
        ("a.jsonl", b"", "a.jsonl: empty"),
        ("a.jsonl", b"\n \n", "a.jsonl: empty"),
        ("a.json", b"[]", "a.json: empty"),
        ("a.txt", b" \n", "a.txt: no text in any of 1 rows: 1 empty (first a.txt)"),
        ("a.jsonl", b'{"text": " "}\n', "a.jsonl: no text in any of 1 rows: 1 empty (first a.jsonl:1)"),
        ("a.jsonl", b'{"body_text": "x", "n": 1}\n', "a.jsonl: no text column found among body_text, n"),
        ("a.jsonl", b'{"text": "x", "content": "y"}\n', "a.jsonl: text and content may all be the text"),
        ("a.jsonl", b"3\n4\n", "a.jsonl: no text in any of 2 rows: 2 no text column (first a.jsonl:1)"),
        ("a.parquet", b"PAR1", "a.parquet: not a whole parquet file"),
    ],
)
def test_faults_name_their_place(tmp_path, name, data, told):
    (tmp_path / name).write_bytes(data)
    assert fault(tmp_path / name).startswith(told)


def test_a_column_that_no_row_has(tmp_path):
    path = write_rows(tmp_path / "a.jsonl", [{"title": "x", "body": "y"}] * 3)
    assert fault(path, ["text"]) == (
        "a.jsonl: `map` says that text is in the column text, which is not there; there are title, body"
    )
    pq.write_table(pa.table({"title": ["x"], "body": ["y"]}), tmp_path / "a.parquet")
    assert fault(tmp_path / "a.parquet", ["text"]).startswith("a.parquet: `map` says that text is in the column text")
    assert fault(path, ["body"], 0.5).endswith(
        "3 no score (first a.jsonl:1); `min_score` needs numbers, see `map: {score: ...}`"
    )


def test_dropped_rows_are_counted_by_reason(tmp_path):
    rows = [
        {"text": "甲"},
        {"text": 3},
        {"id": 1},
        {"text": "\n\u3000"},
        {"text": None},
        {"text": "乙"},
        [],
        {"text": "\ud800"},
    ]
    texts, intake = read(write_rows(tmp_path / "a.jsonl", rows))
    assert texts == ["甲", "乙"] and intake.rows == 8
    assert {reason: (drop.count, drop.first) for reason, drop in intake.dropped.items()} == {
        "not a string": (2, "a.jsonl:2"),
        "no text column": (2, "a.jsonl:3"),
        "empty": (1, "a.jsonl:4"),
        "lone surrogate": (1, "a.jsonl:8"),
    }
    assert Intake.from_dict(json.loads(json.dumps(intake.as_dict()))) == intake


def test_scores(tmp_path):
    scores = [0.85, 0.8499, None, "0.9", "good", True, float("nan"), 1]
    texts, intake = read(
        write_rows(tmp_path / "a.jsonl", [{"text": str(s), "score": s} for s in scores]), min_score=0.85
    )
    assert texts == ["0.85", "0.9", "1"]
    assert {r: (d.count, d.first) for r, d in intake.dropped.items()} == {
        "low score": (1, "a.jsonl:2"),
        "no score": (4, "a.jsonl:3"),
    }


def test_columns_joined_by_a_line_break(tmp_path):
    path = write_rows(tmp_path / "a.jsonl", [{"prompt": "问", "response": "答"}, {"prompt": "问", "response": None}])
    texts, intake = read(path, ["prompt", "response"])
    assert texts == ["问\n答"] and intake.dropped["not a string"].first == "a.jsonl:2"


def test_a_column_null_for_long_and_a_late_extra_key(tmp_path):
    rows = [{"text": "一", "meta": None}] * 600 + [{"text": "二", "meta": "x"}, {"text": "三", "meta": 1, "extra": []}]
    assert read(write_rows(tmp_path / "a.jsonl", rows))[0][-2:] == ["二", "三"]
    late = [{"text": None}] * 600 + [{"text": "二"}]
    assert read(write_rows(tmp_path / "b.jsonl", late))[0] == ["二"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.json"])
def test_rows_whose_columns_change_after_60000_arrive_as_they_are(tmp_path, name):
    late = [{"meta": "x"}, {"meta": {"a": [1]}}, {"meta": None, "extra": 0.5}, {"meta": 3}]
    texts = ['{"meta":null}'] * 60_000 + [json.dumps(row) for row in late]
    text = f"[{','.join(texts)}]" if name.endswith(".json") else "\n".join(texts)
    (tmp_path / name).write_bytes(pack(text.encode(), ".gz" if name.endswith(".gz") else ""))
    rows = list(read_rows(tmp_path / name, name))
    assert [number for number, _ in rows] == list(range(1, 60_005))
    assert all(row == {"meta": None} for _, row in rows[:60_000]) and [row for _, row in rows[60_000:]] == late


def test_a_column_null_in_one_parquet_file_and_text_in_the_next(tmp_path):
    late = [{"text": "甲", "meta": "x"}, {"text": "乙", "meta": None}]
    pq.write_table(pa.table({"text": ["甲"] * 60_000, "meta": pa.nulls(60_000)}), tmp_path / "a.parquet")
    pq.write_table(pa.Table.from_pylist(late), tmp_path / "b.parquet")
    assert read(tmp_path / "a.parquet")[0] == ["甲"] * 60_000
    assert [row for _, row in read_rows(tmp_path / "b.parquet", "b.parquet")] == late
    assert next(read_rows(tmp_path / "a.parquet", "a.parquet"))[1] == {"text": "甲", "meta": None}


def test_cleaning_leaves_punctuation_alone():
    text = "你好，世界！（测试）：①㎏……"
    assert normalise(f"\n {text}\u3000") == (text, ())
    assert normalise("e\u0301") == ("é", ("Unicode NFC",))


def test_end_markers_are_stripped_at_the_end_only():
    assert normalise("甲<|endoftext|>") == ("甲", ("end markers",))
    assert normalise("甲 </s>\n<|im_end|> \n") == ("甲", ("end markers",))
    assert normalise("甲<|endoftext|>乙") == ("甲<|endoftext|>乙", ())
    assert normalise("</s>") == ("", ("end markers",))


def test_names_of_files():
    names = {
        "a.JSONL.GZ": ".jsonl",
        "a.md.zst": ".md",
        "a.TSV": ".tsv",
        "x.tgz": ".tar",
        "x.tar.zst": ".tar",
        "z.zip": ".zip",
    }
    unknown = ("a.parquet.gz", "a.zip.gz", "gz", ".gz", "a.doc", "a.jsonl.gz.zst")
    assert {n: format_of(n) for n in (*names, *unknown)} == names | dict.fromkeys(unknown)
    assert place("a.parquet", 3) == "a.parquet: row 3" and place("a.txt.gz", 1) == "a.txt.gz"
    assert place("z.zip/b.csv", 4) == "z.zip/b.csv:4"
