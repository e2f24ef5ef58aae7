"""The loss without logits against torch's own."""

import pytest
import torch
from torch.nn import functional as F

from buddygpt.model import loss as module
from buddygpt.model.loss import linear_cross_entropy


@pytest.fixture(params=[1, 7, 10**6], ids="chunk {}".format)
def chunk(request, monkeypatch):
    """Force chunks of few rows."""
    monkeypatch.setattr(module, "CHUNK_BYTES", request.param * 50 * 4)
    monkeypatch.setattr(module, "BLOCK_BYTES", 3 * 50 * 4)


def inputs(dtype=torch.float32, ignored=3):
    torch.manual_seed(0)
    hidden = torch.randn(4, 6, 16, dtype=dtype, requires_grad=True)
    weight = torch.randn(50, 16, dtype=torch.float32, requires_grad=True)
    targets = torch.randint(50, (4, 6))
    targets.view(-1)[:ignored] = -100
    return hidden, weight, targets


@pytest.mark.parametrize("ignored", [0, 3, 23])
@pytest.mark.parametrize("num_items", [None, 100, torch.tensor(100.0)])
def test_value_and_gradients_equal_torch(chunk, ignored, num_items):
    hidden, weight, targets = inputs(ignored=ignored)
    ours = linear_cross_entropy(hidden, weight, targets, num_items)
    theirs = F.cross_entropy((hidden @ weight.T).flatten(0, 1), targets.flatten(), reduction="sum")
    theirs = theirs / ((targets != -100).sum() if num_items is None else num_items)
    torch.testing.assert_close(ours, theirs)
    for a, b in zip(
        torch.autograd.grad(ours, (hidden, weight)), torch.autograd.grad(theirs, (hidden, weight)), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_nothing_to_judge_is_zero_not_nan(chunk):
    hidden, weight, targets = inputs(ignored=24)
    loss = linear_cross_entropy(hidden, weight, targets)
    loss.backward()
    assert loss == 0
    assert hidden.grad.abs().sum() == 0


def test_the_loss_is_fp32_under_autocast():
    """Large sums would lose their tail in bf16."""
    hidden, weight, targets = inputs()
    with torch.autocast("cpu", torch.bfloat16):
        loss = linear_cross_entropy(hidden, weight, targets)
    assert loss.dtype == torch.float32
    exact = linear_cross_entropy(hidden, weight, targets)
    assert abs(loss.item() - exact.item()) < 0.02
    loss.backward()
    assert weight.grad.dtype == torch.float32


def test_gradients_of_one_input_alone():
    hidden, weight, targets = inputs()
    linear_cross_entropy(hidden.detach(), weight, targets).backward()
    assert weight.grad is not None
    linear_cross_entropy(hidden, weight.detach(), targets).backward()
    assert hidden.grad is not None
    with torch.no_grad():
        assert linear_cross_entropy(hidden, weight, targets) > 0
