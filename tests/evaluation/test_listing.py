"""What `buddy eval --list` tells."""

import os
import subprocess
import sys

import pytest

from buddygpt.evaluation.catalog import benchmark_names
from buddygpt.evaluation.listing import list_benchmarks
from buddygpt.events import Table, silent
from buddygpt.recipe.errors import BuddyError
from buddygpt.recipe.hub import HubSection


def listed(data_dir, cache):
    events = []
    list_benchmarks(data_dir, HubSection(), cache, events.append)
    (table,) = events
    assert isinstance(table, Table)
    return {row[0]: row for row in table.rows}


def test_each_benchmark_has_a_line_that_says_whether_it_is_ready_or_what_lacks(toys, tmp_path):
    rows = listed(toys / "data", tmp_path / "cache")
    assert list(rows) == benchmark_names() and rows["trees"][2] == "questions with four choices on three trees"
    assert rows["trees"][1] == "ready" and f"in {toys / 'data' / 'trees'}" in rows["trees"][3]
    assert rows["demo"][1] == "ready" and rows["demo"][3] == "built in"
    assert rows["cmmlu"][1] == "" and "to fetch from haonan-li/cmmlu on Hugging Face" in rows["cmmlu"][3]
    assert "1.1 MB" in rows["cmmlu"][3] and "--data-dir with cmmlu.zip" in rows["cmmlu"][3]
    assert "--allow-code-execution" in rows["livecodebench"][3]
    assert "--allow-code-execution" not in rows["cmmlu"][3]
    without = listed(None, tmp_path / "cache")
    assert without["trees"][1] == "" and "someone/trees on Hugging Face, 3" in without["trees"][3]
    assert not (tmp_path / "cache").exists()


def test_rows_that_were_fetched_before_are_ready(toys, tmp_path):
    from buddygpt.evaluation.bench import find
    from buddygpt.evaluation.catalog import load_benchmark

    find(load_benchmark("trees"), toys / "data", HubSection(), tmp_path / "cache", silent)
    assert listed(None, tmp_path / "cache")["trees"][1] == "ready"


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(BuddyError, match=r"--data-dir .*nowhere: no such folder"):
        list_benchmarks(tmp_path / "nowhere", HubSection(), tmp_path, silent)
    (tmp_path / "file").write_text("")
    with pytest.raises(BuddyError, match=r"--data-dir .*file"):
        list_benchmarks(tmp_path / "file", HubSection(), tmp_path, silent)


def test_the_command_imports_no_torch_and_asks_no_network(tmp_path):
    code = (
        "import socket, sys\n"
        "def refused(*told): raise AssertionError('a network is asked')\n"
        "socket.socket.connect = socket.getaddrinfo = refused\n"
        "from buddygpt.cli.app import main\n"
        "try: main()\nexcept SystemExit as stop: code = stop.code\n"
        "bad = {'torch', 'transformers', 'lm_eval', 'datasets'} & set(sys.modules)\n"
        "print('heavy:', sorted(bad), 'code:', code or 0)"
    )
    for extra, expected in (((), 0), (("--data-dir", "nowhere"), 2)):
        done = subprocess.run(
            [sys.executable, "-c", code, "eval", "--list", *extra], cwd=tmp_path, capture_output=True, text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, check=False,
        )  # fmt: skip
        assert done.stdout.splitlines()[-1] == f"heavy: [] code: {expected}", done.stdout + done.stderr
        assert ("cmmlu" in done.stdout) == (expected == 0)
    assert done.stderr == "buddy: --data-dir nowhere: no such folder\n"
    assert not list(tmp_path.iterdir())
