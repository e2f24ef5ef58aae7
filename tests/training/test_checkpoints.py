"""The newest whole checkpoint is found whatever happened to the others."""

import pytest

from buddygpt.recipe.errors import BuddyError
from buddygpt.training.checkpoints import (
    MARK,
    all_checkpoints,
    damages,
    keep_newest,
    newest_checkpoint,
    seal,
    whole_checkpoints,
)


@pytest.fixture
def folder(tmp_path):
    for step in (5, 10, 20, 100):
        (tmp_path / f"checkpoint-{step}" / "inner").mkdir(parents=True)
        (tmp_path / f"checkpoint-{step}" / "weights").write_bytes(b"w" * 1000)
        (tmp_path / f"checkpoint-{step}" / "inner" / "state").write_bytes(b"s" * step)
        if step != 100:  # interrupted while it was written
            seal(tmp_path / f"checkpoint-{step}")
    (tmp_path / "checkpoint-x").mkdir()
    return tmp_path


def test_the_newest_whole_one(folder):
    assert newest_checkpoint(folder).name == "checkpoint-20"
    assert newest_checkpoint(folder / "nowhere") is None
    assert damages(folder / "checkpoint-20") == []


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (lambda c: (c / "weights").write_bytes(b"w" * 999), "weights has 999 bytes of 1,000"),
        (lambda c: (c / "weights").write_bytes(b"v" * 1000), "weights was changed"),
        (lambda c: (c / "inner" / "state").unlink(), "inner/state is missing"),
        (lambda c: (c / MARK).write_text("{"), f"{MARK} cannot be read"),
    ],
)
def test_damage_is_told_and_nothing_older_is_taken_silently(folder, harm, told):
    harm(folder / "checkpoint-20")
    with pytest.raises(BuddyError) as caught:
        newest_checkpoint(folder)
    assert told in str(caught.value)
    assert "checkpoint-10" in str(caught.value)


def test_old_ones_go_and_the_unfinished_newest_stays(folder):
    keep_newest(folder, 2)
    assert [c.name for c in whole_checkpoints(folder)] == ["checkpoint-10", "checkpoint-20"]
    assert [c.name for c in all_checkpoints(folder)] == ["checkpoint-10", "checkpoint-20", "checkpoint-100"]
    assert (folder / "checkpoint-x").is_dir()
