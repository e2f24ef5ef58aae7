"""A tokenizer with chat markers, and a model that says what a table has for a prompt."""

from types import SimpleNamespace

import pytest
import torch

from buddygpt.data.formats import Message
from buddygpt.data.template import END, answer_segments
from buddygpt.data.tokenizer import DocumentEncoder, train_tokenizer
from buddygpt.evaluation.replies import encode_prompts
from buddygpt.model import BuddyGPTConfig, BuddyGPTForCausalLM
from buddygpt.model.modeling import CACHE


@pytest.fixture(scope="session")
def tokenizer():
    return train_tokenizer(["春眠不觉晓，处处闻啼鸟。夜来风雨声，花落知多少。" * 3], 270)


@pytest.fixture
def tiny(tokenizer):
    """An untrained model of the family."""
    torch.manual_seed(0)
    config = BuddyGPTConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        intermediate_size=48, max_position_embeddings=512, initializer_range=0.3, eos_token_id=None,
    )  # fmt: skip
    return BuddyGPTForCausalLM(config)


class Scripted(torch.nn.Module):
    """Says, token for token, what the table has for the ids so far; the end mark where it has nothing."""

    def __init__(self, lines: dict[tuple[int, ...], list[int]], vocabulary: int, end: int):
        super().__init__()
        self.next = {(*prompt, *reply[:i]): token for prompt, reply in lines.items() for i, token in enumerate(reply)}
        self.vocabulary, self.end = vocabulary, end
        self.config = SimpleNamespace(eos_token_id=None, max_position_embeddings=512)
        self.device = torch.device("cpu")

    def forward(self, input_ids, attention_mask, use_cache, past_key_values=None, cache=None, position_ids=None):
        past = past_key_values if CACHE == "past_key_values" else cache
        ids = input_ids if past is None else torch.cat([past, input_ids], dim=1)
        logits = torch.zeros(len(ids), 1, self.vocabulary)
        for row, (seen, real) in enumerate(zip(ids.tolist(), attention_mask.tolist(), strict=True)):
            said = tuple(token for token, kept in zip(seen, real, strict=True) if kept)
            logits[row, 0, self.next.get(said, self.end)] = 1.0
        return Output(logits, ids)


class Output(dict):
    """What a model of transformers gives: the logits, and the cache by its name."""

    def __init__(self, logits, ids):
        super().__init__({CACHE: ids})
        self.logits = logits


@pytest.fixture
def scripted(tokenizer):
    """A model that replies to each prompt of messages; a text that is not to end has `...` behind it."""

    def make(lines: dict[tuple[Message, ...], str]) -> Scripted:
        encoder, end = DocumentEncoder(tokenizer), tokenizer.convert_tokens_to_ids(END.token)
        table = {}
        for prompt, text in lines.items():
            (ids,) = encoder.encode_segments([answer_segments(Message("assistant", text.removesuffix("...")))])
            if text.endswith("..."):
                ids = (ids[:-1] * 100)[:300]
            table[tuple(encode_prompts(tokenizer, [prompt])[0])] = ids
        return Scripted(table, len(tokenizer), end)

    return make
