"""Which parameters go where, that each moves as its paper says, and that nothing of an optimizer's state is lost."""

import copy

import pytest
import torch

from buddygpt.model import BuddyGPTConfig, BuddyGPTForCausalLM
from buddygpt.recipe.training import AdamW, Muon
from buddygpt.training import optimizers
from buddygpt.training.optimizers import build_optimizer, parameter_groups

ADAMW = AdamW(kind="adamw", learning_rate=1e-2, weight_decay=0.5)
MUON = Muon(kind="muon", learning_rate=1e-2, adamw_learning_rate=1e-3, weight_decay=0.5)


def model(**changes):
    torch.manual_seed(0)
    geometry = {
        "vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "max_position_embeddings": 32,
        "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 24,
    }  # fmt: skip
    return BuddyGPTForCausalLM(BuddyGPTConfig(**geometry | changes))


def step(net, optimizer):
    ids = torch.arange(20)[None] % 50
    net(ids, labels=ids).loss.backward()
    optimizer.step()
    optimizer.zero_grad()


@pytest.mark.parametrize("tied", [True, False])
def test_each_parameter_once_and_only_matrices_decay(tied):
    net = model(tie_word_embeddings=tied)
    hidden, embeddings, vectors = parameter_groups(net)
    together = [id(p) for p in hidden + embeddings + vectors]
    assert len(together) == len(set(together)) == len(list(net.parameters()))
    assert len(embeddings) == (1 if tied else 2)
    names = {id(p): n for n, p in net.named_parameters()}
    assert all(names[id(p)].endswith("proj.weight") for p in hidden)
    assert all(p.ndim == 1 for p in vectors)
    for section in (ADAMW, MUON):
        optimizer = build_optimizer(net, section)
        decays = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
        assert all(decays[id(p)] == 0.5 for p in hidden)
        assert all(decays[id(p)] == 0 for p in embeddings + vectors)


@pytest.mark.parametrize("section", [ADAMW, MUON], ids=lambda s: s.kind)
def test_every_parameter_moves(section):
    net = model()
    before = copy.deepcopy(net.state_dict())
    optimizer = build_optimizer(net, section)
    step(net, optimizer)
    still = [n for n, p in net.state_dict().items() if torch.equal(p, before[n])]
    # The bias of keys shifts every score of a query alike: softmax does not see it, its gradient is rounding noise.
    assert [n for n in still if "k_proj.bias" not in n] == []


@pytest.mark.parametrize("section", [ADAMW, MUON], ids=lambda s: s.kind)
def test_saved_and_loaded_it_goes_on_bit_for_bit(section, tmp_path):
    one = model()
    first = build_optimizer(one, section)
    for _ in range(3):
        step(one, first)
    torch.save(first.state_dict(), tmp_path / "o.pt")
    other = model()
    other.load_state_dict(one.state_dict())
    second = build_optimizer(other, section)
    second.load_state_dict(torch.load(tmp_path / "o.pt", weights_only=True))
    for _ in range(2):
        step(one, first)
        step(other, second)
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_schedule_reaches_both_of_the_pair():
    optimizer = build_optimizer(model(), MUON)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
    optimizer.load_state_dict(optimizer.state_dict())  # as on going on from a checkpoint
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"]
    optimizer.step()
    schedule.step()
    rates = [g["lr"] for part in optimizer.pair for g in part.param_groups]
    assert rates == pytest.approx([5e-3, 5e-4])


EXPERTS = {
    "mlp_kind": "moe", "n_routed_experts": 4, "num_experts_per_tok": 1, "n_shared_experts": 1,
    "moe_intermediate_size": 24,
}  # fmt: skip


def muon_reference(weight, grads, rate, momentum=0.95, decay=0.5):
    """Muon as its papers have it: momentum, Nesterov, five Newton-Schulz steps, the size of AdamW's updates."""
    moment, weight = torch.zeros_like(weight), weight.clone()
    for grad in grads:
        moment = momentum * moment + (1 - momentum) * grad
        x = (momentum * moment + (1 - momentum) * grad).bfloat16()
        x = x.T if len(x) > x.shape[1] else x
        x = x / x.norm().clamp(min=1e-7)
        for _ in range(5):
            gram = x @ x.T
            x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=-4.7750, alpha=2.0315), x, beta=3.4445)
        x = x.T if len(weight) > weight.shape[1] else x
        weight = weight * (1 - rate * decay) - rate * 0.2 * max(weight.shape) ** 0.5 * x.float()
    return weight


def adamw_reference(weight, grads, rate, decay, betas=(0.9, 0.95), eps=1e-8):
    first = second = torch.zeros_like(weight)
    for n, grad in enumerate(grads, 1):
        first = betas[0] * first + (1 - betas[0]) * grad
        second = betas[1] * second + (1 - betas[1]) * grad**2
        step = first / (1 - betas[0] ** n) / ((second / (1 - betas[1] ** n)).sqrt() + eps)
        weight = weight * (1 - rate * decay) - rate * step
    return weight


@pytest.mark.parametrize("mlp", [{}, EXPERTS], ids=["dense", "experts"])
@pytest.mark.parametrize(
    ("section", "together"),
    [(ADAMW, None), (MUON, None), (MUON, 10**9), (MUON, 1000), (MUON, 1)],
    ids=["adamw", "muon", "muon, a shape at once", "muon, some at once", "muon, one at once"],
)
def test_each_matrix_moves_by_itself_as_a_plain_reference_does(section, together, mlp, monkeypatch):
    """Experts too: each one's matrices are orthogonalised alone, also of one that no token chose.

    A GPU takes several in one kernel.
    """
    if together is not None:
        monkeypatch.setattr(optimizers, "_alone", lambda _: False)
        monkeypatch.setattr(optimizers, "TOGETHER", together)
    net = model(attention_bias=True, **mlp)
    assert all(p.ndim <= 2 for p in net.parameters())
    before = {n: p.detach().clone() for n, p in net.named_parameters()}
    hidden = {id(p) for p in parameter_groups(net)[0]}
    optimizer = build_optimizer(net, section)
    torch.manual_seed(1)
    grads = {n: [torch.randn_like(p) for _ in range(3)] for n, p in net.named_parameters()}
    if mlp:
        idle = "model.layers.1.mlp.experts.2.up_proj.weight"
        grads[idle][1:] = [torch.zeros_like(before[idle])] * 2
    for n in range(3):
        for name, parameter in net.named_parameters():
            parameter.grad = grads[name][n].clone()
        optimizer.step()
    for name, parameter in net.named_parameters():
        decay = 0.5 if id(parameter) in hidden else 0.0
        if section.kind == "muon" and id(parameter) in hidden:
            expected = muon_reference(before[name], grads[name], 1e-2)
            moved = (expected - before[name]).norm()
            assert (parameter - expected).norm() < 0.01 * moved, name  # Newton-Schulz runs in bf16
        else:
            rate = 1e-2 if section.kind == "adamw" else 1e-3
            torch.testing.assert_close(parameter.detach(), adamw_reference(before[name], grads[name], rate, decay))


def test_a_run_goes_on_where_matrices_move_together(monkeypatch):
    """A CPU's state serves a GPU: the moments are the same, the matrices within bf16's rounding."""
    ours = []
    for alone in ((True, True, True), (True, False, False)):
        net = model(**EXPERTS)
        optimizer = build_optimizer(net, MUON)
        for n, one_by_one in enumerate(alone):
            if n == 1:
                state, optimizer = copy.deepcopy(optimizer.state_dict()), build_optimizer(net, MUON)
                optimizer.load_state_dict(state)
            monkeypatch.setattr(optimizers, "_alone", lambda _, alone=one_by_one: alone)
            torch.manual_seed(n)
            for parameter in net.parameters():
                parameter.grad = torch.randn_like(parameter)
            optimizer.step()
        ours.append((net, optimizer))
    (one, first), (other, second) = ours
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=2e-4)
        assert set(first.state[a]) == set(second.state[b])
        for key in first.state[a]:
            torch.testing.assert_close(first.state[a][key], second.state[b][key])


def test_a_matrix_without_a_gradient_stays_where_matrices_move_together(monkeypatch):
    monkeypatch.setattr(optimizers, "_alone", lambda _: False)
    net = model()
    optimizer = build_optimizer(net, MUON)
    hidden = parameter_groups(net)[0]
    before = [p.detach().clone() for p in hidden]
    for parameter in hidden[::2]:
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    assert [torch.equal(p, old) for p, old in zip(hidden, before, strict=True)] == [
        n % 2 == 1 for n in range(len(hidden))
    ]


def test_an_update_of_muon_is_as_large_as_one_of_adamw():
    """arXiv 2502.16982, section 2.2: root mean squares of 0.2 to 0.4 of the rate, whatever the shape."""
    net = model(hidden_size=64, intermediate_size=512, vocab_size=50)
    section = Muon(kind="muon", learning_rate=1.0, weight_decay=0)
    hidden = parameter_groups(net)[0]
    optimizer = build_optimizer(net, section)
    before = [p.detach().clone() for p in hidden]
    for parameter in net.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    for parameter, old in zip(hidden, before, strict=True):
        assert 0.12 < (parameter - old).square().mean().sqrt() < 0.28


def test_one_rate_serves_both_where_adamw_has_none_of_its_own():
    optimizer = build_optimizer(model(), Muon(kind="muon", learning_rate=2e-3))
    assert {group["lr"] for group in optimizer.param_groups} == {2e-3}


def test_adamw_steps_in_one_pass():
    assert all(group["fused"] for group in build_optimizer(model(), ADAMW).param_groups)
    assert all(group["fused"] for group in build_optimizer(model(), MUON).pair[1].param_groups)
