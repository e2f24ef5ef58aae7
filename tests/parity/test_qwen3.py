"""GQA with QK-norm is Qwen3, and an import of it gives the same logits, gradients and texts."""

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from buddygpt.model.interop import from_state


@pytest.fixture(params=[False, True], ids=["no biases", "biases"])
def pair(request):
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=301, hidden_size=96, num_hidden_layers=3, max_position_embeddings=256, num_attention_heads=6,
        num_key_value_heads=2, head_dim=20, intermediate_size=160, tie_word_embeddings=True, initializer_range=0.1,
        attention_bias=request.param,
    )  # fmt: skip
    theirs = Qwen3ForCausalLM(config).eval()
    for name, parameter in theirs.named_parameters():
        if not name.endswith("o_proj.bias"):
            parameter.data += 0.05 * torch.randn_like(parameter)
    return from_state(theirs.config, theirs.state_dict()), theirs


def test_logits_and_gradients(pair, same_gradients):
    assert pair[0].config.qk_norm and pair[0].config.head_dim == 20
    same_gradients(
        pair, lambda state: {n.replace("post_attention_layernorm", "post_layernorm"): t for n, t in state.items()}
    )


def test_greedy_texts(pair, same_texts):
    same_texts(pair)
