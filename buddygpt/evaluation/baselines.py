"""Answers without a model: what a share of exact answers is worth is seen beside what guessing gives."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from buddygpt.data.demo import Dialogue
from buddygpt.evaluation.facts import TOLD

LENGTHS = (2, 3)
"""Of the n-grams by which questions are compared, in characters."""


@dataclass(frozen=True)
class Baselines:
    """Shares of the questions that do not hold their own answer to which a guess is the answer.

    Args:
        frequent: guesses the commonest answer that the learned dialogues have for the relation. It is told the
            relation and the direction asked in, which the question only describes.
        nearest: copies the answer of the learned dialogue whose question is most alike.
    """

    frequent: float
    nearest: float


def guess(learned: Sequence[Dialogue], asked: Sequence[Dialogue]) -> Baselines:
    """How far guessing gets.

    Args:
        learned: the dialogues that a model is trained on.
        asked: those that it is examined on.
    """
    asked = [dialogue for dialogue in asked if dialogue.form != TOLD]
    frequent, nearest = _frequent_answers(learned, asked), _nearest_answers(learned, asked)
    return Baselines(_share(frequent, asked), _share(nearest, asked))


def _share(guesses: Sequence[str], asked: Sequence[Dialogue]) -> float:
    right = sum(guess == dialogue.answer for guess, dialogue in zip(guesses, asked, strict=True))
    return right / max(len(asked), 1)


def _frequent_answers(learned: Sequence[Dialogue], asked: Sequence[Dialogue]) -> list[str]:
    answers: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    for dialogue in learned:
        answers[_kind(dialogue)][dialogue.answer] += 1
    return [found.most_common(1)[0][0] if (found := answers[_kind(dialogue)]) else "" for dialogue in asked]


def _kind(dialogue: Dialogue) -> tuple[str, ...]:
    """The relation asked for last, or those asked back from."""
    if dialogue.form == "reverse":
        return ("reverse", *(fact.relation for fact in dialogue.facts))
    return (dialogue.facts[-1].relation,)


def _nearest_answers(learned: Sequence[Dialogue], asked: Sequence[Dialogue]) -> list[str]:
    """By the Dice coefficient of the sets of character n-grams of all that the user says; the first of equals."""
    grams = [_grams(dialogue) for dialogue in learned]
    holders: dict[str, list[int]] = defaultdict(list)
    for i, own in enumerate(grams):
        for gram in own:
            holders[gram].append(i)
    answers = []
    for dialogue in asked:
        own = _grams(dialogue)
        shared = Counter(i for gram in own for i in holders.get(gram, ()))
        best = max(shared, key=lambda i: (2 * shared[i] / (len(own) + len(grams[i])), -i), default=None)
        answers.append("" if best is None else learned[best].answer)
    return answers


def _grams(dialogue: Dialogue) -> frozenset[str]:
    said = [message["content"] for message in dialogue.messages if message["role"] == "user"]
    return frozenset(text[i : i + n] for text in said for n in LENGTHS for i in range(len(text) - n + 1))
