"""`buddy push` on the command line, against a stand-in for Hugging Face: its lines, its exit codes, and what is left
when it is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.publishing.conftest import huggingface  # noqa: F401
from tests.publishing.huggingface.faults import Answer, Fault, Wait, echo, quota
from tests.publishing.toys import write_run

REPO = "someone/mountains-base"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    runs = tmp_path_factory.mktemp("finished") / "runs"
    write_run(runs)
    return runs


@pytest.fixture
def hub(huggingface, monkeypatch, finished, tmp_path):  # noqa: F811
    """The stand-in, its token in the environment, and a finished run where commands start."""
    import shutil

    shutil.copytree(finished, tmp_path / "runs")
    monkeypatch.setenv("HF_TOKEN", huggingface.token)
    monkeypatch.setattr("buddygpt.publishing.huggingface._WAITS", ())
    monkeypatch.setattr("buddygpt.publishing.delivery._LOOKS", (0.0,))
    return huggingface


def check_quiet(hub, *texts):
    """No token in what was printed or written, in any file of the run."""
    for text in texts:
        assert hub.token not in text
    for path in Path.cwd().rglob("*"):
        if path.is_file() and "hub" not in path.relative_to(Path.cwd()).parts[:1]:
            assert hub.token.encode() not in path.read_bytes(), path


def test_a_push_and_a_second_one(buddy, hub):
    first = buddy("push", "--hub", "huggingface", "--yes")
    assert first.code == 0, first.err
    assert f"huggingface: {REPO}: a new private repository" in first.out and "push to huggingface" in first.out
    assert hub.repository(REPO).private and len(hub.repository(REPO).history()) == 2
    check_quiet(hub, first.out, first.err)
    hub.requests.clear()
    second = buddy("push", "mountains", "--hub", "huggingface")
    assert second.code == 0 and "already there, nothing to send" in second.out and hub.sent == []


def test_a_public_one_only_where_it_is_said(buddy, hub):
    assert buddy("push", "--hub", "huggingface", "--yes", "--public", "--repo", "open").code == 0
    assert not hub.repository("someone/open").private


def test_without_a_terminal_nobody_is_asked(buddy, hub):
    said = buddy("push", "--hub", "huggingface")
    assert said.code == 2 and said.err.count("\n") == 1 and "--yes agrees" in said.err
    assert not hub.asked("POST", "/create") and not hub.sent


@pytest.mark.parametrize("answer", ["y\n", "n\n", "\n", ""])
def test_on_a_terminal_the_answer_counts(buddy, hub, monkeypatch, answer):
    class Terminal:
        def isatty(self):
            return True

        def readline(self, *size):
            return answer

    monkeypatch.setattr(sys, "stdin", Terminal())
    said = buddy("push", "--hub", "huggingface")
    assert f"{REPO}: a new private repository. Publish" in said.out and "private? [y/N]" in said.out
    assert (said.code == 0) == (answer == "y\n") == bool(hub.sent)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ((), "--hub: say modelscope, huggingface or both"),
        (("--hub", "hugginface"), "--hub hugginface: unknown; one of modelscope, huggingface, both; did you mean"),
        (("--hub", "huggingface", "--repo", "a--b"), "--repo: 'a--b' is no name of a repository"),
        (("nosuch", "--hub", "huggingface"), "nosuch: no such run"),
        (("someone/else", "--hub", "huggingface"), "someone/else: is on a hub already"),
    ],
)
def test_a_bad_input_is_one_line(buddy, hub, arguments, line):
    said = buddy("push", *arguments)
    assert said.code == 2 and said.err.count("\n") == 1 and line in said.err and not hub.requests


FAULTS = {
    "401": (
        Fault("GET", "/whoami", Answer(401, '{"error":"Invalid credentials"}'), None),
        2,
        "log in with `hf auth login`",
    ),
    "quota": (Fault("POST", "/batch", quota(403), None), 2, "no room there"),
    "500 with the token in it": (Fault("POST", "/commit/", echo(500), None), 2, "status 500"),
    "400 with the token in it": (Fault("POST", "/batch", echo(400), None), 2, "status 400"),
    "a page": (Fault("POST", "/preupload/", Answer(200, "<html>"), None), 2, "its answer is not a hub's"),
}


@pytest.mark.parametrize("debug", [(), ("--debug",)], ids=["plain", "debug"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_the_hub_is_one_line_without_the_token(buddy, hub, monkeypatch, fault, debug):
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    act, code, line = FAULTS[fault]
    hub.faults.append(Fault(act.method, act.path, act.act, None))
    said = buddy(*debug, "push", "--hub", "huggingface", "--yes")
    lines = [text for text in said.err.splitlines() if text.startswith("buddy: ")]
    assert said.code == code and len(lines) == 1 and line in lines[0]
    assert debug or said.err.count("\n") == 1
    check_quiet(hub, said.out, said.err)


def test_what_nobody_foresaw_tells_no_token_either(buddy, hub, monkeypatch):
    def fail(*arguments, **more):
        raise LookupError(f"no {hub.token} at https://host.example/a?X-Amz-Signature=abc")

    monkeypatch.setattr("buddygpt.stages.push.plan", fail)
    for debug in ((), ("--debug",)):
        said = buddy(*debug, "push", "--hub", "huggingface", "--yes")
        assert said.code == 1 and "unexpected: LookupError: no (a secret) at https://host.example/a?..." in said.err
        assert "Signature" not in said.err
        check_quiet(hub, said.out, said.err)


def test_a_hub_that_keeps_nothing_ends_in_code_1(buddy, hub):
    hub.hollow = True
    said = buddy("push", "--hub", "huggingface", "--yes")
    assert said.code == 1 and "not there as sent" in said.err and "model.safetensors" in said.err


def test_help_names_the_flags_and_the_variables(buddy):
    said = buddy("push", "--help").out
    assert all(word in said for word in ("--hub", "--repo", "--public", "--yes", "--dry-run", "HF_TOKEN"))


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_push_shows_nothing_and_the_next_one_goes_on(buddy, hub, tmp_path, end):
    """In a process of its own, whose trusted hub the recipe and HF_ENDPOINT name."""
    with (tmp_path / "runs" / "mountains" / "recipe.yaml").open("a") as file:
        file.write("hub: {tokens: [mirror, huggingface]}\npush: {hub: huggingface}\n")
    environment = os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "buddygpt", "push", "--yes"]
    root = Path(__file__).parents[2]
    environment["PYTHONPATH"] = str(root)
    hub.faults.append(Fault("POST", "/commit/", Wait(600)))
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 120
        while not hub.faults[0].seen and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(end)
        _, told = process.communicate(timeout=60)
    assert process.returncode == (130 if end == signal.SIGINT else -end), told.decode()
    assert end == signal.SIGKILL or b"push again to go on" in told
    assert len(hub.repository(REPO).history()) == 1
    hub.faults.clear()
    hub.requests.clear()
    again = buddy("push", "--yes")
    assert again.code == 0, again.err
    assert hub.sent == ["commit"]  # the weights were there
    assert json.loads(hub.repository(REPO).read("config.json"))["model_type"] == "qwen2"
    check_quiet(hub, told.decode(), again.out, again.err)
