"""Bombs, and files that are none, vanish, shrink or may not be read."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from buddygpt.data.files import lines, streams
from buddygpt.data.files.streams import LIMIT
from buddygpt.data.readers import column_names, find_parts, read_rows
from buddygpt.recipe.errors import BuddyError

ROOT = Path(__file__).parents[3]
READ_ALL = """
import resource, sys
from pathlib import Path
import pyarrow.parquet
from buddygpt.data.readers import read_rows
from buddygpt.recipe.errors import BuddyError
room = int(sys.argv[1]) << 20
held = int(Path("/proc/self/statm").read_text("utf-8").split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + room,) * 2)
for name in sys.argv[3:]:
    try:
        print(name, sum(1 for _ in read_rows(Path(sys.argv[2], name), name)))
    except BuddyError as error:
        print(error)
"""


def fault(path: Path, name: str = "") -> str:
    with pytest.raises(BuddyError) as caught:
        list(read_rows(path, name or path.name))
    (line,) = caught.value.lines
    assert "\n" not in line
    return line


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
def test_bombs_are_refused_in_bounded_memory(tmp_path):
    """Two GB of zeros in files of some ten KB to 2 MB; reading them has 300 MB of room."""
    zeros = b"0" * (1 << 24)
    for name, head in {"a.jsonl": b'{"text": "', "a.json": b'["', "a.txt": b"x", "a.csv": b'text\n"'}.items():
        body = head + b"0"
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(body) + gzip.compress(zeros) * 128)
        packer = zstandard.ZstdCompressor()
        (tmp_path / f"{name}.zst").write_bytes(packer.compress(body) + packer.compress(zeros) * 128)
    names = sorted(p.name for p in tmp_path.iterdir())
    assert max(p.stat().st_size for p in tmp_path.iterdir()) < 3 << 20
    run = [sys.executable, "-c", READ_ALL, "300", str(tmp_path), *names]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    told = dict(zip(names, done.stdout.splitlines(), strict=True))
    assert all(line.startswith(f"{name}:") and "more than 64 MB" in line for name, line in told.items())
    assert told["a.jsonl.gz"].startswith("a.jsonl.gz:1: a line of more than 64 MB")


def test_a_line_may_be_as_long_as_the_limit(tmp_path, monkeypatch):
    assert LIMIT == 64 << 20
    monkeypatch.setattr(lines, "LIMIT", 100)
    path = tmp_path / "a.jsonl"
    for chunk in (7, 64, 1000):
        monkeypatch.setattr(streams, "CHUNK", chunk)
        path.write_bytes(b"1\n" + b'"' + b"x" * 98 + b'"\n2')
        assert [row for _, row in read_rows(path, path.name)] == [1, "x" * 98, 2]
        path.write_bytes(b"1\n" + b'"' + b"x" * 99 + b'"\n2')
        assert fault(path).startswith("a.jsonl:2: a line of more than")


def test_a_window_that_takes_more_memory_than_there_should_be(tmp_path):
    parameters = zstandard.ZstdCompressionParameters(window_log=29, enable_ldm=True)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    path = tmp_path / "a.jsonl.zst"
    path.write_bytes(packer.compress(b'"x"\n' * 9) + packer.flush())
    assert "a window above 128 MB; unpack it with `zstd -d --long=31`" in fault(path)


def test_what_is_no_file(tmp_path):
    (tmp_path / "folder.jsonl").mkdir()
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "broken.jsonl").symlink_to(tmp_path / "nowhere")
    assert fault(tmp_path / "folder.jsonl") == "folder.jsonl: a folder, not a file; give a file"
    assert fault(tmp_path / "pipe.jsonl") == "pipe.jsonl: a pipe or device, not a file; give a file"
    assert fault(tmp_path / "broken.jsonl") == "broken.jsonl: cannot be read: No such file or directory"
    for suffix in (".parquet", ".zip", ".tar", ".tar.gz"):
        (tmp_path / f"pipe{suffix}").symlink_to(tmp_path / "pipe.jsonl")
        assert fault(tmp_path / f"pipe{suffix}") == f"pipe{suffix}: a pipe or device, not a file; give a file"
        assert fault(tmp_path / f"none{suffix}") == f"none{suffix}: cannot be read: No such file or directory"
    for ask in (find_parts, column_names):
        with pytest.raises(BuddyError, match="a pipe or device, not a file"):
            ask(tmp_path / "pipe.parquet", "pipe.parquet")


def test_a_file_that_may_not_be_read(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"1\n")
    path.chmod(0)
    user = os.geteuid()
    if user == 0:  # root may read everything
        os.seteuid(65534)
    try:
        assert fault(path) == "a.jsonl: cannot be read: Permission denied"
    finally:
        os.seteuid(user)


def test_a_file_that_becomes_shorter_while_it_is_read(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'"xxxxxxxxxxxxxx"\n' * 100_000)
    rows = read_rows(path, path.name)
    next(rows)
    os.truncate(path, 17 * 50_000)  # at a line's end: no row is broken
    with pytest.raises(BuddyError, match=r"^a.jsonl: became shorter while it was read"):
        list(rows)


def test_a_file_that_grows_is_read_as_it_was(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"1\n" * 200_000)
    rows = read_rows(path, path.name)
    next(rows)
    with path.open("ab") as file:
        file.write(b"1\n" * 9)
    assert sum(1 for _ in rows) == 199_999


@pytest.mark.parametrize(
    "suffix", [".jsonl", ".json", ".csv", ".tsv", ".jsonl.gz", ".jsonl.zst", ".json.gz", ".csv.zst"]
)
def test_an_empty_file_has_no_rows(tmp_path, suffix):
    (tmp_path / f"a{suffix}").touch()
    assert list(read_rows(tmp_path / f"a{suffix}", f"a{suffix}")) == []


def test_a_gz_of_several_pieces_padded_with_zeros(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b"1\n2") + gzip.compress(b"3\n4\n") + bytes(512))
    assert [row for _, row in read_rows(path, path.name)] == [1, 23, 4]


def test_a_missing_column_of_rows_is_not_made_up(tmp_path):
    pq.write_table(pa.table({"a": [1, 2]}), tmp_path / "a.parquet")
    assert list(read_rows(tmp_path / "a.parquet", "a.parquet", ["b"])) == [(1, {}), (2, {})]
