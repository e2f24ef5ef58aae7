"""Updates beside the weights: where they go, that they learn, and that merging changes nothing of what is said."""

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from buddygpt.model import BuddyGPTConfig, BuddyGPTForCausalLM
from buddygpt.recipe.lora import LoraSection
from buddygpt.training.lora import lora_config, merged

SMALL = {"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2, "max_position_embeddings": 64}
GQA = {"num_attention_heads": 4, "num_key_value_heads": 2}
MLA = {
    "attention_kind": "mla", "num_attention_heads": 4, "q_lora_rank": 8, "kv_lora_rank": 8,
    "qk_rope_head_dim": 4, "qk_nope_head_dim": 8, "v_head_dim": 12,
}  # fmt: skip
DENSE = {"intermediate_size": 48}
MOE = {
    "mlp_kind": "moe", "n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1,
    "moe_intermediate_size": 24,
}  # fmt: skip
VARIANTS = {
    "gqa": (GQA | DENSE, "q_proj k_proj v_proj o_proj gate_proj up_proj down_proj"),
    "mla": (MLA | DENSE, "q_down_proj q_up_proj kv_down_proj o_proj gate_proj up_proj down_proj"),
    "gqa-moe": (GQA | MOE, "q_proj k_proj v_proj o_proj gate_proj up_proj down_proj"),
    "mla-moe": (MLA | MOE, "q_down_proj q_up_proj kv_down_proj o_proj gate_proj up_proj down_proj"),
}


def make(variant):
    torch.manual_seed(0)
    return BuddyGPTForCausalLM(BuddyGPTConfig(**SMALL | VARIANTS[variant][0] | {"initializer_range": 0.2}))


def learn(model, steps=3):
    """A few steps of the trainable parameters; the names of those that had a gradient."""
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(list(trainable.values()), lr=0.02)
    moved = set()
    for step in range(steps):
        torch.manual_seed(step)
        ids = torch.randint(97, (2, 12))
        model(input_ids=ids, labels=ids).loss.backward()
        moved |= {name for name, p in trainable.items() if p.grad is not None and p.grad.abs().sum() > 0}
        optimizer.step()
        optimizer.zero_grad()
    return set(trainable), moved


def logits(model):
    torch.manual_seed(9)
    model.eval()
    with torch.no_grad():
        return model(input_ids=torch.randint(97, (2, 12))).logits


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_called_layer_gets_an_update_that_learns_and_merging_changes_nothing(variant, tmp_path):
    model = get_peft_model(make(variant), lora_config(LoraSection(rank=4)))
    trainable, moved = learn(model)
    assert trainable == moved, "an update without a gradient is dead weight"
    assert {name.split(".lora_")[0].rpartition(".")[2] for name in trainable} == set(VARIANTS[variant][1].split())
    assert all("experts.0" not in name and "lm_head" not in name and "embed" not in name for name in trainable)
    before = logits(model)
    assert (before - logits(make(variant))).abs().max() > 1e-2
    model.save_pretrained(tmp_path / "adapter")
    again = PeftModel.from_pretrained(make(variant), tmp_path / "adapter")
    torch.testing.assert_close(logits(again), before, rtol=0, atol=1e-6)
    whole = merged(model)
    assert type(whole) is BuddyGPTForCausalLM
    assert all(p.requires_grad for p in whole.parameters())
    torch.testing.assert_close(logits(whole), before, rtol=0, atol=1e-5)
    whole.save_pretrained(tmp_path / "model")
    loaded = BuddyGPTForCausalLM.from_pretrained(tmp_path / "model")
    torch.testing.assert_close(logits(loaded), before, rtol=0, atol=1e-5)
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight


@pytest.mark.parametrize("variant", VARIANTS)
def test_decoding_from_a_cache_says_the_same_before_merging(variant):
    model = get_peft_model(make(variant), lora_config(LoraSection(rank=4)))
    learn(model)
    model.eval()
    ids = torch.randint(97, (1, 9))
    with torch.no_grad():
        first = model(input_ids=ids[:, :8], use_cache=True)
        second = model(input_ids=ids[:, 8:], past_key_values=first.past_key_values)
        whole = model(input_ids=ids)
    torch.testing.assert_close(second.logits[:, -1], whole.logits[:, -1], rtol=0, atol=1e-5)


def test_pefts_own_all_linear_never_takes_the_head():
    model = get_peft_model(make("gqa"), LoraConfig(target_modules="all-linear", r=4))
    trainable, moved = learn(model)
    assert trainable == moved and not any("lm_head" in name for name in trainable)


def test_alpha_follows_the_rank_unless_given():
    assert lora_config(LoraSection(rank=8)).lora_alpha == 16
    assert lora_config(LoraSection(rank=8, alpha=4)).lora_alpha == 4
