"""Finding the files of a recipe's sources, and knowing them by content."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from buddygpt.data.fingerprints import FileIndex, hash_file
from buddygpt.data.paths import find_files
from buddygpt.data.sources import check_unchanged, find_sources
from buddygpt.events import silent
from buddygpt.recipe.data import DataSection, FilesSource
from buddygpt.recipe.errors import BuddyError
from buddygpt.recipe.hub import HubSection


@pytest.fixture
def tree(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in (
        "b/2.txt",
        "b/1.jsonl",
        "a/x.md.gz",
        "a/notes.doc",
        "a/.hidden.txt",
        "a/.git/z.txt",
        "c[1].txt",
        "top.txt",
    ):
        path = Path("texts", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name, "utf-8")
    return Path("texts")


def found(*paths: str) -> list[str]:
    return [p.as_posix() for p in find_files(FilesSource(kind="files", paths=list(paths)))]


def section(*paths: str, **fields) -> DataSection:
    return DataSection.model_validate({"sources": [{"kind": "files", "paths": list(paths)} | fields]})


def test_folders_globs_and_files_in_a_fixed_order(tree):
    assert found("texts") == [
        "texts/c[1].txt", "texts/top.txt", "texts/a/x.md.gz", "texts/b/1.jsonl", "texts/b/2.txt"
    ]  # fmt: skip
    assert found("texts/*/*.txt") == ["texts/b/2.txt"]
    assert found("texts/**/*.txt") == ["texts/b/2.txt", "texts/c[1].txt", "texts/top.txt"]
    assert found("texts/c[1].txt", "texts/top.txt", "texts/t*.txt") == ["texts/c[1].txt", "texts/top.txt"]
    assert found(str(tree.absolute() / "b")) == [str(tree.absolute() / "b" / n) for n in ("1.jsonl", "2.txt")]


def test_unknown_files_in_a_folder_are_counted(tree, tmp_path):
    (source,) = find_sources(section("texts"), HubSection(), tmp_path / "cache", silent)
    assert source.skipped == 1 and len(source.files) == 5 and source.name == "texts"
    assert [f.named for f in source.files] == [False] * 5


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("text", "text: no such file or folder; did you mean 'texts'?"),
        ("texts/bb/1.jsonl", "texts/bb/1.jsonl: no such file or folder; did you mean 'b'?"),
        ("texts/b/1.json", "texts/b/1.json: no such file or folder; did you mean '1.jsonl'?"),
        ("texts/*.parquet", "texts/*.parquet: no such file or folder"),
        ("texts/a/notes.doc", "texts/a/notes.doc: unknown kind of file; known are .jsonl, .json, .parquet, .txt, .md"),
        ("texts/a/*.doc", "texts/a/*.doc: no file in it of a known kind"),
    ],
)
def test_a_path_that_gives_nothing(tree, path, told):
    with pytest.raises(BuddyError) as caught:
        found(path)
    assert caught.value.lines[0].startswith(told)


def test_a_source_cannot_be_named_like_a_folder_above(tree, tmp_path):
    with pytest.raises(BuddyError, match=r"'\.\.' cannot name a folder"):
        find_sources(section("texts", name=".."), HubSection(), tmp_path / "cache", silent)


def test_files_are_known_by_content(tree, tmp_path):
    before = find_sources(section("texts/top.txt"), HubSection(), tmp_path / "cache", silent)
    assert before[0].files[0].content == f"xxh3:{hash_file(Path('texts/top.txt'))}"
    (tree / "top.txt").write_text("TOP.txt", "utf-8")  # as long as before, within the clock's grain
    after = find_sources(section("texts/top.txt"), HubSection(), tmp_path / "cache", silent)
    assert after[0].files[0].content != before[0].files[0].content
    with pytest.raises(BuddyError, match=r"texts/top\.txt: changed while it was read"):
        check_unchanged(before)
    check_unchanged(after)
    (tree / "top.txt").touch()
    check_unchanged(after)  # another time stamp, the same content
    (tree / "top.txt").unlink()
    with pytest.raises(BuddyError, match=r"texts/top\.txt: gone while it was read"):
        check_unchanged(after)


def test_the_index_trusts_only_settled_time_stamps(tree, tmp_path):
    fresh, old = tree / "top.txt", tree / "b" / "2.txt"
    os.utime(old, (time.time() - 60,) * 2)
    FileIndex(tmp_path / "files.json").learn([fresh, old], silent, remember=True)
    text = (tmp_path / "files.json").read_text("utf-8")
    assert str(old.resolve()) in text and str(fresh.resolve()) not in text


def test_looking_writes_nothing(tree, tmp_path):
    os.utime(tree / "top.txt", (1e9, 1e9))
    find_sources(section("texts/top.txt"), HubSection(), tmp_path / "cache", silent, remember=False)
    assert not (tmp_path / "cache").exists()


def test_a_damaged_index_is_no_obstacle(tree, tmp_path):
    (tmp_path / "files.json").write_text('{"broken', "utf-8")
    assert len(find_sources(section("texts"), HubSection(), tmp_path, silent)[0].files) == 5
