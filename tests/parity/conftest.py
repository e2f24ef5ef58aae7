import pytest
import torch


@pytest.fixture
def same_texts():
    """See that two models go on alike, greedily, with a cache and padding on the left."""

    def see(pair):
        ids = torch.randint(301, (2, 10))
        mask = torch.ones_like(ids)
        mask[0, :4] = 0
        options = {"attention_mask": mask, "max_new_tokens": 20, "do_sample": False, "pad_token_id": 0}
        ours, theirs = (model.generate(ids, eos_token_id=None, **options) for model in pair)
        assert torch.equal(ours, theirs)

    return see


@pytest.fixture
def same_gradients():
    """See that two models have the same logits, loss and gradients; `names` turns theirs into our names and layout."""

    def see(pair, names):
        ids = torch.randint(301, (2, 48))
        ours, theirs = pair
        torch.testing.assert_close(ours(ids).logits, theirs(ids).logits, rtol=0, atol=1e-5)
        losses = [model(ids, labels=ids).loss for model in pair]
        torch.testing.assert_close(*losses, rtol=0, atol=1e-5)
        for loss in losses:
            loss.backward()
        expected = names({name: parameter.grad for name, parameter in theirs.named_parameters()})
        for name, parameter in ours.named_parameters():
            torch.testing.assert_close(parameter.grad, expected[name], rtol=0, atol=1e-5, msg=name)

    return see
