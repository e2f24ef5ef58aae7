"""Training texts that hold a piece of an evaluation set, found by long n-grams.

A text is contaminated where it shares one n-gram with an evaluation item, as in GPT-3's "Language Models are Few-Shot
Learners" (arXiv 2005.14165, appendix C). Its 13 words are the default here, and 20 Chinese characters: shorter ones
find slogans and lines of verse in clean text (of 19,485 paragraphs of a newspaper 1.1 % at 13, 0.13 % at 20), longer
ones miss questions. N-grams that are no evidence are left out: those in many items, which are the sets' own phrases,
and plain counting.
"""

from __future__ import annotations

import string
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from buddygpt.data.ngrams import Hashes, cut, ngram_blocks, ngram_hashes, ngram_spans
from buddygpt.recipe.errors import BuddyError

MOST_ITEMS = 8
"""Items that may share an n-gram before it counts as a phrase of the set's own. Of 3.6 million n-grams in 44,113 items
of C-Eval, CMMLU, MMLU, GSM8K, MATH-500, AIME and IFEval 6,143 are in five items, questions on one passage; 38 are in
eight, and 190 in more, instructions such as `which of these two scenarios does the main character`. Each item that has
n-grams keeps some."""
_ITEMS_AT_ONCE = 4096
_COMMONPLACES = (" ".join(map(str, range(1000))), " ".join(string.ascii_lowercase))


@dataclass(frozen=True)
class Guard:
    """How much of an evaluation set can be found.

    Args:
        name: of the set.
        items: how many it has.
        guarded: how many have an n-gram that is looked for; the others are too short, or made of common phrases.
    """

    name: str
    items: int
    guarded: int


@dataclass(frozen=True, eq=False)
class Contamination:
    """N-grams of evaluation sets. Takes 14 to 18 bytes each: 53 MB for the sets named at `MOST_ITEMS`.

    Args:
        ngram: words in an n-gram.
        guards: one for each set.
        hashes: of the n-grams, ascending.
        sets: place in `guards` of the first set with it, for each n-gram.
    """

    ngram: int
    guards: tuple[Guard, ...]
    hashes: Hashes
    sets: NDArray[np.uint16]

    @classmethod
    def build(cls, items: Iterable[tuple[str, Sequence[str]]], ngram: int) -> Contamination:
        """Gather the n-grams of all items.

        Args:
            items: of each the set's name and the forms that its text may take; a set's items need not come in one run.
            ngram: words in an n-gram.
        """
        names: dict[str, int] = {}
        sets: list[int] = []
        hashes, owners = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
        items = iter(items)
        while some := list(islice(items, _ITEMS_AT_ONCE)):
            numbers = np.repeat(np.arange(len(some)), [len(forms) for _, forms in some]) + len(sets)
            texts = [form for _, forms in some for form in forms]
            for pieces, grams, offsets in ngram_blocks(texts, ngram, characters_of(ngram)):
                hashes.append(grams)
                owners.append(np.repeat(numbers[pieces], np.diff(offsets)))
            sets += [names.setdefault(name, len(names)) for name, _ in some]
        return _select(ngram, list(names), np.array(sets, np.uint16), np.concatenate(hashes), np.concatenate(owners))

    @classmethod
    def load(cls, path: Path) -> Contamination:
        """What `save` wrote.

        Raises:
            BuddyError: not such a file.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                counts = zip(file["names"].tolist(), file["items"].tolist(), file["guarded"].tolist(), strict=True)
                guards = tuple(Guard(*count) for count in counts)
                return cls(int(file["ngram"]), guards, file["hashes"], file["sets"])
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise BuddyError(f"{path}: not a file of evaluation n-grams ({error}); remove it") from None

    def save(self, path: Path) -> None:
        """Write everything into one .npz file."""
        with path.open("wb") as file:
            np.savez(
                file,
                ngram=self.ngram,
                names=np.array([g.name for g in self.guards], np.str_),
                items=np.array([g.items for g in self.guards], np.int64),
                guarded=np.array([g.guarded for g in self.guards], np.int64),
                hashes=self.hashes,
                sets=self.sets,
            )

    def find(self, texts: Sequence[str]) -> NDArray[np.int32]:
        """Which texts hold an n-gram of an evaluation set: the set's place in `guards`, the least where there are
        several, or -1."""
        clean = len(self.guards)
        found = np.full(len(texts), clean, np.int32)
        for pieces, hashes, offsets in ngram_blocks(texts, self.ngram, characters_of(self.ngram)):
            hits, sets = self._look_up(hashes)
            np.minimum.at(found, pieces[np.searchsorted(offsets, hits, "right") - 1], sets)
        found[found == clean] = -1
        return found

    def matched_piece(self, text: str) -> str:
        """The first n-gram of a text that is in an evaluation set, as it stands in the text; "" where there is none."""
        length = self.ngram, characters_of(self.ngram)
        for piece in cut(text):
            hits, _ = self._look_up(ngram_hashes([piece], *length)[0])
            if len(hits):
                starts, stops = ngram_spans(piece, *length)
                return piece[starts[hits[0]] : stops[hits[0]]]
        return ""

    def _look_up(self, hashes: Hashes) -> tuple[NDArray[np.intp], NDArray[np.uint16]]:
        """Places of the hashes that are known, ascending, and their sets."""
        bits, shift = self._filter
        byte, bit = _spots(hashes, shift)
        maybe = np.flatnonzero(bits[byte] & bit)
        known = np.searchsorted(self.hashes, hashes[maybe])
        known[known == len(self.hashes)] = 0
        right = self.hashes[known] == hashes[maybe] if len(self.hashes) else np.zeros(0, bool)
        return maybe[right], self.sets[known[right]]

    @cached_property
    def _filter(self) -> tuple[NDArray[np.uint8], np.uint64]:
        """A bit for each value of the hashes' first bits, at least 32 times as many as there are hashes: nearly all
        n-grams of clean text are dismissed by one look into it instead of a search. And how far to shift a hash."""
        width = max(len(self.hashes) * 32, 8).bit_length()
        shift = np.uint64(64 - width)
        bits = np.zeros(1 << width - 3, np.uint8)
        np.bitwise_or.at(bits, *_spots(self.hashes, shift))
        return bits, shift


def _spots(hashes: Hashes, shift: np.uint64) -> tuple[Hashes, NDArray[np.uint8]]:
    """Where each hash has its bit in the filter: byte, and bit in it."""
    spots = hashes >> shift
    return spots >> np.uint64(3), np.uint8(1) << (spots & np.uint64(7)).astype(np.uint8)


def characters_of(ngram: int) -> int:
    """Chinese characters that say as much as so many words."""
    return -(-3 * ngram // 2)


def _select(
    ngram: int, names: Sequence[str], sets: NDArray[np.uint16], hashes: Hashes, owners: NDArray[np.int64]
) -> Contamination:
    """Leave out what is no evidence.

    Args:
        ngram: words in an n-gram.
        names: of the sets.
        sets: of the items.
        hashes: n-grams.
        owners: their items.
    """
    order = np.lexsort((owners, hashes))
    hashes, owners = hashes[order], owners[order]
    first = _first(hashes)
    once = first | _first(owners)  # an n-gram that an item repeats counts once
    hashes, owners, first = hashes[once], owners[once], first[once]
    starts = np.flatnonzero(first)
    counts = np.diff(starts, append=len(hashes))
    commonplaces, _ = ngram_hashes(_COMMONPLACES, ngram, characters_of(ngram))
    kept = (counts <= MOST_ITEMS) & ~np.isin(hashes[starts], commonplaces)
    guarded = np.zeros(len(sets), bool)
    guarded[owners[np.repeat(kept, counts)]] = True
    items = np.bincount(sets, minlength=len(names)).tolist()
    found = np.bincount(sets[guarded], minlength=len(names)).tolist()
    guards = tuple(Guard(*count) for count in zip(names, items, found, strict=True))
    lowest = np.minimum.reduceat(sets[owners], starts) if len(starts) else sets[:0]
    return Contamination(ngram, guards, hashes[starts][kept], lowest[kept])


def _first(values: NDArray) -> NDArray[np.bool_]:
    first = np.ones(len(values), bool)
    first[1:] = values[1:] != values[:-1]
    return first
