"""Talking to a model: a base model goes on with the text, a chat model converses."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from buddygpt.data.formats import Message
from buddygpt.data.prompts import chat_prompt, read_reply
from buddygpt.data.tokenizer import DocumentEncoder, largest_id, load_tokenizer
from buddygpt.events import Caution, Emit, Note
from buddygpt.hub.presence import see_model
from buddygpt.model.cache import PrefixCache
from buddygpt.model.generation import CharacterStream, stop_ids, stream
from buddygpt.model.interop import load
from buddygpt.model.sampling import Sampling
from buddygpt.recipe.errors import BuddyError
from buddygpt.recipe.runs import find_model


@dataclass
class Conversation:
    """One talk with one model.

    Args:
        model: on its device, in eval mode.
        tokenizer: its tokenizer; one with a chat template makes this a chat, one without a completion.
        sampling: how replies are drawn.
        emit: told when old turns are dropped.
        messages: the turns so far.
    """

    model: Any
    tokenizer: PreTrainedTokenizerBase
    sampling: Sampling
    emit: Emit
    messages: list[Message] = field(default_factory=list)
    _read: PrefixCache = field(default_factory=PrefixCache, init=False, repr=False)

    @property
    def converses(self) -> bool:
        """True for a chat model, false for a base model."""
        return bool(self.tokenizer.chat_template)

    def reset(self) -> None:
        """Forget the turns, keep the system message."""
        self.messages = [m for m in self.messages if m.role == "system"]

    def set_system(self, text: str) -> None:
        """Begin anew under this system message; an empty one removes it."""
        self.messages = [Message("system", text)] if text else []

    def reply(self, text: str, write: Callable[[str], None]) -> float:
        """Answer `text`, or go on with it; whole characters go to `write` as they come, reasoning with its marks.

        Returns:
            Tokens per second.

        Raises:
            BuddyError: the text alone is longer than the context.
        """
        ids = self._prompt(text)
        room = min(self.sampling.max_new_tokens, self._context - len(ids))
        characters = CharacterStream(self.tokenizer)
        said: list[int] = []
        begun = time.perf_counter()
        tokens = stream(
            self.model, ids, replace(self.sampling, max_new_tokens=room),
            stop=stop_ids(self.model, self.tokenizer), vocabulary=self._vocabulary, prefix=self._read,
        )  # fmt: skip
        try:
            for token in tokens:
                said.append(token)
                if piece := characters.push(token):
                    write(piece)
        finally:  # an interrupted answer was said all the same
            if self.converses:
                self.messages += [Message("user", text), read_reply(self.tokenizer, said)]
        return len(said) / max(time.perf_counter() - begun, 1e-9)

    @cached_property
    def _vocabulary(self) -> int:
        return largest_id(self.tokenizer) + 1  # rows of the head beyond it were never trained

    @cached_property
    def _encoder(self) -> DocumentEncoder:
        return DocumentEncoder(self.tokenizer)

    @property
    def _context(self) -> int:
        return int(self.model.config.max_position_embeddings)

    def _prompt(self, text: str) -> list[int]:
        if not self.converses:
            eos = self.tokenizer.eos_token_id  # what every document starts from in pretraining
            ids = [eos, *self._encoder.encode([text])[0]]
            if len(ids) >= self._context:
                raise BuddyError(f"the text has {len(ids):,} tokens, the model's context {self._context:,}; shorten it")
            return ids
        dropped = 0
        while True:
            ids = chat_prompt(self.tokenizer, self._encoder, [*self.messages, Message("user", text)])
            reserve = min(self.sampling.max_new_tokens, self._context // 4)
            if len(ids) + reserve <= self._context:
                break
            system = 1 if self.messages and self.messages[0].role == "system" else 0
            if len(self.messages) - system < 2:
                raise BuddyError(
                    f"the message has {len(ids):,} tokens, the model's context {self._context:,}; shorten it"
                )
            del self.messages[system : system + 2]
            dropped += 1
        if dropped:
            self.emit(Caution(f"the context is full: the oldest {dropped} exchange(s) were dropped"))
        return ids


def open_conversation(target: str | None, runs: Path, sampling: Sampling, emit: Emit) -> Conversation:
    """Load what the user means and begin a talk.

    Args:
        target: a model folder, a run's name or folder, a hub id; the newest finished model where left out.
        runs: where runs lie.

    Raises:
        BuddyError: there is no such model, or its files are damaged.
    """
    folder = find_model(target, runs)
    if target is None:
        emit(Note(f"model: {folder}"))
    if isinstance(folder, str):
        see_model(folder)
    tokenizer = load_tokenizer(str(folder))
    model = load(folder)
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    return Conversation(model.to(device).eval(), tokenizer, sampling, emit)
