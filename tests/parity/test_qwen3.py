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


def test_logits_and_gradients(pair):
    ids = torch.randint(301, (2, 48))
    ours, theirs = pair
    assert ours.config.qk_norm and ours.config.head_dim == 20
    torch.testing.assert_close(ours(ids).logits, theirs(ids).logits, rtol=0, atol=1e-5)
    for model in pair:
        model(ids, labels=ids).loss.backward()
    their_gradients = {
        name.replace("post_attention_layernorm", "post_layernorm"): parameter.grad
        for name, parameter in theirs.named_parameters()
    }
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, their_gradients[name], rtol=0, atol=1e-5, msg=name)


def test_greedy_texts(pair):
    ids = torch.randint(301, (2, 10))
    mask = torch.ones_like(ids)
    mask[0, :4] = 0
    options = {"attention_mask": mask, "max_new_tokens": 12, "do_sample": False, "pad_token_id": 0}
    ours, theirs = (model.generate(ids, eos_token_id=None, **options) for model in pair)
    assert torch.equal(ours, theirs)
