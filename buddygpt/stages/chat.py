"""Talking to a model: a base model goes on with the text, a chat model converses."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tokenizers.decoders import DecodeStream
from transformers import PreTrainedTokenizerBase
from transformers.generation.streamers import BaseStreamer

from buddygpt.data.tokenizer import DocumentEncoder, load_tokenizer
from buddygpt.events import Caution, Emit, Note
from buddygpt.hub.presence import see_model
from buddygpt.model.interop import load
from buddygpt.recipe.errors import BuddyError
from buddygpt.recipe.runs import find_model


@dataclass(frozen=True)
class Sampling:
    """How a reply is drawn.

    Args:
        max_new_tokens: most tokens of one reply.
        temperature: 0 takes the likeliest token always.
        top_p: share of the probability mass that is drawn from.
        seed: makes replies repeatable; None draws afresh.
    """

    max_new_tokens: int = 256
    temperature: float = 0.8
    top_p: float = 0.95
    seed: int | None = None


@dataclass
class Conversation:
    """One talk with one model.

    Args:
        model: on its device, in eval mode.
        tokenizer: its tokenizer; one with a chat template makes this a chat, one without a completion.
        sampling: how replies are drawn.
        emit: told when old turns are dropped.
        messages: the turns so far, `role` and `content`.
    """

    model: Any
    tokenizer: PreTrainedTokenizerBase
    sampling: Sampling
    emit: Emit
    messages: list[dict[str, str]] = field(default_factory=list)

    @property
    def converses(self) -> bool:
        """True for a chat model, false for a base model."""
        return bool(self.tokenizer.chat_template)

    def reset(self) -> None:
        """Forget the turns, keep the system message."""
        self.messages = [m for m in self.messages if m["role"] == "system"]

    def set_system(self, text: str) -> None:
        """Begin anew under this system message; an empty one removes it."""
        self.messages = [{"role": "system", "content": text}] if text else []

    def reply(self, text: str, write: Callable[[str], None]) -> float:
        """Answer `text`, or go on with it; whole characters go to `write` as they come.

        Returns:
            Tokens per second.

        Raises:
            BuddyError: the text alone is longer than the context.
        """
        ids = self._prompt(text)
        room = min(self.sampling.max_new_tokens, self._context - len(ids))
        streamer = CharacterStreamer(self.tokenizer, write)
        if self.sampling.seed is not None:
            torch.manual_seed(self.sampling.seed)
        prompt = torch.tensor([ids], device=self.model.device)
        drawing: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        if self.sampling.temperature > 0:
            drawing = {
                "do_sample": True,
                "temperature": self.sampling.temperature,
                "top_p": self.sampling.top_p,
                "top_k": 0,
            }
        begun = time.perf_counter()
        try:
            with torch.inference_mode():
                self.model.generate(
                    prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=room, streamer=streamer,
                    pad_token_id=self.tokenizer.pad_token_id, **drawing,
                )  # fmt: skip
        finally:  # an interrupted answer was said all the same
            if self.converses:
                self.messages += [{"role": "user", "content": text}, {"role": "assistant", "content": streamer.text}]
        return streamer.tokens / max(time.perf_counter() - begun, 1e-9)

    @property
    def _context(self) -> int:
        return int(self.model.config.max_position_embeddings)

    def _prompt(self, text: str) -> list[int]:
        if not self.converses:
            eos = self.tokenizer.eos_token_id  # what every document starts from in pretraining
            ids = [eos, *DocumentEncoder(self.tokenizer).encode([text])[0]]
            if len(ids) >= self._context:
                raise BuddyError(f"the text has {len(ids):,} tokens, the model's context {self._context:,}; shorten it")
            return ids
        dropped = 0
        while True:
            turns = [*self.messages, {"role": "user", "content": text}]
            ids = self.tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
            reserve = min(self.sampling.max_new_tokens, self._context // 4)
            if len(ids) + reserve <= self._context:
                break
            system = 1 if self.messages and self.messages[0]["role"] == "system" else 0
            if len(self.messages) - system < 2:
                raise BuddyError(
                    f"the message has {len(ids):,} tokens, the model's context {self._context:,}; shorten it"
                )
            del self.messages[system : system + 2]
            dropped += 1
        if dropped:
            self.emit(Caution(f"the context is full: the oldest {dropped} exchange(s) were dropped"))
        return list(ids)


class CharacterStreamer(BaseStreamer):
    """Hands on text as soon as its bytes are whole characters.

    Args:
        tokenizer: a fast tokenizer.
        write: takes the text.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, write: Callable[[str], None]):
        self._backend: Any = tokenizer.backend_tokenizer  # type: ignore[attr-defined]
        self._stream = DecodeStream(skip_special_tokens=True)
        self._write = write
        self._seen_prompt = False
        self.text, self.tokens = "", 0

    def put(self, value: torch.Tensor) -> None:
        """New ids; the first call brings the prompt."""
        if not self._seen_prompt:
            self._seen_prompt = True
            return
        for token in value.flatten().tolist():
            self.tokens += 1
            if piece := self._stream.step(self._backend, token):
                self.text += piece
                self._write(piece)

    def end(self) -> None:
        """Bytes of a character that was never finished are left out."""


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
