"""The experts' computation against one that says what it means."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from buddygpt.model import experts as module
from buddygpt.model.experts import mix_experts
from buddygpt.model.mlp import GateMLP


def reference(x, indices, weights, experts):
    """Each token's experts, one token at a time."""
    rows = [
        sum(w * experts[e](row[None])[0] for e, w in zip(chosen.tolist(), ws, strict=True))
        for row, chosen, ws in zip(x, indices, weights, strict=True)
    ]
    return torch.stack(rows)


def inputs(tokens=13, experts=5, chosen=2, width=16, used=5):
    torch.manual_seed(0)
    x = torch.randn(tokens, width, requires_grad=True)
    indices = torch.stack([torch.randperm(used)[:chosen] for _ in range(tokens)])
    weights = torch.rand(tokens, chosen, requires_grad=True)
    return x, indices, weights, [GateMLP(width, 8) for _ in range(experts)]


def grouped(x, indices, weights, experts):
    matrices = [m for expert in experts for m in module._matrices(expert)]
    order, counts = indices.flatten().argsort(stable=True), indices.flatten().bincount(minlength=len(experts))
    return module._grouped(x, weights, order, counts, matrices)


def filled(x, indices, weights, experts):
    """As a CPU does it in bf16."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_knows_shapes", lambda _: True)
        patch.setattr(module, "whole", lambda count: -(-count // 4) * 4)
        return mix_experts(x, indices, weights, experts)


def dense(x, indices, weights, experts):
    return module._dense(x, indices, weights, [m for expert in experts for m in module._matrices(expert)])


@pytest.mark.parametrize("compute", [mix_experts, filled, grouped, dense])
@pytest.mark.parametrize("case", [{}, {"chosen": 1}, {"used": 2}, {"tokens": 1}, {"chosen": 5}], ids=str)
def test_values_and_gradients(compute, case):
    x, indices, weights, experts = inputs(**case)
    parameters = [p for e in experts for p in e.parameters()]
    results = []
    for function in (compute, reference):
        y = function(x, indices, weights, experts)
        upstream = torch.linspace(-1, 1, y.numel()).view_as(y)
        found = torch.autograd.grad(y, [x, weights, *parameters], upstream, allow_unused=function is reference)
        results.append(
            [
                y,
                *(
                    torch.zeros_like(p) if g is None else g
                    for p, g in zip([x, weights, *parameters], found, strict=True)
                ),
            ]
        )
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_products_in_bf16_on_a_cpu_have_few_shapes():
    """oneDNN keeps a kernel for each; whatever the router does, experts bring few."""

    class Shapes(TorchDispatchMode):
        found = set()

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if function.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm):
                self.found.add(tuple(x.shape for x in args[-2:]))
            return function(*args, **kwargs or {})

    counts = set()
    with Shapes():
        for seed in range(40):
            x, _, weights, experts = inputs(tokens=300)
            torch.manual_seed(seed)
            indices = torch.multinomial(torch.rand(5).expand(300, 5) + 0.1, 2)
            counts |= set(indices.flatten().bincount().tolist())
            with torch.autocast("cpu", torch.bfloat16):
                mix_experts(x, indices, weights, experts).float().sum().backward()
    assert len(counts) > 80 and len(Shapes.found) <= 8 * 300 / 16


def test_whole_numbers_are_few_and_near():
    found = {count: module.whole(count) for count in range(20_000)}
    assert all(count <= more < count + max(16, count / 16 + 1) for count, more in found.items())
    assert all(module.whole(more) == more for more in set(found.values())) and len(set(found.values())) < 150


def test_an_idle_expert_has_a_gradient_of_zeros():
    x, indices, weights, experts = inputs(used=2)
    mix_experts(x, indices, weights, experts).sum().backward()
    assert all(p.grad is not None for e in experts for p in e.parameters())
    assert not any(p.grad.any() for e in experts[2:] for p in e.parameters())


def test_autocast_computes_in_bf16_and_keeps_fp32_gradients():
    x, indices, weights, experts = inputs()
    exact = mix_experts(x, indices, weights, experts)
    with torch.autocast("cpu", torch.bfloat16):
        y = mix_experts(x, indices, weights, experts)
    assert y.dtype == torch.bfloat16
    assert (y - exact).norm() / exact.norm() < 0.02
    y.float().pow(2).sum().backward()
    assert {p.grad.dtype for e in experts for p in e.parameters()} == {torch.float32}
