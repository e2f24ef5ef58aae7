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


def test_logits_and_gradients(pair, same_gradients):
    same_gradients(pair, lambda state: buddy_state(pair[1].config, state))


def test_greedy_texts(pair, same_texts):
    same_texts(pair)
