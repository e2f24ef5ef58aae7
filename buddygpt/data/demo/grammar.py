"""Text with alternatives: the little language that every sentence of the demo world is written in.

`[a|b|c]` stands for one of its branches, all equally likely and freely nested, an empty branch allowed;
`{name}` for the value of a slot. A slot that holds a tuple stands for any one of its values. ASCII brackets,
braces and bars never occur in the Chinese text itself, so nothing needs escaping.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache

from buddygpt.data.demo.dice import Dice

Slots = Mapping[str, str | tuple[str, ...]]
# A parsed template is a sequence of parts: literal text, ("slot", name) or ("any", branches).
_Part = str | tuple[str, str] | tuple[str, tuple["_Parts", ...]]
_Parts = tuple[_Part, ...]

_TOKEN = re.compile(r"[\[\]|]|\{[^}]*\}|[^\[\]|{}]+")
_NUMERALS = "零一二三四五六七八九十"


def expand(template: str, dice: Dice, slots: Slots) -> str:
    """One text that the template stands for, its branches chosen by the dice."""
    out: list[str] = []
    _write(_parse(template), dice, slots, out)
    return "".join(out)


def words(text: str) -> tuple[str, ...]:
    """The words of a list written as text."""
    return tuple(text.split())


def templates(text: str) -> tuple[str, ...]:
    """The templates of a text in which blank lines part them; other line breaks only keep the source narrow."""
    return tuple("".join(block.split()) for block in text.split("\n\n"))


def slot_names(template: str) -> set[str]:
    """The slots that some branch of the template asks for."""
    return {token[1:-1] for token in _TOKEN.findall(template) if token[0] == "{"}


def numeral(number: int) -> str:
    """A whole number from 0 to 99 in Chinese: 7 is 七, 10 is 十, 21 is 二十一."""
    if number <= 10:
        return _NUMERALS[number]
    tens, ones = divmod(number, 10)
    return (_NUMERALS[tens] if tens > 1 else "") + "十" + (_NUMERALS[ones] if ones else "")


def count(number: int) -> str:
    """A numeral that stands before a measure word, where two is 两."""
    return "两" if number == 2 else numeral(number)


@cache
def _parse(template: str) -> _Parts:
    tokens = _TOKEN.findall(template)
    branches, closed = _parse_branches(iter(tokens))
    if closed or len(branches) != 1 or "".join(tokens) != template:
        raise ValueError(f"brackets do not match in {template!r}")
    return branches[0]


def _parse_branches(tokens: Iterator[str]) -> tuple[tuple[_Parts, ...], bool]:
    """Branches up to the closing bracket (True) or the end of the text (False)."""
    branches: list[_Parts] = []
    parts: list[_Part] = []
    for token in tokens:
        if token == "[":
            inner, closed = _parse_branches(tokens)
            if not closed:
                raise ValueError("a bracket is never closed")
            parts.append(("any", inner))
        elif token == "|":
            branches.append(tuple(parts))
            parts = []
        elif token == "]":
            return (*branches, tuple(parts)), True
        elif token[0] == "{":
            parts.append(("slot", token[1:-1]))
        else:
            parts.append(token)
    return (*branches, tuple(parts)), False


def _write(parts: _Parts, dice: Dice, slots: Slots, out: list[str]) -> None:
    for part in parts:
        if isinstance(part, str):
            out.append(part)
        elif part[0] == "slot":
            value = slots[part[1]]
            out.append(value if isinstance(value, str) else dice.pick(value))
        else:
            _write(dice.pick(part[1]), dice, slots, out)
