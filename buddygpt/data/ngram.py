"""An interpolated, modified Kneser-Ney character n-gram: the baseline that a neural model has to beat.

The estimator is the interpolated form of Kneser and Ney ("Improved backing-off for m-gram language
modeling", ICASSP 1995) with the three discounts of Chen and Goodman ("An empirical study of smoothing
techniques for language modeling", Harvard TR-10-98, 1998; the chapters on Kneser-Ney smoothing and on its
modified form): raw counts at the highest order, numbers of distinct left neighbours below, and at every
order

    p(w | h) = (c(hw) - D(c(hw))) / c(h) + gamma(h) * p(w | h without its oldest symbol).

What a corpus is here: every document is a sequence of its own, preceded by `order - 1` start symbols and
followed by one end symbol, which is predicted like a character. Below the unigram lies a uniform
distribution over the training characters, the end symbol and one unknown class; an unseen character gets
that class's probability divided evenly among all Unicode scalar values absent from the training text, so
that the model is a proper distribution over every possible text.

Only numpy, no loops over characters: an n-gram is the pair (id of its first n - 1 symbols, last symbol)
packed in one integer, so counting is sorting and looking up is a binary search.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

UNICODE_SCALARS = 0x110000 - 0x800
"""How many different characters a text may hold: all code points but the surrogates."""

# Symbol numbers; the training characters follow, in code point order.
_START, _END, _UNKNOWN, _FIRST_CHARACTER = range(4)


@dataclass(frozen=True)
class _Order:
    """The n-grams of one order.

    `codes` (grams,) ascending; `discounted` (grams + 1,) is the first summand of p(w | h), `backoff`
    (contexts + 1,) is gamma(h). The last entry of either stands for what was never seen, the gram with 0
    and the context with 1, so that the id -1 of a failed search needs no special case.
    """

    codes: Integers
    discounted: Floats
    backoff: Floats


@dataclass(frozen=True)
class KneserNey:
    """A fitted model; build it with `fit`. `characters` are the training characters' code points, ascending."""

    characters: Integers
    orders: tuple[_Order, ...]

    @property
    def order(self) -> int:
        """Length of the longest n-gram, the predicted character included."""
        return len(self.orders)

    def bits(self, documents: Iterable[str]) -> float:
        """Total of -log2 p over all characters and end symbols of the documents."""
        points, lengths = _code_points(documents)
        stream = _stream(_symbols(points, self.characters), lengths, self.order)
        return float(-np.log2(self._probabilities(stream)[stream != _START]).sum())

    def distribution(self, context: str) -> tuple[dict[str, float], float, float]:
        """What may follow `context` at the start of a document: each training character's probability,
        the end's, and one single unseen character's; with all unseen ones they sum to 1."""
        history = _symbols(_code_points([context])[0], self.characters)
        followers = np.r_[_END, _UNKNOWN, _FIRST_CHARACTER : _FIRST_CHARACTER + len(self.characters)]
        width = self.order - 1 + len(history)
        rows = np.full((len(followers), width + 1), _START)
        rows[:, self.order - 1 : width] = history
        rows[:, width] = followers
        end, unseen, *seen = self._probabilities(rows.ravel())[width :: width + 1].tolist()
        return dict(zip(map(chr, self.characters.tolist()), seen, strict=True)), end, unseen

    def _probabilities(self, stream: Integers) -> Floats:
        """Probability of each symbol of a padded stream given the `order - 1` before it; meaningless at starts."""
        alphabet = _FIRST_CHARACTER + len(self.characters)
        result = np.full(len(stream), 1 / (len(self.characters) + 2))
        context = np.zeros(len(stream), np.int64)
        for level in self.orders:
            gram = _search(level.codes, context * alphabet + stream)
            result = level.discounted[gram] + level.backoff[context] * result
            context = _shift(gram)
        result[stream == _UNKNOWN] /= UNICODE_SCALARS - len(self.characters)
        return result


def fit(train: Iterable[str], order: int = 5) -> KneserNey:
    """Count `train` and estimate the discounts of every order; ValueError if it holds no character."""
    if order < 1:
        raise ValueError(f"order must be at least 1, got {order}")
    points, lengths = _code_points(train)
    if not len(points):
        raise ValueError("the training text holds no character")
    characters = np.unique(points)
    stream = _stream(_symbols(points, characters), lengths, order)
    grams = _grams(stream, _FIRST_CHARACTER + len(characters), order)

    predicted = stream != _START
    orders = []
    for n, (codes, ids) in enumerate(grams):
        if n == order - 1:
            counts = np.bincount(ids[predicted], minlength=len(codes))
        else:  # how many different symbols stand before the gram: one for each longer gram that ends in it
            longer_codes, longer_ids = grams[n + 1]
            ends_in = np.full(len(longer_codes), -1)
            ends_in[longer_ids[predicted]] = ids[predicted]
            counts = np.bincount(ends_in[ends_in >= 0], minlength=len(codes))
        contexts = len(grams[n - 1][0]) if n else 1
        orders.append(_estimate(codes, codes // (_FIRST_CHARACTER + len(characters)), counts, contexts))
    return KneserNey(characters, tuple(orders))


def kneser_ney_bits_per_character(train: Iterable[str], heldout: Iterable[str], order: int = 5) -> float:
    """Bits per character of `heldout` under a model fitted on `train`.

    Args:
        train: documents to count.
        heldout: documents to predict, end symbols included.
        order: length of the longest n-gram, the predicted character included.

    Returns:
        All bits, those of the end symbols included, divided by the number of characters without them.
    """
    heldout = list(heldout)
    characters = sum(map(len, heldout))
    if not characters:
        raise ValueError("the held-out text holds no character")
    return fit(train, order).bits(heldout) / characters


def _code_points(documents: Iterable[str]) -> tuple[Integers, Integers]:
    """All characters of all documents as code points (characters,), and each document's length (documents,)."""
    documents = list(documents)
    text = "".join(documents).encode("utf-32-le", "surrogatepass")
    return np.frombuffer(text, "<u4").astype(np.int64), np.array([len(d) for d in documents], np.int64)


def _symbols(points: Integers, characters: Integers) -> Integers:
    """Symbol numbers of code points, `_UNKNOWN` for those that are not among `characters`."""
    found = _search(characters, points)
    return np.where(found < 0, _UNKNOWN, found + _FIRST_CHARACTER)


def _stream(symbols: Integers, lengths: Integers, order: int) -> Integers:
    """One flat sequence: each document's symbols between `order - 1` starts and one end."""
    stream = np.full(len(symbols) + order * len(lengths), _START)
    ends = np.cumsum(lengths + order)
    stream[ends - 1] = _END
    document = np.repeat(np.arange(len(lengths)), lengths)
    stream[np.arange(len(symbols)) + document * order + order - 1] = symbols
    return stream


def _grams(stream: Integers, alphabet: int, order: int) -> list[tuple[Integers, Integers]]:
    """For n = 1..order: the sorted codes of the n-grams, and the id of the n-gram that ends at each position.

    Grams that run over a border between documents are numbered too, but never looked at: they end in a start.
    """
    grams = []
    context = np.zeros(len(stream), np.int64)
    for _ in range(order):
        codes, ids = np.unique(context * alphabet + stream, return_inverse=True)
        grams.append((codes, ids))
        context = _shift(ids)
    return grams


def _shift(ids: Integers) -> Integers:
    """The id of the gram that ends just before each position; the stream's first symbol is always a start,
    so what wraps around to it does not matter."""
    return np.roll(ids, 1)


def _search(ascending: Integers, wanted: Integers) -> Integers:
    """Where each wanted value stands in an ascending array, -1 where it does not."""
    place = np.minimum(np.searchsorted(ascending, wanted), len(ascending) - 1)
    return np.where(ascending[place] == wanted, place, -1)


def _estimate(codes: Integers, context: Integers, counts: Integers, contexts: int) -> _Order:
    discounts = np.array([0.0, *_discounts(counts)])[np.minimum(counts, 3)]
    totals = np.bincount(context, counts, contexts)
    seen = totals > 0
    backoff = np.ones(contexts + 1)
    backoff[:-1][seen] = np.bincount(context, discounts, contexts)[seen] / totals[seen]
    discounted = np.append((counts - discounts) / np.maximum(totals, 1)[context], 0.0)
    return _Order(codes, discounted, backoff)


def _discounts(counts: Integers) -> Sequence[float]:
    """D1, D2, D3+ from the numbers of n-grams seen one, two, three and four times.

    On tiny or odd input the estimates leave their range: then one discount for all, Y = n1 / (n1 + 2 n2),
    and if even that is not inside (0, 1), one half. A discount is never 0, so nothing is impossible.
    """
    n1, n2, n3, n4 = (int(np.count_nonzero(counts == times)) for times in (1, 2, 3, 4))
    single = n1 / (n1 + 2 * n2) if n1 and n2 else 0.5
    if n1 and n2 and n3:
        estimates = (
            1 - 2 * single * n2 / n1,
            2 - 3 * single * n3 / n2,
            3 - 4 * single * n4 / n3,
        )
        if all(0 < discount <= times for times, discount in enumerate(estimates, 1)):
            return estimates
    return (single, single, single)
