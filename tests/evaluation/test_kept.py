import errno
import json
import os
from pathlib import Path

import pytest

from buddygpt.evaluation.kept import Kept
from buddygpt.recipe.errors import BrokenOff, BuddyError


def test_answers_are_there_the_next_time(tmp_path):
    file = tmp_path / "deep" / "answers.jsonl"
    kept = Kept(file)
    kept.add(("loglikelihood", ("问", "答")), (-1.5, True))
    kept.add(("generate_until", ("问", "{}")), "一行\n两行\u2028三行")
    again = Kept(file)
    assert len(again) == 2
    assert again["loglikelihood", ("问", "答")] == [-1.5, True]
    assert again["generate_until", ("问", "{}")] == "一行\n两行\u2028三行"
    assert ("loglikelihood", ("问", "答案")) not in again
    assert ("loglikelihood_rolling", ("问", "答")) not in again


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_line_cut_by_a_kill_is_asked_again(tmp_path, cut):
    file = tmp_path / "answers.jsonl"
    kept = Kept(file)
    for number in range(3):
        kept.add(("loglikelihood", ("", str(number))), (-1.0 * number, False))
    file.write_bytes(file.read_bytes()[:-cut])
    again = Kept(file)
    assert len(again) == 2
    again.add(("loglikelihood", ("", "2")), (-9.0, True))
    assert [json.loads(line)[1] for line in file.read_text("utf-8").splitlines()] == [
        [0.0, False],
        [-1.0, False],
        [-9.0, True],
    ]
    assert Kept(file)["loglikelihood", ("", "2")] == [-9.0, True]


def test_without_a_file_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kept = Kept()
    kept.add(("loglikelihood", ("", "a")), (0.0, True))
    assert ("loglikelihood", ("", "a")) in kept and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("number", "kind", "told"),
    [(errno.ENOSPC, BrokenOff, "no space left"), (errno.EROFS, BuddyError, "cannot be written: Read-only")],
)
def test_a_disk_that_takes_no_more_is_told_in_a_line(tmp_path, monkeypatch, number, kind, told):
    kept = Kept(tmp_path / "answers.jsonl")

    def refuse(*anything, **more):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(kind, match=told) as fault:
        kept.add(("loglikelihood", ("", "a")), (0.0, True))
    assert type(fault.value) is kind and str(tmp_path) in str(fault.value)
