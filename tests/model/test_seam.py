"""Our head behind trl's seam against the head that trl puts over a model: same model, same call, same numbers."""

import inspect
from dataclasses import fields

import pytest
import torch
from trl.trainer import dpo_trainer, sft_trainer
from trl.trainer.utils import FusedCausalLMOutput, add_fused_lm_head

from buddygpt.model.modeling import ScoredOutput

COLUMNS = ("log_probs", "entropy", "mean_logits", "is_top1")
NAMES = ("loss", *COLUMNS, "label_mask")


def both(model, **inputs):
    """What our head and trl's give for a call, and all gradients of a function of log-probabilities and loss."""
    found = []
    for theirs in (False, True):
        if theirs:
            add_fused_lm_head(model, outputs=COLUMNS)
        model.zero_grad()
        out = model(**inputs, fused_lm_head=True)
        torch.manual_seed(1)
        (out.loss + (out.log_probs * torch.randn(out.log_probs.shape)).sum()).backward()
        out = type(out)(**{name: value.detach() for name, value in out.items()})
        found.append((out, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}))
        model.__dict__.pop("forward", None)
    return found


def batch(padded, rows=3, tokens=11):
    torch.manual_seed(5)
    ids = torch.randint(97, (rows, tokens))
    labels = ids.clone()
    labels[:, :4] = -100
    labels[1, 6] = -100
    inputs = {"input_ids": ids, "labels": labels}
    if padded:
        inputs["attention_mask"] = torch.ones_like(ids)
        inputs["attention_mask"][1, 7:] = 0
        labels[1, 7:] = -100
    return inputs


def assert_same(ours, theirs, atol=1e-5):
    (ours, our_grads), (theirs, their_grads) = ours, theirs
    for name in NAMES:
        a, b = ours[name], theirs[name]
        assert a.shape == b.shape and a.dtype == b.dtype, name
        torch.testing.assert_close(a, b, rtol=1e-5, atol=atol, msg=lambda m, name=name: f"{name}: {m}")
    assert our_grads.keys() == their_grads.keys()
    for name, grad in our_grads.items():
        torch.testing.assert_close(grad, their_grads[name], rtol=1e-4, atol=atol, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("padded", [False, True])
def test_every_field_and_gradient_equal_those_of_trls_head(variant, make, padded):
    assert_same(*both(make(variant), **batch(padded)))


def test_shift_labels_are_scored_where_they_stand(make):
    inputs = batch(padded=False)
    inputs["shift_labels"] = inputs.pop("labels")
    ours, theirs = both(make(), **inputs)
    assert ours[0].log_probs.shape == (3, 11)
    assert_same(ours, theirs)


def test_a_given_number_of_items_divides_the_loss(make):
    assert_same(*both(make(), **batch(padded=True), num_items_in_batch=torch.tensor(40)))


def test_nothing_judged_is_a_zero_that_can_be_derived(make):
    inputs = batch(padded=False)
    inputs["labels"][:] = -100
    ours, theirs = both(make(), **inputs)
    assert_same(ours, theirs)
    assert float(ours[0].loss) == 0
    assert all(float(grad.abs().sum()) == 0 for grad in ours[1].values())


def test_the_sum_of_log_probabilities_is_the_loss_of_the_plain_call(variant, make):
    model, inputs = make(variant, router_aux_loss_coef=0.01).train(), batch(padded=True)
    plain, scored = model(**inputs), model(**inputs, fused_lm_head=True)
    torch.testing.assert_close(scored.loss, plain.loss)
    grads = [torch.autograd.grad(out.loss, list(model.parameters()), allow_unused=True) for out in (plain, scored)]
    for a, b in zip(*grads, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_under_autocast_the_heads_differ_by_the_rounding_of_bf16(make):
    model = make("gqa")
    exact, _ = both(model, **batch(padded=True))
    with torch.autocast("cpu", torch.bfloat16):
        ours, theirs = both(model, **batch(padded=True))
    mask = ours[0].label_mask
    for name in COLUMNS[:3]:
        assert ours[0][name].dtype == torch.float32
        assert float((ours[0][name] - theirs[0][name])[mask].abs().max()) < 0.03, name
    far = [float((found[0].log_probs - exact[0].log_probs).abs().mean()) for found in (ours, theirs)]
    assert far[0] <= 1.1 * far[1]  # the target's own logit is not rounded here
    for name, grad in ours[1].items():
        assert (grad - theirs[1][name]).norm() < 0.05 * theirs[1][name].norm() + 1e-3, name


def test_of_equal_logits_the_first_is_the_likeliest(make):
    model = make("mqa-untied")
    with torch.no_grad():
        model.lm_head.weight[:] = model.lm_head.weight[:1]
    inputs = batch(padded=False)
    inputs["labels"][:, 5] = 0
    ours, theirs = both(model, **inputs)
    assert_same(ours, theirs)
    assert ours[0].is_top1[:, 4].all() and ours[0].is_top1.sum() == (inputs["labels"][:, 1:] == 0).sum()


def test_rows_without_a_label_cost_no_matrix_product(make):
    from torch.utils.flop_counter import FlopCounterMode

    model, inputs = make(), batch(padded=False)

    def flops():
        with FlopCounterMode(display=False) as counter:
            model(**inputs, fused_lm_head=True).log_probs.sum().backward()
        return counter.get_total_flops()

    some = flops()
    judged = int((inputs["labels"][:, 1:] != -100).sum())
    inputs["labels"][:] = -100
    assert some - flops() == 4 * 2 * judged * 32 * 97  # twice forward, and the gradients of both factors


def test_trl_still_calls_models_through_this_seam():
    """Where this fails, trl has changed how its trainers ask a model for log-probabilities: `ScoredOutput`, what
    `BuddyGPTForCausalLM.forward` does with `fused_lm_head`, and trl's range in pyproject.toml belong together."""
    for module in (dpo_trainer, sft_trainer):
        source = inspect.getsource(module)
        assert "fused_lm_head=True" in source, f"{module.__name__} no longer calls the model with fused_lm_head=True"
        assert hasattr(module, "add_fused_lm_head"), f"{module.__name__} no longer puts a head over the model"
        read = {name for name in {f.name for f in fields(FusedCausalLMOutput)} if f"outputs.{name}" in source}
        optional = {"log_sum_sq_probs", "aux_loss"}  # read for use_weighting and router losses, which are off
        ours = {f.name for f in fields(ScoredOutput)}
        assert read - optional <= ours, f"{module.__name__} reads {sorted(read - optional - ours)}"
    theirs = {f.name for f in fields(FusedCausalLMOutput)}
    ours = {f.name for f in fields(ScoredOutput)}
    assert ours <= theirs, f"trl's output no longer has {sorted(ours - theirs)}"
