"""Windows: every token judged once, documents told apart, an order that is a pure function of seed and index."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from buddygpt.data.windows import IGNORE_INDEX, Mixture, StreamWindows, TokenStream, evaluation_windows, read_window

EOS = 0


@dataclass
class Shard:
    tokens: np.ndarray
    document_ends: np.ndarray


def shard(*documents):
    """Documents of given tokens, each closed by end-of-text."""
    tokens = [t for d in documents for t in (*d, EOS)]
    return Shard(np.array(tokens, dtype=np.uint16), np.cumsum([len(d) + 1 for d in documents]))


documents_of_a_shard = st.lists(st.lists(st.integers(1, 9), max_size=7), min_size=1, max_size=5)
shards_of_a_stream = st.lists(documents_of_a_shard, min_size=1, max_size=3)


@given(shards_of_a_stream, st.integers(1, 12))
@settings(deadline=None, max_examples=200)
def test_every_token_is_a_target_once_and_knows_its_document(shards, length):
    stream = TokenStream("s", [shard(*documents) for documents in shards], EOS)
    documents = [d for ds in shards for d in ds]
    flat = [(t, i) for i, d in enumerate(documents) for t in (*d, EOS)]
    assert len(stream) == len(flat)
    judged = []
    for start in range(-1, len(stream) - 1, length):
        window = read_window(stream, start, length)
        assert all(len(window[k]) == length for k in ("input_ids", "shift_labels", "document_ids"))
        assert np.array_equal(window["labels"][1:], window["shift_labels"])
        for i, label in enumerate(window["shift_labels"]):
            if label == IGNORE_INDEX:
                continue
            at = start + 1 + i
            judged.append(at)
            assert label == flat[at][0]
            assert window["input_ids"][i] == (EOS if at == 0 else flat[at - 1][0])
            # What a target may be predicted from is the end-of-text before its document, and that document so far.
            visible = [j for j in range(i + 1) if window["document_ids"][j] == window["document_ids"][i]]
            sources = [start + j for j in visible]  # positions in the stream, -1 is before it
            begin = flat_start(flat, flat[at][1])
            assert all(begin - 1 <= s < at for s in sources)
    assert judged == list(range(len(stream)))


def flat_start(flat, document):
    return next(i for i, (_, d) in enumerate(flat) if d == document)


def test_a_window_may_span_shards():
    stream = TokenStream("s", [shard([1, 2]), shard([3]), shard([4, 5, 6])], EOS)
    window = read_window(stream, -1, 8)
    assert window["input_ids"].tolist() == [0, 1, 2, 0, 3, 0, 4, 5]
    assert window["shift_labels"].tolist() == [1, 2, 0, 3, 0, 4, 5, 6]
    assert window["document_ids"].tolist() == [0, 0, 0, 1, 1, 2, 2, 2]


def streams(*tokens):
    return [StreamWindows(TokenStream(f"s{i}", [shard([1] * (n - 1))], EOS), 10) for i, n in enumerate(tokens)]


def test_an_epoch_reads_each_window_once():
    windows = Mixture(streams(1000), [1.0], 350, seed=3)
    for epoch in range(3):
        seen = [windows.locate(i)[1] for i in range(100 * epoch, 100 * (epoch + 1))]
        assert sorted(seen) == list(range(100))
        assert seen != sorted(seen)
    assert windows.epochs() == {"s0": 3.5}


def test_the_order_is_a_pure_function_of_seed_and_index():
    make = lambda seed, total: Mixture(streams(5000, 300), [3, 1], total, seed)  # noqa: E731
    whole = [make(0, 9000).locate(i) for i in range(9000)]
    later = make(0, 20_000)  # a longer run begins with the same windows
    assert [later.locate(i) for i in (8999, 17, 4096, 0)] == [whole[i] for i in (8999, 17, 4096, 0)]
    assert whole != [make(1, 9000).locate(i) for i in range(9000)]


def test_shares_hold_within_a_window_in_every_block():
    weights = [0.56, 0.25, 0.05, 0.1, 0.04]
    windows = Mixture(streams(*[5000] * 5), weights, 3 * 4096, seed=0)
    for block in range(3):
        counts = Counter(windows.locate(i)[0] for i in range(4096 * block, 4096 * (block + 1)))
        for source, weight in enumerate(weights):
            assert abs(counts[source] - 4096 * weight) <= 1


def test_a_source_without_text_is_refused():
    with pytest.raises(ValueError, match="s1"):
        Mixture([*streams(100), StreamWindows(TokenStream("s1", [], EOS), 10)], [1, 1], 10, 0)


def test_evaluation_takes_whole_documents_and_always_the_same():
    stream = TokenStream("s", [shard([1] * 4, [2] * 4), shard([3] * 4)], EOS)
    windows, stop = evaluation_windows(stream, 4, 12)
    assert stop == 10  # two documents of five tokens
    judged = [label for w in windows for label in w["shift_labels"] if label != IGNORE_INDEX]
    assert judged == [1, 1, 1, 1, 0, 2, 2, 2, 2, 0]
    _, stop = evaluation_windows(stream, 4, 1)
    assert stop == 5  # one document at least
