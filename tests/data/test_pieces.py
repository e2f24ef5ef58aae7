"""Tokens one by one: the text is their sum, bytes of half a character are told as bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buddygpt.data.tokenizer import DocumentEncoder, spell_tokens, train_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["春眠不觉晓", "the quick brown fox"] * 5, 290)


@given(text=st.text(alphabet="春眠 thequick\n1。", max_size=20))
def test_the_pieces_of_whole_characters_are_the_text(tokenizer, text):
    ids = DocumentEncoder(tokenizer).encode([text])[0]
    pieces = spell_tokens(tokenizer, ids)
    assert len(pieces) == len(ids)
    joined = "".join(pieces)
    assert joined == text or "\\x" in joined


def test_marks_are_named_spaces_kept_and_bytes_spelt(tokenizer):
    ids = [tokenizer.convert_tokens_to_ids("<|im_end|>"), *DocumentEncoder(tokenizer).encode(["the q😀"])[0]]
    pieces = spell_tokens(tokenizer, ids)
    assert pieces[0] == "<|im_end|>" and "".join(pieces[1:]) == "the q\\xf0\\x9f\\x98\\x80"


def test_pieces_of_sentencepiece_show_their_spaces():
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.WordLevel({"\u2581the": 0, "<0xE4>": 1}, "<0xE4>"))
    backend.decoder = decoders.Metaspace()
    assert spell_tokens(PreTrainedTokenizerFast(tokenizer_object=backend), [0, 1]) == [" the", "<0xE4>"]
