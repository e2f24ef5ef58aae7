"""Progress where there is no terminal: a line now and then, each with the time that is left; live on one."""

import re

import pytest

from buddygpt.cli import render
from buddygpt.cli.render import Renderer
from buddygpt.events import Progress


@pytest.fixture
def lines(monkeypatch, capfd):
    """Emit progress at given seconds; gives the lines."""

    def told(*events, task="pretrain"):
        renderer = Renderer()
        for seconds, done, total in events:
            monkeypatch.setattr(render.time, "monotonic", lambda now=seconds: 1000.0 + now)
            renderer.emit(Progress(task, done, total, "steps", {"loss": "3.1"}))
        return capfd.readouterr().out.splitlines()

    return told


def test_plain_lines_come_every_ten_seconds_with_the_time_left(lines):
    told = lines((0, 1, 100), (5, 2, 100), (12, 4, 100), (30, 11, 100), (31, 12, 100), (297, 100, 100))
    assert told == [
        "pretrain 1/100 steps  loss 3.1",
        "pretrain 4/100 steps  loss 3.1  6 min 24 s left",
        "pretrain 11/100 steps  loss 3.1  4 min 27 s left",
        "pretrain 100/100 steps  loss 3.1",
    ]


def test_a_run_that_goes_on_is_judged_by_the_steps_of_this_start(lines):
    assert lines((0, 500, 1000), (20, 510, 1000))[1].endswith("16 min 20 s left")


def test_work_that_begins_again_under_its_name_is_timed_anew(lines):
    told = lines((0, 5, 10), (20, 1, 10), (40, 2, 10))
    assert told[1] == "pretrain 1/10 steps  loss 3.1" and told[2].endswith("2 min 40 s left")


@pytest.mark.parametrize(("columns", "beside"), [(40, False), (80, False), (200, True)])
def test_a_live_bar_is_cut_on_no_terminal(monkeypatch, capfd, columns, beside):
    for name, value in {"TTY_COMPATIBLE": "1", "TERM": "xterm", "COLUMNS": str(columns)}.items():
        monkeypatch.setenv(name, value)
    figures = {"loss": "3.2672", "bpc ultra-fineweb-zh": "4.585", "bpc 维基百科": "4.112", "tok/s": "110,639"}
    with Renderer() as renderer:
        renderer.emit(Progress("pretrain", 2000, 26_703, "steps", figures | {"memory": "61.2 GB"}))
    *_, drawn = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capfd.readouterr().out).rpartition("pretrain")
    lines = drawn.splitlines()
    assert " 2000/26703 steps " in lines[0] and "-:--:--" in lines[0]
    assert all(any(f"{key} {value}" in line for line in lines) for key, value in figures.items())
    assert ("61.2 GB" in lines[0]) is beside and len("pretrain" + lines[0]) <= columns
