"""Hashes of a text's n-grams, for finding texts that are nearly the same and pieces of one text in another.

A text is cut into units. A character of a script that is written without spaces (Han, kana, bopomofo, Yi, Thai, Lao,
Khmer, Burmese) is one unit; a run of letters, digits and marks of all other scripts is one, whatever its case and
width. All else (white space, punctuation, symbols) separates units and counts for nothing. So an n-gram is n characters
of Chinese, n words of English, or a mixture: `用Python3写的，` is the four units 用 python3 写 的.

Units and n-grams are hashed with polynomials modulo 2^64, many texts at once, and mixed with the finalizer of
splitmix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014, figure 17). Nothing
depends on the machine or the process; what a letter is depends on Python's Unicode tables, for rare characters.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
Offsets = NDArray[np.int64]

BLOCK = 1 << 18
"""Characters that are hashed at a time."""
_OVERLAP = 1 << 12
"""Characters that the pieces of a longer text share, so that no n-gram is lost between them."""

_UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Burmese
    (0x1780, 0x17FF),  # Khmer
    (0x3005, 0x3007),  # 々〆〇
    (0x3021, 0x312F),  # Hangzhou numerals, kana, bopomofo
    (0x31A0, 0x31FF),
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xA000, 0xA4CF),  # Yi
    (0xF900, 0xFAFF),
    (0xFF66, 0xFF9F),  # half-width kana
    (0x1B000, 0x1B16F),
)
"""Blocks of scripts without spaces below the planes of rare Han characters."""
_RARE_HAN, _BEYOND = 0x20000, 0x40000
_VARIATIONS = range(0xFE00, 0xFE10)
_ALONE = np.uint32(1 << 31)
_LETTER_BASE = np.uint64(0xD1B54A32D192ED03)
_UNIT_BASE = np.uint64(0x9E6C63D0876A9A63)
_UNIT_INVERSE = np.uint64(pow(int(_UNIT_BASE), -1, 1 << 64))


def ngram_hashes(texts: Sequence[str], words: int, characters: int) -> tuple[Hashes, Offsets]:
    """Hashes of all n-grams of each text, in order, repeated ones included.

    An n-gram is the shortest run of units from its first one on that has `words` words, or `characters` characters that
    stand alone, or of both in proportion; with equal numbers just so many units. Takes about 100 bytes a character of
    text; `ngram_blocks` bounds that.

    Args:
        texts: any number.
        words, characters: length of an n-gram, at least 1.

    Returns:
        Hashes of all texts one after the other, and where each text's begin (len + 1 offsets).
    """
    letters, symbols, starts = _find_units("\n".join(texts))  # the line feeds keep texts apart
    units = _unit_hashes(letters, symbols, starts)
    text_ends = np.cumsum(np.fromiter(map(len, texts), np.int64, len(texts)) + 1)
    bounds = np.concatenate(([0], np.searchsorted(letters[starts], text_ends)))
    stops = _stops(symbols[starts] >= _ALONE, words, characters)
    whole = np.flatnonzero(stops <= np.repeat(bounds[1:], np.diff(bounds)))
    sums = np.concatenate((np.zeros(1, np.uint64), np.cumsum(units * _powers(_UNIT_BASE, len(units)))))
    hashes = sums[stops[whole]] - sums[whole]
    hashes *= _powers(_UNIT_INVERSE, len(units))[whole]  # as if the n-gram stood at the beginning
    return mix(hashes), np.searchsorted(whole, bounds)


def ngram_blocks(texts: Sequence[str], words: int, characters: int) -> Iterator[tuple[Offsets, Hashes, Offsets]]:
    """`ngram_hashes` of any amount of text in bounded memory: some texts at a time, a very long one in pieces.

    Pieces of one text overlap: some of its n-grams come twice, and at cuts through a word one or two come that are
    not in the text.

    Yields:
        Number in `texts` of each piece (rising, the same several times where a text is in pieces), hashes, offsets.
    """
    owners: list[int] = []
    pieces: list[str] = []
    size = 0
    for number, text in enumerate(texts):
        for piece in cut(text):
            if size + len(piece) > BLOCK + _OVERLAP:
                yield np.array(owners), *ngram_hashes(pieces, words, characters)
                owners, pieces, size = [], [], 0
            owners.append(number)
            pieces.append(piece)
            size += len(piece)
    if pieces:
        yield np.array(owners), *ngram_hashes(pieces, words, characters)


def cut(text: str) -> Iterator[str]:
    """Pieces of a text of bounded size that overlap; the text itself where it is not long."""
    for start in range(0, max(len(text) - _OVERLAP, 1), BLOCK):
        yield text[start : start + BLOCK + _OVERLAP]


def ngram_spans(text: str, words: int, characters: int) -> tuple[Offsets, Offsets]:
    """Where each n-gram of one text begins and ends, in characters, in the order of `ngram_hashes`."""
    letters, symbols, starts = _find_units(text)
    stops = _stops(symbols[starts] >= _ALONE, words, characters)
    stops = stops[stops <= len(starts)]
    last = np.append(starts[1:], len(letters))[stops - 1] - 1
    return letters[starts[: len(stops)]], letters[last] + 1


def _find_units(text: str) -> tuple[Offsets, NDArray[np.uint32], Offsets]:
    """Places of the characters that count, their symbols, and which of them begin a unit."""
    symbols = _symbols().take(np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4"))
    letters = np.flatnonzero(symbols)
    symbols = symbols[letters]
    alone = symbols >= _ALONE
    begins = alone.copy()  # and those after one that stands alone or after a gap
    begins[:1] = True
    begins[1:] |= alone[:-1]
    begins[1:] |= np.diff(letters) != 1
    return letters, symbols, np.flatnonzero(begins)


def _unit_hashes(letters: Offsets, symbols: NDArray[np.uint32], starts: Offsets) -> Hashes:
    """One hash for each unit that `_find_units` found."""
    if len(starts) == len(letters):
        return mix(symbols.astype(np.uint64))
    places = np.arange(len(letters)) - np.repeat(starts, np.diff(starts, append=len(letters)))
    weights = _powers(_LETTER_BASE, int(places.max()) + 1)
    return mix(np.add.reduceat(symbols * weights[places], starts))


def _stops(alone: NDArray[np.bool_], words: int, characters: int) -> Offsets:
    """The unit after each n-gram; one more than there are where the units do not suffice."""
    if words == characters:
        return np.minimum(np.arange(len(alone)) + words, len(alone) + 1)
    reach = np.concatenate(([0], np.cumsum(np.where(alone, words, characters))))
    return np.searchsorted(reach, reach[:-1] + words * characters)


def _powers(base: np.uint64, count: int) -> Hashes:
    factors = np.full(count, base)
    factors[:1] = 1
    return np.cumprod(factors)


def mix(values: Hashes) -> Hashes:
    """The finalizer of splitmix64; `values` is overwritten."""
    high = values >> np.uint64(30)
    values ^= high
    values *= np.uint64(0xBF58476D1CE4E5B9)
    np.right_shift(values, np.uint64(27), out=high)
    values ^= high
    values *= np.uint64(0x94D049BB133111EB)
    np.right_shift(values, np.uint64(31), out=high)
    values ^= high
    return values


@cache
def _symbols() -> NDArray[np.uint32]:
    """For every code point 0 where it separates, else the character in lower case, marked where it stands alone."""
    table = np.zeros(0x110000, np.uint32)
    for code in range(_RARE_HAN):
        if unicodedata.category(chr(code))[0] in "LMN" and code not in _VARIATIONS:
            folded = chr(code).lower()
            table[code] = ord(folded) if len(folded) == 1 else code
    table[0xFF01:0xFF5F] = np.where(table[0xFF01:0xFF5F], table[0x21:0x7F], 0)  # full width as half width
    table[_RARE_HAN:_BEYOND] = np.arange(_RARE_HAN, _BEYOND)
    for first, last in (*_UNSPACED, (_RARE_HAN, _BEYOND - 1)):
        block = table[first : last + 1]
        block[block > 0] |= _ALONE
    return table
