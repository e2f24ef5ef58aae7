"""The newest whole checkpoint is found whatever happened to the others; none goes before the new one is proved."""

import errno
import json
import os
import shutil

import pytest

from buddygpt.data import fingerprints
from buddygpt.recipe.errors import BrokenOff, BuddyError
from buddygpt.training import chapter, checkpoints
from buddygpt.training.checkpoints import (
    MARK,
    WRITING,
    Shelf,
    all_checkpoints,
    damages,
    newest_checkpoint,
    seal,
    whole_checkpoints,
)


def write(folder, step):
    (folder / f"checkpoint-{step}" / "inner").mkdir(parents=True)
    (folder / f"checkpoint-{step}" / "weights").write_bytes(b"w" * 1000)
    (folder / f"checkpoint-{step}" / "inner" / "state").write_bytes(b"s" * step)


@pytest.fixture
def folder(tmp_path):
    for step in (5, 10, 20, 100):
        write(tmp_path, step)
        if step != 100:  # interrupted while it was written
            seal(tmp_path / f"checkpoint-{step}")
    (tmp_path / "checkpoint-x").mkdir()
    return tmp_path


def names(found):
    return [c.name for c in found]


def test_the_newest_whole_one(folder):
    newest, damaged = newest_checkpoint(folder)
    assert newest.name == "checkpoint-20" and damaged == []
    assert newest_checkpoint(folder / "nowhere") == (None, [])
    assert damages(folder / "checkpoint-20") == []


HARMS = [
    (lambda c: (c / "weights").write_bytes(b"w" * 999), "weights has 999 bytes of 1,000"),
    (lambda c: (c / "weights").write_bytes(b"v" * 1000), "weights was changed"),
    (lambda c: (c / "inner" / "state").unlink(), "inner/state is missing"),
    (lambda c: (c / MARK).write_text("{"), f"{MARK} cannot be read"),
    (lambda c: (c / MARK).write_text("[]"), f"{MARK} cannot be read"),
]


@pytest.mark.parametrize(("harm", "told"), HARMS)
def test_a_damaged_one_is_told_and_the_next_older_one_taken(folder, harm, told):
    harm(folder / "checkpoint-20")
    newest, damaged = newest_checkpoint(folder)
    assert newest.name == "checkpoint-10"
    assert len(damaged) == 1 and "checkpoint-20" in damaged[0] and told in damaged[0]


def test_where_all_are_damaged_nothing_begins_anew_by_itself(folder):
    for checkpoint in whole_checkpoints(folder):
        (checkpoint / "weights").unlink()
    with pytest.raises(BuddyError) as caught:
        newest_checkpoint(folder)
    assert len(caught.value.lines) == 4 and "remove this folder to begin anew" in str(caught.value)


def save(shelf, step):
    write(shelf.prepare(), step)
    return shelf.finish(step)


@pytest.mark.parametrize(
    ("keep", "every", "left"),
    [(1, None, [7]), (2, None, [6, 7]), (1, 3, [3, 6, 7]), (2, 2, [2, 4, 6, 7])],
)
def test_the_newest_stay_and_those_of_lasting_steps(tmp_path, keep, every, left):
    shelf = Shelf(tmp_path, keep, every)
    for step in range(8):
        save(shelf, step)
        assert damages(tmp_path / f"checkpoint-{step}") == []
    assert names(all_checkpoints(tmp_path)) == [f"checkpoint-{step}" for step in left]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(f"checkpoint-{step}" for step in left)


def test_what_was_cut_short_goes_once_a_newer_one_is_whole(folder):
    save(Shelf(folder, 2), 30)
    assert names(all_checkpoints(folder)) == ["checkpoint-20", "checkpoint-30", "checkpoint-100"]
    save(Shelf(folder, 2), 110)
    assert names(all_checkpoints(folder)) == ["checkpoint-30", "checkpoint-110"]
    assert (folder / "checkpoint-x").is_dir()


def test_what_a_user_puts_beside_them_is_neither_counted_nor_removed(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("disk")
    (folder / "checkpoint-20").rename(elsewhere / "checkpoint-20")
    (folder / "checkpoint-20").symlink_to(elsewhere / "checkpoint-20")
    for name in ("checkpoint-best-10", "checkpoint-010"):
        shutil.copytree(folder / "checkpoint-10", folder / name)
    save(Shelf(folder, 1), 110)
    assert names(all_checkpoints(folder)) == ["checkpoint-110"]
    for kept in (folder / "checkpoint-best-10", folder / "checkpoint-010", elsewhere / "checkpoint-20"):
        assert damages(kept) == [] and (kept / MARK).is_file()


def test_a_file_that_the_disk_no_longer_reads_is_a_damage(folder, monkeypatch):
    def read(path):
        if "checkpoint-20" in str(path):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return hash_file(path)

    hash_file = fingerprints.hash_file
    monkeypatch.setattr(fingerprints, "hash_file", read)
    newest, damaged = newest_checkpoint(folder)
    assert newest.name == "checkpoint-10" and "inner/state cannot be read: Input/output error" in damaged[0]


def test_one_that_is_written_again_takes_the_place_of_the_one_before(folder):
    (folder / "checkpoint-20" / "weights").write_bytes(b"x")
    save(Shelf(folder, 2), 20)
    assert names(whole_checkpoints(folder)) == ["checkpoint-10", "checkpoint-20"]
    assert newest_checkpoint(folder)[0].name == "checkpoint-20"


def test_added_files_are_sealed_with_the_rest(tmp_path):
    checkpoint = save(Shelf(tmp_path, 1, files={"recipe.yaml": "name: 好"}), 3)
    assert "recipe.yaml" in json.loads((checkpoint / MARK).read_text())["files"]
    assert (checkpoint / "recipe.yaml").read_text("utf-8") == "name: 好"


def test_a_disk_that_reads_back_otherwise_costs_no_old_checkpoint(folder, monkeypatch):
    found = []
    monkeypatch.setattr(checkpoints, "damages", lambda c: found.append(c.name) or ["weights was changed"])
    with pytest.raises(BrokenOff, match="reads back otherwise"):
        save(Shelf(folder, 1), 110)
    assert found == ["checkpoint-110"]
    assert {"checkpoint-5", "checkpoint-10", "checkpoint-20"} <= set(names(whole_checkpoints(folder)))


def test_room_is_seen_to_before_each_save(folder, monkeypatch):
    (folder / WRITING / "checkpoint-21").mkdir(parents=True)  # of a save that was killed: it makes room
    monkeypatch.setattr(checkpoints, "free_bytes", lambda path: 999_000)
    with pytest.raises(BrokenOff, match=r"1 MB are needed for a checkpoint, 999 kB free; checkpoint-20 is whole"):
        Shelf(folder, 2, size=1_000_000).prepare()
    assert not (folder / WRITING).exists()
    assert Shelf(folder, 2, size=999_000).prepare() == folder / WRITING


class Written:
    """Stands for a model and a tokenizer that are saved."""

    def __init__(self, name):
        self.name = name

    def save_pretrained(self, folder):
        folder.mkdir(exist_ok=True)
        (folder / self.name).write_text(self.name)


def test_what_is_sealed_or_saved_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    """Else a power cut could leave a finished run over a torn model."""
    synced, renamed = [], []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.fstat(handle).st_ino))
    rename = type(tmp_path).rename

    def watched(path, target):
        assert {p.stat().st_ino for p in (*path.rglob("*"), path) if p.name != MARK} <= set(synced)
        renamed.append(path.name)
        return rename(path, target)

    monkeypatch.setattr(type(tmp_path), "rename", watched)
    shelf = Shelf(tmp_path / "checkpoints", 2)
    save(shelf, 3)
    chapter.save(Written("weights"), Written("vocabulary"), tmp_path / "model")
    assert renamed == ["checkpoint-3", "model.tmp"]
    assert {shelf.folder.stat().st_ino, tmp_path.stat().st_ino} <= set(synced)  # so are the names
