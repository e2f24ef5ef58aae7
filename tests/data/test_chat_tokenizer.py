"""The tokenizer of a chat model: its template, its end and its padding, saved and read back; or why there is none."""

import pytest

from buddygpt.data.template import CHAT_TEMPLATE
from buddygpt.data.tokenizer import chat_ends, load_tokenizer, make_chat_tokenizer, tokenizer_hash, train_tokenizer
from buddygpt.data.tokenizer.bpe import assemble
from buddygpt.recipe.errors import BuddyError

TEXTS = ["春眠不觉晓，处处闻啼鸟。夜来风雨声，花落知多少。"] * 3


def test_a_chat_model_ends_with_the_end_of_a_turn_a_base_model_with_the_end_of_text_and_neither_pads_with_it(tmp_path):
    base = train_tokenizer(TEXTS, 270)
    chat = make_chat_tokenizer(base)
    assert (base.eos_token, base.chat_template) == ("<|endoftext|>", None)  # a copy: the base is what it was
    chat.save_pretrained(tmp_path)
    for tokenizer in (chat, load_tokenizer(str(tmp_path))):
        assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")
        assert tokenizer.chat_template == CHAT_TEMPLATE
        assert chat_ends(tokenizer) == (tokenizer.eos_token_id, tokenizer.pad_token_id) == chat_ends(base)
        assert tokenizer_hash(tokenizer) == tokenizer_hash(base)  # the ids of texts are the same
    assert (tmp_path / "chat_template.jinja").read_text(encoding="utf-8").rstrip("\n") == CHAT_TEMPLATE.rstrip("\n")


@pytest.mark.parametrize("has", [(), ("<|im_start|>",), ("<|im_end|>",)])
def test_a_vocabulary_without_chat_marks_is_refused_with_those_it_lacks(has):
    poor = assemble(train_tokenizer(TEXTS, 270).backend_tokenizer.get_vocab(with_added_tokens=False), [], has)
    lacks = [token for token in ("<|im_start|>", "<|im_end|>") if token not in has]
    for make in (make_chat_tokenizer, chat_ends):
        with pytest.raises(BuddyError) as refused:
            make(poor)
        (line,) = refused.value.lines
        assert f"lacks {', '.join(lacks)}, which" in line and "pretrain with tokenizer 'qwen3'" in line
