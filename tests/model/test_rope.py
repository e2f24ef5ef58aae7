"""Scalings of RoPE: what the papers promise, what `extend` does, what survives storage and casts, what is refused."""

import hashlib
import json
import os
import subprocess
import sys

import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen2Config

import buddygpt
from buddygpt.model import BuddyGPTConfig, BuddyGPTForCausalLM, extend
from buddygpt.model.context import original_length, to_transformers
from buddygpt.model.modeling import CACHE
from buddygpt.model.rope import SCALINGS, rotary_tables, softmax_factor, turn
from buddygpt.recipe.errors import BuddyError
from buddygpt.recipe.loader import load_recipe
from buddygpt.recipe.model import DefaultRope, LinearRope, YarnRope
from tests.recipe.conftest import BASE

KINDS = [kind for kind in SCALINGS if kind != "default"]
STATIC = [kind for kind in KINDS if kind != "dynamic"]
PLAIN = {"rope_type": "default", "rope_theta": 10_000.0}
YARN = {
    "rope_type": "yarn", "rope_theta": 10_000.0, "factor": 4.0, "original_max_position_embeddings": 1024,
    "beta_fast": 32.0, "beta_slow": 1.0, "truncate": True,
}  # fmt: skip


def frequencies(rope, dim=64, length=4096):
    return SCALINGS[rope["rope_type"]](rope, dim, torch.arange(length)[None])[0]


def hashed(tensor):
    return hashlib.sha256(tensor.numpy().tobytes()).hexdigest()


def test_linear_reaches_a_position_with_the_angles_of_a_quarter_of_it():
    rope = {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 4.0}
    new = rotary_tables(rope, 64, torch.tensor([[4000]]))
    old = rotary_tables(PLAIN, 64, torch.tensor([[1000]]))
    for a, b in zip(new, old, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


def test_ntk_keeps_the_highest_frequency_and_divides_the_lowest():
    ratio = frequencies(PLAIN) / frequencies({"rope_type": "ntk", "rope_theta": 10_000.0, "factor": 4.0})
    assert ratio[0] == 1
    assert ratio[-1] == pytest.approx(4, rel=1e-5)
    assert (ratio.diff() > 0).all()


@pytest.mark.parametrize("kind", ["yarn", "llama3"])
def test_high_frequencies_stay_and_low_ones_are_divided(kind):
    rope = YARN if kind == "yarn" else extend(BuddyGPTConfig(), 4096, "llama3").rope_parameters
    plain = frequencies(PLAIN)
    ratio, turns = plain / frequencies(rope), 1024 * plain / (2 * torch.pi)
    fast, slow = (32, 1) if kind == "yarn" else (4, 1)
    kept, divided = ratio[turns > 1.4 * fast], ratio[turns < slow / 1.4]  # YaRN's bounds are whole dimensions
    assert len(kept) and len(divided)
    torch.testing.assert_close(kept, torch.ones_like(kept), rtol=1e-6, atol=0)
    torch.testing.assert_close(divided, torch.full_like(divided, 4), rtol=1e-6, atol=0)
    assert (ratio.diff() >= -1e-6).all()


def test_dynamic_is_no_scaling_up_to_the_original_length_and_grows_beyond():
    rope = {
        "rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 4.0, "original_max_position_embeddings": 1024,
    }  # fmt: skip
    for length in (1, 1000, 1024):
        assert torch.equal(frequencies(rope, length=length), frequencies(PLAIN))
    lowest = [float(frequencies(rope, length=n)[-1]) for n in (1024, 1025, 2048, 4096)]
    assert lowest == sorted(lowest, reverse=True)
    assert len(set(lowest)) == 4
    two_documents = torch.cat((torch.arange(2000), torch.arange(100)))[None]
    assert torch.equal(SCALINGS["dynamic"](rope, 64, two_documents)[0], frequencies(rope, length=2000))


@pytest.mark.parametrize("kind", KINDS)
def test_no_scaling_waits_for_the_device(kind):
    """A value read back would fail on the meta device, and stop the host for a GPU."""
    rope = extend(BuddyGPTConfig(), 4096, kind).rope_parameters
    found, factor = SCALINGS[kind](rope, 64, torch.arange(2000, device="meta")[None])
    assert (found.shape, found.device.type, type(factor)) == ((32,), "meta", float)


def test_yarn_sharpens_logits_by_the_papers_temperature():
    """sqrt(1/t) = 0.1 ln s + 1 on queries and keys of GQA; the square of it on all of MLA's logits."""
    assert SCALINGS["yarn"](YARN, 64, torch.arange(2)[None])[1] == pytest.approx(1.1386294)
    assert softmax_factor(YARN) == 1
    latent = YARN | {"mscale": 1.0, "mscale_all_dim": 1.0}
    assert SCALINGS["yarn"](latent, 64, torch.arange(2)[None])[1] == 1
    assert softmax_factor(latent) == pytest.approx(1.1386294**2)
    assert softmax_factor(YARN | {"mscale": 0.0, "mscale_all_dim": 0.0}) == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("variant", ["gqa", "mla"])
def test_extend_takes_effect_at_once_and_is_saved(make, variant, kind, tmp_path):
    model, ids = make(variant), torch.randint(97, (1, 400))
    with torch.no_grad():
        before = model(ids).logits
        assert extend(model, 512, kind) is model
        after = model(ids).logits
    assert not torch.allclose(before, after, atol=1e-3)
    assert model.config.max_position_embeddings == 512
    assert model.config.rope_parameters["factor"] == 4
    model.save_pretrained(tmp_path)
    stored = json.loads((tmp_path / "config.json").read_text())
    assert stored["rope_parameters"] == model.config.rope_parameters
    assert (stored["rope_parameters"]["rope_type"], stored["max_position_embeddings"]) == (kind, 512)
    again = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    fresh = make(variant, max_position_embeddings=512, rope_parameters=stored["rope_parameters"])
    with torch.no_grad():
        assert torch.equal(again(ids).logits, after)
        assert torch.equal(fresh(ids).logits, after)


@pytest.mark.parametrize("first", KINDS)
@pytest.mark.parametrize("second", KINDS)
def test_extending_twice_is_extending_once(first, second):
    twice = extend(extend(BuddyGPTConfig(), 2048, first), 8192, second)
    once = extend(BuddyGPTConfig(), 8192, second)
    assert twice.rope_parameters == once.rope_parameters
    assert original_length(twice) == 1024


def test_extend_keeps_the_base_and_what_was_chosen():
    config = BuddyGPTConfig(rope_parameters={"rope_type": "default", "rope_theta": 5e5})
    section = YarnRope(kind="yarn", factor=8, original_max_position_embeddings=1024, beta_fast=16)
    extend(config, 4096, section)
    assert config.rope_parameters["rope_theta"] == 5e5
    assert (config.rope_parameters["factor"], config.rope_parameters["beta_fast"]) == (8, 16)
    extend(config, 16_384, "yarn")
    assert (config.rope_parameters["factor"], config.rope_parameters["beta_fast"]) == (16, 16)


@pytest.mark.parametrize(
    ("length", "kind", "told"),
    [
        (512, "linear", "length: 512 tokens are fewer than the 1024"),
        (4096, "linaer", "kind: 'linaer' is unknown; one of linear, ntk, .*; did you mean 'linear'"),
        (4096, "default", "kind: 'default' is unknown"),
        (4096, DefaultRope(), "kind: 'default' is unknown"),
        (4096, LinearRope(kind="linear", factor=2), "factor: 2 x 1024 tokens do not reach 4096"),
        (
            4096,
            YarnRope(kind="yarn", factor=2, original_max_position_embeddings=1024),
            "factor: 2 x 1024 tokens do not reach max_position_embeddings 4096; at least 4 does",
        ),
    ],
)
def test_extend_refuses_and_changes_nothing(length, kind, told):
    config = BuddyGPTConfig()
    before = config.to_dict()
    with pytest.raises(ValueError, match=told):
        extend(config, length, kind)
    assert config.to_dict() == before


def test_extend_is_public_and_for_our_configs():
    assert buddygpt.extend is extend
    with pytest.raises(TypeError, match="Qwen2Config"):
        extend(Qwen2Config(), 10**6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("variant", ["gqa", "mla"])
def test_a_cast_to_bf16_keeps_the_angles(make, variant, kind, monkeypatch):
    from buddygpt.model import modeling

    seen = []
    monkeypatch.setattr(modeling, "rotary_tables", lambda *a: seen.append(rotary_tables(*a)) or seen[-1])
    model, ids = extend(make(variant), 512, kind), torch.randint(97, (1, 500))
    assert not list(model.buffers())
    with torch.no_grad():
        model(ids)
        model.to(torch.bfloat16)(ids)
        with torch.autocast("cpu", torch.bfloat16):
            model(ids)
        torch.set_default_dtype(torch.bfloat16)
        try:
            model(ids)
        finally:
            torch.set_default_dtype(torch.float32)
    for tables in seen[1:]:
        for a, b in zip(seen[0], tables, strict=True):
            assert b.dtype == torch.float32
            assert torch.equal(a, b)


@pytest.mark.parametrize("kind", STATIC)
@pytest.mark.parametrize("variant", ["gqa", "mla"])
def test_decoding_through_a_cache_equals_the_full_pass(make, variant, kind):
    model, ids = extend(make(variant), 512, kind), torch.randint(97, (2, 200))
    with torch.no_grad():
        full = model(ids).logits
        parts, cache = [], None
        for piece in ids.split([120, *[1] * 20, 60], dim=1):
            out = model(piece, use_cache=True, cache=cache)
            cache, parts = out[CACHE], [*parts, out.logits]
    torch.testing.assert_close(torch.cat(parts, dim=1), full, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", STATIC)
def test_packed_documents_are_as_if_alone(make, kind):
    model = extend(make(), 512, kind)
    a, b = torch.randint(97, (1, 150)), torch.randint(97, (1, 90))
    positions = torch.cat((torch.arange(150), torch.arange(90)))[None]
    with torch.no_grad():
        packed = model(torch.cat((a, b), dim=1), position_ids=positions).logits
        torch.testing.assert_close(packed[:, :150], model(a).logits, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(packed[:, 150:], model(b).logits, rtol=1e-4, atol=1e-4)


LOADER = """
import hashlib, sys, torch
from transformers import AutoModelForCausalLM
import buddygpt.model
torch.manual_seed(int(sys.argv[2]))
junk = [torch.full((4096,), float("nan")) for _ in range(200)]
del junk  # freed memory full of nan, for whatever is left unset
for folder in sys.argv[3:]:
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    assert not any(t.is_meta for t in (*model.parameters(), *model.buffers()))
    with torch.no_grad():
        logits = model(torch.load(sys.argv[1])).logits
    print(hashlib.sha256(logits.numpy().tobytes()).hexdigest())
"""


@pytest.mark.slow
def test_fresh_processes_load_the_same_model(make, tmp_path):
    """Loading goes through the meta device, where a buffer that no file holds would be left unset."""
    ids, expected = torch.randint(97, (1, 300)), []
    torch.save(ids, tmp_path / "ids.pt")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for variant in ("gqa", "mla"):
            for kind in KINDS:
                model = extend(make(variant), 512, kind)
                model.save_pretrained(tmp_path / f"{variant}-{kind}")
                with torch.no_grad():
                    expected.append(hashed(model(ids).logits))
    finally:
        torch.set_num_threads(threads)
    folders = [str(tmp_path / f"{variant}-{kind}") for variant in ("gqa", "mla") for kind in KINDS]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", LOADER, str(tmp_path / "ids.pt"), str(seed), *folders],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        for seed in range(2)
    ]
    outputs = [process.communicate()[0].split() for process in processes]
    assert outputs == [expected] * 2


def test_a_scaling_given_while_loading_is_checked(make, tmp_path):
    make().save_pretrained(tmp_path)
    rope = {"rope_type": "linear", "factor": 4.0}
    model = BuddyGPTForCausalLM.from_pretrained(tmp_path, rope_parameters=rope, max_position_embeddings=512)
    assert model.config.rope_parameters == {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 4.0}
    with pytest.raises(ValueError, match="factor"):
        BuddyGPTForCausalLM.from_pretrained(tmp_path, rope_parameters=rope | {"factor": 0.5})


def test_transformers_does_not_warn_of_our_scalings(make, tmp_path, caplog):
    from transformers.utils import logging

    logger = logging.get_logger("transformers")
    logger.addHandler(caplog.handler)
    try:
        for kind in KINDS:
            extend(BuddyGPTConfig(), 4096, kind).save_pretrained(tmp_path)
            config = BuddyGPTConfig.from_pretrained(tmp_path)
            Qwen2Config(**to_transformers(config))
    finally:
        logger.removeHandler(caplog.handler)
    assert not [r for r in caplog.records if "rope" in r.getMessage().lower()]


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"rope_parameters": {"rope_type": "longrope"}}, "rope: 'longrope' is unknown; one of 'default', 'linear'"),
        ({"rope_parameters": {"rope_type": "linear", "factor": 0.5}}, "factor: .*greater than or equal to 1"),
        ({"rope_parameters": {"rope_type": "linear"}}, "factor: Field required"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling: is called rope_parameters here"),
    ],
)
def test_a_config_that_cannot_be(fields, told):
    with pytest.raises(ValueError, match=told):
        BuddyGPTConfig(**fields)


YAML = BASE.replace("tokenizer:", "  rope:\n    ROPE\ntokenizer:")


@pytest.fixture
def recipe(tmp_path):
    """Load a recipe with these lines under `model.rope`."""

    def loader(lines):
        path = tmp_path / "r.yaml"
        path.write_text(YAML.replace("ROPE", lines.replace("; ", "\n    ")))
        return load_recipe(path)

    return loader


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (
            "kind: yran; factor: 4",
            "r.yaml:11: model.rope.kind: 'yran' is unknown; one of default, linear, ntk, dynamic, yarn, llama3; "
            "did you mean 'yarn'?",
        ),
        ("kind: linear; factor: 0.5", "r.yaml:12: model.rope.factor: must be greater than or equal to 1, not 0.5"),
        ("kind: linear", "r.yaml:10: model.rope.factor: is missing"),
        ("factor: 4", "r.yaml:10: model.rope: needs `kind:`, one of default, linear, ntk, dynamic, yarn, llama3"),
        ("kind: linear; factor: 4; beta_fast: 3", "r.yaml:13: model.rope.beta_fast: belongs to another `kind`"),
        ("rope_type: linear; factor: 4", "r.yaml:10: model.rope: needs `kind:`"),
        ("kind: linear; factor: 4; rope_scaling: 4", "r.yaml:13: model.rope.rope_scaling: is called model.rope here"),
        (
            "kind: dynamic; factor: 2; original_max_position_embeddings: 256",
            "r.yaml:13: model.rope.original_max_position_embeddings: 256 tokens before the scaling, but "
            "max_position_embeddings is only 128",
        ),
        (
            "kind: yarn; factor: 2; original_max_position_embeddings: 32",
            "r.yaml:12: model.rope.factor: 2 x 32 tokens do not reach max_position_embeddings 128; at least 4 does",
        ),
        (
            "kind: yarn; factor: 4; original_max_position_embeddings: 32; beta_fast: 0.5",
            "r.yaml:14: model.rope.beta_fast: 0.5 is below beta_slow 1; swap them",
        ),
        (
            "kind: yarn; factor: 4; original_max_position_embeddings: 32; mscale: 1",
            "r.yaml:14: model.rope.mscale: means nothing without mscale_all_dim; give both or neither",
        ),
        (
            "kind: llama3; factor: 4; original_max_position_embeddings: 32; high_freq_factor: 1",
            "r.yaml:14: model.rope.high_freq_factor: 1 must be greater than low_freq_factor 1",
        ),
    ],
)
def test_a_recipes_fault_names_its_place_and_the_cure(recipe, lines, told):
    with pytest.raises(BuddyError) as caught:
        recipe(lines)
    assert any(told in line for line in caught.value.lines), caught.value.lines


def test_ntk_needs_a_rotary_width_above_two():
    with pytest.raises(ValueError, match="ntk needs a rotary width above 2"):
        BuddyGPTConfig(head_dim=2, rope_parameters={"rope_type": "ntk", "factor": 2.0})


def test_a_sound_recipe_of_every_scaling(recipe):
    assert recipe("rope_theta: 1e6").model.rope == DefaultRope(rope_theta=1e6)
    for kind in KINDS:
        original = "; original_max_position_embeddings: 32" if kind in ("dynamic", "yarn", "llama3") else ""
        config = BuddyGPTConfig.from_recipe(recipe(f"kind: {kind}; factor: 4{original}"))
        config.rope_parameters.pop("rope_theta")
        assert config.rope_parameters["rope_type"] == kind
        assert config.rope_parameters["factor"] == 4
        assert None not in config.rope_parameters.values()
    left_out = BuddyGPTConfig.from_recipe(recipe("kind: dynamic; factor: 4"))
    assert left_out.rope_parameters["original_max_position_embeddings"] == 128


def test_a_gradient_is_rounded_as_ever():
    """Losses of a training stay what they were, bit for bit, however decoding is made faster."""
    generator = torch.Generator().manual_seed(0)
    x, cos, sin, grad = (torch.randn(2, 3, 5, 8, generator=generator) for _ in range(4))
    x, grad = x.bfloat16(), grad.bfloat16()
    mine, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    first, second = theirs.chunk(2, dim=-1)
    expected = (theirs * cos + torch.cat((-second, first), dim=-1) * sin).to(x.dtype)
    found = turn(mine, cos, sin)
    found.backward(grad)
    expected.backward(grad)
    assert torch.equal(found, expected) and torch.equal(mine.grad, theirs.grad)
    with torch.no_grad():
        assert torch.equal(turn(x, cos, sin), expected)
