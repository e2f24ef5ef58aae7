"""Each fault gets one clear line and exit code 2, and nothing is written."""

import shutil
from collections import namedtuple

import pytest


@pytest.fixture
def refused(buddy, toy, tmp_path):
    """Run `buddy pretrain tiny` with overrides: it ends with code 2, one line, nothing written. Gives the line."""

    def run(*overrides, lines=1):
        before = sorted(p for p in tmp_path.rglob("*") if p.is_file())
        outcome = buddy("pretrain", "tiny", *toy(*overrides))
        assert outcome.code == 2, outcome.err + outcome.out
        assert outcome.err.count("\n") == lines, outcome.err
        assert "Traceback" not in outcome.err
        left = [p for p in sorted(p for p in tmp_path.rglob("*") if p.is_file()) if p not in before]
        assert [p for p in left if p.name != "files.json"] == []  # that one remembers hashes of large files
        return outcome.err

    return run


def source(*paths, **more):
    extra = "".join(f", {k}: {v}" for k, v in more.items())
    return f"data.sources=[{{kind: files, paths: [{', '.join(paths)}]{extra}}}]"


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("gone.jsonl", None, "gone.jsonl: no such file"),
        ("a.jsonl", b"", "a.jsonl"),
        ("a.txt", b" \n\n", "a.txt"),
        ("a.jsonl", b'{"text": "a"}\n{"text": "b"}\n{"text": \n', "a.jsonl:3"),
        ("a.jsonl", b'{"text": "a"}\n' + '{"text": "中"}\n'.encode("gbk"), "a.jsonl:2"),
        ("a.jsonl", b'{"id": 1, "title": "x"}\n{"id": 2, "title": "y"}\n', "title"),
        ("a.doc", b"text\nhello\n", "unknown kind of file"),
        ("a.jsonl.gz", b"not gzip at all", "a.jsonl.gz"),
        ("a.parquet", b"PAR1 but not really", "a.parquet"),
    ],
    ids=["missing", "empty", "no text", "broken JSON", "not UTF-8", "no column", "kind", "gzip", "parquet"],
)
def test_files(refused, tmp_path, name, content, told):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert told in refused(source(name))


def test_a_near_name_is_offered(refused, tmp_path):
    (tmp_path / "corpus.jsonl").write_text("{}")
    assert "did you mean 'corpus.jsonl'" in refused(source("corpsu.jsonl"))


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("tokenizer.train=401", "tokenizer.train: 401 entries, but the model has 400 rows"),
        (
            "tokenizer={base: qwen3, keep: 32768, train: null}",
            "tokenizer.keep: 32768 entries, but the model has 400 rows; set model.vocab_size to 32768",
        ),
        (
            "pretrain.sequence_length=128; pretrain.tokens_per_batch=256",
            "128 tokens, but the model has only 64 positions",
        ),
        ("pretrain.tokens_per_batch=100", "100 is not a multiple of sequence_length x micro_batch_size = 32 x 2 = 64"),
        ("pretrain.precision=fp16", "fp16 needs a GPU"),
        ("pretrain.optimizer.learning_rate=fast", "'fast' is not a number"),
        ("tokenizer={base: ./nowhere, train: null}", "tokenizer"),
        ("tokenizer={base: qwen3, train: null}", "vocabulary is larger than the model's"),
    ],
)
def test_fields(refused, override, told):
    assert told in refused("pretrain.micro_batch_size=2", *override.split("; "))


def test_a_hub_without_network_tells_source_size_and_remedy(refused, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("BUDDY_HUBS", "mirror")
    first, second = (
        "{kind: hub, id: a/text, files: ['*'], size: 75B}",
        "{kind: hub, name: b, id: b/text, files: ['*']}",
    )
    hub = f"data.sources=[{first}, {second}]"
    told = refused(hub, lines=2)
    assert "a/text" in told and "75" in told and "--set" in told
    assert "b/text" in told


def test_no_space_left(refused, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 1000))
    assert "are needed" in refused()


def test_targets_of_chat(buddy, tmp_path):
    assert "no finished model" in buddy("chat", "--prompt", "x").err
    outcome = buddy("chat", "nowhere", "--prompt", "x")
    assert outcome.code == 2 and outcome.err.count("\n") == 1
    assert buddy("chat", "--temperature", "-1").code == 2


def test_a_model_of_the_hub_without_network(buddy, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    outcome = buddy("chat", "owner/name", "--prompt", "x")
    assert outcome.code == 2 and outcome.err.count("\n") == 1
    assert "owner/name: neither a folder here nor to be had from the hub" in outcome.err
