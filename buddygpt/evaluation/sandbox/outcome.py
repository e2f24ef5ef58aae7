"""How a contained program ended, as data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from buddygpt.evaluation.sandbox.values import unpack

_OUT_OF_TIME = 24
"""SIGXCPU on Linux: the limit of CPU time is reached."""

_LONGEST_LINE = 300


class Kind(StrEnum):
    """How a program, or its judgement, ended."""

    ENDED = "ended"
    PASSED = "passed"
    WRONG = "wrong answer"
    ERROR = "error"
    TIMED_OUT = "timed out"
    OUT_OF_MEMORY = "out of memory"
    TOO_MUCH = "printed too much"
    KILLED = "killed"


@dataclass(frozen=True)
class Outcome:
    """What came of a program.

    Args:
        kind: ENDED where it came to its end, whatever it answered.
        printed: its output, cut at the limit.
        value: what the function that was called answered: plain data.
        detail: of an error, its last line; of a kill, the reason.
    """

    kind: Kind
    printed: str = ""
    value: Any = None
    detail: str = ""


def outcome_of(reply: Mapping[str, Any], called: bool, cpu_seconds: float) -> Outcome:
    """Read the warden's reply.

    Args:
        reply: with what the program answered, which may be anything.
        called: whether a function was called, so that an answer is due.
        cpu_seconds: the limit.
    """
    printed, code, stopped = reply["printed"], reply["code"], reply["stopped"]
    answer = _parsed(reply["answered"])
    over = code == -_OUT_OF_TIME or (
        code < 0 and reply["cpu"] >= cpu_seconds
    )  # the second where it is deaf to the first
    if stopped == "wall" or over:
        return Outcome(Kind.TIMED_OUT, printed)
    if stopped == "output":
        return Outcome(Kind.TOO_MUCH, printed)
    if "memory" in answer:
        return Outcome(Kind.OUT_OF_MEMORY, printed)
    if code < 0:
        return Outcome(Kind.KILLED, printed, detail=f"signal {-code}")
    if "fault" in answer:
        return Outcome(Kind.KILLED, printed, detail=f"not started: {_told(answer['fault'])}")
    if "error" in answer:
        return Outcome(Kind.ERROR, printed, detail=_told(answer["error"]))
    if not called and ("ended" in answer or not code):
        return Outcome(Kind.ENDED, printed)
    if not called or "value" not in answer:
        return Outcome(Kind.ERROR, printed, detail=f"ended with exit code {code} before it answered")
    try:
        return Outcome(Kind.ENDED, printed, unpack(answer["value"]))
    except (ValueError, TypeError, AttributeError, ArithmeticError, RecursionError):
        return Outcome(Kind.ERROR, printed, detail="the answer is no plain data")


def _told(text: Any) -> str:
    """A program's words as one short line, without anything that a terminal would obey."""
    return "".join(c if c.isprintable() else " " for c in str(text)[:_LONGEST_LINE])


def _parsed(text: str) -> dict[str, Any]:
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return answer if isinstance(answer, dict) else {}
