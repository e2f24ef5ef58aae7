"""Needles: texts of the asked length, the sentence at its depth, answers judged exactly, as text and as a talk."""

import json

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from buddygpt.data.demo import paragraphs
from buddygpt.data.tokenizer import encode_documents
from buddygpt.evaluation.haystack import BEGINNING, TOLERANCE, make_needles
from buddygpt.evaluation.needle import NeedleGrid, find_needles
from buddygpt.recipe.errors import BuddyError


@pytest.mark.parametrize("chat", [False, True])
def test_length_and_depth_are_hit(tokenizer, prose, chat):
    lengths, depths = (128, 600), (0.0, 0.25, 0.5, 0.75, 1.0)
    needles = make_needles(tokenizer, prose, lengths, depths, 2, chat=chat)
    assert [(n.length, n.depth) for n in needles[::2]] == [(length, depth) for length in lengths for depth in depths]
    before: dict[int, list[int]] = {length: [] for length in lengths}
    for needle in needles:
        assert abs(len(needle.prompt) + len(needle.answer) - needle.length) <= TOLERANCE
        text = tokenizer.decode(needle.prompt)
        assert text.endswith("的口令是")
        head, _ = text.split(f"的口令是{needle.value}。")
        before[needle.length] += map(len, encode_documents(tokenizer, [head]))
    for places in before.values():  # what the frame adds is the same at every depth, but for the place's name
        filler = places[-1] - places[0]
        for place, needle in zip(places, needles, strict=False):
            assert abs(place - places[0] - needle.depth * filler) < 12


@given(seed=st.integers(0, 10**6), length=st.integers(80, 700), depth=st.floats(0, 1))
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_length_and_depth(tokenizer, prose, seed, length, depth):
    (needle,) = make_needles(tokenizer, prose, [length], [depth], 1, seed=seed)
    assert abs(len(needle.prompt) + len(needle.answer) - length) <= TOLERANCE
    assert tokenizer.decode(needle.answer) == needle.value
    assert "\ufffd" not in tokenizer.decode(needle.prompt)


def test_the_same_seed_gives_the_same_needles_whatever_else_is_asked(tokenizer, prose):
    alone = make_needles(tokenizer, prose, [200], [0.5], 3, seed=7)
    among = make_needles(tokenizer, prose, [128, 200], [0.0, 0.5], 5, seed=7)
    assert [n for n in among if (n.length, n.depth) == (200, 0.5)][:3] == alone
    assert make_needles(tokenizer, prose, [200], [0.5], 3, seed=8) != alone
    assert len({n.value for n in among}) > len(among) / 2


def test_a_talk_is_the_templates(tokenizer, prose):
    (needle,) = make_needles(tokenizer, prose, [200], [0.3], 1, chat=True)
    text = tokenizer.decode(needle.prompt)
    assert text.startswith("<|im_start|>user\n") and "的口令是什么？<|im_end|>\n<|im_start|>assistant\n" in text
    ends = [tokenizer.convert_tokens_to_ids(mark) for mark in ("<|im_start|>", "<|im_end|>")]
    assert [needle.prompt.count(mark) for mark in ends] == [2, 1]


def test_marks_in_filler_stay_text(tokenizer, prose):
    filler = [f"<|im_end|><|endoftext|>{p}" for p in prose]
    (needle,) = make_needles(tokenizer, filler, [400], [0.5], 1, chat=True)
    assert needle.prompt.count(tokenizer.convert_tokens_to_ids("<|im_end|>")) == 1
    assert needle.prompt.count(tokenizer.eos_token_id) == 0


def test_a_greedy_answer_is_judged_exactly(tokenizer, prose, make, monkeypatch):
    needles = make_needles(tokenizer, prose, [100], [0.5], 6)
    said = [n.value + "。" for n in needles]
    said[1] = needles[1].value + "5"  # a digit more
    said[2] = needles[2].value[:3]
    said[3] = " " + needles[3].value
    said[4] = "我不知道"
    rows = dict(zip([n.prompt for n in needles], encode_documents(tokenizer, said), strict=True))
    monkeypatch.setattr(
        "buddygpt.evaluation.needle.generate", lambda model, prompts, *_, **__: [rows[tuple(p)] for p in prompts]
    )
    (cell,) = find_needles(make(), tokenizer, needles, batch=4).cells
    assert (cell.asked, cell.right, cell.share) == (6, 2, 2 / 6)


def test_log_probabilities_and_answers_do_not_depend_on_the_batch(tokenizer, prose, make):
    needles = make_needles(tokenizer, prose, [90, 128], [0.0, 1.0], 3)
    model = make()
    alone, together = (find_needles(model, tokenizer, needles, batch=b, precision="fp32") for b in (1, 5))
    assert model.training
    assert [(c.length, c.depth, c.asked, c.right) for c in alone.cells] == [
        (length, depth, 3, 0) for length in (90, 128) for depth in (0.0, 1.0)
    ]
    expected = []
    model.eval()
    with torch.no_grad():
        for n in needles:
            logits = model(torch.tensor([[*n.prompt, *n.answer]])).logits[0].log_softmax(-1)
            expected.append(sum(float(logits[len(n.prompt) - 1 + i, token]) for i, token in enumerate(n.answer)))
    means = [sum(expected[i : i + 3]) / 3 for i in range(0, 12, 3)]
    for grid in (alone, together):
        assert [c.log_prob for c in grid.cells] == pytest.approx(means, rel=1e-4)


def test_a_model_that_was_taught_one_needle_finds_it(tokenizer, prose, make):
    """The whole way, decoding included: a model that has learnt a text by heart answers it right, and no other."""
    known, other = make_needles(tokenizer, prose, [90], [0.5], 2)
    model = make(initializer_range=0.02)
    ids = torch.tensor([[*known.prompt, *known.answer, *encode_documents(tokenizer, ["。"])[0]]])
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    for _ in range(120):
        optimizer.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
    assert find_needles(model, tokenizer, [known]).cells[0].right == 1
    assert find_needles(model, tokenizer, [known]).cells[0].log_prob > -0.5
    assert find_needles(model, tokenizer, [other]).cells[0].right == 0


def test_grids_come_back_from_json_and_are_summed(tokenizer, prose, make):
    grid = find_needles(make(), tokenizer, make_needles(tokenizer, prose, [90, 128], [0.0, 1.0], 2))
    assert NeedleGrid.from_dict(json.loads(json.dumps(grid.as_dict()))) == grid
    cells = grid.as_dict()["cells"]
    for cell, right in zip(cells, (2, 1, 0, 0), strict=True):
        cell["right"] = right
    graded = NeedleGrid.from_dict({"cells": cells})
    assert (graded.share(), graded.share(longest=90), graded.share(shortest=90)) == (3 / 8, 3 / 4, 0)


def test_what_cannot_be_asked_is_told(tokenizer, prose):
    with pytest.raises(BuddyError, match=r"the filler has \d+ tokens, too few for texts of 4,096; give more filler"):
        make_needles(tokenizer, prose[:3], [4096])
    with pytest.raises(BuddyError, match="a question does not fit into 20 tokens"):
        make_needles(tokenizer, prose, [20])


def test_filler_asks_nothing_itself():
    assert not [p for p in paragraphs(5, 30_000) if BEGINNING.format(place="") in p]
