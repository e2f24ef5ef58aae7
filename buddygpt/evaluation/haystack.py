"""Texts in which one sentence is hidden, of any length in tokens, the sentence at any depth.

A sentence such as 灯塔的口令是4096。 stands somewhere in other text; after that text the model is given 灯塔的口令是
and must go on with the number. The number is drawn at random, so nothing but that sentence tells it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate

import numpy as np
from numpy.random import Generator
from transformers import PreTrainedTokenizerBase

from buddygpt.data.formats import Message
from buddygpt.data.template import ANSWER_START, Segment, chat_segments
from buddygpt.data.tokenizer import DocumentEncoder
from buddygpt.model.generation import CharacterStream
from buddygpt.recipe.errors import BuddyError

PLACES = "灯塔 粮仓 码头 钟楼 北门 南门 书院 药铺 茶楼 磨坊 渡口 驿站 戏台 祠堂 马厩 酒窖".split()
"""What has a password."""
SENTENCE = "{place}的口令是{value}。"
BEGINNING = "{place}的口令是"
QUESTION = "{place}的口令是什么？"
DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
COUNT = 20
"""Needles of one length and depth."""
TOLERANCE = 3
"""Tokens by which a text may miss its length: a character may take as many."""
_TRIES = 12
_SENTENCE_ENDS = re.compile(r"[。！？\n]")


@dataclass(frozen=True)
class Needle:
    """One text with one question.

    Args:
        length: tokens that were asked for, the answer's among them.
        depth: where the sentence stands: 0 at the text's beginning, 1 right before the question.
        prompt: token ids up to the answer.
        value: the answer, in digits.
        answer: its token ids.
    """

    length: int
    depth: float
    prompt: tuple[int, ...]
    value: str
    answer: tuple[int, ...]


def make_needles(
    tokenizer: PreTrainedTokenizerBase,
    filler: Sequence[str],
    lengths: Iterable[int],
    depths: Iterable[float] = DEPTHS,
    count: int = COUNT,
    *,
    chat: bool = False,
    seed: int = 0,
) -> list[Needle]:
    """Texts with one needle each, the same ones for the same arguments; a cell's do not depend on the other cells.

    Args:
        tokenizer: the model's; a fast one.
        filler: texts that the needles are hidden in, none with a number after 的口令是.
        lengths: of prompt and answer together, in tokens; hit within `TOLERANCE`.
        depths: places of the sentence in the filler.
        count: needles of each length and depth.
        chat: as a talk through the chat template, the answer begun; else as running text after an end-of-text token.
        seed: of places, values and pieces of filler.

    Raises:
        BuddyError: the filler is too short, or a length too short for a question.
    """
    depths = tuple(depths)
    haystack = _Haystack(tokenizer, filler, chat)
    return [
        haystack.hide(length, depth, np.random.default_rng((seed, length, round(depth * 1e6), number)))
        for length in lengths
        for depth in depths
        for number in range(count)
    ]


class _Haystack:
    """Filler from which pieces of any length are taken, and the frame into which they are set."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, filler: Sequence[str], chat: bool):
        self._encoder, self._chat, self._eos = DocumentEncoder(tokenizer), chat, int(tokenizer.eos_token_id)
        stream = CharacterStream(tokenizer)
        pieces = [stream.push(token) for token in self._encoder.encode(["\n".join(filler)])[0]]
        self._text = stream.text  # as the tokenizer gives it back: it may normalise
        self._characters = np.array([0, *accumulate(map(len, pieces))])  # before each token
        ends = [match.end() for match in _SENTENCE_ENDS.finditer(self._text)]
        self._ends = np.searchsorted(self._characters, ends)  # tokens up to the end of each sentence

    def hide(self, length: int, depth: float, dice: Generator) -> Needle:
        """One needle: pieces of filler that end with a sentence and are as long as leaves `length` tokens in all."""
        fitting = self._ends[self._ends >= length]
        if not len(fitting):
            raise BuddyError(
                f"needle: the filler has {len(self._characters) - 1:,} tokens, too few for texts of {length:,}; "
                "give more filler"
            )
        place, value = PLACES[dice.integers(len(PLACES))], f"{dice.integers(10_000):04d}"
        sentence = SENTENCE.format(place=place, value=value)
        ends = dice.choice(fitting, 2)
        answer = self._encoder.encode([value])[0]
        frame = partial(self._prompt, place=place, sentence=sentence)
        room = length - len(answer) - len(frame("", ""))
        best: Needle | None = None
        for _ in range(_TRIES):
            if room < 0:
                break
            before = round(depth * room)
            prompt = frame(self._piece(ends[0], before), self._piece(ends[1], room - before))
            needle = Needle(length, depth, tuple(prompt), value, tuple(answer))
            if best is None or abs(_surplus(needle)) < abs(_surplus(best)):
                best = needle
            if not _surplus(needle):
                break
            room -= _surplus(needle)
        if best is None or abs(_surplus(best)) > TOLERANCE:
            raise BuddyError(f"needle: a question does not fit into {length} tokens; ask for longer texts")
        return best

    def _piece(self, end: int, tokens: int) -> str:
        start, stop = self._characters[[end - tokens, end]]
        return self._text[start:stop].strip()

    def _prompt(self, before: str, after: str, place: str, sentence: str) -> list[int]:
        beginning = BEGINNING.format(place=place)
        if not self._chat:
            text = "\n".join(part for part in (before, sentence, after, beginning) if part)
            return [self._eos, *self._encoder.encode([text])[0]]
        question = QUESTION.format(place=place)
        asked = Message("user", "\n".join(part for part in (before, sentence, after, question) if part))
        segments: list[Segment] = [*chat_segments([asked]), *ANSWER_START, beginning]
        return self._encoder.encode_segments([segments])[0]


def _surplus(needle: Needle) -> int:
    """Tokens beyond the length that was asked for."""
    return len(needle.prompt) + len(needle.answer) - needle.length
