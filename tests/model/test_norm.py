"""RMSNorm's own passes against torch's."""

import pytest
import torch

from buddygpt.model.norm import RMSNorm


@pytest.mark.parametrize("shape", [(3, 5, 16), (2, 4, 3, 8), (1, 8)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_values_and_gradients(shape, dtype):
    torch.manual_seed(0)
    norm = RMSNorm(shape[-1], 1e-3).to(dtype)
    norm.weight.data += 0.3 * torch.randn(shape[-1])
    x = torch.randn(shape, dtype=dtype, requires_grad=True)
    results = []
    for y in (norm(x), torch.nn.functional.rms_norm(x.float(), norm.weight.shape, norm.weight.float(), 1e-3).to(dtype)):
        upstream = torch.linspace(-1, 1, y.numel()).view(shape).to(dtype)
        results.append((y, *torch.autograd.grad(y, (x, norm.weight), upstream)))
    tolerance = {"rtol": 1e-5, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 2e-2, "atol": 2e-2}
    for ours, theirs in zip(*results, strict=True):
        assert ours.dtype == theirs.dtype
        torch.testing.assert_close(ours, theirs, **tolerance)


def test_gradients_are_those_of_finite_differences():
    norm = RMSNorm(6, 1e-3).double()
    x = torch.randn(4, 6, dtype=torch.double, requires_grad=True)
    with torch.no_grad():
        step = 1e-3 * torch.randn_like(x)
        difference = (norm(x + step) - norm(x - step)).sum() / 2
    (grad,) = torch.autograd.grad(norm(x).sum(), x)
    torch.testing.assert_close((grad * step).sum().float(), difference.float(), rtol=1e-2, atol=1e-5)


def test_autocast_gives_its_type():
    with torch.autocast("cpu", torch.bfloat16):
        assert RMSNorm(8, 1e-6)(torch.randn(2, 8)).dtype == torch.bfloat16


def test_zeros_stay_finite():
    x = torch.zeros(2, 8, requires_grad=True)
    RMSNorm(8, 1e-6)(x).sum().backward()
    assert x.grad.isfinite().all()
