"""Invariants that every variant of the model must keep."""

from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoConfig, AutoModelForCausalLM

from buddygpt.model import BuddyGPTConfig, BuddyGPTForCausalLM
from buddygpt.model.attention.mla import MLAttention
from buddygpt.model.modeling import CACHE
from buddygpt.recipe.loader import load_recipe
from buddygpt.recipe.shipped import shipped_recipes

pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without")
PARAMETERS = {
    "0.1b": 158_974_464,
    "0.1b-32k": 67_658_496,
    "0.3b": 381_900_800,
    "0.3b-mla": 433_026_432,
    "0.7b-moe": 803_546_880,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_of_the_family(name):
    with torch.device("meta"):
        model = BuddyGPTForCausalLM(BuddyGPTConfig.from_recipe(load_recipe(shipped_recipes()[name])))
    assert model.num_parameters() == PARAMETERS[name]


CPU_BACKENDS = ["sdpa", "eager", "flex_attention"]


@pytest.mark.parametrize("backend", CPU_BACKENDS)
@torch.no_grad()
def test_the_future_is_never_seen(make, variant, backend):
    model = make(variant, attn_implementation=backend)
    ids = torch.randint(97, (2, 24))
    before = model(ids).logits
    for t in (1, 13, 23):
        changed = ids.clone()
        changed[:, t] = (changed[:, t] + 1) % 97
        after = model(changed).logits
        # An expert's matrix product rounds by the number of its rows, which a changed token changes.
        torch.testing.assert_close(before[:, :t], after[:, :t], rtol=1e-5, atol=1e-5)
        assert not torch.allclose(before[:, t:], after[:, t:])


@torch.no_grad()
def test_backends_agree(make, variant):
    ids = torch.randint(97, (2, 24))
    mask = torch.ones_like(ids)
    mask[0, :5] = 0
    found = [make(variant, attn_implementation=b)(ids, attention_mask=mask).logits[mask.bool()] for b in CPU_BACKENDS]
    for other in found[1:]:
        torch.testing.assert_close(found[0], other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("variant", ["mla", "mla-wide", "mla-moe"])
@pytest.mark.parametrize("padded", [False, True])
def test_expanded_and_absorbed_products_agree(make, variant, padded, monkeypatch):
    """The two orders of MLA's products, over 30 tokens fed as 13, 1 and 16, and in one piece."""
    model = make(variant)
    ids, mask = torch.randint(97, (2, 30)), torch.ones(2, 30, dtype=torch.long)
    if padded:
        mask[0, :5] = 0
    found = []
    for absorbed in (True, False):
        monkeypatch.setattr(MLAttention, "_is_absorbed", lambda *a, absorbed=absorbed: absorbed)
        found.append(model(ids, attention_mask=mask).logits)
        parts, cache, fed = [], None, 0
        for piece in ids.split([13, 1, 16], dim=1):
            fed += piece.shape[1]
            out = model(piece, attention_mask=mask[:, :fed], use_cache=True, cache=cache)
            cache = out[CACHE]
            parts.append(out.logits)
        found.append(torch.cat(parts, dim=1))
    real = mask.bool()
    for other in found[1:]:
        torch.testing.assert_close(found[0][real], other[real], rtol=1e-4, atol=1e-4)


def test_which_order_of_products_is_taken(make):
    """A narrow latent is cheaper to look at always; a wide one only where few queries meet many keys."""
    narrow, wide = (make(v).model.layers[0].self_attn for v in ("mla", "mla-wide"))
    assert narrow._is_absorbed(1024, 1024)
    assert narrow._is_absorbed(1024, 1)
    assert not wide._is_absorbed(1024, 1024)
    assert wide._is_absorbed(1024, 1)


@pytest.mark.parametrize("variant", ["mla", "mla-wide", "mla-moe"])
def test_the_cache_holds_latents_and_rotary_keys_alone(make, variant):
    model = make(variant)
    c = model.config
    cache = model(torch.randint(97, (2, 30)), use_cache=True)[CACHE]
    for layer in cache.layers:
        assert layer.keys.numel() + layer.values.numel() == 2 * 30 * (c.kv_lora_rank + c.qk_rope_head_dim)


@pytest.mark.parametrize("name", ["cache", "past_key_values"])
def test_cached_equals_full(make, variant, name):
    model = make(variant)
    ids = torch.randint(97, (2, 30))
    full = model(ids).logits
    parts, cache = [], None
    for piece in ids.split([13, 1, 16], dim=1):
        out = model(piece, use_cache=True, **{name: cache})
        cache = out[CACHE]
        parts.append(out.logits)
    torch.testing.assert_close(torch.cat(parts, dim=1), full, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("backend", CPU_BACKENDS)
@torch.no_grad()
def test_packed_documents_are_as_if_alone(make, variant, backend):
    model = make(variant, attn_implementation=backend)
    a, b = torch.randint(97, (1, 11)), torch.randint(97, (1, 9))
    documents = torch.tensor([[0] * 11 + [1] * 9])
    positions = torch.cat((torch.arange(11), torch.arange(9)))[None]
    packed = model(torch.cat((a, b), dim=1), document_ids=documents, position_ids=positions).logits
    torch.testing.assert_close(packed[:, :11], model(a).logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(packed[:, 11:], model(b).logits, rtol=1e-4, atol=1e-4)
    other = model(torch.cat(((a + 1) % 97, b), dim=1), document_ids=documents, position_ids=positions).logits
    torch.testing.assert_close(packed[:, 11:], other[:, 11:], rtol=1e-5, atol=1e-5)


def test_documents_are_found_where_positions_start_again(make):
    model = make()
    ids = torch.randint(97, (1, 20))
    positions = torch.cat((torch.arange(11), torch.arange(9)))[None]
    documents = torch.tensor([[0] * 11 + [1] * 9])
    found = model(ids, position_ids=positions).logits
    assert torch.equal(found, model(ids, position_ids=positions, document_ids=documents).logits)


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_generation_with_left_padding_equals_each_prompt_alone(make, variant, backend):
    model = make(variant, attn_implementation=backend)
    prompts = [torch.randint(97, (n,)) for n in (3, 9, 6)]
    longest = max(map(len, prompts))
    ids = torch.stack([torch.cat((torch.zeros(longest - len(p), dtype=torch.long), p)) for p in prompts])
    mask = torch.stack([torch.arange(longest) >= longest - len(p) for p in prompts]).long()
    options = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    together = model.generate(ids, attention_mask=mask, **options)[:, longest:]
    for row, prompt in zip(together, prompts, strict=True):
        alone = model.generate(prompt[None], attention_mask=torch.ones_like(prompt)[None], **options)[0, len(prompt) :]
        assert torch.equal(row, alone)


@pytest.mark.parametrize("num_beams", [1, 3])
def test_generation_with_and_without_cache_agree(make, variant, num_beams):
    """Beam search reorders the cache."""
    model = make(variant)
    ids = torch.randint(97, (2, 7))
    options = {
        "attention_mask": torch.ones_like(ids), "max_new_tokens": 12, "do_sample": False, "num_beams": num_beams,
        "eos_token_id": None, "pad_token_id": 0,
    }  # fmt: skip
    assert torch.equal(model.generate(ids, use_cache=True, **options), model.generate(ids, use_cache=False, **options))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_saved_and_loaded(make, variant, dtype, tmp_path):
    model = make(variant).to(dtype)
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path, dtype="auto").eval()
    assert isinstance(again, BuddyGPTForCausalLM)
    assert again.dtype == dtype
    state = model.state_dict()
    for name, tensor in again.state_dict().items():
        assert torch.equal(tensor, state[name]), name
    tied = model.config.tie_word_embeddings
    assert (again.lm_head.weight is again.model.embed_tokens.weight) == tied
    ids = torch.randint(97, (1, 12))
    assert torch.equal(model(ids).logits, again(ids).logits)


def test_rotary_angles_stay_exact_in_bf16(make):
    """A model cast to bf16 must turn by the same angles: bf16 cannot tell position 1000 from 1001."""
    from buddygpt.model.rope import rotary_tables

    positions = torch.tensor([[1000, 1001]])
    torch.set_default_dtype(torch.bfloat16)
    try:
        cos, sin = rotary_tables({"rope_theta": 10_000.0}, 8, positions)
    finally:
        torch.set_default_dtype(torch.float32)
    assert cos.dtype == torch.float32
    torch.testing.assert_close(cos[0, :, 0], torch.tensor([1000.0, 1001.0]).cos(), rtol=0, atol=1e-5)
    torch.testing.assert_close(sin[0, :, 0], torch.tensor([1000.0, 1001.0]).sin(), rtol=0, atol=1e-5)


def test_config_round_trip_and_faults(make, variant, tmp_path):
    config = make(variant).config
    config.save_pretrained(tmp_path)
    again = AutoConfig.from_pretrained(tmp_path)
    assert isinstance(again, BuddyGPTConfig)
    where_from = {"_name_or_path", "transformers_version"}
    assert {k: v for k, v in again.to_dict().items() if k not in where_from} == {
        k: v for k, v in config.to_dict().items() if k not in where_from
    }
    with pytest.raises(ValueError, match="num_attention_heads"):
        BuddyGPTConfig(hidden_size=64, num_attention_heads=5, num_key_value_heads=5)


def test_the_first_loss_is_that_of_the_table():
    """ln V + C s^2 / 2, with the spread of the tied embedding."""
    import math

    torch.manual_seed(0)
    vocabulary, width = 20_000, 768
    config = BuddyGPTConfig(vocab_size=vocabulary, hidden_size=width, num_hidden_layers=2)
    model = BuddyGPTForCausalLM(config)
    spread = model.get_input_embeddings().weight.std().item()
    ids = torch.randint(vocabulary, (2, 256))
    with torch.no_grad():
        loss = float(model(ids, labels=ids).loss)
    assert abs(loss - (math.log(vocabulary) + width * spread**2 / 2)) < 0.1
    assert abs(loss - math.log(vocabulary)) < 0.5


def test_gradient_checkpointing_changes_nothing(make, variant):
    ids, documents = torch.randint(97, (2, 16)), torch.arange(16).expand(2, 16) // 5
    gradients = []
    for kind in (False, True, "selective"):
        model = make(variant).train()
        if kind:
            model.selective = kind == "selective"
            model.gradient_checkpointing_enable()
        with torch.autocast("cpu", torch.bfloat16):
            model(ids, labels=ids, document_ids=documents).loss.backward()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    for kept, whole, selective in zip(*gradients, strict=True):
        assert torch.equal(kept, whole) and torch.equal(kept, selective)


@pytest.mark.parametrize("selective", [False, True])
def test_selective_checkpointing_computes_no_product_twice(make, variant, selective):
    """Nor attention; but those of experts that pass one after the other."""
    counted = Counter()

    class Count(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            counted[func.name()] += 1
            return func(*args, **kwargs or {})

    ids, products = torch.randint(97, (2, 16)), []
    width = {} if "moe" in variant else {"intermediate_size": 40}  # no other product is to read so many
    for on in (False, True):
        model = make(variant, **width).train()
        if on:
            model.selective = selective
            model.gradient_checkpointing_enable()
        loss = model(ids, labels=ids).loss
        counted.clear()
        with Count():
            loss.backward()
        products.append({name: counted[name] for name in sorted(counted) if "mm" in name or "attention" in name})
    for found in products:
        found.pop("aten::mm.out", None)  # an expert's
    assert (products[0] == products[1]) == selective


def test_hidden_states_are_the_streams(make):
    out = make()(torch.randint(97, (1, 5)), output_hidden_states=True)
    assert len(out.hidden_states) == 3
    assert all(h.shape == (1, 5, 32) for h in out.hidden_states)


def test_misuse_is_told(make):
    model = make()
    with pytest.raises(ValueError, match="exactly one"):
        model.model()
    cache = model(torch.randint(97, (1, 4)), use_cache=True)[CACHE]
    with pytest.raises(ValueError, match="packed"):
        model(torch.randint(97, (1, 4)), cache=cache, document_ids=torch.zeros(1, 4, dtype=torch.long))
