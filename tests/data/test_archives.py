"""Archives read in place: the same rows as unpacked, and refusals of what no honest archive holds."""

from __future__ import annotations

import gzip
import io
import os
import stat
import struct
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from buddygpt.data import archives
from buddygpt.data.archives import list_members
from buddygpt.data.readers import column_names, read_members, read_rows
from buddygpt.recipe.errors import BuddyError

ROOT = Path(__file__).parents[2]
ROWS = [{"text": "春江潮水\u2028连海平\u0085"}, {"text": "海上明月"}]
LINES = '{"text": "春江潮水\u2028连海平\u0085"}\r\n\r\n{"text": "海上明月"}'.encode()
FILES = {
    "a/lines.jsonl": b"\xef\xbb\xbf" + LINES,
    "packed.jsonl.gz": gzip.compress(LINES, mtime=0),
    "packed.jsonl.zst": zstandard.compress(LINES),
    "array.json": b"[" + LINES.replace(b"\r\n\r\n", b",\n") + b"]",
    "table.csv": "\ufefftext\r\n春江潮水\u2028连海平\u0085\r\n海上明月".encode(),
}
SUFFIXES = (".zip", ".stored.zip", ".tar", ".tar.gz", ".tgz", ".tar.zst")


def pack(path: Path, files: dict[str, bytes | tarfile.TarInfo | zipfile.ZipInfo]) -> Path:
    """An archive of files, by its suffix; a header alone in the place of a file's bytes is added as it is."""
    if path.name.endswith(".zip"):
        method = zipfile.ZIP_STORED if path.name.endswith(".stored.zip") else zipfile.ZIP_DEFLATED
        with zipfile.ZipFile(path, "w", method) as archive:
            for name, data in files.items():
                archive.writestr(name if isinstance(data, bytes) else data, data if isinstance(data, bytes) else b"")
        return path
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in files.items():
            info = data if isinstance(data, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(data) if isinstance(data, bytes) else info.size
            archive.addfile(info, io.BytesIO(data) if isinstance(data, bytes) else None)
    wrap = {".gz": gzip.compress, "tgz": gzip.compress, "zst": zstandard.compress}.get(path.name[-3:], bytes)
    path.write_bytes(wrap(out.getvalue()))
    return path


def read(path: Path) -> dict[str, list]:
    return {name: list(rows) for name, rows in read_members(path, path.name)}


def fault(ask, *args) -> str:
    with pytest.raises(BuddyError) as caught:
        list(ask(*args))
    (line,) = caught.value.lines
    assert "\n" not in line and line.isprintable()
    return line


def refusal(path: Path) -> str:
    """What is told before anything is read, and again where it is read all the same."""
    told = fault(lambda: list_members(path, path.name).members)
    assert fault(read_rows, path, path.name) == told
    return told


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_members_are_read_as_if_unpacked(tmp_path, suffix):
    path = pack(tmp_path / f"x{suffix}", FILES)
    for name, rows in read(path).items():
        assert [row for _, row in rows] == ROWS, name
        numbers = [1, 2] if "array" in name else [2, 3] if "table" in name else [1, 3]
        assert [number for number, _ in rows] == numbers
    assert list(read(path)) == [f"x{suffix}/{name}" for name in FILES]
    assert list(read_rows(path, path.name)) == list(enumerate(ROWS * len(FILES), 1))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_members_are_listed_and_read_alone_where_that_can_be(tmp_path, suffix):
    others = {
        "readme.pdf": b"x",
        "inner.zip": b"x",
        "b/inner.tar.gz": b"x",
        ".hidden/a.txt": b"x",
        "__MACOSX/a.txt": b"x",
    }
    path = pack(tmp_path / f"x{suffix}", others | FILES)
    contents = list_members(path, path.name)
    assert [(m.name, m.size) for m in contents.members] == [(name, len(data)) for name, data in FILES.items()]
    assert (contents.others, contents.links) == (3, 0)
    for member in reversed(contents.members):
        name = f"{path.name}/{member.name}"
        if suffix in (".zip", ".stored.zip", ".tar"):
            assert [row for _, row in read_rows(path, name, member=member)] == ROWS
        else:
            assert member.offset is None


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("member", "data", "told"),
    [
        ("b.jsonl", b"{}\n\n{", "b.jsonl:3: not JSON"),
        ("b.csv", "a\n春江潮水".encode("gb18030"), "b.csv:2: not UTF-8, it reads as GB18030"),
        ("b.jsonl.gz", gzip.compress(b"{}" * 99, mtime=0)[:-9], "b.jsonl.gz: cut short or damaged"),
        ("b.txt", b"a\n\xff", "b.txt:2: byte 2: not UTF-8"),
    ],
)
def test_faults_name_archive_and_member(tmp_path, suffix, member, data, told):
    path = pack(tmp_path / f"x{suffix}", {"a.jsonl": b"{}\n", f"d/{member}": data, "c.txt": b"c"})
    assert fault(read_rows, path, path.name).startswith(f"x{suffix}/d/{told}")


@pytest.mark.parametrize("suffix", [".stored.zip", ".tar"])
def test_parquet_is_read_where_it_is_not_compressed_again(tmp_path, suffix):
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(ROWS), buffer, row_group_size=1)
    path = pack(tmp_path / f"x{suffix}", {"a.jsonl": LINES, "b.parquet": buffer.getvalue()})
    member = list_members(path, path.name).members[1]
    assert list(read_rows(path, "x/b.parquet", ["text"], member=member)) == list(enumerate(ROWS, 1))
    assert column_names(path, "x/b.parquet", member) == ["text"]


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz", ".tar.zst"])
def test_parquet_in_a_compressed_archive_is_refused(tmp_path, suffix):
    path = pack(tmp_path / f"x{suffix}", {"b.parquet": b"PAR1"})
    assert "b.parquet: a .parquet that is compressed again cannot be read in place; unpack it" in refusal(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    "name",
    ["/etc/a.txt", "../a.txt", "a/../../b.txt", "C:\\a.txt", "c:a.txt", "..\\a.txt", "\\a.txt", "\\\\host\\a.txt"],
)
@pytest.mark.parametrize("data", [b"x", None])
def test_names_that_lead_out(tmp_path, suffix, name, data):
    if data is None:  # a file of a kind that would not be read
        name = name.replace(".txt", ".bin")
    path = pack(tmp_path / f"x{suffix}", {"ok.txt": b"x", name: b"x"})
    told = name.replace("\\", "/")
    assert refusal(path) == f"x{suffix}: {told}: leads out of the archive; nothing of the archive is read"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_names_that_stay_within(tmp_path, suffix):
    names = ["./a.txt", "b//c.txt", "d\\e.txt", "f..g.txt", "..h/i.txt"]
    path = pack(tmp_path / f"x{suffix}", dict.fromkeys(names, b"x"))
    assert [m.name for m in list_members(path, path.name).members] == ["a.txt", "b/c.txt", "d/e.txt", "f..g.txt"]


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tar.gz"])
def test_names_with_control_characters_and_names_twice(tmp_path, suffix):
    path = pack(tmp_path / f"x{suffix}", {"a\nb.txt": b"x"})
    assert "a\\nb.txt: a name with control characters" in refusal(path)
    path = pack(tmp_path / f"x{suffix}", {"a.txt": b"x", "./a.txt": b"y"})
    assert "a.txt: there twice" in refusal(path)


def test_names_in_gb18030_are_read_as_such(tmp_path):
    path = pack(tmp_path / "x.zip", {"XXXX.txt": b"x"})
    path.write_bytes(path.read_bytes().replace(b"XXXX", "春江".encode("gb18030")))
    assert [m.name for m in list_members(path, "x.zip").members] == ["春江.txt"]
    info = tarfile.TarInfo("春江.txt")
    (tmp_path / "x.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT, "gb18030") + bytes(1024))
    assert [m.name for m in list_members(tmp_path / "x.tar", "x.tar").members] == ["春江.txt"]


def tar_entry(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tar.zst"])
@pytest.mark.parametrize(
    ("entry", "told"),
    [
        (
            tar_entry("d/l.txt", tarfile.SYMTYPE, "/etc/passwd"),
            "d/l.txt: a link that leads out of the archive, to /etc/passwd",
        ),
        (tar_entry("d/l.txt", tarfile.SYMTYPE, "../../x"), "d/l.txt: a link that leads out of the archive, to ../../x"),
        (tar_entry("d/l.txt", tarfile.LNKTYPE, "../x"), "d/l.txt: a link that leads out of the archive, to ../x"),
        (tar_entry("l.txt", tarfile.SYMTYPE, "C:\\x"), "l.txt: a link that leads out of the archive, to C:/x"),
        (tar_entry("null", tarfile.CHRTYPE), "null: a device or pipe"),
        (tar_entry("sda", tarfile.BLKTYPE), "sda: a device or pipe"),
        (tar_entry("pipe.txt", tarfile.FIFOTYPE), "pipe.txt: a device or pipe"),
    ],
)
def test_links_out_and_devices_in_a_tar(tmp_path, suffix, entry, told):
    path = pack(tmp_path / f"x{suffix}", {"a.txt": b"x", "entry": entry})
    assert refusal(path) == f"x{suffix}: {told}; nothing of the archive is read"


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_links_within_a_tar_are_counted(tmp_path, suffix):
    links = [
        tar_entry("d/l.txt", tarfile.SYMTYPE, "../a.txt"),
        tar_entry("d/m.txt", tarfile.LNKTYPE, "a.txt"),
        tar_entry("d", tarfile.DIRTYPE),
    ]
    path = pack(tmp_path / f"x{suffix}", {"a.txt": b"x"} | {e.name: e for e in links})
    contents = list_members(path, path.name)
    assert ([m.name for m in contents.members], contents.others, contents.links) == (["a.txt"], 0, 2)


@pytest.mark.parametrize(
    ("mode", "target", "told"),
    [
        (stat.S_IFLNK, b"../../etc/passwd", "d/l.txt: a link that leads out of the archive"),
        (stat.S_IFLNK, b"/etc/passwd", "d/l.txt: a link that leads out of the archive"),
        (stat.S_IFCHR, b"", "d/l.txt: a device or pipe"),
        (stat.S_IFIFO, b"", "d/l.txt: a device or pipe"),
        (stat.S_IFLNK, b"../a.txt", None),
    ],
)
def test_links_and_devices_in_a_zip(tmp_path, mode, target, told):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", b"x")
        info = zipfile.ZipInfo("d/l.txt")
        info.external_attr = (mode | 0o777) << 16
        archive.writestr(info, target)
    if told:
        assert refusal(path).startswith(f"x.zip: {told}")
    else:
        contents = list_members(path, path.name)
        assert ([m.name for m in contents.members], contents.links) == (["a.txt"], 1)


def patched(path: Path, field: int, value: int, layout: str) -> Path:
    """The last entry's field in a zip's list, `field` bytes after its signature, changed."""
    data = bytearray(path.read_bytes())
    struct.pack_into(layout, data, data.rindex(b"PK\1\2") + field, value)
    path.write_bytes(data)
    return path


def test_encrypted_members(tmp_path):
    path = patched(pack(tmp_path / "x.zip", {"a.txt": b"x", "b.txt": b"y"}), 8, 1, "<H")
    assert refusal(path) == "x.zip: b.txt: encrypted; unpack it yourself; nothing of the archive is read"


def test_methods_that_are_not_known(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a.bin", b"x")
        archive.writestr("a.txt", b"x")
    assert refusal(tmp_path / "x.zip").startswith("x.zip: a.txt: compressed by method 14; pack it again by deflate")


def test_members_that_overlap(tmp_path):
    path = pack(tmp_path / "x.zip", {"a.txt": os.urandom(999), "b.txt": b"y"})
    assert refusal(patched(path, 42, 0, "<L")).endswith("overlaps another member; nothing of the archive is read")
    path = pack(tmp_path / "x.zip", {"a.txt": os.urandom(999), "b.txt": b"y"})
    assert refusal(patched(path, 20, 5000, "<L")).endswith("overlaps another member; nothing of the archive is read")


@pytest.mark.parametrize("size", [0, 5, 7])
def test_sizes_that_are_not_true_in_a_zip(tmp_path, size):
    for suffix in (".zip", ".stored.zip"):
        path = patched(pack(tmp_path / f"x{suffix}", {"a.txt": b"123456"}), 24, size, "<L")
        told = "it holds less than it states" if size > 6 else "it holds more than it states"
        assert f"x{suffix}/a.txt: cut short or damaged ({told})" in fault(read_rows, path, path.name)


def test_damage_in_a_zip(tmp_path):
    path = pack(tmp_path / "x.stored.zip", {"a.txt": b"123456"})
    path.write_bytes(path.read_bytes().replace(b"123456", b"123457"))
    assert "x.stored.zip/a.txt: cut short or damaged (its checksum does not fit)" in fault(read_rows, path, path.name)
    path = pack(tmp_path / "x.zip", FILES)
    whole = path.read_bytes()
    for data in (b"", b"PK", whole[:-30], whole[:99], b"x" * 999):
        path.write_bytes(data)
        assert refusal(path).startswith("x.zip: no whole archive (")
    member = list_members(pack(path, FILES), path.name).members[1]
    path.write_bytes(b"x" * len(whole))
    assert fault(read_rows, path, "x.zip/b.jsonl", None, None, member).startswith("x.zip/b.jsonl: cut short or damaged")


def test_bombs_in_a_zip(tmp_path, monkeypatch):
    assert (archives.MAX_RATIO, archives.RATIO_FROM) == (200, 100_000_000)
    monkeypatch.setattr(archives, "RATIO_FROM", 1_000_000)
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.txt", bytes(1_000_000))  # a thousand bytes for one, but not so many
        archive.writestr("pad.bin", os.urandom(20_000))
    assert len(list_members(path, path.name).members) == 1
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("b.bin", bytes(1_000_001))
    assert refusal(path).startswith("x.zip: b.bin: states 1,000,001 bytes in 9")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(3):
            archive.writestr(f"{i}.txt", bytes(500_000))
    assert refusal(path).startswith("x.zip: its members: states 1,500,000 bytes in 1,")


@pytest.mark.parametrize("suffix", [".tar.gz", ".tar.zst"])
def test_bombs_in_a_tar_are_refused_by_the_header_alone(tmp_path, suffix):
    info = tarfile.TarInfo("b.bin")
    info.size = 10**12
    data = tarfile.TarInfo("a.txt").tobuf() + info.tobuf(tarfile.GNU_FORMAT) + bytes(4096)
    path = tmp_path / f"x{suffix}"
    path.write_bytes(gzip.compress(data) if suffix == ".tar.gz" else zstandard.compress(data))
    assert refusal(path).startswith(f"x{suffix}: its members: states 1,000,000,000,000 bytes in ")


def test_a_tar_that_claims_more_than_it_holds(tmp_path):
    info = tarfile.TarInfo("a.txt")
    info.size = 9999
    data = info.tobuf() + bytes(512)
    (tmp_path / "x.tar").write_bytes(data)
    assert refusal(tmp_path / "x.tar").startswith("x.tar: a.txt: states more bytes than the archive holds")
    (tmp_path / "x.tgz").write_bytes(gzip.compress(data))
    assert fault(read_rows, tmp_path / "x.tgz", "x.tgz").startswith("x.tgz/a.txt: cut short or damaged (it holds less")
    assert fault(list_members, tmp_path / "x.tgz", "x.tgz").startswith(
        "x.tgz: no whole archive (unexpected end of data)"
    )


@pytest.mark.parametrize("wrap", [bytes, gzip.compress, zstandard.compress])
def test_damage_in_a_tar_is_never_taken_for_its_end(tmp_path, wrap):
    whole = pack(tmp_path / "x.tar", {"a.txt": b"x" * 512, "b.txt": b"y"}).read_bytes()
    path = tmp_path / {"bytes": "x.tar", "compress": "x.tar.gz"}.get(wrap.__name__, "x.tar.zst")
    if wrap is zstandard.compress:
        path = tmp_path / "x.tar.zst"
    for data in (whole[:1024], whole[:1500], whole[:2048], whole[:1024] + b"x" * 512 + whole[1536:], b"", b"x" * 9999):
        path.write_bytes(wrap(data))
        told = fault(list_members, path, path.name)
        assert told.startswith(f"{path.name}: ") and told.endswith("fetch it again")
    path.write_bytes(wrap(whole + whole))
    assert refusal(path) == f"{path.name}: more follows after the archive's end; if two are joined, part them"
    if wrap is not bytes:
        path.write_bytes(wrap(whole)[:-3])
        assert refusal(path).startswith(f"{path.name}: cut short or damaged")


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE])
def test_a_header_of_any_length_is_not_taken_into_memory(tmp_path, kind):
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = kind, 60_000_000
    path = tmp_path / "x.tar.gz"
    path.write_bytes(gzip.compress(info.tobuf() + bytes(60_000_000 // 512 * 512 + 512) + bytes(1024), 1))
    assert refusal(path).startswith("x.tar.gz: cut short or damaged (a header of 60,0")


def test_a_plain_tar_is_listed_without_reading_its_members(tmp_path):
    path = pack(tmp_path / "x.tar", {"a.jsonl": b"x" * (1 << 20), "b.jsonl": b"x" * (1 << 20)})
    seen = []
    read = archives.Forward.readinto
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(archives.Forward, "readinto", lambda self, buffer: seen.append(len(buffer)) or read(self, buffer))
        assert len(list_members(path, path.name).members) == 2
    assert sum(seen) < 1 << 20


def test_an_archive_with_nothing_to_read(tmp_path):
    for suffix in SUFFIXES:
        path = pack(tmp_path / f"x{suffix}", {"a.bin": b"x"})
        assert list_members(path, path.name).members == []
        assert fault(read_rows, path, path.name).startswith(f"x{suffix}: no file in it of a known kind; known are ")


def test_members_need_not_be_read_to_their_end(tmp_path):
    for suffix in SUFFIXES:
        path = pack(tmp_path / f"x{suffix}", {f"{i}.jsonl": b"1\n" * 500_000 for i in range(3)})
        assert [next(rows) for _, rows in read_members(path, path.name)] == [(1, 1)] * 3


MEASURE = """
import sys
from pathlib import Path
import pyarrow.parquet
from buddygpt.data.archives import list_members
from buddygpt.data.readers import read_rows
def peak():  # KB, of this program alone
    return int(Path("/proc/self/status").read_text("utf-8").split("VmHWM:")[1].split()[0])
before = peak()
for name in sys.argv[1:]:
    list_members(Path(name), name)
    assert sum(1 for _ in read_rows(Path(name), name)) == 1_000_000
print((peak() - before) >> 10)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_large_members_take_little_memory(tmp_path):
    some = b"".join(
        b'{"text": "%d and as much text as there may be in a line of some length"}\n' % (i * i) for i in range(10_000)
    )
    lines = some * 100  # 85 MB
    names = ["x.zip", "x.tar.zst"]
    for name in names:
        pack(tmp_path / name, {"a.jsonl": lines})
    run = [sys.executable, "-c", MEASURE, *(str(tmp_path / name) for name in names)]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 60
