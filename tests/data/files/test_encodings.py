"""Other encodings than UTF-8: told with line, likely name and cure."""

from __future__ import annotations

import gzip
import json

import pytest

from buddygpt.data.readers import read_rows
from buddygpt.recipe.errors import BuddyError

POEM = "春江潮水连海平，海上明月共潮生。滟滟随波千万里，何处春江无月明！"
BIG5 = "春江潮水連海平，海上明月共潮生。灩灩隨波千萬里，何處春江無月明！"


def fault(tmp_path, name: str, data: bytes) -> str:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(BuddyError) as caught:
        list(read_rows(tmp_path / name, name))
    (line,) = caught.value.lines
    assert "\n" not in line
    return line


def body(suffix: str, text: str) -> str:
    """Three good lines, and a fourth with the text."""
    if suffix == ".jsonl":
        return '{"text": "a"}\n' * 3 + json.dumps({"text": text}, ensure_ascii=False) + "\n"
    return f"text\na\nb\n{text}\n"


def where(name: str, suffix: str) -> str:
    return f"{name}:4: byte 9: " if suffix in (".txt", ".md") else f"{name}:4: "


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".tsv", ".txt", ".md"])
@pytest.mark.parametrize("packed", [False, True])
def test_gb18030_is_told_with_the_line_and_the_command(tmp_path, suffix, packed):
    data = body(suffix, POEM).encode("gb18030")
    name = f"a{suffix}.gz" if packed else f"a{suffix}"
    assert fault(tmp_path, name, gzip.compress(data) if packed else data) == (
        where(name, suffix) + "not UTF-8, it reads as GB18030; convert the file: `iconv -f GB18030 -t UTF-8 OLD > NEW`"
    )


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".txt"])
@pytest.mark.parametrize(
    ("encoding", "mark", "told"),
    [
        ("utf-16-le", True, "UTF-16"),
        ("utf-16-be", True, "UTF-16"),
        ("utf-32-le", True, "UTF-32"),
        ("utf-32-be", True, "UTF-32"),
        ("utf-16-le", False, "UTF-16LE"),
        ("utf-16-be", False, "UTF-16BE"),
    ],
)
def test_utf16_is_told_as_such(tmp_path, suffix, encoding, mark, told):
    data = (("\ufeff" if mark else "") + body(suffix, POEM)).encode(encoding)
    assert fault(tmp_path, f"a{suffix}", data) == (
        f"a{suffix}:1: {told}, not UTF-8; convert the file: `iconv -f {told} -t UTF-8 OLD > NEW`"
    )


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".txt"])
def test_damaged_utf8_is_not_taken_for_another_encoding(tmp_path, suffix):
    data = body(suffix, POEM).encode().replace("春".encode(), "春".encode()[:2])
    assert fault(tmp_path, f"a{suffix}", data) == (
        where(f"a{suffix}", suffix) + "not UTF-8: a broken character; mend or remove the line"
    )


def test_what_is_neither(tmp_path):
    assert fault(tmp_path, "a.txt", BIG5.encode("big5")).startswith("a.txt:1: byte 0: not UTF-8, it reads as ")
    assert fault(tmp_path, "a.txt", "Voilà un café brûlé".encode("latin-1")).startswith(
        "a.txt:1: byte 4: not UTF-8, nor GB18030; convert the file: `iconv -f ENCODING"
    )
