"""What the shortlist chooses is what the whole head chooses, however the logits lie."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from buddygpt.model import shortlist as module
from buddygpt.model.generation import stream
from buddygpt.model.sampling import Sampling, choose
from buddygpt.model.shortlist import Shortlist, make_shortlist

GREEDY = Sampling(temperature=0.0)


def heads(seed, kind, dtype, rows=3000, width=64):
    """Rows as they come in trained tables: even, of unequal length, with a few large numbers, with doubles."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, width, generator=generator)
    if kind == "unequal":
        weight *= torch.rand(rows, 1, generator=generator) * 5
    if kind == "outliers":
        weight[:, 3] *= 40
    if kind == "doubles":
        weight[rows // 2 :] = weight[: rows - rows // 2]
    if kind == "zeros":
        weight[::2] = 0
    return weight.to(dtype), torch.randn(width, generator=generator).to(dtype)


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 10_000),
    st.sampled_from(("even", "unequal", "outliers", "doubles", "zeros")),
    st.sampled_from((torch.float32, torch.bfloat16)),
    st.sampled_from((1e-3, 0.1, 3.0)),
)
def test_greedy_is_the_whole_heads(seed, kind, dtype, sharpness):
    weight_VC, x_C = heads(seed, kind, dtype)
    x_C = x_C * sharpness
    logits_V = torch.mv(weight_VC, x_C).double()
    chosen = int(Shortlist(weight_VC).choose(x_C, GREEDY, torch.zeros(1)))
    if kind == "doubles" and dtype == torch.float32:  # equal rows: the order of sums may differ in the last bit
        assert logits_V[chosen] == pytest.approx(float(logits_V.max()), rel=1e-6)
    else:
        assert chosen == int(logits_V.max(-1).indices)


@settings(max_examples=100, deadline=None)
@given(
    st.integers(0, 10_000),
    st.sampled_from(("even", "unequal", "outliers")),
    st.sampled_from((0.0, 0.3, 0.9, 1.0)),
    st.floats(0.3, 2.0),
    st.floats(0, 0.999),
)
def test_what_is_drawn_is_the_whole_heads(seed, kind, top_p, temperature, number):
    weight_VC, x_C = heads(seed, kind, torch.float32)
    sampling, draws = Sampling(temperature=temperature, top_p=top_p), torch.tensor([number], dtype=torch.double)
    logits_1V = torch.mv(weight_VC, x_C)[None]
    mine, theirs = int(Shortlist(weight_VC).choose(x_C, sampling, draws)), int(choose(logits_1V, sampling, draws))
    if mine != theirs:  # the sum of all that is left out is known to some ten thousandths: a draw may fall on an edge
        shares = (logits_1V[0] / temperature).softmax(-1).sort(descending=True)
        places = [int((shares.indices == i).nonzero()) for i in (mine, theirs)]
        assert abs(places[0] - places[1]) == 1
        edge = float(shares.values[: max(places)].sum())
        kept = shares.values[shares.values.cumsum(-1) - shares.values < top_p].sum()
        assert abs(edge / kept - number) < 1e-3


def test_the_error_is_within_the_bound():
    for kind in ("even", "unequal", "outliers"):
        weight_VC, x_C = heads(0, kind, torch.float32)
        near_V, error = Shortlist(weight_VC)._near(x_C)
        found = float((near_V.double() - weight_VC.double() @ x_C.double()).abs().max())
        assert 0.02 * error < found <= error


def test_only_what_has_a_chance_is_looked_at(monkeypatch):
    weight_VC, x_C = heads(0, "even", torch.float32)
    seen = []
    product = torch.mv
    monkeypatch.setattr(torch, "mv", lambda a, b: seen.append(len(a)) or product(a, b))
    Shortlist(weight_VC).choose(x_C, GREEDY, torch.zeros(1))
    assert seen[0] == 3000 and seen[1] < 30  # the sums of two columns, then the few


@pytest.mark.parametrize("temperature", (0.0, 0.8))
def test_texts_are_the_same_with_and_without(make, temperature):
    model, sampling = make("gqa"), Sampling(30, temperature, 0.9, seed=3)
    texts = [list(stream(model, [5, 6, 7], sampling, vocabulary=90, shortlist=s)) for s in (None, head(model, 90))]
    assert texts[0] == texts[1] and len(texts[0]) == 30 and max(texts[0]) < 90


def head(model, rows):
    return Shortlist(model.lm_head.weight.detach()[:rows])


def test_other_models_go_without(make):
    model, sampling = make("mla"), Sampling(8, 0.0)
    assert list(stream(model, [5, 6], sampling, shortlist=head(model, 97))) == list(stream(model, [5, 6], sampling))


def test_it_is_made_where_it_is_faster_and_nowhere_else(make, monkeypatch):
    model = make("gqa")
    assert make_shortlist(model, 97) is None  # small
    monkeypatch.setattr(module, "_SMALLEST", 1)
    for seconds, made in (((1.0, 2.0), True), ((2.0, 1.0), False)):
        taken = iter(seconds)
        monkeypatch.setattr(module, "_seconds", lambda work, taken=taken: work() is not None and next(taken))
        assert (make_shortlist(model, 90) is not None) is made
    assert make_shortlist(make("mla"), 97) is None  # which would not use it
