"""Filters of quality for Chinese and English: what is wrong with a text, by which figure; and the edits by recipe."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from buddygpt.data.clean import characters as c
from buddygpt.data.clean.phrases import count_advertising, cut_frames
from buddygpt.data.clean.repetition import LONGEST, Words, commonest_run, find_words, repeated_lines, repeated_runs
from buddygpt.recipe.clean import CleanSection

TOO_SHORT, MOJIBAKE, LANGUAGE, FUNCTION_WORDS = "too short", "mojibake", "language", "no function words"
ADVERTISING, REPEATED_LINES, REPEATED_NGRAMS = "advertising", "repeated lines", "repeated n-grams"
COMMON_NGRAM, SYMBOLS, PUNCTUATION = "common n-gram", "symbols", "punctuation"
NO_PUNCTUATION, DIGITS = "no punctuation", "digits"
SHORT_LINES, ELLIPSIS_LINES = "short lines", "ellipsis lines"
"""Reasons."""
BOILERPLATE, WIDTH = "boilerplate lines", "full-width letters"
"""Edits."""

_NGRAM, _COMMON = 10, 3
_LEAST_COMMON = 5  # times
_STOP_WORDS = tuple(f" {word} " for word in ("the", "of", "and", "to", "that", "with", "be", "have"))
_SCRIPTS = {
    "en": (c.LATIN, c.ACCENTED),
    "ko": (c.HANGUL,),
    "ru": (c.CYRILLIC,),
    "ar": (c.ARABIC,),
}
_ELLIPSIS = re.compile(r"(?:…|\.\.\.)[ \t]*\n")
_FULL_WIDTH = re.compile("[０-９Ａ-Ｚａ-ｚ]")
_NARROW = {point: point - 0xFEE0 for point in map(ord, (chr(p) for p in range(0xFF10, 0xFF5B))) if chr(point).isalnum()}


@dataclass(frozen=True)
class Cleaned:
    """What became of a text.

    Args:
        text: after the edits; the same object where there were none.
        reason: why it is left out; None where it stays.
        edits: what was changed.
        detail: the figure that decided, and its limit; empty where the text stays.
    """

    text: str
    reason: str | None
    edits: tuple[str, ...]
    detail: str


class Cleaner:
    """The edits and filters of one `data.clean` section; a plain object that processes may be sent."""

    def __init__(self, section: CleanSection):
        self.section = section

    def clean(self, text: str) -> Cleaned:
        """Edit and judge a text that `normalise` has seen. Of several reasons the first of `CHECKS` is told.

        Only the first `LONGEST` characters are judged, all are edited.
        """
        edits = []
        if self.section.fold_width and _FULL_WIDTH.search(text):
            text = text.translate(_NARROW)
            edits.append(WIDTH)
        if self.section.boilerplate and len(rest := cut_frames(text)) != len(text):
            text = rest
            edits.append(BOILERPLATE)
        page = _Page(text[:LONGEST])
        for reason, check in CHECKS:
            if detail := check(page, self.section):
                return Cleaned(text, reason, tuple(edits), detail)
        return Cleaned(text, None, tuple(edits), "")


class _Page:
    """A text and what is counted in it, each thing once."""

    def __init__(self, text: str):
        self.text = text
        self.points, self.kinds = c.kinds_of(text)
        self.counts: list[int] = np.bincount(self.kinds, minlength=c.KINDS).tolist()
        self.printed = len(text) - self.counts[c.SPACE] - self.counts[c.NEWLINE] or 1
        self.letters = sum(self.counts[c.LATIN :])
        self.latin = self.counts[c.LATIN] + self.counts[c.ACCENTED]
        self.han = self.counts[c.HAN] + self.counts[c.FUNCTION]
        self.japanese = self.counts[c.KANA] * 10 > self.letters

    @cached_property
    def words(self) -> Words:
        return find_words(self.points, self.kinds)


def _over(figure: float, limit: float | None, what: str = "") -> str:
    return f"{what}{figure:.2f} > {limit:g}" if limit is not None and figure > limit else ""


def _too_short(page: _Page, section: CleanSection) -> str:
    length = page.letters + page.counts[c.DIGIT]
    short = section.min_length is not None and length < section.min_length
    return f"{length} letters < {section.min_length}" if short else ""


def _mojibake(page: _Page, section: CleanSection) -> str:
    if not section.mojibake:
        return ""
    broken, accented = page.counts[c.BROKEN], page.counts[c.ACCENTED]
    if broken < 3 and accented < 10:
        return ""
    broken, accented = broken * (broken >= 3) / page.printed, accented / page.printed
    return _over(broken, 0.01, "broken characters ") or _over(accented, 0.2, "accented letters ")


def _language(page: _Page, section: CleanSection) -> str:
    if section.languages is None or not page.letters:
        return ""
    found = sum(page.counts[script] for lang in section.languages for script in _SCRIPTS.get(lang, ()))
    if page.japanese:
        found += (page.han + page.counts[c.KANA]) * ("ja" in section.languages)
        found *= "ja" in section.languages
    else:
        found += page.han * ("zh" in section.languages)
    share = found / page.letters
    if share >= section.language_share:
        return ""
    return f"{'Japanese' if page.japanese else ' + '.join(section.languages)} {share:.2f} < {section.language_share:g}"


def _function_words(page: _Page, section: CleanSection) -> str:
    languages = section.languages or ()
    if not section.function_words or page.japanese or page.letters < 100:
        return ""
    if "zh" in languages and page.han >= 100 and page.han * 2 > page.letters:
        share = page.counts[c.FUNCTION] / page.han
        stops = sum(map(page.text.count, "。！？")) if share < 0.03 else 0
        return f"{share:.3f} of Chinese characters < 0.03" if share < 0.03 and stops * 100 < page.han else ""
    if "en" in languages and page.latin * 5 > page.letters * 4 and page.han * 5 < len(page.words) >= 100:
        found = 0
        for word in _STOP_WORDS:
            found += word in page.text
            if found == 2:
                return ""
        return f"{found} English < 2"
    return ""


def _advertising(page: _Page, section: CleanSection) -> str:
    limit = section.advertising
    if limit is None:
        return ""
    words = len(page.words)
    hits, different, calls = count_advertising(page.text, page.points, max(2, limit * words / 100))
    return _over(100 * hits / words, limit, "phrases in 100 words ") if different > 1 and calls else ""


def _repeated_lines(page: _Page, section: CleanSection) -> str:
    limit = section.repeated_lines
    return _over(repeated_lines(page.text), limit) if limit is not None and page.counts[c.NEWLINE] else ""


def _repeated_ngrams(page: _Page, section: CleanSection) -> str:
    limit = section.repeated_ngrams
    return _over(repeated_runs(page.words, _NGRAM), limit, f"repeated {_NGRAM}-grams ") if limit is not None else ""


def _common_ngram(page: _Page, section: CleanSection) -> str:
    limit = section.common_ngram
    if limit is None:
        return ""
    return _over(commonest_run(page.words, _COMMON, limit, _LEAST_COMMON), limit, f"commonest {_COMMON}-gram ")


def _symbols(page: _Page, section: CleanSection) -> str:
    return _over(page.counts[c.SYMBOL] / page.printed, section.symbols)


def _punctuation(page: _Page, section: CleanSection) -> str:
    return _over(page.counts[c.PUNCTUATION] / page.printed, section.punctuation)


def _no_punctuation(page: _Page, section: CleanSection) -> str:
    share = page.counts[c.PUNCTUATION] / page.printed
    return f"{share:.3f} < 0.01" if section.no_punctuation and share < 0.01 and len(page.words) >= 200 else ""


def _digits(page: _Page, section: CleanSection) -> str:
    return _over(page.counts[c.DIGIT] / page.printed, section.digits)


def _short_lines(page: _Page, section: CleanSection) -> str:
    if section.short_lines is None or page.counts[c.NEWLINE] < 9:
        return ""
    ends = np.append(np.flatnonzero(page.kinds == c.NEWLINE), len(page.kinds))
    lengths = np.diff(ends, prepend=-1) - 1
    if np.count_nonzero(lengths) < 10:
        return ""
    short = (lengths <= 8) & (page.kinds.take(ends - 1) != c.PUNCTUATION)
    return _over(float(lengths[short].sum() / lengths.sum()), section.short_lines)


def _ellipsis_lines(page: _Page, section: CleanSection) -> str:
    lines = page.counts[c.NEWLINE] + 1
    if section.ellipsis_lines is None or lines < 5 or ("…" not in page.text and "..." not in page.text):
        return ""
    filled = sum(map(bool, map(str.strip, page.text.split("\n"))))
    return _over(len(_ELLIPSIS.findall(page.text + "\n")) / filled, section.ellipsis_lines)


CHECKS: tuple[tuple[str, Callable[[_Page, CleanSection], str]], ...] = (
    (TOO_SHORT, _too_short),
    (MOJIBAKE, _mojibake),
    (LANGUAGE, _language),
    (ADVERTISING, _advertising),
    (FUNCTION_WORDS, _function_words),
    (REPEATED_LINES, _repeated_lines),
    (REPEATED_NGRAMS, _repeated_ngrams),
    (COMMON_NGRAM, _common_ngram),
    (SYMBOLS, _symbols),
    (PUNCTUATION, _punctuation),
    (NO_PUNCTUATION, _no_punctuation),
    (DIGITS, _digits),
    (SHORT_LINES, _short_lines),
    (ELLIPSIS_LINES, _ellipsis_lines),
)
"""The filters in the order in which they judge: reason, and a function that gives the figure over its limit, or ""."""
