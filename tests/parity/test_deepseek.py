"""MLA, dense and with experts, is DeepSeek-V3: the same weights give the same logits, gradients and texts."""

import pytest
import torch
from transformers import DeepseekV3Config, DeepseekV3ForCausalLM

from buddygpt.model.architectures import buddy_state
from buddygpt.model.interop import from_state

DENSE = {"first_k_dense_replace": 3, "intermediate_size": 100}
MOE = {
    "first_k_dense_replace": 0, "n_routed_experts": 6, "num_experts_per_tok": 2, "n_shared_experts": 2,
    "moe_intermediate_size": 24, "routed_scaling_factor": 1.7, "n_group": 1, "topk_group": 1,
}  # fmt: skip


@pytest.fixture(params=["dense", "moe", "dense, halves"])
def pair(request):
    torch.manual_seed(0)
    config = DeepseekV3Config(
        vocab_size=301, hidden_size=64, num_hidden_layers=3, max_position_embeddings=256, num_attention_heads=4,
        num_key_value_heads=4, q_lora_rank=24, kv_lora_rank=16, qk_rope_head_dim=8, qk_nope_head_dim=12, v_head_dim=20,
        tie_word_embeddings=True, initializer_range=0.1, rope_interleave=request.param != "dense, halves",
        **MOE if request.param == "moe" else DENSE,
    )  # fmt: skip
    theirs = DeepseekV3ForCausalLM(config).eval()
    for parameter in theirs.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    for layer in theirs.model.layers:
        if request.param == "moe":
            layer.mlp.gate.e_score_correction_bias.normal_(0, 0.2)
    return from_state(theirs.config, theirs.state_dict()), theirs


def test_logits_and_gradients(pair):
    ids = torch.randint(301, (2, 48))
    ours, theirs = pair
    torch.testing.assert_close(ours(ids).logits, theirs(ids).logits, rtol=0, atol=1e-5)
    losses = [model(ids, labels=ids).loss for model in pair]
    torch.testing.assert_close(*losses, rtol=0, atol=1e-5)
    for loss in losses:
        loss.backward()
    # Gradients change places as weights do.
    gradients = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    expected = buddy_state(theirs.config, gradients)
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=0, atol=1e-5, msg=name)


def test_greedy_texts(pair):
    """With a cache and padding on the left."""
    ids = torch.randint(301, (2, 10))
    mask = torch.ones_like(ids)
    mask[0, :4] = 0
    options = {"attention_mask": mask, "max_new_tokens": 12, "do_sample": False, "pad_token_id": 0}
    ours, theirs = (model.generate(ids, eos_token_id=None, **options) for model in pair)
    assert torch.equal(ours, theirs)
