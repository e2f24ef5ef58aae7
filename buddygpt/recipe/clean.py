"""The `data.clean`, `data.near_duplicates` and `data.decontaminate` sections: which documents are left out."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from buddygpt.recipe.base import Count, Number, Section, Share

Language = Literal["zh", "en", "ja", "ko", "ru", "ar"]


class CleanSection(Section):
    """Filters of quality; each counts what it removes, and `buddy data report` shows samples. `null` or `false`
    switches one off. A word is one Chinese character, or a run of letters and digits of another script; shares are of
    what is printed, white space left out, unless said otherwise.

    The kinds of filters are those of Gopher (arXiv 2112.11446, appendix A1.1), C4 (arXiv 1910.10683, section 2.2),
    FineWeb (arXiv 2406.17557, section 3) and for Chinese of FineWeb-2 (arXiv 2506.20920) and ChineseWebText (arXiv
    2311.01149). The thresholds lie above what 98 % of clean Chinese and English documentation has.
    """

    min_length: Annotated[Count, Field(ge=1)] | None = 20
    """Fewest letters and digits of a text. Low for the sake of verse and short answers; ChineseWebText takes 200."""
    languages: Annotated[list[Language], Field(min_length=1)] | None = ["zh", "en"]
    """Languages that are kept, told by script: Chinese characters among which kana abound are ja, others zh; Latin
    letters are en."""
    language_share: Share = 0.7
    """Share of a text's letters that must be in the scripts of `languages`."""
    function_words: bool = True
    """Leave out lists of keywords, and Latin languages that are not English: of 50 words or more, with function words
    below 3 % of the Chinese characters and hardly a full stop, or with fewer than two of 13 English ones (Gopher: of
    eight). Each only where `languages` names the language."""
    mojibake: bool = True
    """Leave out texts read in a wrong encoding: over 1 % of replacement, private, unassigned and tell-tale characters,
    or over 20 % of accented Latin letters."""
    advertising: Annotated[Number, Field(ge=0)] | None = 2.0
    """Most phrases of advertising (gambling, forged papers, contacts, calls to buy) in 100 words. A text is left out
    only if two of them differ and one calls to act, so that news about gambling stays."""
    repeated_lines: Share | None = 0.3
    """Largest share of a text in lines that repeat an earlier one (Gopher: 0.2, FineWeb-2 for Chinese: 0.287 of lines).
    Paragraphs need no filter of their own: they are lines."""
    repeated_ngrams: Share | None = 0.3
    """Largest share of 10-grams of words that repeat an earlier one (Gopher: 0.1 of characters; ChineseWebText: half,
    of 13-grams). A text and its copy have 0.5; tables and reference pages reach 0.27."""
    common_ngram: Share | None = 0.2
    """Largest share of its words that a text's commonest 3-gram may make up, if it is there five times (Gopher: 0.18,
    FineWeb-2 for Chinese: 0.201)."""
    symbols: Share | None = 0.3
    """Largest share of symbols, such as # * = ★."""
    punctuation: Share | None = 0.4
    """Largest share of punctuation."""
    no_punctuation: bool = True
    """Leave out texts of 200 words in which less than one character in 100 is punctuation."""
    digits: Share | None = 0.4
    """Largest share of digits."""
    short_lines: Share | None = 0.5
    """Largest share of a text of ten lines or more in lines of at most eight characters that end without punctuation:
    menus and tables of links."""
    ellipsis_lines: Share | None = 0.3
    """Largest share of lines that end in an ellipsis, of five lines or more: lists of teasers (Gopher: 0.3)."""
    boilerplate: bool = True
    """Take out lines that belong to a page's frame: copyright, next page, sharing, cookies, "read more"."""
    fold_width: bool = False
    """Write full-width letters and digits as plain ones, Ａ１ as A1; punctuation stays as it is."""


class NearDuplicates(Section):
    """Of texts that are nearly the same one stays. MinHash-LSH over n-grams of Chinese characters and other words."""

    threshold: Annotated[Number, Field(ge=0.5, le=0.95)] = 0.75
    """Jaccard similarity of the n-gram sets at which a pair is found as likely as not."""
    ngram: Annotated[Count, Field(ge=2, le=13)] = 5
    """Length of the n-grams, in Chinese characters or words of other scripts."""
    min_ngrams: Annotated[Count, Field(ge=1)] = 20
    """Texts with fewer distinct n-grams are compared whole only: short texts that differ a little both stay."""


class Decontaminate(Section):
    """Training documents that hold a long piece of an evaluation set are left out."""

    paths: Annotated[list[str], Field(min_length=1)]
    """Evaluation sets on this machine: files, folders, archives or globs."""
    ngram: Annotated[Count, Field(ge=5, le=50)] = 13
    """Length of a piece in words; in Chinese characters it is half as much again: 13 words, 20 characters."""
