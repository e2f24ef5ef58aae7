"""The config.json of github.com/learn2Pro/buddygpt, whose model_type is `buddygpt` too, under our names.

Its GQA models have our tensors' names and shapes. Its MLA and MoE models have the names, but another arithmetic
(heads and positions mixed up, experts of unset bias): they are refused.
"""

from __future__ import annotations

from typing import Any

_DEFAULTS = {
    "vocab_size": 151_669,
    "hidden_size": 4096,
    "intermediate_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "initializer_range": 0.02,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
}
_ONLY_THERE = set(
    "num_seq_len rope_theta attn_impl hidden_act attention_dropout auto_map q_lora_rank kv_lora_rank qk_rope_head_dim "
    "qk_nope_head_dim v_head_dim n_expert n_expert_per_token n_group n_topk_group norm_topk_prob routed_scaling_factor "
    "scoring_func topk_method n_shared_experts moe_intermediate_size".split()
)


def is_origin(fields: dict[str, Any]) -> bool:
    """Whether a config's fields are the origin's: it calls the context `num_seq_len`."""
    return "num_seq_len" in fields and "attention_kind" not in fields


def translate(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields under our names; what was left out has the origin's default.

    Raises:
        ValueError: the model is not a dense one with grouped-query attention.
    """
    if fields.get("attn_impl") == "mla":
        raise ValueError("attn_impl: the origin's mla mixes heads and positions; only its gqa models can be loaded")
    if fields.get("n_expert") is not None:
        raise ValueError("n_expert: the origin's experts have no equal here; only its dense models can be loaded")
    if (activation := fields.get("hidden_act", "silu")) != "silu":
        raise ValueError(f"hidden_act: '{activation}' is not silu, the only one here")
    ours = _DEFAULTS | {k: v for k, v in fields.items() if k not in _ONLY_THERE}
    if ours.get("num_key_value_heads") is None:
        ours["num_key_value_heads"] = ours["num_attention_heads"]
    rope = {"rope_type": "default", "rope_theta": fields.get("rope_theta", 100_000.0)}
    return (
        {"max_position_embeddings": fields["num_seq_len"], "rope_parameters": rope}
        | ours
        | {
            "attention_kind": "gqa",
            "mlp_kind": "dense",
            "attention_bias": True,
        }
    )
