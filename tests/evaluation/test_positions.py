"""Bits per character by position: the same numbers as a plain loop, the same texts, honest errors."""

import json
import math

import numpy as np
import pytest
import torch

from buddygpt.data.tokenizer import encode_documents
from buddygpt.evaluation.positions import Positions, cut_passages, measure_positions
from buddygpt.recipe.errors import BuddyError


@pytest.fixture(scope="module")
def texts(tokenizer, prose):
    return encode_documents(tokenizer, ["\n".join(prose[start : start + 4]) for start in range(0, 40, 4)])


def test_passages_begin_with_end_of_text_and_follow_one_another(tokenizer, texts):
    passages = cut_passages(tokenizer, texts, 64)
    first = passages[: len(texts[0]) // 64]
    assert all(p.ids[0] == tokenizer.eos_token_id and len(p.ids) == 65 and len(p.characters) == 64 for p in passages)
    assert [token for p in first for token in p.ids[1:]] == texts[0][: len(first) * 64]
    assert len(passages) == sum(len(t) // 64 for t in texts)
    assert cut_passages(tokenizer, texts, 64, most=3) == passages[:3]


def test_characters_are_those_of_the_text_though_tokens_cut_them(tokenizer):
    text = "鑫淼𠮷野家👨‍👩‍👧" * 20
    (ids,) = encode_documents(tokenizer, [text])
    assert len(ids) > 2 * len(text)  # each character spread over several tokens
    whole = cut_passages(tokenizer, [ids, ids], len(ids))
    assert [sum(p.characters) for p in whole] == [len(text)] * 2


@pytest.mark.parametrize("batch", [1, 3])
def test_a_range_holds_what_its_tokens_cost(tokenizer, texts, make, batch):
    model, passages = make(), cut_passages(tokenizer, texts, 64, most=7)
    found = measure_positions(model, passages, buckets=4, batch=batch, precision="fp32")
    assert model.training
    model.eval()
    bits = np.zeros((7, 64))
    with torch.no_grad():
        for row, passage in enumerate(passages):
            logits = model(torch.tensor([passage.ids[:-1]])).logits[0].log_softmax(-1)
            bits[row] = [-float(logits[t, passage.ids[t + 1]]) / math.log(2) for t in range(64)]
    characters = np.array([p.characters for p in passages])
    ranges = [slice(16 * k, 16 * k + 16) for k in range(4)]
    assert found.edges == (0, 16, 32, 48, 64) and found.windows == 7
    assert found.bits == pytest.approx([bits[:, r].sum() / characters[:, r].sum() for r in ranges], rel=1e-5)
    assert found.nats == pytest.approx([bits[:, r].sum() * math.log(2) for r in ranges], rel=1e-5)
    first = bits[:, :32].sum() / characters[:, :32].sum()
    assert found.between(0, 32) == found.between(0, 47) == pytest.approx(first, rel=1e-5)
    with pytest.raises(ValueError, match="within 1 to 31"):
        found.between(1, 31)


def test_the_standard_error_is_the_spread_of_resampled_windows(tokenizer, texts, make):
    model, passages = make(), cut_passages(tokenizer, texts, 32)
    found = measure_positions(model, passages, buckets=1, batch=8, precision="fp32")
    alone = [measure_positions(model, [p, p], buckets=1, precision="fp32") for p in passages]
    nats, characters = (np.array([getattr(p, name)[0] for p in alone]) for name in ("nats", "characters"))
    picks = np.random.default_rng(0).integers(len(passages), size=(2000, len(passages)))
    resampled = nats[picks].sum(1) / characters[picks].sum(1) / math.log(2)
    assert found.errors[0] == pytest.approx(resampled.std(), rel=0.1)


def test_autocast_is_that_of_training(tokenizer, texts, make):
    model, passages = make(), cut_passages(tokenizer, texts, 64, most=2)
    precise, rounded = (measure_positions(model, passages, precision=p) for p in ("fp32", "bf16"))
    assert precise != rounded
    assert rounded.bits == pytest.approx(precise.bits, rel=0.05)


def test_results_come_back_from_json(tokenizer, texts, make):
    found = measure_positions(make(), cut_passages(tokenizer, texts, 64, most=2), buckets=2)
    assert Positions.from_dict(json.loads(json.dumps(found.as_dict()))) == found


def test_what_cannot_be_measured_is_told(tokenizer, texts, make):
    with pytest.raises(BuddyError, match=r"two windows of 5,000 tokens are needed, the texts hold 0, the longest has"):
        cut_passages(tokenizer, texts, 5000)
    passages = cut_passages(tokenizer, texts, 64, most=2)
    with pytest.raises(ValueError, match="5 ranges do not divide 64"):
        measure_positions(make(), passages, buckets=5)
    with pytest.raises(ValueError, match="one length"):
        measure_positions(make(), [*passages, *cut_passages(tokenizer, texts, 32, most=2)])
