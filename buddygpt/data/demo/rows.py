"""The demo world as rows of fine-tuning data: talks and pairs of the train split, which hold nothing held out."""

from __future__ import annotations

from collections.abc import Iterator

from buddygpt.data.demo.choices import PreferencePair, preference_pairs
from buddygpt.data.demo.questions import dialogues
from buddygpt.data.demo.split import Split
from buddygpt.data.formats.values import Message, Pair, Talk


def talks(seed: int) -> Iterator[Talk]:
    """The dialogues to learn from, in the order in which `dialogues` shuffles them."""
    for dialogue in dialogues(seed, "train"):
        yield Talk(to_messages(dialogue.messages))


def pairs(seed: int, split: Split = "train") -> Iterator[Pair]:
    """The preference pairs of a split: a question with a true and a false reply, equal but for the value."""
    for pair in preference_pairs(seed, split):
        yield to_pair(pair)


def to_messages(messages: tuple[dict[str, str], ...]) -> tuple[Message, ...]:
    """A dialogue's messages as those of a row."""
    return tuple(Message(message["role"], message["content"]) for message in messages)  # type: ignore[arg-type]


def to_pair(pair: PreferencePair) -> Pair:
    """A preference pair as a row."""
    chosen, rejected = Message("assistant", pair.chosen), Message("assistant", pair.rejected)
    return Pair((Message("user", pair.prompt),), chosen, rejected)
