"""Loading whole or not at all, and BuddyGPT to transformers' own architectures and back."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
)

from buddygpt.model import BuddyGPTForCausalLM
from buddygpt.model.architectures import _our_rope, buddy_config, choose, native_config, native_state
from buddygpt.model.interop import as_buddygpt, export, from_state, load
from buddygpt.recipe.errors import BuddyError

EXPORTABLE = {
    "gqa": "qwen2", "mha": "qwen2", "mqa-untied": "qwen2", "qk-norm": "qwen3", "mla": "deepseek_v3",
    "mla-moe": "deepseek_v3",
}  # fmt: skip


@pytest.fixture
def uneven(make):
    """A model in which no tensor is at its initial value, so that a lost or swapped one shows."""

    def maker(variant, **changes):
        model = make(variant, **changes)
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.data += 0.05 * torch.randn_like(tensor)
        return model

    return maker


def same(a, b):
    assert a.keys() == b.keys()
    for name, tensor in a.items():
        assert tensor.dtype == b[name].dtype and torch.equal(tensor, b[name]), name


@pytest.mark.parametrize("variant", EXPORTABLE)
def test_there_and_back_bit_for_bit(uneven, variant):
    ours = uneven(variant, bos_token_id=None, eos_token_id=3, pad_token_id=0)
    arch = choose(ours.config, "auto")
    assert arch == EXPORTABLE[variant]
    native = native_config(ours.config, arch)
    state = native_state(ours.config, arch, ours.state_dict())
    back = from_state(native, state)
    same(back.state_dict(), ours.state_dict())
    aside = {"dtype", "transformers_version", "_name_or_path", "architectures"}
    assert {k: v for k, v in back.config.to_dict().items() if k not in aside} == {
        k: v for k, v in ours.config.to_dict().items() if k not in aside
    }


@pytest.mark.parametrize("variant", EXPORTABLE)
def test_a_folder_that_transformers_wrote_comes_in_and_goes_out_again(uneven, variant, tmp_path):
    """Their class, their files, our class, their tensors."""
    ours = uneven(variant)
    arch = EXPORTABLE[variant]
    native = native_config(ours.config, arch)
    theirs = AutoModelForCausalLM.from_config(native)
    for name, tensor in theirs.named_parameters():
        if not name.endswith("o_proj.bias"):
            tensor.data += 0.05 * torch.randn_like(tensor)
    if variant == "mqa-untied":
        native.attention_bias = True  # it has biases that are not zero
    theirs.save_pretrained(tmp_path)
    written = load_file(tmp_path / "model.safetensors")
    model = as_buddygpt(tmp_path)
    ids = torch.randint(97, (2, 20))
    torch.testing.assert_close(model.eval()(ids).logits, theirs.eval()(ids).logits, rtol=0, atol=1e-5)
    again = native_state(model.config, arch, model.state_dict())
    same(dict(sorted(again.items())), dict(sorted(written.items())))


def test_experts_stacked_or_one_by_one(uneven):
    ours = uneven("mla-moe")
    native = native_config(ours.config, "deepseek_v3")
    single = native_state(ours.config, "deepseek_v3", ours.state_dict())
    stacked = {k: v for k, v in single.items() if ".experts." not in k}
    for layer in range(2):
        stem = f"model.layers.{layer}.mlp.experts"
        gate, up, down = (
            torch.stack([single[f"{stem}.{e}.{part}_proj.weight"] for e in range(4)]) for part in ("gate", "up", "down")
        )
        stacked |= {f"{stem}.gate_up_proj": torch.cat((gate, up), dim=1), f"{stem}.down_proj": down}
    assert stacked.keys() < DeepseekV3ForCausalLM(native).state_dict().keys()
    same(from_state(native, stacked).state_dict(), ours.state_dict())


def test_what_qwen_always_has_is_written_as_zeros(make):
    ours = make("mqa-untied")
    state = native_state(ours.config, "qwen2", ours.state_dict())
    biases = {k: v for k, v in state.items() if k.endswith(".bias")}
    assert len(biases) == 3 * 2 and not any(v.any() for v in biases.values())
    ours = make("qk-norm", attention_bias=True)
    state = native_state(ours.config, "qwen3", ours.state_dict())
    assert not state["model.layers.1.self_attn.o_proj.bias"].any()
    state["model.layers.1.self_attn.o_proj.bias"][3] = 1
    with pytest.raises(BuddyError, match=r"model.layers.1.self_attn.o_proj.bias is not zero"):
        from_state(native_config(ours.config, "qwen3"), state)


def test_rope_scalings_pass_through(make):
    config = make("gqa").config
    for rope in (
        {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 4.0},
        {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0, "original_max_position_embeddings": 32, "mscale": None},
    ):
        config.rope_parameters = rope
        theirs = native_config(config, "qwen2").rope_parameters
        assert theirs == {k: v for k, v in rope.items() if v is not None}
    config.rope_parameters = {"rope_type": "ntk", "rope_theta": 10_000.0, "factor": 4.0}
    assert native_config(config, "qwen2").rope_parameters == {
        "rope_type": "default", "rope_theta": 10_000.0 * 4.0 ** (8 / 6)
    }  # fmt: skip
    dynamic = {"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 4.0}
    config.rope_parameters = dynamic | {"original_max_position_embeddings": 32}
    theirs = native_config(config, "qwen2")
    assert theirs.rope_parameters == dynamic and theirs.max_position_embeddings == 32
    assert _our_rope(theirs) == {"rope_parameters": config.rope_parameters, "max_position_embeddings": 128}


SCALINGS = {
    "linear": {}, "ntk": {}, "dynamic": {"original_max_position_embeddings": 32},
    "yarn": {"original_max_position_embeddings": 32}, "llama3": {"original_max_position_embeddings": 32},
}  # fmt: skip


@pytest.mark.parametrize("kind", SCALINGS)
@pytest.mark.parametrize("variant", ["gqa", "mla"])
def test_scaled_positions_are_equal_there(uneven, tmp_path, variant, kind):
    rope = {"rope_type": kind, "rope_theta": 10_000.0, "factor": 4.0} | SCALINGS[kind]
    ours = uneven(variant, rope_parameters=rope)
    arch = EXPORTABLE[variant]
    native_config(ours.config, arch).save_pretrained(tmp_path)
    save_file(native_state(ours.config, arch, ours.state_dict()), tmp_path / "model.safetensors", {"format": "pt"})
    back = as_buddygpt(tmp_path)  # which compares logits over the whole context with transformers' own
    assert back.config.max_position_embeddings == 128
    ids = torch.randint(97, (1, 100))
    torch.testing.assert_close(back(ids).logits, ours(ids).logits, rtol=0, atol=1e-5)


def test_older_flat_rope_fields():
    assert buddy_config(Qwen2Config(rope_theta=5e5)).rope_parameters == {"rope_type": "default", "rope_theta": 5e5}


@pytest.mark.parametrize(
    ("variant", "changes", "arch", "told"),
    [
        ("moe", {}, "auto", "nearest .* mla with mlp moe"),
        ("gqa", {}, "qwen3", "qwen2 holds it"),
        ("qk-norm", {}, "qwen2", "qwen3 holds it"),
        ("mla", {}, "qwen2", "deepseek_v3 holds it"),
        ("gqa", {}, "qwen4", "did you mean 'qwen"),
        ("mla-moe", {"n_routed_experts": 1, "num_experts_per_tok": 1}, "auto", "at least 2"),
    ],
)
def test_what_no_architecture_holds_is_refused(make, tmp_path, variant, changes, arch, told):
    with pytest.raises(BuddyError, match=told):
        export(make(variant, **changes), tmp_path / "out", arch)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (Qwen2Config(use_sliding_window=True), "use_sliding_window True"),
        (Qwen2Config(hidden_act="gelu"), "hidden_act gelu"),
        (Qwen3Config(layer_types=["sliding_attention"] * 32), "layer_types"),
        (DeepseekV3Config(), "first_k_dense_replace 3"),
        (DeepseekV3Config(first_k_dense_replace=0), "topk_group 4"),
        (DeepseekV3Config(first_k_dense_replace=99, q_lora_rank=None), "q_lora_rank null"),
        (DeepseekV3Config(first_k_dense_replace=99, attention_bias=True), "attention_bias True"),
        (AutoConfig.for_model("gpt2"), "'gpt2' cannot become a BuddyGPT"),
    ],
)
def test_settings_without_an_equal_are_refused_by_name(config, told):
    with pytest.raises(BuddyError, match=told):
        buddy_config(config)


def test_rope_that_is_not_known_is_refused():
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "factor": 2.0, "short_factor": [1.0], "long_factor": [1.0]}
    with pytest.raises(BuddyError, match=r"rope|kind"):
        buddy_config(Qwen2Config(hidden_size=16, num_attention_heads=8, rope_parameters=rope))


def broken(state, fault):
    name = "model.layers.1.mlp.up_proj.weight"
    match fault:
        case "missing":
            del state[name]
        case "left over":
            state["model.layers.9.mlp.up_proj.weight"] = torch.zeros(2)
        case "misshapen":
            state[name] = torch.zeros(3, 32)
        case "not finite":
            state[name][0, 0] = float("inf")
    return "layers.9.mlp" if fault == "left over" else name


@pytest.mark.parametrize("fault", ["missing", "left over", "misshapen", "not finite"])
@pytest.mark.parametrize("arch", ["buddygpt", "qwen2"])
def test_tensors_that_are_not_right_are_refused_by_name(make, tmp_path, fault, arch):
    ours = make("gqa")
    ours.save_pretrained(tmp_path)
    state = {k: v for k, v in ours.state_dict().items() if k != "lm_head.weight"}
    if arch == "qwen2":
        native_config(ours.config, arch).save_pretrained(tmp_path)
        state = native_state(ours.config, arch, state)
    name = broken(state, fault)
    save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    for way in (as_buddygpt, *([load] if arch == "buddygpt" else [])):
        with pytest.raises(BuddyError, match=fault) as told:
            way(tmp_path)
        assert name in str(told.value) and len(told.value.lines) == 1
    if arch == "qwen2":
        with pytest.raises(BuddyError, match=fault):
            from_state(native_config(ours.config, arch), state)


def test_a_head_that_differs_from_its_embedding_is_refused(make, tmp_path):
    ours = make("gqa")
    ours.save_pretrained(tmp_path)
    state = {k: v.clone() for k, v in ours.state_dict().items()}
    state["lm_head.weight"][0] += 1
    save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(BuddyError, match="the head differs"):
        load(tmp_path)


@pytest.fixture
def origin(uneven, tmp_path):
    """A folder as the origin's code leaves it, with a module beside it that would leave a mark if it ran."""
    model = uneven("gqa", rope_parameters={"rope_type": "default", "rope_theta": 100_000.0})
    model.save_pretrained(tmp_path)
    config = {
        "architectures": ["BuddyGPTForCausalLM"], "model_type": "buddygpt", "attention_dropout": 0.0,
        "attn_impl": "sdpa", "auto_map": {
            "AutoConfig": "modeling.Config", "AutoModelForCausalLM": "modeling.Model"
        }, "bos_token_id": None, "eos_token_id": 5, "pad_token_id": 4, "hidden_act": "silu", "hidden_size": 32,
        "initializer_range": 0.02, "intermediate_size": 48, "kv_lora_rank": 16, "moe_intermediate_size": None,
        "n_expert": None, "n_expert_per_token": 2, "n_group": 2, "n_shared_experts": 2, "n_topk_group": 1,
        "norm_topk_prob": True, "num_attention_heads": 4, "num_hidden_layers": 2, "num_key_value_heads": 2,
        "num_seq_len": 128, "q_lora_rank": 16, "qk_nope_head_dim": 12, "qk_rope_head_dim": 4, "rms_norm_eps": 1e-6,
        "rope_theta": 100000.0, "routed_scaling_factor": 0.2, "scoring_func": "sigmoid", "tie_word_embeddings": True,
        "topk_method": "noaux_tc", "torch_dtype": "float32", "transformers_version": "4.52.4", "use_cache": True,
        "v_head_dim": 16, "vocab_size": 97,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "modeling.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    return model, tmp_path, config


def test_the_origins_folder(origin):
    model, folder, _ = origin
    loaded = load(folder)
    assert isinstance(loaded, BuddyGPTForCausalLM)
    same(loaded.state_dict(), model.state_dict())
    ids = torch.randint(97, (1, 20))
    assert torch.equal(loaded.eval()(ids).logits, model(ids).logits)
    assert loaded.config.max_position_embeddings == 128 and loaded.config.eos_token_id == 5
    assert not hasattr(loaded.config, "auto_map") and not hasattr(loaded.config, "num_seq_len")
    assert not (folder / "ran").exists()


@pytest.mark.parametrize("change", [{"attn_impl": "mla"}, {"n_expert": 16}, {"hidden_act": "gelu"}])
def test_the_origins_other_models_are_refused_by_name(origin, change):
    _, folder, config = origin
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(BuddyError, match=next(iter(change))):
        load(folder)


def test_remote_code_of_any_folder_never_runs(tmp_path):
    config = {"model_type": "strange", "auto_map": {"AutoConfig": "m.C", "AutoModelForCausalLM": "m.M"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "m.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(BuddyError, match="cannot be loaded"):
        load(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_an_export_in_bf16_is_proved_and_has_the_tied_matrix_once(uneven, tmp_path):
    """Loads transformers in a process of its own: the one slow test here."""
    model = uneven("mla-moe").to(torch.bfloat16)
    exported = export(model, tmp_path / "new" / "out")
    assert exported.architecture == "DeepseekV3ForCausalLM"
    assert exported.difference <= 1e-5
    files = load_file(tmp_path / "new" / "out" / "model.safetensors")
    assert "lm_head.weight" not in files and files["model.embed_tokens.weight"].dtype == torch.bfloat16
    held = sum(t.nbytes for t in files.values())
    assert abs((tmp_path / "new" / "out" / "model.safetensors").stat().st_size - held) < 8_000  # the names
    assert exported.parameters == model.num_parameters()
    assert str(tmp_path) not in (tmp_path / "new" / "out" / "config.json").read_text()
    back = as_buddygpt(tmp_path / "new" / "out")
    assert back.dtype == torch.bfloat16
    for name, tensor in back.state_dict().items():  # transformers widens routers to fp32
        assert torch.equal(tensor.float(), model.state_dict()[name].float()), name


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device"), RuntimeError("x")])
def test_an_export_that_breaks_off_leaves_nothing(make, tmp_path, monkeypatch, error):
    def break_off(*_):
        assert list(tmp_path.rglob("model.safetensors"))
        raise error

    monkeypatch.setattr("buddygpt.model.interop.reload", break_off)
    with pytest.raises(BuddyError if isinstance(error, OSError) else type(error)):
        export(make("gqa"), tmp_path / "new" / "out")
    assert list(tmp_path.iterdir()) == []


def test_weights_that_are_not_finite_are_not_exported(make, tmp_path):
    model = make("gqa")
    model.model.norm.weight.data[0] = float("nan")
    with pytest.raises(BuddyError, match=r"model.norm.weight holds numbers that are not finite"):
        export(model, tmp_path / "out")


def test_an_import_that_is_not_equal_is_refused(uneven, tmp_path, monkeypatch):
    model = uneven("gqa")
    theirs = Qwen2ForCausalLM(native_config(model.config, "qwen2"))
    theirs.save_pretrained(tmp_path)
    fields = {"rope_parameters": {"rope_type": "default", "rope_theta": 123.0}}
    monkeypatch.setattr("buddygpt.model.architectures._our_rope", lambda native: fields)
    with pytest.raises(BuddyError, match="other logits"):
        as_buddygpt(tmp_path)


def test_a_tokenizer_that_transformers_would_replace_is_refused(make, tmp_path):
    """transformers gives a folder of Qwen2 Qwen2's own way of cutting words, whatever the tokenizer's file says."""
    plain = Tokenizer(models.BPE())
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    plain.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    plain.train_from_iterator(["第一题。\n\n第二题。\n\nit's 12 and 345, isn't it? " * 20], trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain)
    with pytest.raises(BuddyError, match="reads a text otherwise"):
        export(make("gqa"), tmp_path / "out", tokenizer=tokenizer)
    assert not (tmp_path / "out").exists()
