"""What the tests of preparing text share: recipes, texts and files, and looking into what was prepared."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from buddygpt.data import staging
from buddygpt.data.formats import Message, Pair
from buddygpt.data.template import labelled_segments, pair_segments
from buddygpt.data.tokenizer import DocumentEncoder, make_chat_tokenizer, train_tokenizer
from buddygpt.data.windows import TokenStream
from buddygpt.recipe.schema import Recipe


@pytest.fixture(scope="session")
def make_recipe():
    """A recipe with these sources: paths, or sections; `data` takes more fields of its section."""

    def recipe(*sources: dict | str, vocab_size=1024, tokenizer=None, workers=1, validation=0.2, **data) -> Recipe:
        listed = [{"kind": "files", "paths": [s]} if isinstance(s, str) else s for s in sources]
        return Recipe.model_validate(
            {
                "schema": 1,
                "name": "test",
                "model": {
                    "vocab_size": vocab_size,
                    "hidden_size": 64,
                    "num_hidden_layers": 1,
                    "max_position_embeddings": 256,
                    "attention": {"kind": "gqa", "num_attention_heads": 4, "num_key_value_heads": 2},
                    "mlp": {"kind": "dense", "intermediate_size": 128},
                },
                "tokenizer": tokenizer or {"train": 300},
                "data": {"sources": listed, "validation": validation, "workers": workers, **data},
            }
        )

    return recipe


@pytest.fixture(scope="session")
def make_texts():
    """Short texts, all different."""

    def texts(seed: int, count: int = 40) -> list[str]:
        dice = random.Random(seed)
        words = "春江 潮水 连海平 海上 明月 共潮生 滟滟 随波 千万里 何处 无月明".split()
        return [f"{seed}之{n}：" + "".join(dice.choices(words, k=dice.randint(3, 60))) + "。" for n in range(count)]

    return texts


@pytest.fixture(scope="session")
def write():
    """A .jsonl file of texts; gives its path."""

    def lines(path: Path, texts: list[str]) -> str:
        path.write_text("".join(json.dumps({"text": t}, ensure_ascii=False) + "\n" for t in texts), "utf-8")
        return str(path)

    return lines


@pytest.fixture
def many(tmp_path, monkeypatch, write, make_texts) -> str:
    """A folder of five files, a task for each."""
    monkeypatch.setattr(staging, "BATCH_BYTES", 1)
    folder = tmp_path / "many"
    folder.mkdir()
    for n in range(5):
        write(folder / f"{n}.jsonl", make_texts(n))
    return str(folder)


@pytest.fixture(scope="session")
def contents():
    """Every file of a prepared folder but datatrove's logs."""

    def files(folder: Path) -> dict[str, bytes]:
        found = [p for p in sorted(folder.rglob("*")) if p.is_file() and "logs" not in p.relative_to(folder).parts]
        return {p.relative_to(folder).as_posix(): p.read_bytes() for p in found}

    return files


@pytest.fixture(scope="session")
def texts_of():
    """Documents read back through the stream that training reads."""

    def texts(prepared, source: str, split) -> list[str]:
        tokenizer = prepared.tokenizer()
        stream = TokenStream(source, prepared.open(source, split), tokenizer.eos_token_id)
        found, start = [], 0
        for ends in stream.document_ends():
            for end in ends:
                ids, _ = stream.read(start, int(end))
                assert ids[-1] == tokenizer.eos_token_id and tokenizer.eos_token_id not in ids[:-1]
                found.append(tokenizer.decode(ids[:-1].tolist(), clean_up_tokenization_spaces=False))
                start = int(end)
        return found

    return texts


@pytest.fixture(scope="session")
def chat_tokenizer():
    """A small one of a chat model, trained here."""
    texts = ["春眠不觉晓，处处闻啼鸟。\n\n", "user assistant system name arguments true\n"] * 3
    return make_chat_tokenizer(train_tokenizer(texts, 300))


@pytest.fixture(scope="session")
def chat_encoder(chat_tokenizer):
    return DocumentEncoder(chat_tokenizer)


@pytest.fixture(scope="session")
def make_pair_shard(chat_encoder):
    """Pairs as a shard has them, in memory."""

    def shard(*pairs: Pair) -> MemoryShard:
        return _shard(chat_encoder, [pair_segments(pair) for pair in pairs])

    return shard


@pytest.fixture(scope="session")
def make_talk_shard(chat_encoder):
    """Talks as a shard has them, in memory; each is a list of messages."""

    def shard(*talks: Sequence[Message]) -> MemoryShard:
        return _shard(chat_encoder, [labelled_segments(talk) for talk in talks])

    return shard


@dataclass
class MemoryShard:
    tokens: np.ndarray
    labels: np.ndarray
    document_ends: np.ndarray

    def document(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        start = int(self.document_ends[number - 1]) if number else 0
        own = slice(start, int(self.document_ends[number]))
        return self.tokens[own].astype(np.int64), self.labels[own]


def _shard(encoder, documents) -> MemoryShard:
    ids, labels = encoder.encode_labelled(documents)
    ends = np.cumsum([len(document) for document in ids])
    return MemoryShard(np.array([t for d in ids for t in d], np.uint16), np.concatenate(labels), ends)
