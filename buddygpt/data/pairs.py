"""Pairs of answers: what is cut of one that is too long, so that both answers stay alive after the same prompt."""

from __future__ import annotations

from collections.abc import Sequence

from buddygpt.data.lengths import Openings, share_room, shorten_prompt


def fit_pair(
    prompt: Sequence[int], chosen: Sequence[int], rejected: Sequence[int], length: int, openings: Openings
) -> tuple[list[int], list[int], list[int], tuple[str, ...]]:
    """A pair within `length` tokens a side, both sides behind the same prompt.

    First the prompt gives way, as `shorten_prompt` says, down to half of `length`; then each answer is cut from its
    end, and what is left has no end mark: the model is not to learn to stop in the middle of a sentence.

    Args:
        prompt: ids up to and with the opening of an answer.
        chosen, rejected: ids of the answers with their end marks, none empty.
        length: most tokens of prompt and answer together, at least 2.
        openings: how turns begin.

    Returns:
        Prompt, chosen, rejected, and what was cut of `prompt`, `chosen` and `rejected`. Answers that differ only in
        what was cut are equal now.
    """
    room = share_room(len(prompt), max(len(chosen), len(rejected)), length, openings.frame)
    short = [token for start, stop in shorten_prompt(prompt, room, openings) for token in prompt[start:stop]]
    answers = [list(answer[: length - len(short)]) for answer in (chosen, rejected)]
    sides = {"prompt": (prompt, short), "chosen": (chosen, answers[0]), "rejected": (rejected, answers[1])}
    return short, *answers, tuple(name for name, (was, now) in sides.items() if len(now) < len(was))  # type: ignore[return-value]
