"""Windows of talks and rows of pairs: what is learned stands where it is predicted, and packing changes no loss."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from buddygpt.data.formats import Message, Pair
from buddygpt.data.lengths import CUT, SHORTENED, SPLIT, Openings
from buddygpt.data.talks import SAME, Documents, PairRows, TalkWindows, sample_weights
from buddygpt.data.template import ANSWER, GIVEN, REJECTED
from buddygpt.data.windows import IGNORE_INDEX, Mixture
from buddygpt.model import BuddyGPTConfig, BuddyGPTForCausalLM
from tests.data.talk_strategies import TALKS, pairs

pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without")


@pytest.fixture(scope="module")
def openings(chat_encoder):
    return Openings.of(chat_encoder)


def talk(question, answer):
    return [Message("user", question), Message("assistant", answer)]


@given(st.lists(TALKS, min_size=1, max_size=4), st.lists(TALKS, max_size=3))
@settings(deadline=None, max_examples=50)
def test_documents_come_back_whatever_the_shards(make_talk_shard, first, second):
    shards = [make_talk_shard(*first), *([make_talk_shard(*second)] if second else [])]
    documents = Documents(shards)
    expected = [shard.document(n) for shard in shards for n in range(len(shard.document_ends))]
    assert len(documents) == len(first) + len(second) == len(documents.lengths)
    for number, (ids, labels) in enumerate(expected):
        found, marks = documents.read(number)
        assert found.tolist() == ids.tolist() and marks.tolist() == labels.tolist()
        assert documents.lengths[number] == len(ids)
    for label in (GIVEN, ANSWER, REJECTED):
        assert documents.count(label).tolist() == [int((labels == label).sum()) for _, labels in expected]


@given(st.lists(TALKS, min_size=1, max_size=6), st.integers(16, 120), st.booleans())
@settings(deadline=None, max_examples=100)
def test_each_answer_token_is_a_label_once_where_its_left_neighbour_is(
    openings, make_talk_shard, talks, length, packing
):
    shard = make_talk_shard(*talks)
    windows = TalkWindows("s", [shard], length, openings, packing)
    judged: Counter[int] = Counter()
    for number in range(len(windows)):
        window = windows[number]
        ids, positions, labels = (window[k] for k in ("input_ids", "position_ids", "shift_labels"))
        assert len(ids) == len(positions) == len(labels) == windows.size(number) <= length
        assert window["labels"][0] == IGNORE_INDEX and window["labels"][1:].tolist() == labels.tolist()
        assert all(window[k].dtype == np.int64 for k in window)
        starts = np.flatnonzero(positions == 0)
        assert positions.tolist() == [i for a, b in _between(starts, len(ids)) for i in range(b - a)]
        for start, stop in _between(starts, len(ids)):
            own, learned = ids[start:stop], labels[start:stop]
            assert learned[-1] == IGNORE_INDEX and np.any(learned != IGNORE_INDEX)
            for i in np.flatnonzero(learned != IGNORE_INDEX):
                assert learned[i] == own[i + 1]
                judged[int(own[i + 1])] += 1
        if not packing:
            assert starts.tolist() == [0]
    answers = windows.answers()
    assert judged == Counter(token for piece in answers for token in piece)
    whole = Counter(shard.tokens[shard.labels == ANSWER].tolist())
    assert judged <= whole if windows.cut[CUT] else judged == whole
    assert windows.talks == len(talks)
    assert windows.tokens == sum(windows.size(n) for n in range(len(windows)))


def _between(starts, end):
    return zip(starts.tolist(), [*starts.tolist()[1:], end], strict=True)


def test_one_character_and_the_end_mark_are_all_that_is_learned(chat_encoder, openings, make_talk_shard):
    (char,) = chat_encoder.encode(["好"])
    windows = TalkWindows("s", [make_talk_shard(talk("你", "好"))], 64, openings, True)
    labels = windows[0]["shift_labels"]
    assert labels[labels != IGNORE_INDEX].tolist() == [*char, openings.end]
    assert windows.answers() == [[*char, openings.end]]
    at = int(np.flatnonzero(labels != IGNORE_INDEX)[0])
    assert windows[0]["input_ids"][at + 1 - len(openings.assistant) : at + 1].tolist() == openings.assistant


def test_what_is_done_to_long_talks_is_counted_in_talks(openings, make_talk_shard):
    many = [m for n in range(5) for m in talk("b" * 20, "c" * 20)]
    talks = [talk("b", "c"), many, talk("b" * 90, "c"), talk("b", "c" * 90), [*many, *talk("b" * 90, "c" * 90)]]
    windows = TalkWindows("s", [make_talk_shard(*talks)], 64, openings, True)
    assert windows.cut == {SPLIT: 2, SHORTENED: 2, CUT: 2} and windows.talks == 5


def test_the_first_talks_that_so_many_tokens_hold(openings, make_talk_shard):
    shard = make_talk_shard(*[talk("b" * 10, "c" * 10)] * 5)
    size = int(shard.document_ends[0])
    for most, expected in ((1, 1), (size, 1), (2 * size - 1, 1), (2 * size, 2), (99 * size, 5), (None, 5)):
        windows = TalkWindows("s", [shard], 64, openings, False, most)
        assert len(windows) == windows.talks == expected and windows.tokens == expected * size


def test_a_source_without_talks(openings, make_pair_shard):
    windows, rows = TalkWindows("s", [], 64, openings, True, 100), PairRows("s", [], 64, openings)
    assert len(windows) == windows.tokens == len(rows) == rows.tokens == 0
    with pytest.raises(ValueError, match="nothing to train on in s"):
        Mixture([windows], sample_weights([windows], [1.0]), 10, 0)


KINDS = {
    "gqa": {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 48},
    "mla": {
        "attention_kind": "mla", "num_attention_heads": 4, "q_lora_rank": 8, "kv_lora_rank": 8,
        "qk_rope_head_dim": 4, "qk_nope_head_dim": 8, "v_head_dim": 8, "intermediate_size": 48,
    },
    "moe": {
        "num_attention_heads": 4, "num_key_value_heads": 2, "mlp_kind": "moe", "n_routed_experts": 4,
        "num_experts_per_tok": 2, "n_shared_experts": 1, "moe_intermediate_size": 24,
    },
}  # fmt: skip


@pytest.mark.parametrize("backend", ["sdpa", "eager", "flex_attention"])
@pytest.mark.parametrize("kind", KINDS)
def test_packed_talks_are_learned_as_if_each_were_alone(openings, make_talk_shard, kind, backend):
    torch.manual_seed(0)
    config = BuddyGPTConfig(
        vocab_size=304, hidden_size=32, num_hidden_layers=2, max_position_embeddings=128, initializer_range=0.2,
        attn_implementation=backend, **KINDS[kind],
    )  # fmt: skip
    model = BuddyGPTForCausalLM(config).eval()
    said = [m for n in range(4) for m in talk("b" * (9 + n), "c" * 11)]
    shard = make_talk_shard(*[talk("b" * n, "c" * (17 - n)) for n in range(1, 17)], said)

    def losses(packing):
        windows = TalkWindows("s", [shard], 96, openings, packing)
        found = []
        for number in range(len(windows)):
            window = {k: torch.from_numpy(v)[None] for k, v in windows[number].items() if k != "labels"}
            with torch.no_grad():
                found.append(model(**window, num_items_in_batch=1).loss.double())
        return torch.stack(found)

    packed, alone = losses(True), losses(False)
    assert len(packed) < len(alone) / 2
    torch.testing.assert_close(packed.sum(), alone.sum(), rtol=1e-5, atol=0)


def answer(text):
    return Message("assistant", text)


@given(st.lists(pairs(), min_size=1, max_size=4), st.integers(16, 200))
@settings(deadline=None, max_examples=100)
def test_both_answers_of_a_pair_stand_behind_the_same_prompt(openings, make_pair_shard, given_pairs, length):
    shard = make_pair_shard(*given_pairs)
    rows = PairRows("s", [shard], length, openings)
    assert len(rows) + rows.cut[SAME] == len(given_pairs)
    for number in range(len(rows)):
        row = rows[number]
        prompt, chosen, rejected = (row[k] for k in ("prompt_ids", "chosen_ids", "rejected_ids"))
        assert prompt and chosen and rejected and chosen != rejected
        assert len(prompt) + max(len(chosen), len(rejected)) <= length
        assert prompt[-len(openings.assistant) :] == openings.assistant
        assert rows.lengths[number].tolist() == [len(chosen), len(rejected)]
    sides = [rows[n] for n in range(len(rows))]
    assert rows.tokens == sum(2 * len(r["prompt_ids"]) + len(r["chosen_ids"]) + len(r["rejected_ids"]) for r in sides)


def test_answers_that_differ_only_beyond_the_length_are_dropped_and_counted(openings, make_pair_shard):
    ask = (Message("user", "b"),)
    same = Pair(ask, answer("c" * 90 + "甲"), answer("c" * 90 + "乙"))
    one = Pair(ask, answer("c" * 90), answer("c"))
    kept = Pair(ask, answer("甲"), answer("乙"))
    rows = PairRows("s", [make_pair_shard(same, one, kept)], 64, openings)
    assert len(rows) == 2 and rows.cut == {SAME: 1, "chosen": 1}
    assert openings.end not in rows[0]["chosen_ids"] and rows[0]["rejected_ids"][-1] == openings.end
    assert len(PairRows("s", [make_pair_shard(kept, kept, kept)], 64, openings, most=2)) == 2


def test_weights_are_shares_of_the_tokens(openings, make_talk_shard):
    long = TalkWindows("long", [make_talk_shard(*[talk("b", "c" * 40)] * 30)], 64, openings, False)
    short = TalkWindows("short", [make_talk_shard(*[talk("b", "c")] * 30)], 64, openings, False)
    assert sample_weights([long, short], [None, None]) == [30, 30]
    weights = sample_weights([long, short], [3.0, 1.0])
    drawn = [Mixture([long, short], weights, 4096, 0).locate(i)[0] for i in range(4096)]
    tokens = [drawn.count(i) * source.tokens / 30 for i, source in enumerate((long, short))]
    assert abs(tokens[0] / sum(tokens) - 0.75) < 0.01
