"""Texts are what the whole forward pass says, alone or in a batch, with a cache of any kind, drawn or greedy."""

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, Qwen2Config, Qwen2ForCausalLM, TopPLogitsWarper

from buddygpt.data.tokenizer import load_tokenizer
from buddygpt.model.cache import KVCache, PrefixCache
from buddygpt.model.generation import CharacterStream, generate, stop_ids, stream
from buddygpt.model.sampling import SHORTLIST, Sampling, choose

GREEDY = Sampling(max_new_tokens=12, temperature=0.0)
DRAWN = Sampling(max_new_tokens=12, temperature=1.5, top_p=0.9, seed=5)


@pytest.fixture
def model(make, variant):
    return make(variant)


@pytest.fixture
def qwen2():
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, initializer_range=0.2, tie_word_embeddings=True,
        eos_token_id=None, bos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    return Qwen2ForCausalLM(config).eval()


@pytest.fixture
def gpt2():
    """Positions are learnt one by one: a row that is shifted is another text, as it is not with RoPE."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=97, n_embd=32, n_layer=2, n_head=4, n_positions=128, initializer_range=0.3,
        eos_token_id=None, bos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    return GPT2LMHeadModel(config).eval()


def prompts(*lengths, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(97, (n,), generator=generator).tolist() for n in lengths]


@torch.no_grad()
def by_hand(model, prompt, tokens):
    """The likeliest token of the whole forward pass, again and again."""
    ids = list(prompt)
    for _ in range(tokens):
        ids.append(int(model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    return ids[len(prompt) :]


def test_greedy_is_the_argmax_of_the_whole_forward_pass(model):
    for prompt in prompts(1, 9):
        assert generate(model, [prompt], GREEDY) == [by_hand(model, prompt, 12)]


def test_greedy_is_what_transformers_generates(model):
    ids = torch.tensor(prompts(7, 7))
    theirs = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False, eos_token_id=None, pad_token_id=0
    )
    assert generate(model, ids.tolist(), GREEDY) == theirs[:, 7:].tolist()


@pytest.mark.parametrize("theirs", ["qwen2", "gpt2"])
def test_models_of_transformers_go_through_the_same_loop(theirs, request):
    model, batch = request.getfixturevalue(theirs), prompts(3, 11, 1)
    alone = [by_hand(model, prompt, 12) for prompt in batch]
    assert generate(model, batch, GREEDY) == alone
    assert [list(stream(model, prompt, GREEDY)) for prompt in batch] == alone


@pytest.mark.parametrize("static", [False, True])
def test_a_padded_batch_is_each_prompt_alone(model, static):
    """Rows end at different steps; what ended stays as it is."""
    batch = prompts(3, 40, 1, 6)
    alone = [by_hand(model, prompt, 12) for prompt in batch]
    cache = KVCache(model.config, 4, 60, static=True) if static else None
    assert generate(model, batch, GREEDY, cache=cache) == alone
    stop = {alone[0][4], alone[3][8]}
    short = [row[: next((i for i, token in enumerate(row) if token in stop), 12)] for row in alone]
    assert len({len(row) for row in short}) > 1
    assert generate(model, batch, GREEDY, stop=stop, cache=cache) == short


def test_a_cache_too_small_is_told(make):
    model = make()
    cache = KVCache(model.config, 1, 14, static=True)
    assert len(generate(model, [[1, 2, 3]], GREEDY, cache=cache)[0]) == 12
    with pytest.raises(ValueError, match="holds 14 tokens, 15 may be needed"):
        generate(model, [[1, 2, 3, 4]], GREEDY, cache=cache)
    with pytest.raises(ValueError, match="no tokens"):
        generate(model, [[1], []], GREEDY)
    assert generate(model, [], GREEDY) == [] == list(stream(model, [1], Sampling(max_new_tokens=0)))


def test_only_the_last_position_gets_logits(make):
    model, seen = make(), []
    model.lm_head.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape[1]))
    generate(model, prompts(9, 4), Sampling(max_new_tokens=3, temperature=0.0))
    assert seen == [1, 1, 1]


def test_each_stop_id_ends_the_text(make):
    """C1 in pitfalls: each end id in turn comes at the fifth position."""
    model = make()
    text = by_hand(model, [1, 2, 3], 12)
    for end in (90, 91, 92):
        step = iter([*text[:4], end, *text[4:]])

        def force(module, inputs, logits):
            logits[..., next(step)] = 1e4

        hook = model.lm_head.register_forward_hook(force)
        assert generate(model, [[1, 2, 3]], GREEDY, stop={90, 91, 92}) == [text[:4]]
        hook.remove()


def test_the_stop_ids_are_those_of_all_who_name_one(make):
    class Speaker:
        eos_token_id = 7

    model = make(eos_token_id=3)
    model.generation_config.eos_token_id = [3, 5]
    assert stop_ids(model, Speaker()) == {3, 5, 7}
    Speaker.eos_token_id = model.config.eos_token_id = model.generation_config.eos_token_id = None
    assert stop_ids(model, Speaker()) == frozenset()


@pytest.mark.parametrize("sampling", [GREEDY, DRAWN], ids=["greedy", "drawn"])
def test_a_prefix_reused_changes_no_text(model, sampling):
    """C6 in pitfalls: a talk goes on, then its past is another one, then the same prompt comes twice."""
    prefix, read = PrefixCache(), []
    model.model.embed_tokens.register_forward_pre_hook(lambda module, inputs: read.append(inputs[0].shape[1]))
    first = prompts(8)[0]
    stop = set(by_hand(model, first, 6)[5:])  # in the middle of the first greedy answer

    def answer(turn):
        """Tokens of the prompt that are read with reuse."""
        fresh = list(stream(model, turn, sampling, stop=stop))
        read.clear()
        assert list(stream(model, turn, sampling, stop=stop, prefix=prefix)) == fresh
        assert prefix.ids[: len(turn)] == turn
        assert int(prefix.cache.get_seq_length()) == len(prefix.ids)
        return read[0]

    assert answer(first) == 8
    second = [*prefix.ids, *prompts(4, seed=2)[0]]
    assert answer(second) == 4
    third = [*second[:6], (second[6] + 1) % 97, *prompts(5, seed=3)[0]]
    assert answer(third) == 6
    assert answer(third) == 1


def test_a_prefix_of_a_transformers_model(qwen2):
    prefix = PrefixCache()
    for turn in ([1, 2, 3, 4], [1, 2, 3, 9, 9], [8, 1]):
        assert list(stream(qwen2, turn, GREEDY, prefix=prefix)) == by_hand(qwen2, turn, 12)


@pytest.mark.parametrize("kind", ["buddygpt", "qwen2"])
def test_an_answer_broken_off_leaves_no_half_read_prefix(make, qwen2, kind):
    model = make() if kind == "buddygpt" else qwen2
    prefix, turn = PrefixCache(), prompts(8)[0]
    answer = stream(model, turn, GREEDY, prefix=prefix)
    said = [next(answer), next(answer)]
    answer.close()
    longer = [*turn, *said, 5]
    assert list(stream(model, longer, GREEDY, prefix=prefix)) == by_hand(model, longer, 12)

    def interrupt(*_):
        raise KeyboardInterrupt

    hook = model.model.layers[1].register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        list(stream(model, [*longer, 1], GREEDY, prefix=prefix))
    hook.remove()
    assert list(stream(model, longer, GREEDY, prefix=prefix)) == by_hand(model, longer, 12)


def test_a_seed_repeats_and_the_global_random_state_stays(make):
    model, batch = make(), prompts(5, 2, 9)
    torch.manual_seed(11)
    state = torch.get_rng_state()
    first = generate(model, batch, DRAWN)
    generate(model, batch, Sampling(max_new_tokens=3))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(12)
    assert generate(model, batch, DRAWN) == first
    assert generate(model, batch[:1], DRAWN) == first[:1] == [list(stream(model, batch[0], DRAWN))]
    assert generate(model, batch, Sampling(12, 1.5, 0.9, seed=6)) != first
    unseeded = Sampling(12, 1.5, 0.9)
    assert generate(model, batch, unseeded) != generate(model, batch, unseeded)


@pytest.mark.parametrize(
    "temperature, top_p, expected",
    [
        (1.0, 1.0, [0.1, 0.4, 0.2, 0.3]),
        (0.5, 1.0, [0.01 / 0.3, 0.16 / 0.3, 0.04 / 0.3, 0.09 / 0.3]),
        (1.0, 0.65, [0.0, 4 / 7, 0.0, 3 / 7]),
        (1.0, 0.75, [0.0, 4 / 9, 2 / 9, 3 / 9]),
        (1.0, 0.0, [0.0, 1.0, 0.0, 0.0]),
        (1e-9, 1.0, [0.0, 1.0, 0.0, 0.0]),
    ],
)
def test_tokens_are_drawn_in_their_shares(temperature, top_p, expected):
    """Chi-square over 20,000 draws; 16.3 is passed once in a thousand times at three degrees of freedom."""
    rows = 20_000
    logits = torch.tensor([0.1, 0.4, 0.2, 0.3]).log().expand(rows, 4)
    draws = torch.rand(rows, generator=torch.Generator().manual_seed(3), dtype=torch.double)
    counts = choose(logits, Sampling(1, temperature, top_p), draws).bincount(minlength=4).double()
    share = torch.tensor(expected, dtype=torch.double)
    possible = share > 0
    assert int(counts[~possible].sum()) == 0
    wanted = rows * share[possible]
    assert float(((counts[possible] - wanted) ** 2 / wanted).sum()) < 16.3


@pytest.mark.parametrize("spread, long", [(0.01, True), (3.0, False)])
def test_the_set_that_is_drawn_from_is_that_of_transformers(spread, long):
    """Whether it is found in the shortlist or by sorting all."""
    logits = spread * torch.randn(1, 4 * SHORTLIST, generator=torch.Generator().manual_seed(0))
    kept = TopPLogitsWarper(0.9)(torch.empty(1, 0), logits)[0] > float("-inf")
    assert (int(kept.sum()) > SHORTLIST) == long
    draws = torch.linspace(0, 1 - 1e-12, 500, dtype=torch.double)
    chosen = choose(logits.expand(500, -1), Sampling(1, 1.0, 0.9), draws)
    assert bool(kept[chosen].all())
    assert int(chosen[0]) == int(logits.argmax())
    assert int(chosen[-1]) == int(logits.where(kept, 1e9).argmin())


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(500, 50.0, 1.0, 0), Sampling(500, 50.0, 0.99, 0)])
def test_rows_of_the_head_beyond_the_tokenizer_are_never_taken(make, sampling):
    """D11 in pitfalls; nearly even shares, of which those beyond would be a third."""
    model = make(max_position_embeddings=1024)
    free, held = (generate(model, prompts(4, 2), sampling, vocabulary=limit) for limit in (None, 64))
    assert max(map(max, free)) >= 64 > max(map(max, held))


def test_text_comes_in_whole_characters():
    """Through the Qwen3 tokenizer, in which rare hanzi and emoji take two to twenty ids."""
    tokenizer = load_tokenizer("qwen3")
    text = "𠮷野家的𩸽，龘靐齉爩。👩🏽‍🚀🇨🇳👨‍👩‍👧‍👦 naïve é कि 好"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert len(ids) > len(text.encode()) / 4
    characters = CharacterStream(tokenizer)
    pieces = [characters.push(token) for token in ids]
    assert "".join(pieces) == characters.text == tokenizer.decode(ids)
    assert not any("\ufffd" in piece for piece in pieces)
    assert pieces.count("") > 10  # a character was waited for
    assert sum(map(bool, pieces)) > 15  # and handed on as soon as it was there
    assert characters.tokens == len(ids)
    assert characters.push(tokenizer.eos_token_id) == ""
    cut = CharacterStream(tokenizer)
    for token in tokenizer("好𠮷", add_special_tokens=False)["input_ids"][:-1]:
        cut.push(token)
    assert cut.text == "好"
