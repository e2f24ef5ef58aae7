"""The cache holds what it must, where it was put, and gives it back; transformers' generate works on it."""

import pytest
import torch
from torch._dynamo.utils import counters

from buddygpt.model import BuddyGPTConfig
from buddygpt.model.cache import KVCache, PrefixCache
from buddygpt.model.generation import generate
from buddygpt.model.modeling import CACHE
from buddygpt.model.sampling import Sampling

KINDS = pytest.mark.parametrize("static", [False, True], ids=["dynamic", "static"])
GREEDY = Sampling(max_new_tokens=12, temperature=0.0)


@pytest.fixture
def model(make, variant):
    return make(variant).requires_grad_(False)


@pytest.fixture(autouse=True)
def no_compiled_leftovers():
    yield
    torch._dynamo.reset()


def elements(cache):
    return sum(buffer.numel() for pair in cache.buffers for buffer in pair)


def test_mla_holds_latent_and_rotary_key_and_nothing_else():
    """At the origin's sizes 40 numbers a token and layer, where spelt-out keys and values would take 3,072."""
    config = BuddyGPTConfig(
        attention_kind="mla", hidden_size=1536, num_hidden_layers=2, num_attention_heads=16, q_lora_rank=16,
        kv_lora_rank=16, qk_rope_head_dim=24, qk_nope_head_dim=72, v_head_dim=96, intermediate_size=3072,
    )  # fmt: skip
    assert elements(KVCache(config, 3, 50)) == 40 * 3 * 50 * 2


def test_gqa_holds_keys_and_values_of_its_own_heads(make):
    config = make("gqa").config  # 2 key-value heads of width 8
    assert elements(KVCache(config, 3, 50)) == 2 * 2 * 8 * 3 * 50 * config.num_hidden_layers


@KINDS
def test_chunks_equal_the_whole(model, static):
    """M5 in pitfalls: 13, 1 and 16 tokens."""
    ids = torch.randint(97, (2, 30))
    cache = KVCache(model.config, 2, 30 + 5 * static, static=static)
    addresses = [buffer.data_ptr() for pair in cache.buffers for buffer in pair]
    parts = [model(piece, use_cache=True, **{CACHE: cache}).logits for piece in ids.split([13, 1, 16], dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), model(ids, use_cache=False).logits, rtol=1e-4, atol=1e-4)
    assert int(cache.get_seq_length()) == 30
    assert addresses == [buffer.data_ptr() for pair in cache.buffers for buffer in pair]


def test_one_layer_alone_sees_no_later_slot(make):
    """The layer that writes last is the first to attend: the count has moved by then."""
    model = make(num_hidden_layers=1).requires_grad_(False)
    ids = torch.randint(97, (1, 12))
    cache = KVCache(model.config, 1, 16, static=True)
    parts = [model(piece, **{CACHE: cache}).logits for piece in ids.split([5, 1, 6], dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), model(ids, use_cache=False).logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("static, wide", [(False, False), (True, False), (True, True)])
def test_padding_is_not_seen(model, static, wide):
    """A static cache takes a mask over all that it can hold, too."""
    ids = torch.randint(97, (1, 20))
    padded = torch.cat((torch.zeros(1, 6, dtype=torch.long), ids), dim=1)
    mask = (torch.arange(40) >= 6)[None].long()
    cache = KVCache(model.config, 1, 40, static=static)
    parts, end = [], 0
    for piece in padded.split([15, 1, 10], dim=1):
        end += piece.shape[1]
        parts.append(model(piece, attention_mask=mask if wide else mask[:, :end], **{CACHE: cache}).logits)
    torch.testing.assert_close(torch.cat(parts, 1)[:, 6:], model(ids, use_cache=False).logits, rtol=1e-4, atol=1e-4)


@KINDS
def test_what_is_cropped_leaves_no_trace(model, static):
    ids, other = torch.randint(97, (2, 20)), torch.randint(97, (2, 9))
    cache = KVCache(model.config, 2, 40, static=static)
    model(torch.cat((ids, other), dim=1), **{CACHE: cache})
    cache.crop(-9)
    again = model(other[:, 2:], **{CACHE: cache}).logits
    whole = model(torch.cat((ids, other[:, 2:]), dim=1), use_cache=False).logits
    torch.testing.assert_close(again, whole[:, 20:], rtol=1e-4, atol=1e-4)
    cache.reset()
    torch.testing.assert_close(model(ids, **{CACHE: cache}).logits, whole[:, :20], rtol=1e-4, atol=1e-4)
    for wrong in (1, -21):
        with pytest.raises(ValueError, match="crop"):
            cache.crop(wrong)


def test_shapes_stay_the_same_where_static_and_grow_where_not(make):
    config = make("gqa").config
    a = torch.randn(1, 2, 3, 8)
    for static, seen in ((True, [8, 8]), (False, [3, 6])):
        cache = KVCache(config, 1, 8, static=static)
        for expected in seen:
            for layer in range(config.num_hidden_layers):
                keys, _ = cache.update(a, a, layer)
                assert keys.shape == (1, 2, expected, 8)
        if static:
            with pytest.raises(ValueError, match="holds 8 tokens, 9 are needed"):
                cache.update(a, a, 0)
        else:
            keys, values = cache.update(a, 2 * a, 0)
            assert torch.equal(keys, torch.cat((a, a, a), dim=2)) and torch.equal(values[:, :, 6:], 2 * a)
            assert cache.capacity == 16
        with pytest.raises(ValueError, match="made for 1 rows, this call has 2"):
            cache.update(a.repeat(2, 1, 1, 1), a, 0)


@KINDS
def test_a_pass_broken_off_leaves_the_cache_as_it_was(make, static):
    model = make().requires_grad_(False)
    ids = torch.randint(97, (1, 12))
    cache = KVCache(model.config, 1, 20, static=static)
    model(ids[:, :5], **{CACHE: cache})

    def interrupt(*_):
        raise KeyboardInterrupt

    hook = model.model.layers[1].register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        model(ids[:, 5:9], **{CACHE: cache})
    hook.remove()
    assert int(cache.get_seq_length()) == 5
    after = model(ids[:, 5:], **{CACHE: cache}).logits
    torch.testing.assert_close(after, model(ids, use_cache=False).logits[:, 5:], rtol=1e-4, atol=1e-4)


@KINDS
@pytest.mark.parametrize("num_beams", [1, 3])
def test_transformers_generates_on_it(model, num_beams, static):
    """Beam search reorders the rows."""
    ids = torch.randint(97, (2, 7))
    options = {
        "attention_mask": torch.ones_like(ids), "max_new_tokens": 12, "do_sample": False, "num_beams": num_beams,
        "eos_token_id": None, "pad_token_id": 0,
    }  # fmt: skip
    cache = KVCache(model.config, 2 * num_beams, 20, static=static)
    cached = model.generate(ids, use_cache=True, **{CACHE: cache}, **options)
    assert torch.equal(cached, model.generate(ids, use_cache=False, **options))
    assert int(cache.get_seq_length()) == 18


@KINDS
def test_packed_documents_do_not_go_on_from_it(make, static):
    """Not even from an empty static one, whose keys are more than the documents' tokens."""
    model = make().requires_grad_(False)
    ids, cache = torch.randint(97, (1, 4)), KVCache(model.config, 1, 10, static=static)
    if not static:
        model(ids, **{CACHE: cache})
    with pytest.raises(ValueError, match="packed documents cannot"):
        model(ids, document_ids=torch.zeros_like(ids), **{CACHE: cache})


def test_rows_can_be_repeated_and_chosen(make):
    model = make("mla").requires_grad_(False)
    ids, more = torch.randint(97, (2, 6)), torch.randint(97, (3, 2))
    cache = KVCache(model.config, 2, 10)
    model(ids, **{CACHE: cache})
    cache.batch_repeat_interleave(2)
    cache.batch_select_indices(torch.tensor([3, 0, 1]))
    logits = model(more, **{CACHE: cache}).logits
    whole = model(torch.cat((ids[[1, 0, 0]], more), dim=1), use_cache=False).logits
    torch.testing.assert_close(logits, whole[:, 6:], rtol=1e-4, atol=1e-4)


def test_static_decoding_compiles_once(model):
    """One graph reads prompts and one decodes, whatever the number of tokens."""
    prompts = [[1, 2, 3], [4, 5, 6, 7, 8]]
    want = generate(model, prompts, GREEDY)
    torch._dynamo.reset()
    counters.clear()
    compiled = torch.compile(model, backend="eager", fullgraph=True, dynamic=False)
    cache = KVCache(model.config, 2, 40, static=True)
    graphs = []
    for tokens in (1, 2, 12, 30):
        texts = generate(compiled, prompts, Sampling(tokens, temperature=0.0), cache=cache)
        graphs.append(counters["stats"]["unique_graphs"])
        if tokens == 12:
            assert texts == want
    assert graphs == [1, 2, 2, 2]


def test_a_prefix_is_kept_as_far_as_it_is_equal(make):
    model = make().requires_grad_(False)
    prefix = PrefixCache()
    assert prefix.rewind([1, 2, 3]) == 0
    prefix.cache = KVCache(model.config, 1, 10)
    model(torch.tensor([[1, 2, 3, 4]]), **{CACHE: prefix.cache})
    prefix.ids = [1, 2, 3, 4]
    assert prefix.rewind([1, 2, 3, 4, 5]) == 4
    assert prefix.rewind([1, 2, 3, 4]) == 3  # one token must be left to read
    assert prefix.ids == [1, 2, 3] and prefix.cache.get_seq_length() == 3
    assert prefix.rewind([1, 9, 3, 4]) == 1
    assert prefix.rewind([8]) == 0
    assert prefix.ids == [] and prefix.cache.get_seq_length() == 0
