"""GQA is Qwen2, parameter for parameter: the same weights give the same logits, gradients and texts."""

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from buddygpt.model import BuddyGPTConfig, BuddyGPTForCausalLM

GEOMETRY = {
    "vocab_size": 301,
    "hidden_size": 96,
    "num_hidden_layers": 3,
    "max_position_embeddings": 256,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "intermediate_size": 160,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
}


@pytest.fixture
def pair():
    torch.manual_seed(0)
    theirs = Qwen2ForCausalLM(
        Qwen2Config(**GEOMETRY, rope_parameters={"rope_type": "default", "rope_theta": 10_000.0}, initializer_range=0.1)
    ).eval()
    for parameter in theirs.parameters():  # biases and norms away from 0 and 1, so that a swapped one shows
        parameter.data += 0.05 * torch.randn_like(parameter)
    ours = BuddyGPTForCausalLM(BuddyGPTConfig(**GEOMETRY)).eval()
    ours.load_state_dict({our_name(name): tensor for name, tensor in theirs.state_dict().items()})
    return ours, theirs


def our_name(theirs: str) -> str:
    return theirs.replace("post_attention_layernorm", "post_layernorm")


def test_logits_and_gradients(pair, same_gradients):
    same_gradients(pair, lambda state: {our_name(name): tensor for name, tensor in state.items()})


def test_padding_on_the_left(pair):
    ids = torch.randint(301, (2, 20))
    mask = torch.ones_like(ids)
    mask[1, :8] = 0
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    ours, theirs = (model(ids, attention_mask=mask, position_ids=positions).logits for model in pair)
    torch.testing.assert_close(ours[mask.bool()], theirs[mask.bool()], rtol=0, atol=1e-5)


def test_greedy_texts(pair, same_texts):
    same_texts(pair)


def test_bf16_under_autocast(pair):
    ids = torch.randint(301, (2, 48))
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        losses = [float(model(ids, labels=ids).loss) for model in pair]
    assert abs(losses[0] - losses[1]) < 0.02
