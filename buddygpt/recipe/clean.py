"""The `data.clean`, `data.near_duplicates` and `data.decontaminate` sections: which documents are left out."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from buddygpt.recipe.base import Count, Number, Section


class CleanSection(Section):
    """Filters of quality; each counts what it removes, and `buddy data report` shows samples."""


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
