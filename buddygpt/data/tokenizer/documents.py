"""Encoding of raw text, in which no text can become a control token."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from buddygpt.data.template import Control
from buddygpt.data.tokenizer.content import backend_content
from buddygpt.data.tokenizer.ranks import RankEncoder, rank_encoder
from buddygpt.recipe.errors import BuddyError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


_MANY = 64
"""Texts from which on it is worth to find out whether the fast way is open, which takes up to a second; and texts that
the library encodes in one call: what they leave in memory still fits a processor's cache."""


class DocumentEncoder:
    """Encodes text that people typed. Build it once per process, or pickle it to one.

    It is the tokenizer without its added tokens: a ``<|endoftext|>`` or ``<think>`` in a text becomes
    ordinary pieces that decode to the same characters. All other text gets the ids that the tokenizer gives.
    No token is put before or after a text, and nothing is cut or padded.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._backend = _without_added_tokens(tokenizer)
        self._added = tokenizer.get_added_vocab()

    def __getstate__(self) -> dict[str, Any]:
        """With the fast way: another process gets this for much work, and need not look for it."""
        return vars(self) | {"_ranks": self._ranks}

    @cached_property
    def _ranks(self) -> RankEncoder | None:
        return rank_encoder(json.loads(self._backend.to_str()))

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The token ids of each text, in order."""
        for number, text in enumerate(texts):
            if not _is_unicode(text):
                raise BuddyError(
                    f"tokenizer: text {number} of the batch is not valid Unicode text: {ascii(text)[:80]};"
                    " drop it, or replace its lone surrogates"
                )
        ranks = self._ranks if len(texts) >= _MANY or "_ranks" in vars(self) else None
        if ranks is None:
            return [ids for start in range(0, len(texts), _MANY) for ids in self._listed(texts[start : start + _MANY])]
        return [ids if (ids := ranks.encode(text)) is not None else self._listed([text])[0] for text in texts]

    def _listed(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids by the tokenizer's own library."""
        return [encoding.ids for encoding in self._backend.encode_batch_fast(texts, add_special_tokens=False)]

    def encode_segments(self, documents: Sequence[Sequence[str | Control]]) -> list[list[int]]:
        """The token ids of documents that consist of typed text and of control tokens between.

        Raises:
            BuddyError: the tokenizer has no such control token.
        """
        ids = iter(self.encode([part for document in documents for part in document if isinstance(part, str)]))
        return [
            [token for part in document for token in (next(ids) if isinstance(part, str) else (self._id(part),))]
            for document in documents
        ]

    def encode_labelled(
        self, documents: Sequence[Sequence[tuple[str | Control, int]]]
    ) -> tuple[list[list[int]], list[NDArray[np.uint8]]]:
        """The token ids of documents of labelled segments, and the label of each id.

        Raises:
            BuddyError: the tokenizer has no such control token.
        """
        texts = list(dict.fromkeys(part for document in documents for part, _ in document if isinstance(part, str)))
        known = dict(zip(texts, self.encode(texts), strict=True))  # each once: openings, line breaks, system turns
        ids, labels = [], []
        for document in documents:
            own = [known[part] if isinstance(part, str) else (self._id(part),) for part, _ in document]
            ids.append(list(itertools.chain.from_iterable(own)))
            marks = b"".join([bytes((label,)) * len(part) for (_, label), part in zip(document, own, strict=True)])
            labels.append(np.frombuffer(marks, np.uint8))
        return ids, labels

    def token_id(self, control: Control) -> int | None:
        """The id of a control token; None where the tokenizer has none such."""
        return self._added.get(control.token)

    def _id(self, control: Control) -> int:
        if (token := self.token_id(control)) is None:
            raise BuddyError(
                f"tokenizer: it has no token {control.token}, which the chat template needs for such talks; "
                "use 'qwen3', one trained here, or a model whose tokenizer has it, such as Qwen's"
            )
        return token


def encode_documents(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Encode one batch with a `DocumentEncoder`; to encode more of them build that once."""
    return DocumentEncoder(tokenizer).encode(texts)


def _without_added_tokens(tokenizer: PreTrainedTokenizerBase) -> Tokenizer:
    content = backend_content(tokenizer)
    control = {token["content"]: token["id"] for token in content["added_tokens"] if token["special"]}
    content.update(added_tokens=[], post_processor=None, truncation=None, padding=None)
    backend = Tokenizer.from_str(json.dumps(content))
    for text, token_id in control.items():
        # Some vocabularies hold control tokens as pieces too, and plain text can reach those.
        if token_id != tokenizer.unk_token_id and token_id in backend.encode(text).ids:
            raise BuddyError(
                f"tokenizer: '{text}' typed in a document would become control token {token_id};"
                " use a tokenizer that keeps control tokens out of its vocabulary, such as 'qwen3'"
            )
    return backend


def _is_unicode(text: Any) -> bool:
    try:
        text.encode()
    except (AttributeError, UnicodeEncodeError):
        return False
    return True
