"""Every scaling of RoPE turns as transformers does: the frequencies, and whole models beyond the original length."""

import pytest
import torch
from transformers import DeepseekV3Config, DeepseekV3ForCausalLM, LlamaConfig, Qwen2Config, Qwen2ForCausalLM
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from buddygpt.model import BuddyGPTConfig, BuddyGPTForCausalLM
from buddygpt.model.context import to_transformers
from buddygpt.model.modeling import CACHE
from buddygpt.model.rope import SCALINGS, raised_theta, rotary_tables

ORIGINAL, LENGTH = 32, 128
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": ORIGINAL}
ROPES = {
    "default": {"rope_type": "default"},
    "linear": {"rope_type": "linear", "factor": 4.0},
    "ntk": {"rope_type": "ntk", "factor": 4.0},
    "dynamic": {"rope_type": "dynamic", "factor": 4.0, "original_max_position_embeddings": ORIGINAL},
    "yarn": YARN,
    "yarn with all fields": YARN | {"beta_fast": 4.0, "beta_slow": 0.5, "attention_factor": 1.3, "truncate": False},
    "yarn with mscales": YARN | {"mscale": 0.7, "mscale_all_dim": 1.2},
    "yarn without mscales": YARN | {"mscale": 0.0, "mscale_all_dim": 0.0},
    "llama3": {"rope_type": "llama3", "factor": 4.0, "original_max_position_embeddings": ORIGINAL},
}
GEOMETRY = {
    "vocab_size": 301,
    "hidden_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "intermediate_size": 160,
    "tie_word_embeddings": True,
    "rms_norm_eps": 1e-6,
}
LATENT = {"q_lora_rank": 24, "kv_lora_rank": 16, "qk_rope_head_dim": 16, "qk_nope_head_dim": 16, "v_head_dim": 12}
NAMES = {
    "post_attention_layernorm": "post_layernorm",
    "kv_a_proj_with_mqa": "kv_down_proj",
    "kv_a_layernorm": "kv_down_layernorm",
    "kv_b_proj": "kv_up_proj",
    "q_a_proj": "q_down_proj",
    "q_a_layernorm": "q_down_layernorm",
    "q_b_proj": "q_up_proj",
}


@pytest.fixture(params=ROPES)
def rope(request):
    return {"rope_theta": 10_000.0} | ROPES[request.param]


def shaken(model):
    """Weights large enough that attention matters, and no two alike."""
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return model.eval()


def twin(theirs, config):
    """Our model with the weights of theirs."""
    state = {}
    for name, tensor in theirs.state_dict().items():
        for old, new in NAMES.items():
            name = name.replace(f".{old}.", f".{new}.")
        state[name] = tensor
    ours = BuddyGPTForCausalLM(config)
    ours.load_state_dict(state)
    return ours.eval()


def qwen2(rope):
    torch.manual_seed(0)
    config = BuddyGPTConfig(**GEOMETRY, num_key_value_heads=2, max_position_embeddings=LENGTH, rope_parameters=rope)
    changes = {"num_key_value_heads": 2, "initializer_range": 0.1}
    theirs = shaken(Qwen2ForCausalLM(Qwen2Config(**GEOMETRY | changes | to_transformers(config))))
    return twin(theirs, config), theirs


def deepseek(rope):
    torch.manual_seed(0)
    geometry = GEOMETRY | LATENT
    config = BuddyGPTConfig(**geometry, attention_kind="mla", max_position_embeddings=LENGTH, rope_parameters=rope)
    changes = {
        "num_key_value_heads": 6, "first_k_dense_replace": 2, "n_group": 1, "topk_group": 1, "rope_interleave": False,
        "num_mtp_layers": 0, "initializer_range": 0.1,
    }  # fmt: skip
    theirs = shaken(DeepseekV3ForCausalLM(DeepseekV3Config(**geometry | changes | to_transformers(config))))
    return twin(theirs, config), theirs


@pytest.mark.parametrize("dim", [4, 16, 64, 128])
@pytest.mark.parametrize("original", [32, 1024, 8192])
@pytest.mark.parametrize("theta", [10_000.0, 1e6])
def test_frequencies_and_factor(rope, dim, original, theta):
    rope = {"rope_theta": theta} | {k: v for k, v in rope.items() if k != "rope_theta"}
    if "original_max_position_embeddings" in rope:
        rope["original_max_position_embeddings"] = original
    ours = BuddyGPTConfig(head_dim=dim, max_position_embeddings=4 * original, rope_parameters=rope)
    written = to_transformers(ours)
    theirs = LlamaConfig(head_dim=dim, **written)
    for length in (original // 2, original, 3 * original, 4 * original):
        found, factor = SCALINGS[rope["rope_type"]](ours.rope_parameters, dim, torch.arange(length)[None])
        if written["rope_parameters"]["rope_type"] == "default":
            exponents = torch.arange(0, dim, 2).float() / dim
            expected, their_factor = 1.0 / (written["rope_parameters"]["rope_theta"] ** exponents), 1.0
        else:
            function = ROPE_INIT_FUNCTIONS[written["rope_parameters"]["rope_type"]]
            expected, their_factor = function(theirs, torch.device("cpu"), seq_len=length)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, rtol=2e-6, atol=0)
        assert factor == pytest.approx(their_factor, rel=1e-12)


@pytest.mark.parametrize("make", [qwen2, deepseek])
@pytest.mark.parametrize("tokens", [ORIGINAL // 2, LENGTH - 10])
def test_whole_models(rope, make, tokens):
    ours, theirs = make(rope)
    ids = torch.randint(301, (2, tokens))
    with torch.no_grad():
        expected = theirs(ids).logits
        torch.testing.assert_close(ours(ids).logits, expected, rtol=0, atol=1e-5)
    if rope["rope_type"] != "default" and tokens > ORIGINAL:  # the scaling reaches the logits at all
        plain = twin_without_scaling(ours)
        assert (plain(ids).logits - expected).abs().max() > 1e-3


def twin_without_scaling(model):
    config = BuddyGPTConfig(**model.config.to_dict() | {"rope_parameters": {"rope_theta": 10_000.0}})
    plain = BuddyGPTForCausalLM(config)
    plain.load_state_dict(model.state_dict())
    return plain.eval()


def test_mla_left_to_itself_sharpens_all_logits_as_deepseek(rope):
    """Both mscales at 1, spelt out in the config; an explicit 0 stays off, as in a folder that has none."""
    config = deepseek(rope)[0].config.rope_parameters
    if rope["rope_type"] == "yarn" and not {"mscale", "attention_factor"} & rope.keys():
        assert (config["mscale"], config["mscale_all_dim"]) == (1.0, 1.0)
    else:
        assert config.get("mscale") == rope.get("mscale")
    assert "mscale" not in qwen2(YARN)[0].config.rope_parameters


def test_decoding_through_a_cache(rope):
    """Token by token across the original length, as transformers: under dynamic NTK keys stay as turned."""
    ours, theirs = qwen2(rope)
    ids = torch.randint(301, (2, ORIGINAL + 20))
    caches, pieces = [None, None], ids.split([ORIGINAL - 5, *[1] * 25], dim=1)
    with torch.no_grad():
        full = ours(ids).logits
        for i, piece in enumerate(pieces):
            outs = [m(piece, past_key_values=c, use_cache=True) for m, c in zip((ours, theirs), caches, strict=True)]
            caches = [out[CACHE] for out in outs]
            torch.testing.assert_close(outs[0].logits, outs[1].logits, rtol=0, atol=1e-5)
            end = ORIGINAL - 5 + i
            if rope["rope_type"] != "dynamic":
                torch.testing.assert_close(outs[0].logits[:, -1], full[:, end - 1], rtol=0, atol=1e-5)
    if rope["rope_type"] == "dynamic":
        assert not torch.allclose(outs[0].logits[:, -1], full[:, -1], rtol=0, atol=1e-3)
        within = ids[:, :ORIGINAL]
        torch.testing.assert_close(ours(within).logits[:, -6:], decoded(ours, within, ORIGINAL - 6), rtol=0, atol=1e-5)


def decoded(model, ids, prompt):
    """Logits of all tokens after the prompt, one call for each, through a cache."""
    cache, logits = model(ids[:, :prompt], use_cache=True)[CACHE], []
    for token in ids[:, prompt:].split(1, dim=1):
        out = model(token, cache=cache, use_cache=True)
        cache, logits = out[CACHE], [*logits, out.logits]
    return torch.cat(logits, dim=1)


def test_padded_rows(rope):
    ours, theirs = qwen2(rope)
    ids, mask = torch.randint(301, (2, 60)), torch.ones(2, 60, dtype=torch.long)
    mask[1, :8] = 0
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    with torch.no_grad():
        a, b = (model(ids, attention_mask=mask, position_ids=positions).logits for model in (ours, theirs))
    torch.testing.assert_close(a[mask.bool()], b[mask.bool()], rtol=0, atol=1e-5)


def test_static_ntk_is_default_with_a_raised_base():
    rope, positions = {"rope_type": "ntk", "rope_theta": 10_000.0, "factor": 4.0}, torch.arange(500)[None]
    raised = {"rope_type": "default", "rope_theta": raised_theta(rope, 16)}
    assert raised["rope_theta"] == pytest.approx(10_000.0 * 4.0 ** (16 / 14))
    for a, b in zip(rotary_tables(rope, 16, positions), rotary_tables(raised, 16, positions), strict=True):
        assert torch.equal(a, b)
