"""Examination on the demo world: which facts a model answers exactly, and whether it stops by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from buddygpt.data.demo import Dialogue
from buddygpt.data.demo.questions import Form
from buddygpt.data.demo.rows import to_messages
from buddygpt.evaluation.answers import is_exact
from buddygpt.evaluation.replies import encode_prompts, greedy_replies

FORMS: tuple[Form, ...] = ("short", "sentence", "no", "reverse", "turns", "yes")
TOLD: Form = "yes"
"""The form whose question holds its own answer: shown, but not counted as a fact that a model knows."""
MAX_NEW_TOKENS = 64
"""The longest right answer has 18 characters: it fits even where each takes three tokens."""


@dataclass(frozen=True)
class Answer:
    """What was said to one question, and whether that is the exact answer."""

    dialogue: Dialogue
    reply: str
    stopped: bool
    exact: bool


@dataclass(frozen=True)
class Score:
    """Shares of some answers: `exact` ones, and those that `stopped` by themselves; 0 of none."""

    questions: int
    exact: float
    stopped: float


@dataclass(frozen=True)
class Facts:
    """The answers of one examination."""

    answers: tuple[Answer, ...]

    @property
    def known(self) -> Score:
        """Of all questions that do not hold their own answer."""
        return _score([answer for answer in self.answers if answer.dialogue.form != TOLD])

    @property
    def stopped(self) -> float:
        """Share of all replies that end by themselves."""
        return _score(self.answers).stopped

    def form(self, form: Form) -> Score:
        """Of the questions of one form."""
        return _score([answer for answer in self.answers if answer.dialogue.form == form])


def examine(model: Any, tokenizer: PreTrainedTokenizerBase, dialogues: Sequence[Dialogue], seed: int) -> Facts:
    """Ask a model the last question of each dialogue; the turns before it are given as the dialogue has them.

    Args:
        model: on its device.
        dialogues: those of `demo.examination`, or the first few hundred: they are shuffled. Its "train" split asks
            in new words for facts that the learned dialogues told, its "test" split for facts of the prose alone.
        seed: of their world.
    """
    prompts = encode_prompts(tokenizer, [to_messages(dialogue.messages[:-1]) for dialogue in dialogues])
    replies = greedy_replies(model, tokenizer, prompts, max_new_tokens=MAX_NEW_TOKENS)
    return Facts(
        tuple(
            Answer(dialogue, reply.text, reply.stopped, is_exact(dialogue, reply.text, seed))
            for dialogue, reply in zip(dialogues, replies, strict=True)
        )
    )


def _score(answers: Sequence[Answer]) -> Score:
    n = len(answers)
    exact, stopped = sum(answer.exact for answer in answers), sum(answer.stopped for answer in answers)
    return Score(n, exact / max(n, 1), stopped / max(n, 1))
