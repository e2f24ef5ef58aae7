"""Samples: fixed beginnings, private random numbers, training undisturbed."""

import pytest
import torch

from buddygpt.data.tokenizer import train_tokenizer
from buddygpt.model import BuddyGPTConfig, BuddyGPTForCausalLM
from buddygpt.training.callbacks import complete


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["春眠不觉晓，处处闻啼鸟。夜来风雨声，花落知多少。" * 3], 270)


def test_samples_repeat_and_disturb_nothing(tokenizer):
    """The head has twice the rows that the tokenizer knows."""
    torch.manual_seed(0)
    config = BuddyGPTConfig(
        vocab_size=2 * len(tokenizer), hidden_size=32, num_hidden_layers=1, max_position_embeddings=128,
        num_attention_heads=2, num_key_value_heads=1, intermediate_size=32, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    model = BuddyGPTForCausalLM(config).train()
    state = torch.get_rng_state()
    starts = [[tokenizer.eos_token_id, *ids] for ids in tokenizer(["春眠", "", "花落知多少"])["input_ids"]]
    texts = complete(model, tokenizer, starts, 40, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert len(texts) == 3 and all(texts)
    torch.manual_seed(1)
    assert complete(model, tokenizer, starts, 40, seed=3) == texts
    assert complete(model, tokenizer, starts[:1], 40, seed=3) == texts[:1]
    assert complete(model, tokenizer, starts[:1], 40, seed=4) != texts[:1]
    assert complete(model, tokenizer, [], 40, seed=3) == []
