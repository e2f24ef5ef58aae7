import pytest
import torch

from buddygpt.data.demo import paragraphs
from buddygpt.data.tokenizer import train_tokenizer
from buddygpt.model import BuddyGPTConfig, BuddyGPTForCausalLM


@pytest.fixture(scope="session")
def prose():
    return list(paragraphs(5, 30_000))


@pytest.fixture(scope="session")
def tokenizer(prose):
    return train_tokenizer(prose, 600)


@pytest.fixture
def make(tokenizer):
    """A small model with weights large enough that attention matters, in training mode."""

    def maker(**changes):
        torch.manual_seed(0)
        fields = {
            "vocab_size": len(tokenizer), "hidden_size": 32, "num_hidden_layers": 2, "max_position_embeddings": 256,
            "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 48, "initializer_range": 0.2,
            "eos_token_id": tokenizer.eos_token_id,
        }  # fmt: skip
        return BuddyGPTForCausalLM(BuddyGPTConfig(**fields | changes)).train()

    return maker
