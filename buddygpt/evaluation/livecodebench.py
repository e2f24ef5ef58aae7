"""LiveCodeBench, code generation: problems of programming contests, judged by running what the model wrote.

Prompt, judgement and the names that a solution finds imported follow the authors' runner (LiveCodeBench/LiveCodeBench,
lcb_runner/prompts/code_generation.py and lcb_runner/evaluation/testing_util.py, 2025), so that scores compare. Other
than there, a program runs in a box and never learns an expected answer; 6 seconds are of CPU, not of the clock; and a
case that is stored as a pickle is read without unpickling.
"""

from __future__ import annotations

import base64
import binascii
import json
import pickletools
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from buddygpt.evaluation.sandbox.box import Limits, Sandbox
from buddygpt.evaluation.sandbox.outcome import Kind
from buddygpt.recipe.errors import BuddyError

CASE_LIMITS = Limits(cpu_seconds=6, wall_seconds=15)
_LARGEST = 1 << 30
"""Bytes of one problem's private cases, unpacked."""
_STRING_OPCODES = frozenset(
    "PROTO FRAME SHORT_BINUNICODE BINUNICODE BINUNICODE8 MEMOIZE BINPUT LONG_BINPUT STOP".split()
)
_ALL_NAMES = "string re datetime collections heapq bisect copy math random statistics itertools functools operator io sys json builtins typing"  # fmt: skip # noqa: E501
_PREAMBLE = (
    "".join(f"from {module} import *\n" for module in _ALL_NAMES.split())
    + f"import {', '.join(_ALL_NAMES.split()[:-2])}\nsys.setrecursionlimit(50000)\n"
)
_TASK = (
    "Below is a programming problem. Write a correct Python program that does what is asked "
    "and would pass every test.\n\n"
)
_FORMAT_FUNCTION = "Solve it with the starter code that follows, and put your code between the same marks."
_FORMAT_PROGRAM = (
    "The program reads its input from standard input, solves the problem, and writes nothing but the answer to "
    "standard output; it does not try itself on the examples. Put it between marks like these."
)


@dataclass(frozen=True)
class Case:
    """One test.

    Args:
        given: standard input, or one JSON value a line for each argument.
        expected: standard output, or the answer as JSON.
    """

    given: str
    expected: str


@dataclass(frozen=True)
class Problem:
    """What a solution is judged by.

    Args:
        name: for messages.
        function: method of `Solution` that is called; None for a program of standard input and output.
        cases: public ones, then private ones.
    """

    name: str
    function: str | None
    cases: tuple[Case, ...]


@dataclass(frozen=True)
class Verdict:
    """How a solution fared: the first case that failed decides.

    Args:
        kind: PASSED where all cases passed.
        case: number of the case that failed, from 1; None where all passed.
        of: how many there are.
        detail: of an error, its last line.
    """

    kind: Kind
    case: int | None
    of: int
    detail: str = ""


def read_problem(row: Mapping[str, Any]) -> Problem:
    """A row's cases, whichever way they are packed.

    Raises:
        BuddyError: they are not what the benchmark's rows hold.
    """
    name = f"LiveCodeBench problem {row.get('question_id') or row.get('question_title') or '(no id)'}"
    private = row["private_test_cases"]
    if not str(private).lstrip().startswith("["):
        private = _unpack(private, name)
    cases = tuple(
        Case(case["input"], case["output"])
        for column, text in (("public_test_cases", row["public_test_cases"]), ("private_test_cases", private))
        for case in _cases_in(text, f"{name}: {column}")
    )
    if not cases:
        raise BuddyError(f"{name}: no test cases, so that anything would pass; fetch the data again")
    metadata = _parse(row["metadata"] or "{}", f"{name}: metadata")
    return Problem(name, metadata.get("func_name") if isinstance(metadata, dict) else None, cases)


def extract_code(reply: str) -> str:
    """The last block marked as Python, or else the last of any; empty where no block was closed."""
    blocks: list[tuple[str, list[str]]] = []
    open_block: tuple[str, list[str]] | None = None
    for line in reply.split("\n"):
        if open_block is None:
            if line.lstrip().startswith("```"):
                open_block = (line.strip().strip("`").strip().lower(), [])
        elif line.strip().startswith("```"):
            blocks.append(open_block)
            open_block = None
        else:
            open_block[1].append(line)
    marked = [block for block in blocks if block[0] in ("python", "python3", "py")] or blocks
    return "\n".join(marked[-1][1]) if marked else ""


def judge(problem: Problem, code: str, box: Sandbox) -> Verdict:
    """Run a solution on the cases up to the first that fails."""
    total = len(problem.cases)
    if not code.strip():
        return Verdict(Kind.ERROR, 1, total, "no code in the answer")
    for number, case in enumerate(problem.cases, 1):
        where = f"{problem.name}: case {number}"
        if problem.function is None:
            outcome = box.run(_PREAMBLE + code, case.given)
            right = outcome.kind is Kind.ENDED and is_same_output(outcome.printed, case.expected)
        else:
            arguments = [_parse(line, where) for line in case.given.split("\n")]
            outcome = box.call(_PREAMBLE + code, problem.function, *arguments)
            value = list(outcome.value) if isinstance(outcome.value, tuple) else outcome.value
            right = outcome.kind is Kind.ENDED and value == _parse(case.expected, where)
        if not right:
            kind = Kind.WRONG if outcome.kind is Kind.ENDED else outcome.kind
            return Verdict(kind, number, total, outcome.detail)
    return Verdict(Kind.PASSED, None, total)


def doc_to_text(doc: Mapping[str, Any]) -> str:
    """The prompt, in the authors' form: question, format, the place of the answer."""
    starter = doc["starter_code"]
    return (
        f"{_TASK}### Question:\n{doc['question_content']}\n\n"
        f"### Format: {_FORMAT_FUNCTION if starter else _FORMAT_PROGRAM}\n"
        f"```python\n{starter or '# YOUR CODE HERE'}\n```\n\n"
        "### Answer: (between the marks, as above)\n\n"
    )


def doc_to_target(doc: Mapping[str, Any]) -> str:
    """Nothing: no one text is right."""
    return ""


def process_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Judge the one reply to a problem.

    Raises:
        BuddyError: no permission (`sandbox.protections.allowed`), or no means to contain a program.
    """
    with Sandbox(CASE_LIMITS) as box:
        verdict = judge(read_problem(doc), extract_code(results[0]), box)
    return {"pass@1": float(verdict.kind is Kind.PASSED)}


def is_same_output(printed: str, expected: str) -> bool:
    """Whether outputs agree line by line, without white space around; numbers by their value."""
    ours, theirs = (text.strip().split("\n") for text in (printed, expected))
    return len(ours) == len(theirs) and all(map(_is_same_line, ours, theirs))


def _is_same_line(ours: str, theirs: str) -> bool:
    if ours.strip() == theirs.strip():
        return True
    try:
        return [Decimal(word) for word in ours.split()] == [Decimal(word) for word in theirs.split()]
    except ArithmeticError:  # not numbers, or a NaN that signals
        return False


def _cases_in(text: Any, where: str) -> list[dict[str, str]]:
    cases = _parse(text, where)
    if not isinstance(cases, list) or not all(
        isinstance(case, dict) and isinstance(case.get("input"), str) and isinstance(case.get("output"), str)
        for case in cases
    ):
        raise BuddyError(f"{where}: not a list of cases with input and output; fetch the data again")
    return cases


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise BuddyError(f"{where}: not JSON ({error}); fetch the data again") from None


def _unpack(packed: Any, name: str) -> str:
    """The text in base64, zlib and a pickle, of which only what makes up a single text is accepted.

    `pickletools.genops` reads a pickle's opcodes and executes none.
    """
    try:
        inflater = zlib.decompressobj()
        data = inflater.decompress(base64.b64decode(packed, validate=True), _LARGEST)
        if not inflater.eof:
            raise BuddyError(f"{name}: private test cases are cut short, or above 1 GB; fetch the data again")
        texts = []
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name not in _STRING_OPCODES:
                raise BuddyError(
                    f"{name}: private test cases are a pickle that does more than hold a text ({opcode.name}): it "
                    "could run code; nothing of it was run; take the data from another place"
                )
            texts += [argument] if isinstance(argument, str) else []
    except (binascii.Error, zlib.error, ValueError, TypeError) as error:
        raise BuddyError(
            f"{name}: private test cases are neither JSON nor base64 of packed JSON ({error}); fetch the data again"
        ) from None
    if len(texts) != 1:
        raise BuddyError(f"{name}: private test cases hold {len(texts)} texts, not one; fetch the data again")
    return texts[0]
