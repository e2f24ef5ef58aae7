"""Which parameters go where, and that nothing of an optimizer's state is lost."""

import copy

import pytest
import torch

from buddygpt.model import BuddyGPTConfig, BuddyGPTForCausalLM
from buddygpt.recipe.training import AdamW, Muon
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
