"""A longer context takes hold everywhere: the angles themselves, in the model, after reload, after export (S7).

The scalings' own mathematics is in test_rope.py, their parity with transformers in parity/test_rope.py.
"""

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

import buddygpt
from buddygpt.model import BuddyGPTConfig, modeling
from buddygpt.model.architectures import choose, native_config
from buddygpt.model.context import as_before, extend
from buddygpt.model.interop import export
from buddygpt.model.rope import SCALINGS, rotary_tables
from buddygpt.recipe.model import DynamicRope, LinearRope, Llama3Rope, NTKRope, YarnRope

KINDS = [kind for kind in SCALINGS if kind != "default"]
OLD, NEW = 1024, 4096
POSITIONS = torch.arange(NEW)[None]


@pytest.fixture
def seen(monkeypatch):
    """The tables by which our models turn, call by call."""
    tables = []
    monkeypatch.setattr(modeling, "rotary_tables", lambda *a: tables.append(rotary_tables(*a)) or tables[-1])
    return tables


def run(model, tokens=NEW):
    with torch.no_grad():
        model.model(torch.zeros(1, tokens, dtype=torch.long))


def native_tables(model):
    """cos and sin by which one of transformers' own models turns, through its own rotary module."""
    assert type(model).__module__.startswith("transformers.")
    return model.base_model.rotary_emb(torch.zeros(1, NEW, 1), POSITIONS)


def see_same(ours, theirs):
    """Frequencies agree to some 1e-7 of themselves, and angles go up to 4,096 radians."""
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=2e-3)


@pytest.mark.parametrize("variant", ["gqa", "mla"])
def test_a_linear_fourfold_context_turns_position_4000_as_it_did_1000(make, seen, variant):
    model = make(variant, max_position_embeddings=OLD)
    run(model)
    buddygpt.extend(model, NEW, "linear")
    run(model)
    (cos, sin), (longer_cos, longer_sin) = seen
    # 4000 / 4 = 1000: the angles agree to fp32's rounding of angles of up to 1,000 radians, 6e-5.
    torch.testing.assert_close(longer_cos[0, 4000], cos[0, 1000], rtol=0, atol=1e-4)
    torch.testing.assert_close(longer_sin[0, 4000], sin[0, 1000], rtol=0, atol=1e-4)
    torch.testing.assert_close(longer_cos[0, ::4], cos[0, :OLD], rtol=0, atol=1e-4)
    assert (longer_cos[0, 4000] - cos[0, 4000]).abs().max() > 0.1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("variant", ["gqa", "mla"])
def test_the_tables_stay_from_extension_over_reload_to_a_fresh_model(make, seen, tmp_path, variant, kind):
    model = make(variant, max_position_embeddings=OLD)
    run(model)
    buddygpt.extend(model, NEW, kind)
    run(model)
    model.save_pretrained(tmp_path)
    run(AutoModelForCausalLM.from_pretrained(tmp_path))
    run(make(variant, max_position_embeddings=NEW, rope_parameters=model.config.rope_parameters))
    before, after, reloaded, fresh = seen
    assert max(float((a - b).abs().max()) for a, b in zip(before, after, strict=True)) > 0.1
    for tables in (reloaded, fresh):
        assert all(torch.equal(a, b) for a, b in zip(after, tables, strict=True))


@pytest.mark.parametrize("variant", ["gqa", "mla"])
def test_an_export_turns_by_the_same_tables(make, seen, tmp_path, variant):
    model = buddygpt.extend(make(variant, max_position_embeddings=OLD), NEW)
    run(model)
    export(model, tmp_path / "out")
    native = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert native.config.max_position_embeddings == NEW
    see_same(seen[0], native_tables(native))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("variant", ["gqa", "mla"])
def test_the_config_of_an_export_gives_the_same_tables(make, seen, tmp_path, variant, kind):
    model = buddygpt.extend(make(variant, max_position_embeddings=OLD), NEW, kind)
    run(model)
    native_config(model.config, choose(model.config, "auto")).save_pretrained(tmp_path)
    native = AutoModel.from_config(AutoConfig.from_pretrained(tmp_path))
    see_same(seen[0], native_tables(native))


SHORT = {
    "linear": LinearRope(kind="linear", factor=2),
    "ntk": NTKRope(kind="ntk", factor=2),
    "dynamic": DynamicRope(kind="dynamic", factor=2, original_max_position_embeddings=OLD),
    "yarn": YarnRope(kind="yarn", factor=2, original_max_position_embeddings=OLD),
    "llama3": Llama3Rope(kind="llama3", factor=2, original_max_position_embeddings=OLD),
}


@pytest.mark.parametrize("kind", ["linear", "ntk", "yarn"])
def test_a_factor_below_what_the_length_needs_is_one_line(kind):
    config = BuddyGPTConfig(max_position_embeddings=OLD)
    before = config.to_dict()
    with pytest.raises(ValueError) as caught:
        buddygpt.extend(config, NEW, SHORT[kind])
    told = str(caught.value)
    assert "\n" not in told
    assert told.startswith("factor: 2 x 1024 tokens do not reach") and told.endswith("4096; at least 4 does")
    assert config.to_dict() == before


@pytest.mark.parametrize("kind", ["dynamic", "llama3"])
def test_a_factor_that_is_no_ratio_of_lengths_is_taken_as_it_stands(kind):
    """Dynamic NTK's base grows with the text without an end; Llama 3.1 itself has 8 x 8,192 for 131,072."""
    config = buddygpt.extend(BuddyGPTConfig(max_position_embeddings=OLD), NEW, SHORT[kind])
    assert config.rope_parameters["factor"] == 2


def test_every_scaling_has_its_say_here():
    assert set(SHORT) == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_as_before_a_model_turns_by_the_angles_of_old(make, kind):
    model, ids = make("gqa", max_position_embeddings=64), torch.arange(96)[None] % 40
    with torch.no_grad():
        before = model(ids).logits
        was = model.config.max_position_embeddings, model.config.rope_parameters
        extend(model, 256, kind)
        after = model(ids).logits
        with pytest.raises(KeyError), as_before(model, *was):
            assert model.config.max_position_embeddings == 64
            assert torch.equal(model(ids).logits, before)
            raise KeyError
        assert torch.equal(model(ids).logits, after) and not torch.equal(after, before)
    assert model.config.max_position_embeddings == 256 and model.config.rope_parameters["rope_type"] == kind
