"""From a talk to the prompt that asks for its next answer, for models tuned here and for others'."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jinja2.exceptions import TemplateError

from buddygpt.data.formats import Message
from buddygpt.data.template import ANSWER_START, CHAT_TEMPLATE, END, THINK, THOUGHT, Segment, chat_segments
from buddygpt.data.tokenizer import DocumentEncoder
from buddygpt.recipe.errors import BuddyError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_FIRST, _LAST = "\U000f0000", "\U000ffffd"
"""A plane of characters for private use, each standing for something typed while a template is at work."""


@dataclass(frozen=True, slots=True)
class Reply(Message):
    """An answer as a model gave it.

    Args:
        ids: the tokens that it is made of, without an end mark. Text gives ids of its own, not always these.
    """

    ids: tuple[int, ...] = ()


def chat_prompt(tokenizer: PreTrainedTokenizerBase, encoder: DocumentEncoder, messages: Sequence[Message]) -> list[int]:
    """The ids that ask for the next answer. What is typed never becomes a control token.

    With our template they begin with what training has of the same talk, and a `Reply` stands in them id for id as it
    was given; another template writes old turns its own way.

    Args:
        tokenizer: with a chat template.
        encoder: made of it.
        messages: the talk so far.

    Raises:
        BuddyError: the template refuses the talk.
    """
    if tokenizer.chat_template == CHAT_TEMPLATE:
        return _own_prompt(encoder, messages)
    return _foreign_prompt(tokenizer, encoder, messages)


def read_reply(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> Reply:
    """The answer that a model gave: reasoning between its marks where it begins with some, the rest its content.

    Args:
        tokenizer: the model's.
        ids: without the end mark; perhaps broken off, also within a character.
    """
    added, reasoning, rest = tokenizer.get_added_vocab(), "", list(ids)
    open_, close = added.get(THINK.token), added.get(THOUGHT.token)
    if close in rest:
        thought, after = rest[: rest.index(close)], rest[rest.index(close) + 1 :]
        if thought[:1] == [open_]:  # else the prompt held it
            thought = thought[1:]
        if open_ not in thought:
            reasoning, rest = _text(tokenizer, thought), after
    content = _text(tokenizer, rest)
    if len(rest) < len(ids):
        reasoning, content = reasoning.removeprefix("\n").removesuffix("\n"), content.removeprefix("\n\n")
    return Reply("assistant", content, reasoning, ids=tuple(ids))


def _text(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    text = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return str(text).rstrip("\ufffd")  # the bytes of a character that never came


def _own_prompt(encoder: DocumentEncoder, messages: Sequence[Message]) -> list[int]:
    """Through our template's segments: what stands between the replies is encoded, they stay as they are."""
    between: list[list[Segment]] = []
    replies: list[tuple[int, ...]] = []
    before: list[Segment] = []
    start = 0
    for i, message in enumerate(messages):
        if isinstance(message, Reply):
            between.append([*before, *chat_segments(messages[start:i]), *ANSWER_START])
            replies.append(message.ids)
            before, start = [END, "\n"], i + 1
    between.append([*before, *chat_segments(messages[start:]), *ANSWER_START])
    encoded = zip(encoder.encode_segments(between), [*replies, ()], strict=True)
    return [token for ids, reply in encoded for token in (*ids, *reply)]


def _foreign_prompt(
    tokenizer: PreTrainedTokenizerBase, encoder: DocumentEncoder, messages: Sequence[Message]
) -> list[int]:
    """Through the tokenizer's own template, in which a private character stands for each control token typed."""
    added = sorted((token for token in tokenizer.get_added_vocab() if token.strip()), key=len, reverse=True)
    typed = re.compile("|".join([*map(re.escape, added), f"[{_FIRST}-{_LAST}]"]))
    stands: dict[str, str] = {}

    def protect(text: str) -> str:
        return typed.sub(lambda found: stands.setdefault(found[0], chr(ord(_FIRST) + len(stands))), text)

    turns = [_turn(message, protect) for message in messages]
    try:
        rendered = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    except TemplateError as error:
        raise BuddyError(f"the model's chat template refuses this talk: {str(error).splitlines()[0]}") from None
    spelt = {char: text for text, char in stands.items()}
    ids: list[int] = []
    for piece in re.split(f"([{_FIRST}-{_LAST}])", str(rendered)):
        if piece in spelt:
            ids += encoder.encode([spelt[piece]])[0]
        elif piece:
            ids += tokenizer(piece, add_special_tokens=False)["input_ids"]
    return ids


def _turn(message: Message, protect: Callable[[str], str]) -> dict[str, Any]:
    """A turn as templates of transformers take it."""
    turn: dict[str, Any] = {"role": message.role, "content": protect(message.content)}
    if message.reasoning:
        turn["reasoning_content"] = protect(message.reasoning)
    if message.tool_calls:
        turn["tool_calls"] = [{"type": "function", "function": _function(call, protect)} for call in message.tool_calls]
    return turn


def _function(call: str, protect: Callable[[str], str]) -> dict[str, Any]:
    try:
        function = json.loads(protect(call))
    except ValueError:
        function = None
    return function if isinstance(function, dict) else {"name": protect(call), "arguments": {}}
