import pytest

from buddygpt.data.formats import Message
from buddygpt.evaluation.health import check_health, health_of
from buddygpt.evaluation.replies import Reply, encode_prompts


def say(text="", ids=(), stopped=True):
    return Reply(text, tuple(ids), stopped)


@pytest.mark.parametrize(
    "ids, repeats",
    [
        (range(40), False),
        ([7] * 15, False),  # a laugh
        ([7] * 16, True),
        ([*range(9), *[1, 2, 3] * 6, *range(20, 30)], True),
        ([*range(10)] * 2, False),  # said twice is no loop yet
        ([*range(10)] * 3, True),
        ([*range(64)] * 3, True),
        ([*range(65)] * 3, False),
        ([1, 2, 3] * 4, False),
        ([*[5] * 6, 9, *[5] * 6, 8, *[5] * 6], False),
        ([*range(5), 9, *range(5), 8, *range(5), 7], False),
    ],
)
def test_a_loop_is_the_same_tokens_three_times_in_a_row(ids, repeats):
    assert health_of([say(ids=ids)]).repeating == float(repeats)


@pytest.mark.parametrize(
    "text, repeats",
    [
        ("春眠不觉晓处处闻啼鸟\n夜来风雨声花落知多少", False),
        ("春眠不觉晓处处闻啼鸟\n夜来风雨声\n春眠不觉晓处处闻啼鸟", True),
        ("春眠不觉晓处处闻啼鸟\n  春眠不觉晓处处闻啼鸟  ", True),
        ("是\n是\n是\n\n\n", False),
    ],
)
def test_a_whole_line_said_twice_is_a_repetition(text, repeats):
    assert health_of([say(text)]).repeating == float(repeats)


def test_distinct_ngrams_are_counted_within_a_reply():
    assert health_of([say(ids=[1, 2, 3, 4, 5])] * 2).distinct == 1.0  # that two replies agree is no fault
    assert health_of([say(ids=[1, 2, 3, 4, 1, 2, 3, 4])]).distinct == 4 / 5
    assert health_of([say(ids=[1] * 7), say(ids=[1, 2, 3, 4])]).distinct == 2 / 5
    assert health_of([say(ids=[1, 1, 1])]).distinct == 1.0


def test_shares_and_lengths_are_means_over_replies():
    found = health_of([say(ids=range(10)), say(ids=[7] * 30, stopped=False)], passed_over=3)
    assert (found.replies, found.passed_over) == (2, 3)
    assert (found.stopped, found.tokens, found.repeating) == (0.5, 20.0, 0.5)
    assert health_of([]).replies == 0


def test_a_model_is_asked_greedily_and_prompts_without_room_are_counted(tokenizer, scripted):
    short, endless, long = ((Message("user", text),) for text in ("春？", "花？", "夜" * 400))
    model = scripted({short: "晓", endless: "声声..."})
    found = check_health(
        model, tokenizer, encode_prompts(tokenizer, [short, endless, long]), room=512, max_new_tokens=50
    )
    assert (found.replies, found.passed_over, found.stopped, found.repeating) == (2, 1, 0.5, 0.5)
