"""Whether a reply about the demo world answers its question exactly.

A short answer must be the value and nothing else. A full one must name the value and no other name that is in play:
another value of the relation, another of its subjects, any other date or price. A name within a longer one does not
count, so that 十二月三日 never passes for 二月三日. A question for yes or no must be answered so as well.
"""

from __future__ import annotations

import re
from functools import lru_cache

from buddygpt.data.demo import Dialogue, world

_NUMBERS = r"[零一二三四五六七八九十]+月[零一二三四五六七八九十]+日|\d+元"
_NO = "不"


def is_exact(dialogue: Dialogue, reply: str, seed: int) -> bool:
    """Whether `reply` is an exact answer to the dialogue's last question.

    Args:
        reply: as decoded; white space counts.
        seed: of the world that the dialogue is about.
    """
    if dialogue.form == "short":
        return reply == dialogue.answer
    if dialogue.form in ("yes", "no") and reply.startswith(_NO) != (dialogue.form == "no"):
        return False
    facts = dialogue.facts if dialogue.form == "reverse" else dialogue.facts[-1:]
    named = set(_names(seed, tuple(fact.relation for fact in facts)).findall(reply))
    true = {name for fact in facts for name in (fact.subject, fact.value)}
    return dialogue.answer in named and named <= true


@lru_cache(maxsize=64)
def _names(seed: int, relations: tuple[str, ...]) -> re.Pattern[str]:
    """Finds all that relations are between, the longest name first where several begin alike."""
    facts = [fact for fact in world(seed).facts if fact.relation in relations]
    names = {name for fact in facts for name in (fact.subject, fact.value)}
    return re.compile("|".join([_NUMBERS, *map(re.escape, sorted(names, key=lambda name: (-len(name), name)))]))
