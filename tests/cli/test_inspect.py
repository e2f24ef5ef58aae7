"""`buddy data inspect` on files: columns, rows, the adapter and what it makes of them, drops, lengths."""

import gzip
import json

import pytest

from tests.conftest import SHARED


@pytest.fixture
def write(tmp_path):
    """Write rows as JSON lines; gives the name."""

    def lines(name, *rows):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return name

    return lines


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """A small tokenizer's folder."""
    from buddygpt.data.tokenizer import train_tokenizer

    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(iter(["山高水长", "the quick brown fox"] * 20), 290).save_pretrained(folder)
    return folder


ROW = {
    "text": {"text": "山高水长，路远马亡。"},
    "instruction": {"instruction": "列出水果", "input": "三种", "output": "苹果、香蕉、梨"},
    "prompt-response": {"prompt": "列出水果", "response": "苹果、香蕉、梨"},
    "conversation": {"conversation": [{"human": "列出水果", "assistant": "苹果、香蕉、梨"}]},
    "preference": {"prompt": "列出水果", "chosen": "苹果、香蕉、梨", "rejected": "不知道"},
    "answers": {
        "question": "什么是水？",
        "human_answers": ["水是一种液体，可以喝，也可以用来洗东西，无色无味。"],
        "chatgpt_answers": ["水是由氢和氧组成的化合物，在常温下是无色无味的液体。"],
    },
}


@pytest.mark.parametrize("shape", ROW)
def test_each_shape_is_told_with_its_columns_rows_and_lengths(buddy, write, tokenizer, shape):
    row = ROW[shape]
    outcome = buddy("data", "inspect", write("a.jsonl", *[row] * 5), "--tokenizer", tokenizer)
    assert outcome.code == 0, outcome.err
    lines = outcome.out.splitlines()
    assert f"adapter: {shape}, by names and values: " in outcome.out
    assert {line.split(" ")[0] for line in lines} >= set(row)  # the table of columns
    assert [f"-- a.jsonl:{n}" in lines for n in (1, 2, 3, 4)] == [True, True, True, False]
    assert "5 documents of all 5 rows" in lines
    assert any(line.startswith("tokens ") for line in lines)
    assert "bytes a token" in lines[-1]


def test_what_three_rows_become_and_what_is_dropped(buddy, write, tokenizer):
    rows = [{"prompt": "问", "response": "答"}, {"prompt": "", "response": "答"}, {"prompt": "问", "response": None}]
    out = buddy("data", "inspect", write("a.jsonl", *rows, *rows), "--tokenizer", tokenizer).out
    assert "-- a.jsonl:1 becomes\nuser: 问\nassistant: 答\n" in out
    assert "-- a.jsonl:2 becomes\nnothing: no question\n" in out
    assert "-- a.jsonl:3 becomes\nnothing: no answer\n" in out
    words = " ".join(out.split())
    assert "no question 2 33.3% a.jsonl:2" in words and "no answer 2 33.3% a.jsonl:3" in words
    assert "2 documents of all 6 rows" in words


def test_columns_that_nobody_knows_are_shown_with_the_way_to_name_them(buddy, write, tokenizer):
    name = write("a.jsonl", {"frage": "问", "antwort": "答"})
    outcome = buddy("data", "inspect", name)
    assert outcome.code == 2
    assert "frage: 问" in outcome.out and "antwort" in outcome.out  # before it is refused
    assert "--map prompt=COLUMN,response=COLUMN" in outcome.err and "Traceback" not in outcome.err
    outcome = buddy("data", "inspect", name, "--map", "prompt=frage,response=antwort", "--tokenizer", tokenizer)
    assert outcome.code == 0, outcome.err
    assert "adapter: prompt-response, as the map says: prompt in frage; response in antwort" in outcome.out
    outcome = buddy("data", "inspect", name, "--map", "text=frage,text=antwort", "--tokenizer", tokenizer)
    assert "text in frage + antwort" in outcome.out


@pytest.mark.parametrize(
    ("map_", "told"),
    [
        ("promt=frage", "did you mean 'prompt'"),
        ("prompt", "MEANING=COLUMN"),
        ("prompt=", "MEANING=COLUMN"),
        ("prompt=frag,response=antwort", "did you mean 'frage'"),
        ("prompt=frage", "describes no row"),
    ],
)
def test_a_wrong_map_is_one_line(buddy, write, map_, told):
    outcome = buddy("data", "inspect", write("a.jsonl", {"frage": "问", "antwort": "答"}), "--map", map_)
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1 and told in outcome.err


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.jsonl", b"", "empty"),
        ("a.jsonl", b'{"text": \n', "a.jsonl:1"),
        ("a.jsonl", b'"a string"\n', "no columns"),
        ("a.jsonl", '{"text": "中"}\n'.encode("gbk"), "not UTF-8"),
        ("a.doc", b"text\nx\n", "unknown kind"),
        ("a.parquet", b"PAR1", "parquet"),
    ],
)
def test_a_file_that_cannot_be_read_is_told_in_one_line(buddy, tmp_path, name, content, told):
    (tmp_path / name).write_bytes(content)
    outcome = buddy("data", "inspect", name)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert told in outcome.err


def test_of_a_folder_or_glob_the_first_file_is_taken_unless_another_is_named(buddy, write, tokenizer):
    write("set/a.jsonl", {"text": "甲" * 3})
    write("set/deep/b.jsonl.gz", {"text": "乙" * 3})
    for what in ("set", "set/*"):
        out = buddy("data", "inspect", what, "--tokenizer", tokenizer).out
        assert "2 files" in out and "set/deep/b.jsonl.gz" in out
        assert "looking at set/a.jsonl," in out and "text: 甲甲甲" in out
    for glob in ("b.*", "*/deep/*"):
        out = buddy("data", "inspect", "set", "--file", glob, "--tokenizer", tokenizer).out
        assert "looking at set/deep/b.jsonl.gz," in out and "text: 乙乙乙" in out
    outcome = buddy("data", "inspect", "set", "--file", "c*")
    assert outcome.code == 2 and "none of its 2 files matches --file c*" in outcome.err


def test_a_folder_goes_before_a_data_set_of_the_same_name(buddy, write, tokenizer):
    write("alpaca/mine.jsonl", {"text": "我的"})
    assert "text: 我的" in buddy("data", "inspect", "alpaca", "--tokenizer", tokenizer).out


def test_what_is_neither_here_nor_named_nor_an_id_is_told_with_the_nearest(buddy):
    outcome = buddy("data", "inspect", "skypie")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "did you mean 'skypile'" in outcome.err and "no file skypie" in outcome.err
    assert "no such file or folder" in buddy("data", "inspect", "./skypile").err
    assert "no such file or folder" in buddy("data", "inspect", "gone.jsonl").err


def test_text_is_never_markup_and_steers_no_terminal(buddy, write, tokenizer):
    row = {"text": "[bold]粗[/bold] \x1b[31m红\x1b[0m [/x]"}
    out = buddy("data", "inspect", write("a.jsonl", row), "--tokenizer", tokenizer).out
    assert "text: [bold]粗[/bold] \\u001b[31m红\\u001b[0m [/x]" in out
    assert "\x1b" not in out


def test_nothing_is_written(buddy, write, tokenizer, tmp_path):
    buddy("data", "inspect", write("a.jsonl", {"text": "山"}), "--tokenizer", tokenizer)
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


TALK = {"messages": [
    {"role": "system", "content": "山[b]"}, {"role": "user", "content": "高<|im_end|>"},
    {"role": "assistant", "content": "水长", "reasoning": "山"}, {"role": "user", "content": "山"},
    {"role": "assistant", "content": "😀"},
]}  # fmt: skip
PAIR = {"prompt": "山", "chosen": "水长", "rejected": "高"}


def test_which_tokens_sft_learns_is_seen_without_colours(buddy, write, tokenizer):
    """Answers with their end marks, between boundaries; what people typed in several tokens, marks in one."""
    outcome = buddy("data", "inspect", write("a.jsonl", TALK), "--tokenizer", tokenizer, "--stage", "sft")
    assert outcome.code == 0, outcome.err
    lines = outcome.out.splitlines()
    start = next(i for i, line in enumerate(lines) if " learned (" in line)
    assert lines[start - 1].startswith("tokens in [ ] are learned")
    assert lines[start + 1 : lines.index("lengths")] == [
        r"<|im_start|>│s│y│s│t│e│m│\n",
        r"山│[│b│]│<|im_end|>│\n",
        r"<|im_start|>│u│s│e│r│\n",
        r"高│<│|│i│m│_│e│n│d│|│>│<|im_end|>│\n",
        r"<|im_start|>│a│s│s│i│s│t│a│n│t│\n",
        r"[<think>│\n]",
        r"[山│\n]",
        r"[</think>│\n]",
        r"[\n]",
        r"[水\xe9\x95│\xbf│<|im_end|>]│\n",
        r"<|im_start|>│u│s│e│r│\n",
        r"山│<|im_end|>│\n",
        r"<|im_start|>│a│s│s│i│s│t│a│n│t│\n",
        r"[\xf0│\x9f│\x98│\x80│<|im_end|>]",
    ]
    assert lines[start].startswith("-- a.jsonl:1: 15 learned (18.8%) of 80 tokens")
    assert lines[-1] == "15 learned (18.8%) of 80 tokens, in 1 rows"


def test_with_colours_learned_tokens_have_one_and_text_is_never_markup(buddy, write, tokenizer, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    name = write("a.jsonl", {"prompt": "[red]山[/x]", "chosen": "水", "rejected": "高"})
    command = ("data", "inspect", name, "--tokenizer", tokenizer, "--stage", "dpo")
    out = buddy(*command).out
    assert "\x1b[32m水\x1b[0m" in out and "\x1b[31m高\x1b[0m" in out and "\x1b[2m[\x1b[0m" in out
    assert "green tokens are learned" in out and "[水" not in out
    monkeypatch.setenv("NO_COLOR", "1")
    out = buddy(*command).out
    assert "\x1b[32m" not in out and "tokens in [ ] are learned" in out


def test_the_two_answers_of_a_pair_their_lengths_and_what_length_predicts(buddy, write, tokenizer):
    outcome = buddy("data", "inspect", write("a.jsonl", *[PAIR] * 20), "--tokenizer", tokenizer, "--stage", "dpo")
    lines = outcome.out.splitlines()
    assert "[山水长" not in outcome.out and any(line.endswith("│<|im_end|>]") for line in lines)
    assert any(line.startswith("{") and line.endswith("│<|im_end|>}") for line in lines)
    assert {line.split(" ")[0] for line in lines} >= {"given", "chosen", "rejected"}
    assert "longer one in 100.0% of the pairs" in outcome.out
    assert lines[-1].startswith("! length alone predicts the choice: the longer answer")
    both = [PAIR, {**PAIR, "chosen": "高", "rejected": "水长"}] * 10
    out = buddy("data", "inspect", write("b.jsonl", *both), "--tokenizer", tokenizer, "--stage", "dpo").out
    assert "longer one in 50.0% of the pairs" in out and "predicts" not in out


@pytest.mark.parametrize(
    ("stage", "rows", "reason"),
    [
        ("sft", [{"text": "山"}], "text, not a conversation"),
        ("dpo", [{"text": "山"}], "not a pair of answers"),
        ("dpo", [TALK], "not a pair of answers"),
        ("sft", [PAIR], None),  # its better answer may be learned
    ],
)
def test_rows_that_a_stage_cannot_learn_from_are_counted(buddy, write, tokenizer, stage, rows, reason):
    outcome = buddy("data", "inspect", write("a.jsonl", *rows), "--tokenizer", tokenizer, "--stage", stage)
    assert outcome.code == 0, outcome.err
    words = " ".join(outcome.out.split())
    if reason:
        assert f"{reason} 1 100.0% a.jsonl:1" in words and "0 documents of all 1 rows" in words
    else:
        assert "dropped" not in words and "1 documents of all 1 rows" in words and "learned (" in words


def test_a_tokenizer_without_chat_marks_is_told_in_one_line(buddy, write, tmp_path):
    from buddygpt.data.tokenizer.bpe import assemble

    assemble({"a": 0}, []).save_pretrained(tmp_path / "poor")
    outcome = buddy("data", "inspect", write("a.jsonl", PAIR), "--tokenizer", "./poor", "--stage", "sft")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "lacks <|im_start|>, <|im_end|>" in outcome.err


def test_of_a_long_row_the_beginning_and_the_end_are_shown(buddy, write, tokenizer):
    name = write("a.jsonl", {"prompt": "z" * 3000, "response": "水"})
    lines = buddy("data", "inspect", name, "--tokenizer", tokenizer, "--stage", "sft").out.splitlines()
    assert any(" tokens ... │" in line for line in lines)
    assert max(line.count("│z") for line in lines) <= 1000


@pytest.mark.skipif(not SHARED.exists(), reason="no shared data here")
@pytest.mark.parametrize(
    ("file", "adapter"),
    [
        ("sft/alpaca_zh_demo.json", "instruction"),
        ("sft/identity.json", "instruction"),
        ("dpo/dpo_zh_demo.json", "preference"),
        ("dpo/dpo_en_demo.json", "preference"),
        ("corpus/d2l-zh.jsonl.gz", "text"),
        ("bench/gsm8k_test.jsonl", "prompt-response"),
    ],
)
def test_real_files_are_read_as_what_they_are(buddy, tokenizer, file, adapter):
    outcome = buddy("data", "inspect", SHARED / file, "--tokenizer", tokenizer)
    assert outcome.code == 0, outcome.err
    assert f"adapter: {adapter}, by names and values" in outcome.out
