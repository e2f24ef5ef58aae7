"""Programs of a model run by permission only, and only where they can be contained."""

import sys
import tempfile

import pytest

from buddygpt.evaluation.sandbox import box as boxes
from buddygpt.evaluation.sandbox import protections as guards
from buddygpt.evaluation.sandbox.box import Sandbox, permitted
from buddygpt.evaluation.sandbox.protections import allowed, protections
from buddygpt.recipe.errors import BuddyError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="programs of a model run on Linux only")

WITHOUT = "from buddygpt.evaluation.sandbox import kernel; kernel.{} = lambda: {}; "


def start_with(function: str, answer: object) -> str:
    """How the warden starts on a kernel that says something else."""
    patch = WITHOUT.format(function, answer)
    return boxes._START.replace("from buddygpt", patch + "from buddygpt", 1)


def test_nothing_runs_without_permission(monkeypatch):
    monkeypatch.setattr(boxes, "_permitted", False)
    with pytest.raises(BuddyError, match="--allow-code-execution"):
        Sandbox()
    with allowed(), Sandbox() as box:
        assert box.run("print(1)").printed == "1\n"
    with pytest.raises(BuddyError, match="--allow-code-execution"):
        Sandbox()


def test_what_holds_is_told_by_name():
    held = protections()
    assert {"no network", "no further processes", "no signals to others", "no files but its own"} <= set(held)


def test_another_system_is_refused_in_one_line(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(BuddyError, match=r"code tasks run on Linux only.*darwin"):
        guards.protections.__wrapped__()


@pytest.mark.parametrize(
    ("function", "answer", "told"),
    [
        ("landlock_version", 0, "Landlock"),
        ("close_calls", None, "no network, no further processes"),
        ("platform.machine", "'riscv64'", "riscv64"),
    ],
)
def test_a_kernel_that_cannot_contain_is_refused(monkeypatch, function, answer, told):
    monkeypatch.setattr(boxes, "_START", start_with(function, answer))
    with pytest.raises(BuddyError, match=told):
        guards.protections.__wrapped__()


def test_a_python_that_does_not_start_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(boxes, "_START", "raise RuntimeError('no such day')")
    with pytest.raises(BuddyError, match="no such day"), permitted():
        Sandbox()
    assert list(tmp_path.iterdir()) == []
