"""The selection bias evens the load, on one process and on two."""

import os

import torch
import torch.multiprocessing as multiprocessing
from torch.nn.parallel import DistributedDataParallel

from buddygpt.model import BuddyGPTConfig, BuddyGPTForCausalLM
from buddygpt.training.balance import gates, load_figures, move_biases, take_counts

STEPS = 20


def make(**changes):
    torch.manual_seed(0)
    sizes = {
        "vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "max_position_embeddings": 32,
        "num_attention_heads": 2, "num_key_value_heads": 1, "mlp_kind": "moe", "n_routed_experts": 8,
        "num_experts_per_tok": 2, "n_shared_experts": 1, "moe_intermediate_size": 12, "initializer_range": 0.2,
    }  # fmt: skip
    return BuddyGPTForCausalLM(BuddyGPTConfig(**sizes | changes)).train()


def test_a_skewed_start_is_evened():
    """Weights stand still: the bias alone brings tokens back from the two experts that have them all."""
    model = make()
    for gate in gates(model):
        gate.e_score_correction_bias[:2] = 1.0
    violations = []
    for step in range(60):
        with torch.no_grad():
            model(torch.randint(60, (8, 32), generator=torch.Generator().manual_seed(step)))
        tokens_LE = take_counts(model)
        violations.append(max(load_figures(tokens_LE)["max_violation"]))
        move_biases(model, tokens_LE, 0.03)
    assert violations[0] == 3  # all tokens, where a fourth were even
    assert sum(violations[-10:]) / 10 < 0.7
    assert take_counts(model).sum() == 0


def test_the_rule_and_the_figures_by_hand():
    model = make()
    tokens_LE = torch.tensor([[4, 0, 2, 2, 2, 2, 3, 1], [0] * 8])
    move_biases(model, tokens_LE, 0.125)
    assert gates(model)[0].e_score_correction_bias.tolist() == [-0.125, 0.125, 0, 0, 0, 0, -0.125, 0.125]
    assert gates(model)[1].e_score_correction_bias.tolist() == [0] * 8
    assert load_figures(tokens_LE) == {"max_violation": [1.0, 0.0], "idle_experts": [0.125, 0.0]}
    move_biases(model, tokens_LE, 0.0)
    assert gates(model)[0].e_score_correction_bias[0] == -0.125
    assert take_counts(torch.nn.Linear(2, 2)) is None


def batch(step, rank):
    """Two rows of four tokens: 16 choices among 8 experts leave some without any."""
    return torch.randint(60, (2, 4), generator=torch.Generator().manual_seed(1000 * rank + step))


def go(model, step_on):
    """`STEPS` steps of plain SGD by `step_on(step)`, which gives the loss; counts of each step."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    counts = []
    for step in range(STEPS):
        step_on(step).backward()
        optimizer.step()
        optimizer.zero_grad()
        counts.append(take_counts(model))
        move_biases(model, counts[-1], 0.01)
    return torch.stack(counts)


def work(rank, folder):
    torch.distributed.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=2)
    model = make(router_aux_loss_coef=0.1)
    parallel = DistributedDataParallel(model)  # without a search for unused parameters
    mine = []

    def step_on(step):
        ids = batch(step, rank)
        loss = parallel(ids, labels=ids, num_items_in_batch=12).loss * 2  # DDP takes the mean over processes
        mine.append(torch.stack([gate.tokens_per_expert for gate in gates(model)]))
        return loss

    counts = go(model, step_on)
    torch.save((counts, torch.stack(mine), model.state_dict()), f"{folder}/{rank}.pt")
    torch.distributed.barrier()
    os._exit(0)  # freeing a gloo group can wait for ever on its own thread (torch 2.13)


def test_two_processes_are_one(tmp_path):
    processes = multiprocessing.spawn(work, (str(tmp_path),), nprocs=2, join=False)
    try:
        if not processes.join(timeout=90):  # true where all have ended
            assert processes.join(timeout=30), "the processes wait for one another"
    finally:
        for process in processes.processes:
            process.kill()
    (counts, first, state), (others, second, other_state) = (torch.load(tmp_path / f"{r}.pt") for r in (0, 1))
    assert torch.equal(counts, others)
    assert torch.equal(counts, first + second) and not torch.equal(first, second)
    assert (first == 0).any() and (counts.sum(-1) == 32).all()
    for name, tensor in state.items():
        assert torch.equal(tensor, other_state[name]), name

    alone = make(router_aux_loss_coef=0.1)

    def step_on(step):
        ids = torch.cat((batch(step, 0), batch(step, 1)))
        return alone(ids, labels=ids, num_items_in_batch=12).loss

    torch.testing.assert_close(go(alone, step_on), counts)
    for name, tensor in alone.state_dict().items():
        torch.testing.assert_close(tensor, state[name], rtol=1e-3, atol=1e-4)
