"""A step outside the modules is the modules' own, bit for bit; where it is not made for, they are called."""

import pytest
import torch
from torch import nn

from buddygpt.model.cache import KVCache
from buddygpt.model.generation import generate
from buddygpt.model.linear import Linear
from buddygpt.model.sampling import Sampling
from buddygpt.model.step import Step, fits

DENSE = ("gqa", "mha", "mqa-untied", "qk-norm")
YARN = {
    "rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 32}
}


@torch.no_grad()
def read(model, ids, dtype):
    cache = KVCache(model.config, 1, 64, dtype)
    model(torch.tensor([ids]), cache=cache, use_cache=True)
    return cache


@pytest.mark.parametrize("variant", DENSE)
@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16))
@pytest.mark.parametrize("changes", ({}, YARN), ids=("default", "yarn"))
def test_steps_are_the_modules_bit_for_bit(make, variant, dtype, changes):
    model = make(variant, **changes).to(dtype)
    text = torch.randint(97, (40,), generator=torch.Generator().manual_seed(1)).tolist()
    mine, theirs = read(model, text[:30], dtype), read(model, text[:30], dtype)
    assert fits(model, mine)
    step = Step(model)
    for token in text[30:]:
        x_C = step(token, mine)
        with torch.no_grad():
            out = model.model(torch.tensor([[token]]), cache=theirs, use_cache=True)
        assert torch.equal(x_C, out.last_hidden_state[0, 0])
    assert mine.get_seq_length() == theirs.get_seq_length() == 40
    assert all(
        torch.equal(a, b) for x, y in zip(mine.buffers, theirs.buffers, strict=True) for a, b in zip(x, y, strict=True)
    )


@pytest.mark.parametrize("variant", DENSE)
def test_a_text_is_gone_on_with_by_steps(make, variant, monkeypatch):
    called = []
    monkeypatch.setattr(Step, "__call__", lambda self, *a, _step=Step.__call__: called.append(a) or _step(self, *a))
    generate(make(variant), [[1, 2, 3]], Sampling(max_new_tokens=6, temperature=0))
    assert len(called) == 5  # the prompt gives the first


def test_a_model_changed_in_between_is_read_anew(make):
    model, greedy = make("gqa"), Sampling(max_new_tokens=8, temperature=0)
    before = generate(model, [[1, 2, 3]], greedy)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.2)
    assert generate(model, [[1, 2, 3]], greedy) != before


class Doubled(Linear):
    def forward(self, input):
        return 2 * super().forward(input)


def adapt(model):
    model.model.layers[0].mlp.up_proj = Doubled(32, 48)


def hook(model):
    model.model.layers[1].self_attn.register_forward_hook(lambda *_: None)


@pytest.mark.parametrize(
    ("variant", "change"),
    (
        *(("gqa", c) for c in (adapt, hook, nn.Module.train)),
        ("gqa", lambda model: setattr(model.config, "_attn_implementation", "eager")),
        *((v, lambda model: None) for v in ("mla", "moe", "mla-moe")),
    ),
)  # fmt: skip
def test_what_it_is_not_made_for_it_leaves_to_the_modules(make, variant, change):
    model = make(variant)
    change(model)
    assert not fits(model, KVCache(model.config, 1, 8))


def test_it_is_for_one_text_and_a_growing_cache_without_autocast(make):
    model = make("gqa")
    assert fits(model, KVCache(model.config, 1, 8))
    assert not fits(model, KVCache(model.config, 2, 8))
    assert not fits(model, KVCache(model.config, 1, 8, static=True))
    assert not fits(model, None)
    with torch.autocast("cpu", torch.bfloat16):
        assert not fits(model, KVCache(model.config, 1, 8))


@pytest.mark.parametrize("bias", (False, True))
@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16))
def test_one_row_is_a_row_of_many(bias, dtype):
    torch.manual_seed(0)
    linear = Linear(96, 40, bias=bias).to(dtype)
    rows = torch.randn(3, 1, 5, 96, dtype=dtype)
    with torch.no_grad():
        whole, one = linear(rows), linear(rows[1:2, :, 3:4])
    exact = nn.functional.linear(rows.double(), linear.weight.double(), None if not bias else linear.bias.double())
    assert one.shape == (1, 1, 1, 40) and one.dtype == dtype
    near = {torch.float32: 1e-6, torch.bfloat16: 1e-2}[dtype]
    torch.testing.assert_close(one[0, 0, 0].double(), exact[1, 0, 3], rtol=near, atol=near)
    torch.testing.assert_close(whole.double(), exact, rtol=near, atol=near)


def test_one_row_has_a_gradient():
    linear = Linear(8, 4)
    linear(torch.ones(1, 8)).sum().backward()
    assert torch.equal(linear.weight.grad, torch.ones(4, 8))
