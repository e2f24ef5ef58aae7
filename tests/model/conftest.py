import pytest
import torch

from buddygpt.model import BuddyGPTConfig, BuddyGPTForCausalLM

SMALL = {"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2, "max_position_embeddings": 128}
VARIANTS = {
    "gqa": {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 48},
    "mha": {"num_attention_heads": 4, "num_key_value_heads": 4, "intermediate_size": 48},
    "mqa-untied": {
        "num_attention_heads": 4, "num_key_value_heads": 1, "intermediate_size": 48, "head_dim": 16,
        "attention_bias": False, "tie_word_embeddings": False,
    },
    "qk-norm": {
        "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 48, "attention_bias": False,
        "qk_norm": True,
    },
    "mla": {
        "attention_kind": "mla", "num_attention_heads": 4, "q_lora_rank": 8, "kv_lora_rank": 8,
        "qk_rope_head_dim": 4, "qk_nope_head_dim": 8, "v_head_dim": 12, "intermediate_size": 48,
    },
    "mla-wide": {
        "attention_kind": "mla", "num_attention_heads": 4, "q_lora_rank": 8, "kv_lora_rank": 24,
        "qk_rope_head_dim": 4, "qk_nope_head_dim": 8, "v_head_dim": 16, "intermediate_size": 48,
    },
    "mla-moe": {
        "attention_kind": "mla", "num_attention_heads": 4, "q_lora_rank": 8, "kv_lora_rank": 8,
        "qk_rope_head_dim": 4, "qk_nope_head_dim": 8, "v_head_dim": 8, "mlp_kind": "moe", "n_routed_experts": 4,
        "num_experts_per_tok": 2, "n_shared_experts": 1, "moe_intermediate_size": 24,
    },
    "moe": {
        "num_attention_heads": 4, "num_key_value_heads": 2, "mlp_kind": "moe", "n_routed_experts": 4,
        "num_experts_per_tok": 2, "n_shared_experts": 1, "moe_intermediate_size": 24,
    },
}  # fmt: skip


@pytest.fixture(params=VARIANTS)
def variant(request):
    return request.param


@pytest.fixture
def make():
    """A small model of a variant with weights large enough that attention matters."""

    def maker(variant="gqa", seed=0, **changes):
        torch.manual_seed(seed)
        config = BuddyGPTConfig(**SMALL | VARIANTS[variant] | {"initializer_range": 0.2} | changes)
        return BuddyGPTForCausalLM(config).eval()

    return maker
