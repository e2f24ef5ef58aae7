"""Demo prose in which passwords are told and told again: a small model can learn to look back for them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np
from transformers import PreTrainedTokenizerBase

from buddygpt.data.demo import paragraphs
from buddygpt.data.tokenizer import DocumentEncoder, train_tokenizer
from buddygpt.evaluation.haystack import PLACES, SENTENCE

HELD_OUT = 0.1
"""Share of the paragraphs that no training window takes: the end of the stream."""
_SENTENCE = re.compile(r"[^。！？]*[。！？”]+")


class Passwords:
    """The text of one benchmark.

    Args:
        characters: of prose.
        vocabulary: entries of the tokenizer.
        seed: of the demo world.
    """

    def __init__(self, characters: int, vocabulary: int, seed: int = 0):
        prose = list(paragraphs(seed, characters))
        kept = round(len(prose) * HELD_OUT)
        self.train, self.held_out = prose[:-kept], prose[-kept:]
        dice = np.random.default_rng(seed)
        told = [_password(dice, place) for place in PLACES for _ in range(40)]
        self.tokenizer: PreTrainedTokenizerBase = train_tokenizer([*self.train[:6000], *told], vocabulary)
        self._encoder = DocumentEncoder(self.tokenizer)
        self._sentences = [s for paragraph in self.train for s in _sentences(paragraph)]
        self._tokens = np.array([len(ids) for ids in self._encoder.encode(self._sentences)])
        self._told_tokens = round(float(np.mean([len(ids) for ids in self._encoder.encode(told)])))

    def windows(self, length: int, seed: int) -> Iterator[list[int]]:
        """Endless windows of `length` + 1 ids: end-of-text, then prose with passwords of a few places between.

        From two of them in all, at any distance that the window has, to hardly anything else.
        """
        dice = np.random.default_rng((seed, length))
        while True:
            texts = [self._text(length, dice) for _ in range(64)]
            for ids in self._encoder.encode(texts):
                if len(ids) >= length:
                    yield [int(self.tokenizer.eos_token_id), *ids[:length]]

    def lists(self, length: int, seed: int) -> Iterator[list[int]]:
        """Endless windows of `length` + 1 ids: end-of-text, then nothing but passwords of up to three places.

        From these a small model learns in half a million tokens to look back; from prose alone it has not after one and
        a half million.
        """
        dice = np.random.default_rng((seed, length))
        while True:
            told = [_password(dice, place) for place in dice.permutation(PLACES)[: dice.integers(1, 4)]]
            lines = [told[dice.integers(len(told))] for _ in range(2 * length // self._told_tokens)]
            ids = self.encode(["\n".join(lines)])[0]
            if len(ids) >= length:
                yield [int(self.tokenizer.eos_token_id), *ids[:length]]

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text."""
        return self._encoder.encode(texts)

    def _text(self, length: int, dice: np.random.Generator) -> str:
        told = [_password(dice, place) for place in PLACES]
        most = length // self._told_tokens
        count = int(np.exp(dice.uniform(np.log(2), np.log(most + 1))))
        places = min(len(told), count // 2)
        if dice.random() < 0.5:  # else as many as possible: each told about twice, often far apart
            places = int(dice.integers(1, places + 1))
        told = [told[i] for i in dice.permutation(len(told))[:places]]
        first = int(dice.integers(len(self._sentences) - length))
        room = 1.15 * length - count * self._told_tokens
        prose = int(np.searchsorted(self._tokens[first : first + length].cumsum(), room)) + 1
        lines: list[list[str]] = [[] for _ in range(prose + 1)]
        for _ in range(count):
            lines[dice.integers(prose + 1)].append(told[dice.integers(len(told))])
        parts: list[str] = []
        for sentence, before in zip([*self._sentences[first : first + prose], ""], lines, strict=True):
            parts += [f"\n{line}\n" for line in before]
            parts.append(sentence)
        return re.sub(r"\n+", "\n", "".join(parts)).strip()


def _sentences(paragraph: str) -> Sequence[str]:
    """A paragraph's sentences, the last with a line break."""
    found = _SENTENCE.findall(paragraph)
    return [*found[:-1], found[-1] + "\n"] if found else []


def _password(dice: np.random.Generator, place: str) -> str:
    return SENTENCE.format(place=place, value=f"{dice.integers(10_000):04d}")
