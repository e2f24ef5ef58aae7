"""Filters of quality for Chinese and English: what is wrong with a text, by which figure; and the edits by recipe."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from buddygpt.data.clean import characters as c
from buddygpt.data.clean.phrases import count_advertising, cut_frames
from buddygpt.data.clean.repetition import LONGEST, find_words, repeats, times_of_commonest
from buddygpt.recipe.clean import CleanSection

TOO_SHORT, MOJIBAKE, LANGUAGE, ADVERTISING = "too short", "mojibake", "language", "advertising"
FUNCTION_WORDS, REPEATED_LINES, REPEATED_NGRAMS = "no function words", "repeated lines", "repeated n-grams"
COMMON_NGRAM, SYMBOLS, PUNCTUATION, NO_PUNCTUATION = "common n-gram", "symbols", "punctuation", "no punctuation"
DIGITS, SHORT_LINES, ELLIPSIS_LINES = "digits", "short lines", "ellipsis lines"
"""Reasons."""
BOILERPLATE, WIDTH = "boilerplate lines", "full-width letters"
"""Edits."""

_NGRAM, _COMMON = 10, 3
_LEAST_COMMON = 5  # times
_STOP_WORDS = tuple(f" {word} " for word in "the of and to that with be have is for are this from".split())
"""Gopher's eight and five more: short English texts do without the eight, and other languages have not these either."""
_SCRIPTS = {
    "zh": (c.HAN, c.FUNCTION),
    "en": (c.LATIN, c.ACCENTED),
    "ja": (c.KANA, c.HAN, c.FUNCTION),
    "ko": (c.HANGUL,),
    "ru": (c.CYRILLIC,),
    "ar": (c.ARABIC,),
}
_ENDS = tuple("。！？；：，、…”’）》】」』.!?;:,\"')]}")
"""Punctuation that a sentence, a verse or a line of code may end with."""
_FULL_WIDTH = re.compile("[０-９Ａ-Ｚａ-ｚ]")
_NARROW = {point: point - 0xFEE0 for point in range(ord("０"), ord("ｚ") + 1) if chr(point).isalnum()}


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

        All of a text is edited; its first `LONGEST` characters are judged.
        """
        edits = []
        if self.section.fold_width and _FULL_WIDTH.search(text):
            text = text.translate(_NARROW)
            edits.append(WIDTH)
        if self.section.boilerplate and len(rest := cut_frames(text)) != len(text):
            text = rest
            edits.append(BOILERPLATE)
        page = _Page(text[:LONGEST])
        for reason, check in CHECKS.items():
            if detail := check(page, self.section):
                return Cleaned(text, reason, tuple(edits), detail)
        return Cleaned(text, None, tuple(edits), "")


class _Page:
    """A text and what is counted in it, each thing once."""

    def __init__(self, text: str):
        self.text = text
        self.lines = [line for line in map(str.strip, text.split("\n")) if line]
        self.points, kinds = c.kinds_of(text)
        self.counts: list[int] = np.bincount(kinds, minlength=c.KINDS).tolist()
        self.printed = len(text) - self.counts[c.SPACE] - self.counts[c.NEWLINE] or 1
        self.letters = sum(self.counts[c.LATIN :])
        self.latin = self.counts[c.LATIN] + self.counts[c.ACCENTED]
        self.han = self.counts[c.HAN] + self.counts[c.FUNCTION]
        self.japanese = self.counts[c.KANA] * 10 > self.letters
        self.words = find_words(self.points, kinds)
        self.common_runs = self.words.runs(_COMMON)
        self.common_repeats = repeats(self.common_runs)

    def share(self, kind: int) -> float:
        """How much of what is printed is of one kind."""
        return self.counts[kind] / self.printed


def _over(what: str, figure: float, limit: float | None) -> str:
    return f"{what} {figure:.2f} > {limit:g}" if limit is not None and figure > limit else ""


def _too_short(page: _Page, section: CleanSection) -> str:
    length = page.letters + page.counts[c.DIGIT]
    return f"{length} letters < {section.min_length}" if section.min_length and length < section.min_length else ""


def _mojibake(page: _Page, section: CleanSection) -> str:
    if section.mojibake and page.counts[c.BROKEN] >= 3 and page.share(c.BROKEN) > 0.01:
        return _over("broken characters", page.share(c.BROKEN), 0.01)
    if section.mojibake and page.counts[c.ACCENTED] >= 10:
        return _over("accented letters", page.share(c.ACCENTED), 0.2)
    return ""


def _language(page: _Page, section: CleanSection) -> str:
    if section.languages is None or not page.letters:
        return ""
    other = "zh" if page.japanese else "ja"  # whose Chinese characters these are not
    found = sum(page.counts[script] for lang in section.languages if lang != other for script in _SCRIPTS[lang])
    share = found / page.letters
    languages = " + ".join(section.languages)
    return f"{languages} {share:.2f} < {section.language_share:g}" if share < section.language_share else ""


def _function_words(page: _Page, section: CleanSection) -> str:
    languages, words = section.languages or (), len(page.words)
    if not section.function_words or words < 50:
        return ""
    if "zh" in languages and page.han * 2 > words and not page.japanese:
        share = page.counts[c.FUNCTION] / page.han
        if share >= 0.03 or sum(map(page.text.count, "。！？")) * 100 >= page.han:
            return ""
        return f"function words {share:.3f} < 0.03"
    if "en" in languages and page.han * 5 < words and page.latin * 5 > page.letters * 4:
        found = itertools.islice((word for word in _STOP_WORDS if word in page.text), 2)
        count = sum(1 for _ in found)
        return f"English function words {count} < 2" if count < 2 else ""
    return ""


def _advertising(page: _Page, section: CleanSection) -> str:
    limit, words = section.advertising, len(page.words)
    if limit is None:
        return ""
    hits, different, calls = count_advertising(page.text, page.points, max(2, limit * words / 100))
    return _over("phrases in 100 words", 100 * hits / words, limit) if different > 1 and calls else ""


def _repeated_lines(page: _Page, section: CleanSection) -> str:
    distinct = set(page.lines)
    if section.repeated_lines is None or len(distinct) == len(page.lines):
        return ""
    return _over(REPEATED_LINES, 1 - sum(map(len, distinct)) / sum(map(len, page.lines)), section.repeated_lines)


def _repeated_ngrams(page: _Page, section: CleanSection) -> str:
    limit, total = section.repeated_ngrams, len(page.words) - _NGRAM + 1
    # A repeated long run begins with a repeated short one.
    if limit is None or total < 1 or page.common_repeats <= limit * total:
        return ""
    return _over(f"repeated {_NGRAM}-grams", repeats(page.words.runs(_NGRAM)) / total, limit)


def _common_ngram(page: _Page, section: CleanSection) -> str:
    limit, words = section.common_ngram, len(page.words)
    if limit is None or page.common_repeats < max(_LEAST_COMMON - 1, limit * words / _COMMON - 1):
        return ""
    times = times_of_commonest(page.common_runs)
    share = min(1.0, times * _COMMON / words)  # it may overlap itself
    return _over(f"commonest {_COMMON}-gram", share, limit) if times >= _LEAST_COMMON else ""


def _symbols(page: _Page, section: CleanSection) -> str:
    return _over(SYMBOLS, page.share(c.SYMBOL), section.symbols)


def _punctuation(page: _Page, section: CleanSection) -> str:
    return _over(PUNCTUATION, page.share(c.PUNCTUATION), section.punctuation)


def _no_punctuation(page: _Page, section: CleanSection) -> str:
    share = page.share(c.PUNCTUATION)
    return (
        f"punctuation {share:.3f} < 0.01" if section.no_punctuation and share < 0.01 and len(page.words) >= 200 else ""
    )


def _digits(page: _Page, section: CleanSection) -> str:
    return _over(DIGITS, page.share(c.DIGIT), section.digits)


def _short_lines(page: _Page, section: CleanSection) -> str:
    if section.short_lines is None or len(page.lines) < 10:
        return ""
    short = sum(len(line) for line in page.lines if len(line) <= 8 and not line.endswith(_ENDS))
    return _over(SHORT_LINES, short / sum(map(len, page.lines)), section.short_lines)


def _ellipsis_lines(page: _Page, section: CleanSection) -> str:
    if section.ellipsis_lines is None or len(page.lines) < 5 or not ("…" in page.text or "..." in page.text):
        return ""
    share = sum(line.endswith(("…", "...")) for line in page.lines) / len(page.lines)
    return _over(ELLIPSIS_LINES, share, section.ellipsis_lines)


CHECKS: dict[str, Callable[[_Page, CleanSection], str]] = {
    TOO_SHORT: _too_short,
    MOJIBAKE: _mojibake,
    LANGUAGE: _language,
    ADVERTISING: _advertising,
    FUNCTION_WORDS: _function_words,
    REPEATED_LINES: _repeated_lines,
    REPEATED_NGRAMS: _repeated_ngrams,
    COMMON_NGRAM: _common_ngram,
    SYMBOLS: _symbols,
    PUNCTUATION: _punctuation,
    NO_PUNCTUATION: _no_punctuation,
    DIGITS: _digits,
    SHORT_LINES: _short_lines,
    ELLIPSIS_LINES: _ellipsis_lines,
}
"""The filters by reason, in the order in which they judge; each gives the figure over its limit, or nothing."""
