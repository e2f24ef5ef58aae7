"""Parameters counted without a model; remarks where a geometry costs something, and none where it does not."""

import pytest

from buddygpt.recipe.geometry import cache_numbers, count_parameters, native_architecture, size_line
from buddygpt.recipe.lint import remarks
from buddygpt.recipe.loader import load_recipe
from buddygpt.recipe.model import ModelSection
from buddygpt.recipe.shipped import shipped_recipes

COUNTS = {
    "0.1b": (158_974_464, 116_481_792, 158_974_464),
    "0.1b-32k": (67_658_496, 25_165_824, 67_658_496),
    "0.3b": (381_900_800, 155_309_056, 381_900_800),
    "0.3b-mla": (433_026_432, 232_963_584, 433_026_432),
    "0.7b-moe": (803_546_880, 232_963_584, 407_185_152),
}
"""Parameters, those of the embedding, those active for a token."""

GQA = {"kind": "gqa", "num_attention_heads": 16, "num_key_value_heads": 4}
MLA = {
    "kind": "mla", "num_attention_heads": 16, "q_lora_rank": 512, "kv_lora_rank": 512, "qk_rope_head_dim": 64,
    "qk_nope_head_dim": 128, "v_head_dim": 128,
}  # fmt: skip
DENSE = {"kind": "dense", "intermediate_size": 2816}
MOE = {
    "kind": "moe", "n_routed_experts": 16, "num_experts_per_tok": 2, "n_shared_experts": 1,
    "moe_intermediate_size": 704,
}  # fmt: skip


def section(attention=GQA, mlp=DENSE, **changes):
    base = {"vocab_size": 32_000, "hidden_size": 1024, "num_hidden_layers": 24, "max_position_embeddings": 1024}
    return ModelSection.model_validate(base | {"attention": attention, "mlp": mlp} | changes)


def shipped(name):
    return load_recipe(shipped_recipes()[name]).model


@pytest.mark.parametrize("name", COUNTS)
def test_parameters_of_the_family(name):
    counted = count_parameters(shipped(name))
    assert (counted.total, counted.embedding, counted.active) == COUNTS[name]


def test_an_untied_head_is_counted_once_more():
    tied, untied = count_parameters(section()), count_parameters(section(tie_word_embeddings=False))
    assert untied.total - tied.total == untied.head == tied.embedding
    assert untied.vocabulary_share > tied.vocabulary_share


def test_the_cache_of_the_family():
    """Keys and values of 8 heads of 48; a latent of 16 with a rotary key of 24."""
    assert cache_numbers(shipped("0.1b")) == 8 * 2 * 8 * 48
    assert cache_numbers(shipped("0.3b-mla")) == 12 * 40
    assert cache_numbers(shipped("0.7b-moe")) == 24 * 40


@pytest.mark.parametrize(
    ("attention", "mlp", "name"),
    [
        (GQA, DENSE, "qwen2"),
        (GQA | {"qk_norm": True}, DENSE, "qwen3"),
        (MLA, DENSE, "deepseek_v3"),
        (MLA, MOE, "deepseek_v3"),
        (GQA, MOE, None),
    ],
)
def test_native_architecture(attention, mlp, name):
    assert native_architecture(section(attention, mlp)) == name


@pytest.mark.parametrize(("attention", "mlp"), [(GQA, DENSE), (MLA, DENSE), (MLA, MOE)], ids=["gqa", "mla", "moe"])
def test_a_sound_geometry_has_no_remarks(attention, mlp):
    assert remarks(section(attention, mlp)) == []


@pytest.mark.parametrize(
    ("model", "field", "told"),
    [
        (section(hidden_size=768, mlp=DENSE), "attention.num_attention_heads", "12 heads of 64"),
        (section(GQA | {"head_dim": 48}), "attention.head_dim", "head size 48 is refused by vLLM's paged-attention"),
        (section(GQA | {"head_dim": 36, "num_key_value_heads": 16}), "attention.head_dim", "36 is refused by vLLM's"),
        (section(GQA | {"head_dim": 320}), "attention.head_dim", "320 is refused by flash-attn"),
        (section(MLA | {"qk_nope_head_dim": 68}), "attention.qk_nope_head_dim", "head size 132 is refused"),
        (section(MLA | {"kv_lora_rank": 256}), "attention.kv_lora_rank", "latent 256 + rope 64 = 320"),
        (section(MLA | {"qk_rope_head_dim": 32}), "attention.kv_lora_rank", "latent 512 + rope 32 = 544"),
        (section(vocab_size=32_001), "vocab_size", "32,001 is no multiple of 8"),
        (section(GQA | {"head_dim": 64}, hidden_size=1000), "hidden_size", "1,000 is no multiple of 64"),
        (section(mlp=DENSE | {"intermediate_size": 2820}), "mlp.intermediate_size", "2,880 is a multiple of 64"),
        (section(MLA, MOE | {"moe_intermediate_size": 96}), "mlp.moe_intermediate_size", "25% of its matrix tiles"),
        (section(MLA | {"q_lora_rank": 16}), "attention.q_lora_rank", "75% of its matrix tiles"),
        (
            section(GQA | {"head_dim": 80, "num_key_value_heads": 1}), "attention.num_key_value_heads",
            "80 is no multiple of 64",
        ),
        (section(GQA, MOE), "mlp.kind", "exports to no architecture of plain transformers"),
        (section(num_hidden_layers=2), "vocab_size", "parameters are embedding; a smaller vocabulary"),
        (section(num_hidden_layers=4, tie_word_embeddings=False), "vocab_size", "embedding and head"),
    ],
)  # fmt: skip
def test_remarks(model, field, told):
    """Each is told once, under its field, and alone."""
    assert [(r.field, told in str(r)) for r in remarks(model)] == [(field, True)]


def test_latents_of_the_origin_are_told_with_their_tiles():
    told = [str(r) for r in remarks(shipped("0.7b-moe"))]
    assert any("latent 16 + rope 24 = 40" in line and "576" in line for line in told)
    assert sum("75% of its matrix tiles" in line for line in told) == 2


def test_remarks_on_the_smallest_of_the_family():
    fields = [r.field for r in remarks(shipped("0.1b"))]
    assert fields == ["attention.num_attention_heads", "vocab_size", "vocab_size"]
    assert "head size 48" in str(remarks(shipped("0.1b"))[0])
    assert remarks(shipped("tiny")) == []


def test_the_line_of_size():
    assert size_line(shipped("0.1b")) == "158,974,464 parameters, 73% of them embedding; native architecture: qwen2"
    assert "29% of them embedding, 407,185,152 active for a token" in size_line(shipped("0.7b-moe"))
    assert size_line(section(GQA, MOE)).endswith("native architecture: none")
