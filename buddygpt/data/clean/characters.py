"""What kind each character of a text is: script, digit, punctuation, symbol, broken. By table, a whole text at once."""

from __future__ import annotations

import unicodedata
from functools import cache

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.uint32]
Kinds = NDArray[np.uint8]

SPACE, NEWLINE, PUNCTUATION, SYMBOL, BROKEN = range(5)
DIGIT, LATIN, ACCENTED, CYRILLIC, ARABIC, HANGUL, OTHER, KANA, HAN, FUNCTION = range(5, 15)
"""Kinds. From DIGIT on they make up words, from LATIN on they are letters, from KANA on each is a word of its own.
ACCENTED is the Latin of U+00C0..U+00FF, OTHER the letters and marks of all other scripts, FUNCTION Chinese characters
that sentences cannot do without."""
KINDS = 15

_SYMBOLS = frozenset("#%&*@/\\_•·†‡※〓＃＆＊＠／＼＿％")
"""Punctuation to Unicode, yet nothing that parts a sentence."""
_FUNCTION = frozenset("的了是在不和这這就也我他她你为為与與而之以于於其或将將可此被从從都又已把但着著过過很还還到说說")
"""Function words of Chinese in both scripts, without those that are common in names and nouns (上 中 人 有 一 时)."""
_TELLTALES = frozenset("锛銆鐨鈥锟\ufffd")
"""What UTF-8 read as GBK is full of (，。的“ become 锛 銆 鐨 鈥), and what stands for lost bytes (锟斤拷, U+FFFD)."""
_NAMES = {"LATIN": LATIN, "CYRILLIC": CYRILLIC, "ARABIC": ARABIC, "HANGUL": HANGUL, "HIRAGANA": KANA, "KATAKANA": KANA}
_RANGES = (
    (0x3005, 0x3007, HAN),
    (0x30FC, 0x30FE, KANA),
    (0x3105, 0x312F, HAN),  # bopomofo
    (0x3400, 0x4DBF, HAN),
    (0x4E00, 0x9FFF, HAN),
    (0xAC00, 0xD7A3, HANGUL),
    (0xF900, 0xFAFF, HAN),
    (0x20000, 0x323AF, HAN),
    (0x323B0, 0xDFFFF, BROKEN),
    (0xE0200, 0x10FFFF, BROKEN),
)
"""Where the name need not be looked at, or tells nothing."""


def kinds_of(text: str) -> tuple[Points, Kinds]:
    """Code points and kinds of all characters, (characters,) each."""
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    return points, _table().take(points)


@cache
def _table() -> Kinds:
    """The kind of every code point; takes a twentieth of a second, once a process."""
    table = np.full(0x110000, OTHER, np.uint8)
    for point in (*range(0x3400), *range(0xA000, 0xAC00), *range(0xD7A4, 0x20000), *range(0xE0000, 0xE0200)):
        table[point] = _kind(chr(point))
    for first, last, kind in _RANGES:
        table[first : last + 1] = kind
    table[[ord(c) for c in _FUNCTION]] = FUNCTION
    table[[ord(c) for c in _TELLTALES]] = BROKEN
    return table


def _kind(character: str) -> int:
    category, name = unicodedata.category(character), unicodedata.name(character, "")
    if character == "\n":
        return NEWLINE
    if category[0] == "Z" or category in ("Cc", "Cf"):
        return SPACE
    if category[0] == "C":
        return BROKEN
    if category[0] == "P":
        return SYMBOL if character in _SYMBOLS else PUNCTUATION
    if category[0] == "S" or name.startswith("VARIATION SELECTOR"):
        return SYMBOL
    if category[0] == "N":
        return DIGIT
    script = next((word for word in name.split()[:2] if word in _NAMES), "")  # FULLWIDTH LATIN CAPITAL LETTER A
    kind = _NAMES.get(script, OTHER)
    return ACCENTED if kind == LATIN and "\x80" <= character <= "\xff" else kind
