"""LiveCodeBench's rows, here invented in its columns, judged by what programs do."""

import base64
import json
import pickle
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from buddygpt.evaluation import livecodebench as bench
from buddygpt.evaluation.sandbox import box as boxes
from buddygpt.evaluation.sandbox.box import Limits, Sandbox
from buddygpt.evaluation.sandbox.outcome import Kind
from buddygpt.evaluation.sandbox.protections import allowed
from buddygpt.recipe.errors import BuddyError
from tests.evaluation.containment import needs_containment

PUBLIC = [{"input": "3 4\n", "output": "7\n", "testtype": "stdin"}]
PRIVATE = [{"input": f"{n} {n}\n", "output": f"{2 * n}\n", "testtype": "stdin"} for n in range(5)]


def packed(value, protocol=pickle.DEFAULT_PROTOCOL) -> str:
    return base64.b64encode(zlib.compress(pickle.dumps(value, protocol))).decode("ascii")


def program_row(**changes) -> dict:
    """A problem of standard input and output: the sum of two numbers."""
    row = {
        "question_title": "Sum", "question_content": "Print the sum of two integers.", "platform": "atcoder",
        "question_id": "sum_a", "contest_id": "sum", "contest_date": "2025-01-01T00:00:00", "starter_code": "",
        "difficulty": "easy", "public_test_cases": json.dumps(PUBLIC),
        "private_test_cases": packed(json.dumps(PRIVATE)), "metadata": "{}",
    }  # fmt: skip
    return row | changes


def function_row(cases=(("[1, 2, 3]\n2", "[2, 4, 6]"), ("[]\n5", "[]"))) -> dict:
    """A problem of a function: a list times a number."""
    tests = json.dumps([{"input": given, "output": expected, "testtype": "functional"} for given, expected in cases])
    return program_row(
        question_id="7",
        starter_code="class Solution:\n    def scale(self, values: List[int], by: int) -> List[int]:\n        ",
        public_test_cases=tests,
        private_test_cases="[]",
        metadata=json.dumps({"func_name": "scale"}),
    )


def verdict(row: dict, code: str) -> bench.Verdict:
    with allowed(), Sandbox(bench.CASE_LIMITS) as box:
        return bench.judge(bench.read_problem(row), code, box)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("length", [1, 300])
def test_private_cases_are_read_from_json_and_from_each_kind_of_pickle(protocol, length):
    cases = [{"input": "问 " * length, "output": "x\n"}] * 2
    text = json.dumps(cases, ensure_ascii=False)
    for private in (text, packed(text, protocol)):
        read = bench.read_problem(program_row(private_test_cases=private)).cases
        assert read == (bench.Case("3 4\n", "7\n"), *[bench.Case("问 " * length, "x\n")] * 2)


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_that_could_run_code_is_refused_and_not_run(tmp_path, protocol):
    marker = tmp_path / "marker"
    for value in (Evil(str(marker)), ["text", Evil(str(marker))], len):
        with pytest.raises(BuddyError, match="sum_a: private test cases are a pickle that does more than hold a text"):
            bench.read_problem(program_row(private_test_cases=packed(value, protocol)))
    assert not marker.exists()


@pytest.mark.parametrize(
    "private",
    ["not base64!", "QUJD", packed("not JSON"), packed('{"a": 1}'), packed('[{"input": 1, "output": ""}]'), "[", None,
     base64.b64encode(zlib.compress(b"")).decode(), base64.b64encode(zlib.compress(pickle.dumps("[]"))[:-9]).decode(),
     base64.b64encode(zlib.compress(b"\x80\x04.")).decode()],
)  # fmt: skip
def test_damaged_private_cases_are_told_in_one_line(private):
    with pytest.raises(BuddyError, match="sum_a: private"):
        bench.read_problem(program_row(private_test_cases=private))


@given(st.binary(max_size=60))
@settings(max_examples=200, deadline=None)
def test_whatever_bytes_are_packed_only_texts_come_out(data):
    private = base64.b64encode(zlib.compress(data)).decode()
    with pytest.raises(BuddyError):
        bench.read_problem(program_row(private_test_cases=private))


def test_cases_that_unpack_without_end_are_refused(monkeypatch):
    monkeypatch.setattr(bench, "_LARGEST", 1000)
    with pytest.raises(BuddyError, match="above 1 GB"):
        bench.read_problem(program_row(private_test_cases=packed("[" + " " * 5000 + "]")))


def test_a_problem_without_cases_is_refused():
    with pytest.raises(BuddyError, match="no test cases"):
        bench.read_problem(program_row(public_test_cases="[]", private_test_cases="[]"))


def test_the_prompt_shows_question_format_and_starter_code():
    program, function = bench.doc_to_text(program_row()), bench.doc_to_text(function_row())
    for text in (program, function):
        parts = [text.index(part) for part in ("### Question:\n", "### Format: ", "```python\n", "### Answer: ")]
        assert parts == sorted(parts)
        assert "Print the sum of two integers." in text
    assert "standard input" in program
    assert "# YOUR CODE HERE" in program
    assert "def scale" in function
    assert "standard input" not in function


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        ("Here:\n```python\na = 1\nb = 2\n```\nDone.", "a = 1\nb = 2"),
        ("```python\nfirst\n```\n```python\nlast\n```", "last"),
        ("```python\ncode\n```\nprints\n```\n5\n```", "code"),
        ("```\nbare\n```", "bare"),
        ("```Python3\ncode\n```", "code"),
        ("```cpp\nint x;\n```\n```py\ncode\n```\n```text\n7\n```", "code"),
        ("  ```python\n  indented\n  ```", "  indented"),
        ("```python\nnever closed", ""),
        ("no code", ""),
        ("", ""),
        ("```python\n```", ""),
    ],
)
def test_the_last_block_of_python_is_the_answer(reply, code):
    assert bench.extract_code(reply) == code


@pytest.mark.parametrize(
    ("printed", "expected", "same"),
    [
        ("7\n", "7", True),
        ("\n 7 \n\n", "7", True),
        ("1 2\n3", "1 2 \n 3\n", True),
        ("1  2", "1 2", True),
        ("0.50", "0.5", True),
        ("1e2", "100", True),
        ("a  b", "a b", False),
        ("1\n2", "1 2", False),
        ("1", "1\n1", False),
        ("50000000000000001", "50000000000000000", False),
        ("0.1000001", "0.1", False),
        ("", "", True),
        ("", "0", False),
        ("yes", "YES", False),
        ("sNaN", "1", False),
        ("NaN", "1", False),
        ("9" * 10000, "1", False),
    ],
)
def test_outputs_are_compared_line_by_line_and_number_by_number(printed, expected, same):
    assert bench.is_same_output(printed, expected) is same


@needs_containment
@pytest.mark.parametrize(
    "code",
    [
        "a, b = map(int, input().split())\nprint(a + b)",
        "def main():\n    print(sum(map(int, sys.stdin.read().split())))\nif __name__ == '__main__':\n    main()",
        "print(reduce(add, map(int, stdin.buffer.read().split())))\nexit(1)",
    ],
)
def test_a_right_program_passes(code):
    assert verdict(program_row(), code) == bench.Verdict(Kind.PASSED, None, 6)


@needs_containment
@pytest.mark.parametrize(
    ("code", "kind", "case"),
    [
        ("print(7)", Kind.WRONG, 2),
        ("a, b = map(int, input().split()); print(a + b if b < 3 else 0)", Kind.WRONG, 1),
        ("a, b = map(int, input().split()); print(a + b if a < 4 else 0)", Kind.WRONG, 6),
        ("1 / 0", Kind.ERROR, 1),
        ("def f(:", Kind.ERROR, 1),
        ("", Kind.ERROR, 1),
        ("import os; os._exit(0)", Kind.WRONG, 1),
        ("while True: pass", Kind.TIMED_OUT, 1),
        ("x = bytearray(1 << 40)", Kind.OUT_OF_MEMORY, 1),
        ("while True: print('x' * 99999)", Kind.TOO_MUCH, 1),
    ],
)
def test_a_wrong_program_is_told_by_kind_and_case(monkeypatch, code, kind, case):
    monkeypatch.setattr(bench, "CASE_LIMITS", Limits(cpu_seconds=1))
    found = verdict(program_row(), code)
    assert (found.kind, found.case, found.of) == (kind, case, 6)


@needs_containment
@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ("return [value * by for value in values]", Kind.PASSED),
        ("return tuple(value * by for value in values)", Kind.PASSED),
        ("return [value + by for value in values]", Kind.WRONG),
        ("return [[value * by] for value in values]", Kind.WRONG),
        ("print([2, 4, 6])", Kind.WRONG),
        ("return self", Kind.ERROR),
        ("return values.missing", Kind.ERROR),
        ("exit()", Kind.ERROR),
    ],
)
def test_a_function_is_judged_by_what_it_returns(body, kind):
    row = function_row()
    assert verdict(row, row["starter_code"] + body).kind is kind
    assert verdict(row, f"def scale(values: List[int], by: int):\n    self = object()\n    {body}").kind is kind


@needs_containment
def test_the_expected_answers_are_not_where_the_program_is():
    row = function_row([("1\n1", "8675309123")])
    code = """
import gc
class Solution:
    def scale(self, a, b):
        frame, seen = sys._getframe(), str(gc.get_objects())
        while frame:
            seen += repr(frame.f_locals)
            frame = frame.f_back
        looked_for = "".join(("8675", "309123"))
        return int(looked_for) if looked_for in seen else len(seen)
"""
    with allowed(), Sandbox() as box:
        assert box.call("import sys\n" + code, "scale", 1, 1).value > 100_000
    assert verdict(row, code).kind is Kind.WRONG


@needs_containment
def test_the_hooks_of_the_harness_judge_one_reply():
    doc = program_row()
    with allowed():
        right = bench.process_results(doc, ["```python\nprint(sum(map(int, input().split())))\n```"])
        wrong = bench.process_results(doc, ["print(sum(map(int, input().split())))"])
    assert (right, wrong) == ({"pass@1": 1.0}, {"pass@1": 0.0})
    assert bench.doc_to_target(doc) == ""


def test_nothing_is_judged_without_permission(monkeypatch):
    monkeypatch.setattr(boxes, "_permitted", False)
    with pytest.raises(BuddyError, match="--allow-code-execution"):
        bench.process_results(program_row(), ["```python\nprint(7)\n```"])
