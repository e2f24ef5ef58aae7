import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from buddygpt.data.demo import pairs
from buddygpt.data.formats import Message, Pair
from buddygpt.data.template import answer_segments
from buddygpt.data.tokenizer import DocumentEncoder
from buddygpt.evaluation.preferences import judge, log_probabilities
from buddygpt.evaluation.replies import encode_prompts


@torch.no_grad()
def by_hand(model, prompt, answer):
    """From the whole logits of one row alone."""
    logits = model(torch.tensor([prompt + answer]), use_cache=False).logits[0].float().log_softmax(-1)
    return sum(float(logits[len(prompt) - 1 + i, token]) for i, token in enumerate(answer))


@pytest.fixture
def rows(tokenizer):
    some = list(pairs(0, "test"))[:9]
    encode = DocumentEncoder(tokenizer).encode_segments
    chosen = encode([answer_segments(pair.chosen) for pair in some])
    rejected = encode([answer_segments(pair.rejected) for pair in some])
    return some, encode_prompts(tokenizer, [pair.prompt for pair in some]), chosen, rejected


def qwen2(tokenizer):
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, initializer_range=0.2,
    )  # fmt: skip
    return Qwen2ForCausalLM(config)


@pytest.mark.parametrize("family", ["ours", "qwen2"])
def test_sums_in_batches_are_those_of_each_row_alone(tokenizer, tiny, rows, family):
    model = (tiny if family == "ours" else qwen2(tokenizer)).eval()
    _, prompts, chosen, _ = rows
    expected = [by_hand(model, *row) for row in zip(prompts, chosen, strict=True)]
    for size in (1, 4, 64):
        assert log_probabilities(model, prompts, chosen, rows=size) == pytest.approx(expected, abs=1e-3)


def test_accuracy_and_margin_are_those_of_the_sums(tokenizer, tiny, rows):
    some, prompts, chosen, rejected = rows
    better, worse = log_probabilities(tiny, prompts, chosen), log_probabilities(tiny, prompts, rejected)
    found = judge(tiny, tokenizer, some)
    assert len(found.margins) == 9
    assert found.accuracy == sum(b > w for b, w in zip(better, worse, strict=True)) / 9
    assert found.margin == pytest.approx((sum(better) - sum(worse)) / 9)
    swapped = judge(tiny, tokenizer, [Pair(p.prompt, p.rejected, p.chosen) for p in some])
    assert swapped.accuracy == pytest.approx(1 - found.accuracy) and swapped.margin == pytest.approx(-found.margin)


def test_equal_answers_are_no_success(tokenizer, tiny):
    same = Message("assistant", "花")
    assert judge(tiny, tokenizer, [Pair((Message("user", "春？"),), same, same)]).accuracy == 0.0


def test_a_model_in_training_keeps_its_mode(tokenizer, tiny, rows):
    tiny.train()
    judge(tiny, tokenizer, rows[0])
    assert tiny.training and all(parameter.grad is None for parameter in tiny.parameters())


def test_no_pairs_no_shares(tokenizer, tiny):
    assert (judge(tiny, tokenizer, []).accuracy, judge(tiny, tokenizer, []).margin) == (0.0, 0.0)
