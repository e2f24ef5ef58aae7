"""Compiled layers give what plain ones give; they are compiled before the first step, once; the rest stays plain."""

import re
import shutil

import pytest
import torch
from safetensors.torch import load_file
from torch._dynamo.testing import CompileCounterWithBackend

from buddygpt.events import Note
from buddygpt.model import BuddyGPTForCausalLM, experts
from buddygpt.model.compiled import compile_layers
from buddygpt.model.norm import RMSNorm
from buddygpt.recipe.dpo import DPOSection
from buddygpt.recipe.errors import BuddyError
from buddygpt.recipe.pretrain import PretrainSection
from buddygpt.recipe.sft import SFTSection
from buddygpt.training.balance import gates
from buddygpt.training.compiled import check_compile, warm_up
from buddygpt.training.setup import Device
from tests.training.toys import EXPERTS, PRETRAIN, TUNING, WIDTHS, fine_tuning, make_model, preferring, pretraining

LOSS, GRADIENT = {"fp32": 1e-5, "bf16": 1e-2}, {"fp32": 1e-4, "bf16": 5e-2}
"""How far a loss, relative to it, and all gradients together, relative to their norm, may lie from the plain ones."""
MLA = {
    "attention_kind": "mla", "num_attention_heads": 2, "q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 8, "v_head_dim": 12,
}  # fmt: skip


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def small(precision="fp32", **changes):
    return make_model(PretrainSection.model_validate(PRETRAIN), initializer_range=0.02, **changes).train()


def steps(model, precision, count=3, shape=(2, 12)):
    """Losses and gradients of a few steps on packed documents."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    draw, found = torch.Generator().manual_seed(3), []
    for _ in range(count):
        ids = torch.randint(WIDTHS["vocab_size"], shape, generator=draw)
        documents = (torch.rand(shape, generator=draw) < 0.2).cumsum(-1)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss = model(ids, shift_labels=ids, document_ids=documents).loss
        loss.backward()
        found.append((float(loss.detach()), torch.cat([p.grad.flatten() for p in model.parameters()])))
        optimizer.step()
        optimizer.zero_grad()
    return found


def assert_equal(plain, compiled, precision):
    for (loss, grad), (other_loss, other_grad) in zip(plain, compiled, strict=True):
        assert other_loss == pytest.approx(loss, rel=LOSS[precision])
        assert float((grad - other_grad).norm() / grad.norm()) < GRADIENT[precision]


@pytest.mark.parametrize(
    ("model", "precision", "checkpointing"),
    [({}, "fp32", False), ({}, "bf16", "selective"), (MLA | EXPERTS, "fp32", True), (EXPERTS, "bf16", False)],
    ids=["gqa", "gqa-selective", "mla-experts-recomputed", "grouped-experts"],
)
def test_compiled_layers_are_plain_ones(model, precision, checkpointing, monkeypatch):
    if precision == "bf16":  # as on a GPU
        monkeypatch.setattr(experts, "_is_grouped", lambda *_: True)
    found = []
    for compiled in (False, True):
        net = small(**model)
        net.selective = checkpointing == "selective"
        if checkpointing:
            net.gradient_checkpointing_enable()
        if compiled:
            compile_layers(net, dynamic=False, backend="aot_eager")
        found.append((steps(net, precision), [gate.tokens_per_expert for gate in gates(net)]))
    (plain, counts), (compiled, other_counts) = found
    assert len(counts) == ("mlp_kind" in model)
    if precision == "fp32":
        assert all(map(torch.equal, counts, other_counts))
    assert_equal(plain, compiled, precision)


@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
def test_what_inductor_writes_is_plain():
    """The compiler itself, on the smallest of what layers hold: each piece that it writes takes seconds."""
    norm, x = RMSNorm(16, 1e-5), torch.randn(4, 16, requires_grad=True)
    wanted = torch.autograd.grad(norm(x).square().sum(), [x, norm.weight])
    found = torch.autograd.grad(torch.compile(norm)(x).square().sum(), [x, norm.weight])
    for a, b in zip(wanted, found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


KINDS = {
    "pretrain": (pretraining, PretrainSection, PRETRAIN),
    "sft": (fine_tuning, SFTSection, TUNING),
    "dpo": (preferring, DPOSection, TUNING | {"lora": {"rank": 2}, "reference": "live"}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_all_is_compiled_in_the_warm_up_which_leaves_no_trace(kind, tmp_path):
    """Windows of many lengths, evaluations, samples and what is saved compile nothing more."""
    build, schema, fields = KINDS[kind]
    section = schema.model_validate(fields)
    model = EXPERTS if kind == "pretrain" else {}
    trainer, watch = build(tmp_path / "run", section, prompts=[("一丁", [1, 2])], **model)
    told, counter = [], CompileCounterWithBackend("eager")
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    random = torch.get_rng_state()
    warm_up(trainer, kind, told.append, backend=counter)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(tensor, before[name]) for name, tensor in trainer.model.state_dict().items())
    assert all(p.grad is None for p in trainer.model.parameters())
    assert all(gate.tokens_per_expert is None for gate in gates(trainer.model))
    assert isinstance(told[0], Note) and re.fullmatch(r"layers compiled in \d+ s", told[0].text)
    frames = counter.frame_count
    assert frames > 0
    trainer.train()
    assert counter.frame_count == frames
    assert any("eval/v/" in key for row in watch.meter.rows for key in row) and watch.samples.latest


def test_a_checkpoint_of_compiled_layers_is_a_plain_one(tmp_path):
    trainer, _ = pretraining(tmp_path, PretrainSection.model_validate(PRETRAIN))
    warm_up(trainer, "pretrain", lambda event: None, backend="eager")
    trainer.train()
    plain, _ = pretraining(tmp_path / "plain", PretrainSection.model_validate(PRETRAIN))
    plain.train()
    for (name, a), b in zip(plain.model.state_dict().items(), trainer.model.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-3, msg=name)
    folder = tmp_path / "checkpoints" / "checkpoint-4"
    model, told = BuddyGPTForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not told["missing_keys"] and not told["unexpected_keys"]
    saved = load_file(folder / "model.safetensors")
    assert set(saved) <= set(model.state_dict()) and not any("_orig" in name for name in saved)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, trainer.model.state_dict()[name])


@pytest.mark.parametrize(("kind", "missing"), [("cpu", "g\\+\\+"), ("cuda", "Triton|gcc or clang")])
def test_a_missing_compiler_is_told_before_anything_begins(kind, missing, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.delenv("CXX", raising=False)
    section = SFTSection.model_validate(TUNING | {"compile": True})
    with pytest.raises(BuddyError, match=f"sft.compile: .*({missing})"):
        check_compile(section, Device(kind, "x", 1), "sft")
    check_compile(section.model_copy(update={"compile": False}), Device(kind, "x", 1), "sft")


def test_what_cannot_be_compiled_is_told_in_a_line(tmp_path):
    def broken(graph, inputs):
        raise RuntimeError("no such header")

    trainer, _ = pretraining(tmp_path, PretrainSection.model_validate(PRETRAIN))
    with pytest.raises(BuddyError, match=r"pretrain.compile: .*no such header"):
        warm_up(trainer, "pretrain", lambda event: None, backend=broken)
