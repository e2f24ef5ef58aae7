"""`buddy data` as a user types it: prepare, report, fetch; the page about the text."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time


def test_the_page_about_a_recipes_text(buddy, toy, tmp_path):
    rows = [{"text": f"第{n}段：" + "春江潮水连海平，海上明月共潮生。" * (n % 5 + 1)} for n in range(60)]
    rows += [rows[0], {"text": "！？" * 30}, {"text": None}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    sources = "data.sources=[{kind: files, paths: [a.jsonl]}]"
    arguments = ["tiny", *toy(sources, "tokenizer={train: 300, base: null}", "data.clean={min_length: 5}")]
    refused = buddy("data", "report", *arguments)
    assert refused.code == 2 and "run `buddy data` with this recipe first" in refused.err
    done = buddy("data", *arguments)
    assert done.code == 0, done.err
    told = buddy("data", "report", *arguments)
    assert told.code == 0 and "page: runs/tiny/data-report.html" in told.out
    page = (tmp_path / "runs/tiny/data-report.html").read_text("utf-8")
    for words in ("duplicate", "a.jsonl:61", "too short", "！？！？", "not a string"):
        assert words in page
    assert "<script" not in page and "http" not in page.replace("http-equiv", "")
    again = buddy("data", *arguments)  # a folder with the page in it is still a run's
    assert again.code == 0, again.err


def test_nothing_to_fetch_is_told(buddy, toy):
    done = buddy("data", "fetch", "tiny", *toy())
    assert (done.code, done.err) == (0, "") and "fetched: 0 files" in done.out


def test_ctrl_c_while_workers_start_is_no_traceback(toy, tmp_path):
    """A terminal sends it to every process of the command, also to workers that have not got ready yet."""
    sources = "data.sources=[{kind: demo, characters: 20000}, {kind: demo, name: b, seed: 1, characters: 20000}]"
    command = [sys.executable, "-m", "buddygpt", "data", "tiny", *toy(sources, "data.workers=2")]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert any(line.startswith("prepare: read 0/2") for line in process.stdout)
        time.sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in err and err.endswith("buddy: stopped\n")
