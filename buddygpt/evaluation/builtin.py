"""Benchmarks that need no download: facts of the demo world as a choice of four, and bits per character of prose."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from buddygpt.data.demo import multiple_choice, world
from buddygpt.data.demo.dice import Dice
from buddygpt.data.demo.wordings import WORDINGS, word

PROSE = Path(__file__).with_name("tasks") / "bits-zh.jsonl"
"""Passages in sixteen registers, written for this benchmark: no corpus holds them."""


def demo_rows(seed: int) -> Iterator[dict[str, Any]]:
    """A question about each fact held out of training, with four answers in whole sentences that differ in a value."""
    town = world(seed)
    for item in multiple_choice(seed, "test"):
        fact = item.fact
        answers = [
            # Equal dice for all sides choose equal words.
            word(WORDINGS[fact.relation].tell, Dice("choice", seed, fact), town, fact.subject, value)
            for value in item.choices
        ]
        yield {"question": item.question, "choices": answers, "answer": item.answer}


def prose_rows(seed: int) -> Iterator[dict[str, Any]]:
    """The passages, `text` and `register`; the same for every seed."""
    yield from map(json.loads, PROSE.read_text("utf-8").splitlines())


def bits_per_character(doc: Mapping[str, str], results: Sequence[float]) -> dict[str, tuple[float, int]]:
    """lm-eval's hook: a text's log-likelihood in nats, and its characters."""
    return {"bits_per_character": (results[0], len(doc["text"]))}
