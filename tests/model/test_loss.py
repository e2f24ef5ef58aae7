"""The loss without logits against torch's own."""

import pytest
import torch
from torch.nn import functional as F

from buddygpt.model import loss as module
from buddygpt.model.loss import linear_cross_entropy, linear_log_probs, linear_scores


@pytest.fixture(params=[(1, 1), (7, 1), (10**6, 1), (7, 64)], ids="{0[0]} rows, whole {0[1]}".format)
def chunk(request, monkeypatch):
    """Force chunks of few rows, and the 50 entries to be filled up as for an accelerator."""
    rows, alignment = request.param
    monkeypatch.setattr(module, "CHUNK_BYTES", dict.fromkeys(module.CHUNK_BYTES, rows * 50 * 4))
    monkeypatch.setattr(module, "ALIGNMENT", dict.fromkeys(module.ALIGNMENT, alignment))
    monkeypatch.setattr(module, "BLOCK_BYTES", 3 * 50 * 4)
    monkeypatch.setattr(module, "BLOCK_COLUMNS", 17)


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


def test_means_are_weighted_by_tokens():
    """Two micro-batches of 2 and 6 targets with means 4 and 2 are a step of mean 2.5, however they are split."""
    weight = torch.eye(4)
    rows = {4.0: 2, 2.0: 6}
    parts = []
    for mean, count in rows.items():
        # Three equal logits and a lower one: the lower one's cross entropy is ln(1 + 3 e^gap).
        gap = ((torch.tensor(mean).exp() - 1) / 3).log()
        hidden = torch.zeros(count, 4)
        hidden[:, 0] = -gap
        parts.append((hidden, torch.zeros(count, dtype=torch.long)))
    means = [float(linear_cross_entropy(h, weight, t)) for h, t in parts]
    torch.testing.assert_close(means, list(rows))
    accumulated = sum(float(linear_cross_entropy(h, weight, t, num_items=8)) for h, t in parts)
    assert accumulated == pytest.approx(2.5)
    together = linear_cross_entropy(torch.cat([h for h, _ in parts]), weight, torch.zeros(8, dtype=torch.long))
    assert float(together) == pytest.approx(2.5)


def test_bf16_within_its_rounding(chunk):
    """Statistics are fp32 whatever the type of the logits; gradients differ by bf16's own rounding alone."""
    torch.manual_seed(0)
    hidden, weight = torch.randn(64, 32), 0.3 * torch.randn(50, 32)
    targets = torch.randint(50, (64,))
    results = {}
    for dtype in (torch.float32, torch.bfloat16):
        # The same numbers on both sides: those that bf16 can hold.
        h, w = (x.bfloat16().to(dtype).requires_grad_() for x in (hidden, weight))
        loss = linear_cross_entropy(h, w, targets)
        results[dtype] = (loss.detach(), *(g.float() for g in torch.autograd.grad(loss, (h, w))))
    exact, rounded = results[torch.float32], results[torch.bfloat16]
    assert abs(exact[0] - rounded[0]) < 2e-3
    for a, b in zip(exact[1:], rounded[1:], strict=True):
        assert (a - b).norm() / a.norm() < 2**-7


def test_the_value_in_bf16_is_that_of_fp32():
    """Rounded logits average out in the normaliser; the target's own is computed apart."""
    torch.manual_seed(0)
    hidden, weight = torch.randn(512, 64).bfloat16(), (0.3 * torch.randn(5000, 64)).bfloat16()
    targets = torch.randint(5000, (512,))
    exact = F.cross_entropy(hidden.float() @ weight.float().T, targets)
    assert abs(float(linear_cross_entropy(hidden, weight, targets)) - float(exact)) < 1e-4
    found = -linear_log_probs(hidden, weight, targets).mean()
    assert abs(float(found) - float(exact)) < 1e-4


@pytest.mark.parametrize("ignored", [0, 3, 24])
def test_log_probabilities_equal_torch(chunk, ignored):
    hidden, weight, targets = inputs(ignored=ignored)
    ours = linear_log_probs(hidden, weight, targets)
    theirs = (hidden @ weight.T).log_softmax(-1).gather(-1, targets.clamp(min=0)[..., None])[..., 0]
    theirs = torch.where(targets == -100, 0.0, theirs)
    assert ours.shape == targets.shape
    torch.testing.assert_close(ours, theirs)
    upstream = torch.randn_like(ours)
    for a, b in zip(
        torch.autograd.grad(ours, (hidden, weight), upstream),
        torch.autograd.grad(theirs, (hidden, weight), upstream),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("ignored", [0, 3, 24])
def test_scores_equal_torch(chunk, ignored, dtype):
    hidden, weight, targets = inputs(dtype, ignored)
    ours = linear_scores(hidden, weight.to(dtype), targets)
    logits = (hidden @ weight.to(dtype).T).detach().float()
    log_probs = logits.log_softmax(-1)
    judged = targets != -100
    theirs = {
        "entropy": -(log_probs.exp() * log_probs).sum(-1),
        "mean_logits": logits.mean(-1),
        "is_top1": logits.argmax(-1) == targets,
    }
    for name, column in theirs.items():
        found = getattr(ours, name)
        assert not found.requires_grad
        torch.testing.assert_close(found, column * judged, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.log_probs, linear_log_probs(hidden, weight.to(dtype), targets))
    grads = [
        torch.autograd.grad(function(hidden, weight.to(dtype), targets).sum(), (hidden, weight))
        for function in (linear_log_probs, lambda *a: linear_scores(*a).log_probs)
    ]
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b)


def test_ignored_rows_cost_no_matrix_product():
    from torch.utils.flop_counter import FlopCounterMode

    def flops(ignored):
        hidden, weight, targets = inputs(ignored=ignored)
        with FlopCounterMode(display=False) as counter:
            linear_cross_entropy(hidden, weight, targets).backward()
        return counter.get_total_flops()

    assert flops(12) * 2 == flops(0) == 3 * 2 * 24 * 16 * 50
    assert flops(24) == 0


def test_a_tied_matrix_gets_the_sum_of_both_gradients():
    torch.manual_seed(0)
    weight = torch.randn(50, 16, requires_grad=True)
    ids, targets = torch.randint(50, (2, 9)), torch.randint(50, (2, 9))
    tied = module.TiedGradient()
    loss = linear_cross_entropy(module.tied_embedding(ids, weight, tied).tanh(), weight, targets, None, tied)
    (ours,) = torch.autograd.grad(3 * loss, weight)
    theirs = F.cross_entropy((F.embedding(ids, weight).tanh() @ weight.T).flatten(0, 1), targets.flatten())
    torch.testing.assert_close(ours, torch.autograd.grad(3 * theirs, weight)[0], rtol=1e-5, atol=1e-6)
    assert tied.grad is None


def test_gradients_are_handed_out_once():
    hidden, weight, targets = inputs()
    loss = linear_cross_entropy(hidden, weight, targets)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="run the forward pass again"):
        loss.backward()


@pytest.mark.parametrize("blocks", ["cpu", "accelerator"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_z_loss_moves_the_gradients_and_leaves_the_value(chunk, monkeypatch, dtype, blocks):
    """An accelerator takes a chunk's rows and columns at once."""
    if blocks == "accelerator":
        monkeypatch.setattr(module, "BLOCK_BYTES", 10**9)
        monkeypatch.setattr(module, "BLOCK_COLUMNS", 10**9)
    hidden, weight, targets = inputs(dtype)
    weight = (3 * weight.detach().to(dtype)).requires_grad_()
    items, coefficient = torch.tensor(100.0), 0.3
    ours = linear_cross_entropy(hidden, weight, targets, items, z_loss=coefficient)
    logits = (hidden.float() @ weight.float().T)[targets != -100]
    theirs = F.cross_entropy(logits, targets[targets != -100], reduction="sum") / items
    z_loss = coefficient * logits.logsumexp(-1).square().sum() / items
    torch.testing.assert_close(ours, theirs, rtol=1e-3 if dtype == torch.bfloat16 else 1e-5, atol=1e-6)
    expected = torch.autograd.grad(theirs + z_loss, (hidden, weight), retain_graph=True)
    without = torch.autograd.grad(theirs, (hidden, weight))
    for a, b, c in zip(torch.autograd.grad(ours, (hidden, weight)), expected, without, strict=True):
        assert (a - b).norm() / b.norm() < (1e-2 if dtype == torch.bfloat16 else 1e-5)
        assert (b - c).norm() / c.norm() > 0.1
