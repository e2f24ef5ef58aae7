"""The estimate of a tuned model's divergence against sums over all that it could say."""

import itertools
import math

import pytest
import torch

from buddygpt.evaluation.kl import _summary, kl_to_reference
from buddygpt.model import BuddyGPTConfig, BuddyGPTForCausalLM


def make(seed):
    torch.manual_seed(seed)
    config = BuddyGPTConfig(
        vocab_size=5, hidden_size=16, num_hidden_layers=1, max_position_embeddings=32, num_attention_heads=2,
        num_key_value_heads=1, intermediate_size=16, initializer_range=0.3,
    )  # fmt: skip
    return BuddyGPTForCausalLM(config).eval()


@torch.no_grad()
def exact(policy, reference, prompt, most, stop):
    """KL and expected length over every reply of at most `most` tokens."""
    kl = length = 0.0
    for tokens in range(1, most + 1):
        for reply in itertools.product(range(5), repeat=tokens):
            ended = reply[-1] in stop
            if any(t in stop for t in reply[:-1]) or (tokens < most and not ended):
                continue
            ids = torch.tensor([[*prompt, *reply]])
            logs = [
                float(
                    m(ids).logits.log_softmax(-1)[0, len(prompt) - 1 : -1].gather(1, ids[0, len(prompt) :, None]).sum()
                )
                for m in (policy, reference)
            ]
            kl += math.exp(logs[0]) * (logs[0] - logs[1])
            length += math.exp(logs[0]) * tokens
    return kl, length


def test_the_estimate_is_the_sum_over_all_replies():
    policy, reference = make(0), make(1)
    kl, length = exact(policy, reference, [1, 2], 3, {0, 4})
    state = torch.get_rng_state()
    found = kl_to_reference(policy, reference, [[1, 2]] * 4000, stop=(0, 4), max_new_tokens=3, batch_size=1000)
    assert torch.equal(torch.get_rng_state(), state)
    assert kl > 10 * found.per_reply_error
    assert abs(found.per_reply - kl) < 3.5 * found.per_reply_error
    assert abs(found.per_token - kl / length) < 3.5 * found.per_token_error
    assert found.replies == 4000 and abs(found.tokens / 4000 - length) < 0.1


def test_a_model_is_at_no_distance_from_itself_whatever_the_lengths_of_prompts():
    prompts = [[1], [2, 3, 1, 2], [3, 3]]
    found = kl_to_reference(make(0), make(0), prompts, stop=(), max_new_tokens=6, batch_size=2)
    assert found.per_reply == found.per_token == found.per_reply_error == 0
    assert found.tokens == 18


def test_batches_draw_different_numbers_and_a_seed_the_same():
    policy, reference = make(0), make(1)

    def estimate(seed=0):
        return kl_to_reference(policy, reference, [[1, 2]] * 2, stop=(), max_new_tokens=8, batch_size=1, seed=seed)

    assert estimate() == estimate() != estimate(5)
    assert estimate().per_reply_error > 0  # one reply drawn twice would have none


def test_standard_errors_are_those_of_repeated_estimates():
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 20, (2000, 50), generator=generator)
    ratios = lengths * (0.1 + 0.3 * torch.randn(2000, 50, generator=generator))
    found = [_summary(r.tolist(), n.tolist()) for r, n in zip(ratios, lengths, strict=True)]
    for name in ("per_reply", "per_token"):
        values = torch.tensor([getattr(f, name) for f in found])
        errors = torch.tensor([getattr(f, name + "_error") for f in found])
        assert float(errors.mean()) == pytest.approx(float(values.std()), rel=0.06)
    assert math.isnan(_summary([1.0], [2]).per_reply_error)


def test_no_prompts_is_refused():
    with pytest.raises(ValueError, match="at least one prompt"):
        kl_to_reference(make(0), make(1), [], stop=(), max_new_tokens=1)
