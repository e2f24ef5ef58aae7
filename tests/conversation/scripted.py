"""A talk that says what a test tells it to."""

from __future__ import annotations

from dataclasses import dataclass, field

from buddygpt.data.formats import Message
from buddygpt.model.sampling import Sampling


@dataclass
class Scripted:
    """Stands for a `Conversation`.

    Args:
        script: pieces to say; what is raised, and what is called with the talk, between them.
        asked: text, system message and sampling of each reply.
        closed: what was said of each reply when it ended.
    """

    script: list
    converses: bool = True
    emit: object = None
    sampling: Sampling = field(default_factory=lambda: Sampling(16, 0.5, 0.9, None))
    messages: list = field(default_factory=list)
    context: int = 64
    asked: list = field(default_factory=list)
    closed: list = field(default_factory=list)

    @property
    def system(self):
        return next((m.content for m in self.messages if m.role == "system"), "")

    def say(self, text):
        return self._answer(text, list(self.messages))

    def retry(self):
        return self._answer(self.messages[-2].content, self.messages[:-2])

    def _answer(self, text, before):
        self.asked.append((text, self.system, self.sampling))
        said, whole = "", False
        try:
            for piece in self.script:
                if isinstance(piece, Exception):
                    raise piece
                if callable(piece):
                    piece(self)
                    continue
                said += piece
                yield piece
            whole = True
        finally:
            self.closed.append(said)
            if self.converses and (said or whole):
                self.messages = [*before, Message("user", text), Message("assistant", said)]

    def undo(self):
        self.messages = self.messages[:-2]

    def reset(self):
        self.messages = [m for m in self.messages if m.role == "system"]

    def set_system(self, text):
        self.messages = [Message("system", text)] if text else []
