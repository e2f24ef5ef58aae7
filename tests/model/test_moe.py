"""The router: what the bias may steer, what is counted, what the balance loss is."""

import pytest
import torch

from buddygpt.model import BuddyGPTConfig, BuddyGPTForCausalLM
from buddygpt.model.moe import MoEGate, MoELayer, sequence_balance

SIZES = {
    "hidden_size": 16, "num_attention_heads": 2, "num_key_value_heads": 1, "mlp_kind": "moe", "n_routed_experts": 8,
    "num_experts_per_tok": 2, "n_shared_experts": 1, "moe_intermediate_size": 12, "routed_scaling_factor": 1.5,
}  # fmt: skip


@pytest.fixture
def layer():
    """A layer whose every tensor has spread, the bias too."""
    torch.manual_seed(0)
    layer = MoELayer(BuddyGPTConfig(**SIZES, router_aux_loss_coef=0.01)).train()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    layer.gate.e_score_correction_bias.copy_(0.2 * torch.randn(8))
    return layer


def reference(layer, x_C):
    """One token by the paper's equations 12 to 16; gives the chosen experts, their weights, the output."""
    scores = [float(torch.sigmoid(x_C @ row)) for row in layer.gate.weight.detach()]
    biased = [s + float(b) for s, b in zip(scores, layer.gate.e_score_correction_bias, strict=True)]
    chosen = sorted(range(8), key=lambda e: -biased[e])[:2]
    weights = {e: 1.5 * scores[e] / sum(scores[i] for i in chosen) for e in chosen}
    return weights, layer.shared_experts(x_C) + sum(w * layer.experts[e](x_C) for e, w in weights.items())


def test_the_layer_is_the_papers(layer):
    x = torch.randn(2, 5, 16)
    _, indices, weights = layer.gate(x.flatten(0, 1))
    outputs, load = layer(x)
    counts = torch.zeros(8, dtype=torch.int64)
    for token, x_C in enumerate(x.flatten(0, 1)):
        expected, output = reference(layer, x_C)
        assert dict(zip(indices[token].tolist(), weights[token].tolist(), strict=True)) == pytest.approx(expected)
        torch.testing.assert_close(outputs.flatten(0, 1)[token], output)
        counts[list(expected)] += 1
    assert torch.equal(load.tokens_E, counts)


def test_the_bias_steers_the_choice_and_nothing_else(layer):
    x = torch.randn(3, 7, 16)
    before, _ = layer(x)
    layer.gate.e_score_correction_bias += 0.7
    assert torch.equal(layer(x)[0], before)
    layer.gate.e_score_correction_bias[3] += 10
    after, load = layer(x)
    assert load.tokens_E[3] == 21
    assert not torch.allclose(after, before)
    for token, x_C in enumerate(x.flatten(0, 1)):  # a weight that held the bias would be near the factor
        torch.testing.assert_close(after.flatten(0, 1)[token], reference(layer, x_C)[1])
    after.sum().backward()
    assert layer.gate.e_score_correction_bias.grad is None and not layer.gate.e_score_correction_bias.requires_grad


def test_only_real_tokens_count(layer):
    """The same rows with and without padding on either side."""
    x, noise = torch.randn(2, 6, 16), torch.randn(2, 6, 16)
    real = torch.ones(2, 6, dtype=torch.bool)
    _, alone = layer(x)
    for parts in ((x, noise), (noise, x)):
        mask = torch.cat([real if part is x else ~real for part in parts], dim=1)
        _, padded = layer(torch.cat(parts, dim=1), mask)
        assert torch.equal(padded.tokens_E, alone.tokens_E)
        torch.testing.assert_close(padded.balance_B, alone.balance_B)
    _, uncounted = layer(torch.cat((x, noise), dim=1))
    assert not torch.equal(uncounted.tokens_E, alone.tokens_E)


def test_the_model_passes_its_mask_on(make):
    model = make("moe", num_hidden_layers=3, router_aux_loss_coef=0.1).train()
    ids = torch.randint(97, (2, 10))
    gates = [m for m in model.modules() if isinstance(m, MoEGate)]

    def run(ids, mask):
        out = model(ids, attention_mask=mask, labels=ids.masked_fill(mask == 0, -100))
        counts = torch.stack([gate.tokens_per_expert for gate in gates])
        for gate in gates:
            gate.tokens_per_expert = None
        return counts, out.loss

    counts, loss = run(ids, torch.ones_like(ids))
    assert counts.sum(-1).tolist() == [40, 40, 40]
    zeros = torch.zeros_like(ids)
    padded, padded_loss = run(torch.cat((ids, zeros), dim=1), torch.cat((torch.ones_like(ids), zeros), dim=1))
    assert torch.equal(padded, counts)
    torch.testing.assert_close(padded_loss, loss)


def test_counts_add_up_in_training_and_stay_away_in_evaluation(make):
    model = make("mla-moe")
    gate = next(m for m in model.modules() if isinstance(m, MoEGate))
    ids = torch.randint(97, (2, 10))
    model(ids, labels=ids)
    model.generate(ids, max_new_tokens=3, do_sample=False, eos_token_id=None, pad_token_id=0)
    assert gate.tokens_per_expert is None
    model.train()
    model(ids)
    once = gate.tokens_per_expert.clone()
    model(ids)
    assert torch.equal(gate.tokens_per_expert, 2 * once) and once.sum() == 40
    assert not any("tokens_per_expert" in name for name in model.state_dict())


@pytest.mark.parametrize(("reentrant", "selective"), [(False, False), (True, False), (False, True)])
def test_recomputed_layers_are_counted_once_and_have_the_balance_gradient(make, reentrant, selective):
    ids = torch.randint(97, (2, 16))
    found = []
    for on in (False, True):
        model = make("moe", router_aux_loss_coef=1.0).train()
        if on:
            model.selective = selective
            model.gradient_checkpointing_enable({"use_reentrant": reentrant})
        model.enable_input_require_grads()
        model(ids, labels=ids).loss.backward()
        gates = [m for m in model.modules() if isinstance(m, MoEGate)]
        found.append([g.tokens_per_expert for g in gates] + [p.grad for p in model.parameters()])
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b)


def balance_by_hand(scores_TE, chosen):
    """Equations 17 to 20 without the coefficient, over one sequence."""
    tokens, experts = scores_TE.shape
    f = torch.zeros(experts)
    for row in scores_TE:
        f[row.topk(chosen).indices] += experts / (chosen * tokens)
    mean = sum(row / row.sum() for row in scores_TE) / tokens
    return (f * mean).sum()


def test_the_balance_loss_is_the_papers(layer):
    x = torch.randn(3, 9, 16)
    _, load = layer(x)
    scores = torch.sigmoid(x @ layer.gate.weight.T)
    expected = torch.stack([balance_by_hand(row, 2) for row in scores])
    torch.testing.assert_close(load.balance_B, expected)
    (got,) = torch.autograd.grad(load.balance_B.sum(), layer.gate.weight)
    (wanted,) = torch.autograd.grad(expected.sum(), layer.gate.weight)
    assert wanted.abs().max() > 1e-3
    torch.testing.assert_close(got, wanted)
    even = torch.eye(8).clamp(min=0.1)[None]  # each of eight tokens has an expert of its own
    assert float(sequence_balance(even, 1)) == pytest.approx(1)
    nothing_real = sequence_balance(scores, 2, torch.zeros(3, 9, dtype=torch.bool))
    assert nothing_real.tolist() == [0, 0, 0]


def test_the_balance_loss_alone_reaches_every_router_and_only_in_training(make):
    ids = torch.randint(97, (2, 10))
    gradients, losses = [], []
    for coefficient in (0.0, 0.5):
        model = make("moe", router_aux_loss_coef=coefficient).train()
        loss = model(ids, labels=ids).loss
        routers = [p for n, p in model.named_parameters() if n.endswith("gate.weight")]
        gradients.append(torch.autograd.grad(loss, routers))
        losses.append((loss.item(), model.eval()(ids, labels=ids).loss.item()))
    assert all((b - a).abs().max() > 1e-4 for a, b in zip(*gradients, strict=True))
    assert losses[0][1] == losses[1][1]  # evaluation
    assert losses[1][0] - losses[0][0] == pytest.approx(0.5 * 2, rel=0.3)  # two layers, each near 1


def test_how_a_batch_is_split_changes_no_gradient(make):
    """Eight rows at once, and one by one with an uneven number of judged tokens."""
    torch.manual_seed(1)
    ids = torch.randint(97, (8, 12))
    labels = ids.clone()
    for row in range(8):
        labels[row, : 1 + row] = -100
    items = int((labels[:, 1:] != -100).sum())
    norms, counts = [], []
    for size in (8, 1):
        model = make("moe", router_aux_loss_coef=3.0).train()
        for part, judged in zip(ids.split(size), labels.split(size), strict=True):
            model(part, labels=judged, num_items_in_batch=torch.tensor(items)).loss.backward()
        routers = [p.grad for n, p in model.named_parameters() if n.endswith("gate.weight")]
        norms.append(torch.stack([g.norm() for g in routers]))
        counts.append(torch.stack([m.tokens_per_expert for m in model.modules() if isinstance(m, MoEGate)]))
    torch.testing.assert_close(*norms, rtol=1e-4, atol=1e-6)
    assert torch.equal(*counts)
    whole = make("moe", router_aux_loss_coef=3.0).train()
    whole(ids, labels=labels).loss.backward()  # without a count from outside, its own
    alone = torch.stack([p.grad.norm() for n, p in whole.named_parameters() if n.endswith("gate.weight")])
    torch.testing.assert_close(alone, norms[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_bias_is_saved_and_loaded_in_fp32_whatever_the_model(make, tmp_path, dtype):
    model = make("moe")
    gates = [m for m in model.modules() if isinstance(m, MoEGate)]
    biases = [0.3 + 0.001 * torch.randn(4) for _ in gates]  # bf16 knows 0.2988, 0.3008
    for gate, bias in zip(gates, biases, strict=True):
        gate.e_score_correction_bias.copy_(bias)
    model.to(dtype).save_pretrained(tmp_path)
    for wanted in (dtype, torch.bfloat16):
        again = BuddyGPTForCausalLM.from_pretrained(tmp_path, dtype=wanted)
        assert again.dtype == wanted
        for gate, bias in zip([m for m in again.modules() if isinstance(m, MoEGate)], biases, strict=True):
            assert gate.weight.dtype == torch.float32
            assert torch.equal(gate.e_score_correction_bias, bias)
    assert {g.weight.dtype for g in gates} == {torch.float32}
    assert model.model.layers[0].mlp.experts[0].up_proj.weight.dtype == dtype


def test_stacked_experts_load(layer):
    state = layer.state_dict()
    stacked = {k: v for k, v in state.items() if not k.startswith("experts.")}
    stacked["experts.gate_up_proj"] = torch.stack(
        [torch.cat((e.gate_proj.weight, e.up_proj.weight)) for e in layer.experts]
    )
    stacked["experts.down_proj"] = torch.stack([e.down_proj.weight for e in layer.experts])
    assert stacked["experts.gate_up_proj"].shape == (8, 24, 16) and stacked["experts.down_proj"].shape == (8, 16, 12)
    other = MoELayer(BuddyGPTConfig(**SIZES))
    outer = torch.nn.ModuleDict({"mlp": other})
    assert str(outer.load_state_dict({f"mlp.{k}": v for k, v in stacked.items()})) == "<All keys matched successfully>"
    for name, tensor in other.state_dict().items():
        assert torch.equal(tensor, state[name]), name
    assert str(other.load_state_dict(state)) == "<All keys matched successfully>"
