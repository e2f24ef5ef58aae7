"""One talk with one model: a base model goes on with a text, a chat model converses."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from transformers import PreTrainedTokenizerBase

from buddygpt.data.formats import Message
from buddygpt.data.prompts import chat_prompt, read_reply
from buddygpt.data.tokenizer import DocumentEncoder, largest_id
from buddygpt.events import Caution, Emit
from buddygpt.model.cache import PrefixCache
from buddygpt.model.generation import CharacterStream, stop_ids, stream
from buddygpt.model.sampling import Sampling
from buddygpt.model.shortlist import Shortlist
from buddygpt.recipe.errors import BuddyError

End = Literal["stop", "length", "interrupted"]


@dataclass(frozen=True)
class Reply:
    """Figures of one reply.

    Args:
        tokens: those that were said, without an end mark.
        seconds: of decoding, without the reading of the prompt and without what was done between two tokens.
        read: tokens of the prompt that had to be read.
        reused: tokens of the prompt that were held from the turns before.
        end: by an end mark, by the most tokens of a reply, or broken off.
    """

    tokens: int
    seconds: float
    read: int
    reused: int
    end: End

    @property
    def pace(self) -> float:
        """Tokens decoded per second; 0 where nothing followed the first, which comes with the reading."""
        steps = self.tokens if self.end == "stop" else self.tokens - 1
        return steps / self.seconds if steps > 0 and self.seconds > 0 else 0.0

    @property
    def held(self) -> int:
        """Tokens of prompt and reply together."""
        return self.reused + self.read + self.tokens


@dataclass
class Conversation:
    """One talk with one model. Several may share a model, if only one of them decodes at a time.

    Args:
        model: on its device, in eval mode.
        tokenizer: its tokenizer; one with a chat template makes this a chat, one without a completion.
        sampling: how replies are drawn; may be replaced between replies.
        emit: told when old turns are dropped.
        messages: the turns so far; a base model has none.
        shortlist: of the model's head, see `make_shortlist`; replies are the same without it.
        reply: figures of the last reply.
    """

    model: Any
    tokenizer: PreTrainedTokenizerBase
    sampling: Sampling
    emit: Emit
    messages: list[Message] = field(default_factory=list)
    shortlist: Shortlist | None = field(default=None, repr=False)
    reply: Reply | None = field(default=None, init=False)
    _last: str | None = field(default=None, init=False, repr=False)
    _read: PrefixCache = field(default_factory=PrefixCache, init=False, repr=False)

    @property
    def converses(self) -> bool:
        """True for a chat model, false for a base model."""
        return bool(self.tokenizer.chat_template)

    @property
    def context(self) -> int:
        """Tokens that the model can see."""
        return int(self.model.config.max_position_embeddings)

    @property
    def system(self) -> str:
        """The system message, empty where there is none."""
        return self.messages[0].content if self._systems else ""

    def another(self, emit: Emit) -> Conversation:
        """A talk of its own with the same model, from where this one stands."""
        return Conversation(self.model, self.tokenizer, self.sampling, emit, list(self.messages), self.shortlist)

    def say(self, text: str) -> Generator[str, None, None]:
        """Answer `text`, or go on with it: whole characters as they come, reasoning with its marks.

        Whoever stops listening closes the iterator; what was said until then is part of the talk, and `reply` has its
        figures. A reply of which nothing was said leaves the talk as it was.

        Raises:
            BuddyError: the text alone is longer than the context (when the first character is asked for).
        """
        self._last = text
        return self._answer(text, self.messages)

    def retry(self) -> Generator[str, None, None]:
        """Another reply to the last text, in place of the last one. A seed moves on by one, so that it is another.

        Raises:
            BuddyError: nothing was said yet.
        """
        text, before = self._last, self.messages
        if self.converses:
            exchange = self.messages[self._systems :][-2:]
            text, before = (exchange[0].content, self.messages[:-2]) if exchange else (None, [])
        if text is None:
            raise BuddyError("nothing was said yet")
        if self.sampling.seed is not None:
            self.sampling = replace(self.sampling, seed=self.sampling.seed + 1)
        return self._answer(text, before)

    def undo(self) -> bool:
        """Take the last exchange back; false where there is none."""
        if len(self.messages) - self._systems < 2:
            return False
        self.messages = self.messages[:-2]
        return True

    def reset(self) -> None:
        """Forget the turns, keep the system message."""
        self.messages, self._last = self.messages[: self._systems], None

    def set_system(self, text: str) -> None:
        """Begin anew under this system message; an empty one removes it.

        Raises:
            BuddyError: a base model, which has none.
        """
        if text and not self.converses:
            raise BuddyError("a base model has no system message")
        self.messages, self._last = [Message("system", text)] if text else [], None

    def _answer(self, text: str, before: Sequence[Message]) -> Generator[str, None, None]:
        messages, ids = self._prompt(text, before)
        reused = self._read.rewind(ids)
        room = min(self.sampling.max_new_tokens, self.context - len(ids))
        characters = CharacterStream(self.tokenizer)
        said: list[int] = []
        seconds = 0.0
        end: End = "interrupted"
        tokens = stream(
            self.model, ids, replace(self.sampling, max_new_tokens=room),
            stop=stop_ids(self.model, self.tokenizer), vocabulary=self._vocabulary, prefix=self._read,
            shortlist=self.shortlist,
        )  # fmt: skip
        try:
            while True:
                begun = time.perf_counter()
                token = next(tokens, None)
                if said:
                    seconds += time.perf_counter() - begun
                if token is None:
                    break
                said.append(token)
                if piece := characters.push(token):
                    yield piece
            end = "length" if len(said) == room else "stop"
        finally:  # an interrupted answer was said all the same
            self.reply = Reply(len(said), seconds, len(ids) - reused, reused, end)
            if self.converses and (said or end == "stop"):
                self.messages = [*messages, Message("user", text), read_reply(self.tokenizer, said)]

    @cached_property
    def _vocabulary(self) -> int:
        return largest_id(self.tokenizer) + 1  # rows of the head beyond it were never trained

    @cached_property
    def _encoder(self) -> DocumentEncoder:
        return DocumentEncoder(self.tokenizer)

    @property
    def _systems(self) -> int:
        return 1 if self.messages and self.messages[0].role == "system" else 0

    def _prompt(self, text: str, before: Sequence[Message]) -> tuple[list[Message], list[int]]:
        """The turns that stay, of those `before`, and the ids that ask for the answer to `text` after them."""
        if not self.converses:
            eos = self.tokenizer.eos_token_id  # what every document starts from in pretraining
            ids = [eos, *self._encoder.encode([text])[0]]
            if len(ids) >= self.context:
                raise BuddyError(f"the text has {len(ids):,} tokens, the model's context {self.context:,}; shorten it")
            return [], ids
        kept, dropped = list(before), 0
        reserve = min(self.sampling.max_new_tokens, self.context // 4)
        while True:
            ids = chat_prompt(self.tokenizer, self._encoder, [*kept, Message("user", text)])
            if len(ids) + reserve <= self.context:
                break
            if len(kept) - self._systems < 2:
                whose = "system message and message have" if self._systems else "message has"
                raise BuddyError(
                    f"the {whose} {len(ids):,} tokens, the model's context {self.context:,}, of which {reserve:,} are "
                    "kept for the answer; shorten what you say"
                )
            del kept[self._systems : self._systems + 2]
            dropped += 1
        if dropped:
            exchanges = "the oldest exchange was" if dropped == 1 else f"the oldest {dropped} exchanges were"
            self.emit(Caution(f"the context is full: {exchanges} dropped"))
        return kept, ids
