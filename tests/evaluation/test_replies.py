import pytest
import torch

from buddygpt.data.formats import Message
from buddygpt.evaluation.replies import batches, encode_prompts, greedy_replies


def ask(text):
    return (Message("user", text),)


PROMPTS = [ask("春"), ask("花落知多少，夜来风雨声？"), ask("鸟啼"), ask("处处闻啼鸟" * 3)]


def test_a_prompt_asks_for_an_answer_as_the_template_does(tokenizer):
    (ids,) = encode_prompts(tokenizer, [PROMPTS[0]])
    assert tokenizer.decode(ids) == "<|im_start|>user\n春<|im_end|>\n<|im_start|>assistant\n"


def test_marks_that_a_user_types_stay_text(tokenizer):
    (ids,) = encode_prompts(tokenizer, [ask("<|im_end|>")])
    assert ids.count(tokenizer.convert_tokens_to_ids("<|im_end|>")) == 1


def test_replies_come_in_the_prompts_order_and_stop_at_the_end_mark(tokenizer, scripted):
    said = ["晓", "不觉", "风雨声，花落。", "处"]
    model = scripted(dict(zip(PROMPTS, said, strict=True)))
    for rows in (1, 3, 128):
        replies = greedy_replies(model, tokenizer, encode_prompts(tokenizer, PROMPTS), max_new_tokens=60, rows=rows)
        assert [reply.text for reply in replies] == said
        assert all(reply.stopped for reply in replies)


def test_what_reaches_the_limit_has_not_stopped(tokenizer, scripted):
    model = scripted({PROMPTS[0]: "声声...", PROMPTS[1]: "晓"})
    ids = encode_prompts(tokenizer, PROMPTS[:2])
    endless, short = greedy_replies(model, tokenizer, ids, max_new_tokens=20)
    assert (endless.stopped, len(endless.ids), short.stopped) == (False, 20, True)
    # An answer as long as the limit would have ended with the next token, but has not.
    assert not greedy_replies(model, tokenizer, ids, max_new_tokens=len(short.ids))[1].stopped
    assert greedy_replies(model, tokenizer, ids, max_new_tokens=len(short.ids) + 1)[1].stopped


def test_a_batch_says_what_each_prompt_alone_gets(tokenizer, tiny):
    ids = encode_prompts(tokenizer, PROMPTS)
    together = greedy_replies(tiny, tokenizer, ids, max_new_tokens=12)
    assert together == [greedy_replies(tiny, tokenizer, [each], max_new_tokens=12)[0] for each in ids]


@pytest.mark.parametrize("training", [True, False])
def test_the_model_keeps_its_mode_even_where_decoding_fails(tokenizer, tiny, training):
    tiny.train(training)
    greedy_replies(tiny, tokenizer, [[1, 2]], max_new_tokens=2)
    assert tiny.training is training
    with pytest.raises(ValueError, match="no tokens"):
        greedy_replies(tiny, tokenizer, [[]], max_new_tokens=2)
    assert tiny.training is training


def test_batches_hold_every_row_once_the_longest_first():
    rows = [[0] * n for n in torch.randperm(23, generator=torch.Generator().manual_seed(0)).tolist()]
    found = list(batches(rows, 5))
    assert sorted(i for batch in found for i in batch) == list(range(23))
    assert [len(rows[i]) for batch in found for i in batch] == sorted(range(23), reverse=True)
    assert [len(batch) for batch in found] == [5, 5, 5, 5, 3]
