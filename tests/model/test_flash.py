"""Every attention backend against one that says what it means, query by query."""

from typing import get_args

import pytest
import torch

from buddygpt.model.backends import Demand
from buddygpt.model.flash import AUTO, BACKENDS, UnsupportedError, attend, choose, survey
from buddygpt.model.visibility import Visibility
from buddygpt.recipe.pretrain import PretrainSection

pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
PADDING = {"left": [[0, 0, 0, 1, 1, 1, 1, 1, 1, 1], [1] * 10], "right": [[1] * 7 + [0] * 3, [1] * 10]}
DOCUMENTS = [[5, 5, 5, 0, 0, 0, 0, 0, 0, 5], [1] * 10]
"""Of the first row, the last token's id comes a second time: it is a document of its own."""
CASES = {
    "plain": {},
    "step": {"past": 6, "queries": 1},
    "chunk": {"past": 6, "queries": 4},
    "documents": {"documents": DOCUMENTS},
    "padding-left": {"padding": PADDING["left"]},
    "padding-right": {"padding": PADDING["right"]},
    "documents-and-padding": {"documents": DOCUMENTS, "padding": PADDING["right"]},
    "padding-after-a-cache": {"past": 6, "queries": 4, "padding": PADDING["left"]},
    "padding-one-query": {"past": 9, "queries": 1, "padding": PADDING["left"]},
    "empty-slots": {"past": 6, "queries": 4, "slots": 3},
}
SHAPES = {"mha": (4, 4, 8, 8), "gqa": (4, 2, 8, 8), "mqa": (4, 1, 8, 8), "narrow": (4, 2, 8, 16), "wide": (2, 2, 16, 8)}
"""Query heads, key heads, key width, value width."""


@pytest.fixture(params=BACKENDS)
def backend(request):
    """Each backend by name; one that this machine cannot run is skipped, with its own reason."""
    demand = Demand(DEVICE, torch.bfloat16, 8, 8, "runs")
    if reason := BACKENDS[request.param].refusal(demand):
        pytest.skip(f"{request.param}: {reason}")
    return request.param


def inputs(shape, past=0, queries=10, padding=None, documents=None, slots=0):
    torch.manual_seed(0)
    heads, kv_heads, key_width, value_width = SHAPES[shape]
    keys = past + queries + slots
    q, k, v = (
        torch.randn(2, h, t, d, device=DEVICE, requires_grad=True)
        for h, t, d in ((heads, queries, key_width), (kv_heads, keys, key_width), (kv_heads, keys, value_width))
    )
    padding, documents = (None if x is None else torch.tensor(x, device=DEVICE) for x in (padding, documents))
    return q, k, v, Visibility(past, queries, padding, documents), padding, documents


def reference(q, k, v, visible, padding, documents, scale):
    """Each query over a list of its keys; queries that are padding stay zero."""
    rows = []
    for b, h, t in torch.cartesian_prod(*map(torch.arange, q.shape[:3])).tolist():
        place = visible.past + t
        keys = [s for s in range(place + 1) if padding is None or padding[b, s]]
        if documents is not None:
            row = documents[b].tolist()
            keys = [s for s in keys if len(set(row[s : place + 1])) == 1]
        if padding is not None and not padding[b, place]:
            rows.append(v.new_zeros(v.shape[-1]))
            continue
        kv = h * k.shape[1] // q.shape[1]
        rows.append(((k[b, kv, keys] @ q[b, h, t]) * scale).softmax(0) @ v[b, kv, keys])
    return torch.stack(rows).view(*q.shape[:3], -1)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_gradients(backend, case, shape):
    q, k, v, visible, padding, documents = inputs(shape, **CASES[case])
    backward = backend != "flex_attention" or DEVICE == "cuda"
    dtype = torch.float32 if DEVICE == "cpu" or backend in ("sdpa", "eager", "flex_attention") else torch.bfloat16
    demand = Demand(DEVICE, dtype, q.shape[-1], v.shape[-1], visible.kind(k.shape[-2]))
    if reason := BACKENDS[backend].refusal(demand):
        with pytest.raises(UnsupportedError, match=reason.split(",")[0]):
            attend(q.to(dtype), k.to(dtype), v.to(dtype), visible, 0.3, backend)
        return
    given = (x.to(dtype) if backward else x.detach().to(dtype) for x in (q, k, v))
    ours = attend(*given, visible, 0.3, backend).float()
    theirs = reference(q, k, v, visible, padding, documents, 0.3)
    real = torch.ones_like(ours[:, 0, :, 0], dtype=torch.bool)
    if padding is not None:
        real = padding[:, visible.past : visible.past + visible.queries].bool()
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 2e-2, "atol": 2e-2}
    assert ours.isfinite().all()
    torch.testing.assert_close(ours.transpose(1, 2)[real], theirs.transpose(1, 2)[real], **tolerance)
    if not backward:
        return
    upstream = torch.randn_like(ours) * real[:, None, :, None]
    for a, b in zip(*(torch.autograd.grad(y, (q, k, v), upstream) for y in (ours, theirs)), strict=True):
        torch.testing.assert_close(a, b, **tolerance)


@pytest.mark.parametrize("lengths", [[512] * 2, [1, 2, 3, 1018], [100, 300, 37, 300, 287], [7] * 146 + [2]], ids=str)
def test_long_windows_of_documents(lengths):
    """sdpa makes batches of nearly equal length; none of them may differ from the document alone."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 2, 1024, 8) for _ in range(3))
    ids = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))[None]
    together = attend(q, k, v, Visibility(0, 1024, None, ids), 0.3, "sdpa")
    alone = [
        attend(*part, Visibility(0, part[0].shape[2]), 0.3, "sdpa")
        for part in zip(*(x.split(lengths, dim=2) for x in (q, k, v)), strict=True)
    ]
    torch.testing.assert_close(together, torch.cat(alone, dim=2), rtol=1e-4, atol=1e-5)


def test_no_square_mask_where_runs_will_do(monkeypatch):
    def refuse(*args):
        raise AssertionError("a T x T mask")

    monkeypatch.setattr(Visibility, "mask", refuse)
    for case in ("plain", "step", "documents", "padding-left", "documents-and-padding"):
        q, k, v, visible, *_ = inputs("gqa", **CASES[case])
        attend(q, k, v, visible, 0.3, "sdpa")


def test_a_named_backend_never_falls_back():
    cpu = Demand("cpu", torch.float32, 8, 8, "plain")
    for name in ("flash_attention_2", "flash_attention_3", "flash_attention_4", "varlen_attn"):
        with pytest.raises(UnsupportedError, match=f"{name}: needs a CUDA device, this is cpu; use auto, .* sdpa"):
            choose(name, cpu)
    with pytest.raises(UnsupportedError, match="'flash': unknown; one of auto, flash_attention_4"):
        choose("flash", cpu)


def test_flex_has_no_backward_pass_on_a_cpu():
    q, k, v, visible, *_ = inputs("mha")
    with pytest.raises(UnsupportedError, match="flex_attention: has no backward pass on a CPU; use auto"):
        attend(q.cpu(), k.cpu(), v.cpu(), visible, 0.3, "flex_attention")


def test_auto_says_why_it_passes_the_others_over():
    found = survey(Demand("cpu", torch.float32, 8, 8, "runs"))
    assert [name for name, _ in found] == list(BACKENDS)
    assert [name for name, reason in found if reason is None] == ["sdpa"]
    assert choose(AUTO, Demand("cpu", torch.float32, 8, 8, "runs")).name == "sdpa"


@pytest.mark.parametrize("capability", [(7, 5), (8, 0), (9, 0), (10, 0)])
@pytest.mark.parametrize("kind", ["plain", "runs", "step", "chunk", "mask"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_auto_on_gpus(monkeypatch, capability, kind, dtype):
    """What would be chosen on cards of four generations that have every package; no kernel runs here."""
    from buddygpt.model import backends

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *a: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *a: "a card")
    monkeypatch.setattr(backends, "_is_installed", lambda module: True)
    chosen = choose(AUTO, Demand("cuda", dtype, 64, 64, kind)).name
    half = dtype == torch.bfloat16 and kind != "mask" and capability[0] >= 9
    if half:
        assert chosen == "flash_attention_4"
    elif dtype == torch.bfloat16 and kind == "runs" and capability[0] == 8:
        assert chosen == "flash_attention_2"
    else:
        assert chosen == "sdpa"


def test_recipes_know_every_backend():
    named = get_args(PretrainSection.model_fields["attn_implementation"].annotation)
    assert named == (AUTO, *BACKENDS)


def test_the_model_takes_transformers_names(make):
    assert make().config._attn_implementation == "auto"
    assert make(attn_implementation="eager").config._attn_implementation == "eager"
    model = make().requires_grad_(False)
    ids = torch.randint(97, (1, 12))
    before = model(ids).logits
    model.set_attn_implementation("flex_attention")
    torch.testing.assert_close(model(ids).logits, before, rtol=1e-4, atol=1e-5)
    model.set_attn_implementation("flash_attention_2")
    if DEVICE == "cpu":
        with pytest.raises(UnsupportedError, match="needs a CUDA device"):
            model(ids)
    with pytest.raises(ValueError, match="unknown"):
        make(attn_implementation="quick")
