"""Preparing text: every row accounted for, the same bytes whatever happens on the way, nothing done twice."""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from buddygpt.data import demo, staging
from buddygpt.data import prepare as prepare_module
from buddygpt.data.dedup import Held, decide
from buddygpt.data.prepare import find_prepared, prepare, verify
from buddygpt.data.tokenizer import load_tokenizer
from buddygpt.data.windows import TokenStream
from buddygpt.events import Note, silent
from buddygpt.recipe.errors import BuddyError
from buddygpt.recipe.schema import Recipe

CORPUS = Path(__file__).parents[2] / ".." / "shared" / "data" / "corpus"


def recipe(*sources: dict | str, vocab_size=1024, tokenizer=None, workers=1, validation=0.2) -> Recipe:
    listed = [{"kind": "files", "paths": [s]} if isinstance(s, str) else s for s in sources]
    return Recipe.model_validate(
        {
            "schema": 1,
            "name": "test",
            "model": {
                "vocab_size": vocab_size,
                "hidden_size": 64,
                "num_hidden_layers": 1,
                "max_position_embeddings": 256,
                "attention": {"kind": "gqa", "num_attention_heads": 4, "num_key_value_heads": 2},
                "mlp": {"kind": "dense", "intermediate_size": 128},
            },
            "tokenizer": tokenizer or {"train": 300},
            "data": {"sources": listed, "validation": validation, "workers": workers},
        }
    )


def make_texts(seed: int, count: int = 40) -> list[str]:
    dice = random.Random(seed)
    words = "春江 潮水 连海平 海上 明月 共潮生 滟滟 随波 千万里 何处 无月明".split()
    return [f"{seed}之{n}：" + "".join(dice.choices(words, k=dice.randint(3, 60))) + "。" for n in range(count)]


def write(path: Path, texts: list[str]) -> str:
    path.write_text("".join(json.dumps({"text": t}, ensure_ascii=False) + "\n" for t in texts), "utf-8")
    return str(path)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a prepared folder but datatrove's logs."""
    files = [p for p in sorted(folder.rglob("*")) if p.is_file() and "logs" not in p.relative_to(folder).parts]
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


def texts_of(prepared, source: str, split) -> list[str]:
    """Documents read back through the stream that training reads."""
    tokenizer = prepared.tokenizer()
    stream = TokenStream(source, prepared.open(source, split), tokenizer.eos_token_id)
    texts, start = [], 0
    for ends in stream.document_ends():
        for end in ends:
            ids, _ = stream.read(start, int(end))
            assert ids[-1] == tokenizer.eos_token_id and tokenizer.eos_token_id not in ids[:-1]
            texts.append(tokenizer.decode(ids[:-1].tolist(), clean_up_tokenization_spaces=False))
            start = int(end)
    return texts


@pytest.fixture
def many(tmp_path, monkeypatch) -> str:
    """A folder of five files, a task for each."""
    monkeypatch.setattr(staging, "BATCH_BYTES", 1)
    folder = tmp_path / "many"
    folder.mkdir()
    for n in range(5):
        write(folder / f"{n}.jsonl", make_texts(n))
    return str(folder)


def test_what_goes_in_comes_out(tmp_path):
    one, two = make_texts(1), make_texts(2)
    first = write(tmp_path / "one.jsonl", [*one, one[3], "  ", "甲<|endoftext|>", "乙<|im_end|>丙"])
    (tmp_path / "two").mkdir()
    for n, text in enumerate(two):
        (tmp_path / "two" / f"{n:02d}.txt").write_text(text, "utf-8")
    (tmp_path / "two" / "99.md").write_text(f"\n{one[0]}\n", "utf-8")
    (tmp_path / "two" / "notes.doc").write_text("x", "utf-8")
    prepared = prepare(recipe(first, str(tmp_path / "two")), tmp_path / "cache", silent)

    a, b = prepared.manifest["sources"].values()
    assert a["documents_in"] == 44 and a["documents_out"] == 42 and a["end_markers_stripped"] == 1
    assert a["dropped"] == {
        "empty": {"count": 1, "first": f"{first}:42"},
        "duplicate": {"count": 1, "first": f"{first}:41"},
    }
    assert b["documents_in"] == 41 and b["files_skipped"] == 1
    assert b["dropped"] == {"duplicate": {"count": 1, "first": str(tmp_path / "two" / "99.md")}}
    for source, texts in (("one", [*one, "甲", "乙<|im_end|>丙"]), ("two", two)):
        train, held = texts_of(prepared, source, "train"), texts_of(prepared, source, "validation")
        assert sorted(train + held) == sorted(texts) and held and train
        entry = prepared.source(source)["splits"]["train"]
        assert entry["documents"] == len(train)
        assert entry["bytes"] == sum(len(t.encode()) for t in train)
        assert entry["bytes_per_token"] == round(entry["bytes"] / entry["tokens"], 4)
    assert prepared.tokenizer().vocab_size + 0 <= 300 and prepared.manifest["tokenizer"]["entries"] == 300
    assert prepared.sample("one") and prepared.sample("one") in "".join([*one, "甲"])
    assert not prepared.path.joinpath("work").exists()
    with pytest.raises(BuddyError, match="did you mean 'one'"):
        prepared.open("onee", "train")


def test_the_demo_corpus(tmp_path):
    prepared = prepare(recipe({"kind": "demo", "characters": 5000, "seed": 3}), tmp_path, silent)
    texts = texts_of(prepared, "demo", "train") + texts_of(prepared, "demo", "validation")
    assert sorted(texts) == sorted({text.strip() for text in demo.paragraphs(3, 5000)})


def test_workers_change_nothing(tmp_path, many):
    one = prepare(recipe(many, workers=1), tmp_path / "a", silent)
    two = prepare(recipe(many, workers=2), tmp_path / "b", silent)
    assert contents(one.path) == contents(two.path) and len(one.open("many", "train")) == 5


BREAK_OFF = """
import os, signal, sys
from pathlib import Path
from buddygpt.data import staging
from buddygpt.data.prepare import prepare
from buddygpt.recipe.schema import Recipe

def main(recipe, cache, task, done):
    staging.BATCH_BYTES = 1
    def emit(event):
        if getattr(event, "task", "") == task and event.done >= int(done):
            os.kill(os.getpid(), signal.SIGKILL)
    prepare(Recipe.model_validate_json(Path(recipe).read_text()), Path(cache), emit)

if __name__ == "__main__":
    main(*sys.argv[1:])
"""


@pytest.mark.parametrize(
    ("task", "workers"), [("prepare: read", 2), ("prepare: tokenise", 1), ("prepare: tokenise", 2)]
)
def test_killed_and_started_again(tmp_path, many, task, workers):
    wanted = recipe(many, workers=workers)
    (tmp_path / "break_off.py").write_text(BREAK_OFF, "utf-8")
    (tmp_path / "recipe.json").write_text(wanted.model_dump_json(by_alias=True), "utf-8")
    arguments = [tmp_path / "recipe.json", tmp_path / "a", task, 2]
    before = set(psutil.pids())
    process = subprocess.run([sys.executable, tmp_path / "break_off.py", *map(str, arguments)], timeout=60)
    assert process.returncode == -signal.SIGKILL
    _wait_for(lambda: not [p for p in psutil.process_iter() if p.pid not in before and _belongs(p, tmp_path)])
    assert find_prepared(wanted, tmp_path / "a") is None
    (folder,) = (path for path in (tmp_path / "a").iterdir() if path.is_dir())
    for rest in ("00009.ds.1.tmp", "00009.ds.1.tmp.index"):
        (folder / "shards/many/train").mkdir(parents=True, exist_ok=True)
        (folder / "shards/many/train" / rest).touch()

    events = []
    again = prepare(recipe(many), tmp_path / "a", events.append)
    assert next(e.done for e in events if getattr(e, "task", "") == task) >= 2  # what was done stays done
    assert contents(again.path) == contents(prepare(recipe(many), tmp_path / "b", silent).path)


def _belongs(process: psutil.Process, folder: Path) -> bool:
    try:
        return str(folder) in " ".join(process.cmdline()) or "multiprocessing.spawn" in " ".join(process.cmdline())
    except psutil.Error:
        return False


def _wait_for(condition, seconds=10.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_stopped_run_leaves_no_worker(tmp_path, many):
    def emit(event):
        if getattr(event, "task", "") == "prepare: tokenise" and event.done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(recipe(many, workers=2), tmp_path / "cache", emit)
    assert not [p for p in psutil.Process().children(recursive=True) if "spawn_main" in " ".join(p.cmdline())]


@pytest.mark.parametrize("workers", [1, 2])
def test_the_first_fault_in_order_is_told(tmp_path, many, workers, capfd):
    for n in (1, 3):
        with (Path(many) / f"{n}.jsonl").open("a") as file:
            file.write("{broken\n")
    with pytest.raises(BuddyError) as caught:
        prepare(recipe(many, workers=workers), tmp_path / "cache", silent)
    assert caught.value.lines[0].startswith(f"{many}/1.jsonl:41: not JSON")
    assert find_prepared(recipe(many), tmp_path / "cache") is None
    assert capfd.readouterr() == ("", "")  # datatrove's chatter is in its logs


def test_unchanged_is_not_repeated(tmp_path, many):
    first = prepare(recipe(many), tmp_path / "cache", silent)
    stamp = (first.path / "manifest.json").stat().st_mtime_ns
    # Neither the name of the run, nor weights, nor workers matter.
    other = recipe({"kind": "files", "paths": [many], "weight": 3}, workers=2).model_copy(update={"name": "other"})
    assert prepare(other, tmp_path / "cache", silent) == first == find_prepared(other, tmp_path / "cache")
    assert (first.path / "manifest.json").stat().st_mtime_ns == stamp


def test_an_unchanged_file_is_hashed_once(tmp_path, monkeypatch):
    path = write(tmp_path / "a.jsonl", make_texts(0))
    os.utime(path, (1e9, 1e9))
    prepare(recipe(path), tmp_path / "cache", silent)
    monkeypatch.setattr("buddygpt.data.fingerprints.hash_file", lambda path: pytest.fail("read again"))
    assert find_prepared(recipe(path), tmp_path / "cache")


def test_what_changes_the_result_prepares_anew(tmp_path):
    path = Path(write(tmp_path / "a.jsonl", make_texts(0)))
    keys = [prepare(recipe(str(path)), tmp_path / "cache", silent).path.name]
    for change in (
        {"tokenizer": {"train": 301}},
        {"validation": 0.3},
    ):
        assert find_prepared(recipe(str(path), **change), tmp_path / "cache") is None
        keys.append(prepare(recipe(str(path), **change), tmp_path / "cache", silent).path.name)
    data = path.read_bytes()
    path.write_bytes(data.replace("春".encode(), "秋".encode(), 1))  # same size, a moment later
    assert find_prepared(recipe(str(path)), tmp_path / "cache") is None
    prepared = prepare(recipe(str(path)), tmp_path / "cache", silent)
    assert len({*keys, prepared.path.name}) == 4
    named = recipe({"kind": "files", "paths": [str(path)], "columns": ["text"]})
    assert find_prepared(named, tmp_path / "cache") is None


def test_a_saved_tokenizer_is_known_by_content(tmp_path):
    path = write(tmp_path / "a.jsonl", make_texts(0))
    folder = prepare(recipe(path), tmp_path / "cache", silent).path / "tokenizer"
    shutil.copytree(folder, tmp_path / "tokenizer")
    based = recipe(path, tokenizer={"base": str(tmp_path / "tokenizer")})
    first = prepare(based, tmp_path / "cache", silent)
    tokenizer = load_tokenizer(str(tmp_path / "tokenizer"))
    tokenizer.chat_template = "{{ messages }}"
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    second = prepare(based, tmp_path / "cache", silent)
    assert first.path != second.path and second.tokenizer().chat_template == "{{ messages }}"


def test_a_tokenizer_is_trained_on_a_sample_of_much_text(tmp_path, monkeypatch):
    path = write(tmp_path / "a.jsonl", make_texts(0, 200))
    whole = prepare(recipe(path), tmp_path / "cache", silent).manifest["tokenizer"]
    assert whole["trained_on"]["sampled_share"] == 1
    for module in ("job", "vocabulary"):
        monkeypatch.setattr(f"buddygpt.data.{module}.SAMPLE_BYTES", whole["trained_on"]["bytes"] // 2)
    part = prepare(recipe(path), tmp_path / "cache", silent).manifest["tokenizer"]
    assert abs(part["trained_on"]["sampled_share"] - 0.5) < 0.01 and part["hash"] != whole["hash"]


def test_the_split_stays_when_a_file_is_added(tmp_path):
    folder = tmp_path / "all"
    folder.mkdir()
    write(folder / "b.jsonl", make_texts(1, 200))
    before = prepare(recipe(str(folder)), tmp_path / "cache", silent)
    write(folder / "a.jsonl", make_texts(2, 200))
    after = prepare(recipe(str(folder)), tmp_path / "cache", silent)
    for split in ("train", "validation"):
        assert set(texts_of(before, "all", split)) < set(texts_of(after, "all", split))
    held = set(texts_of(after, "all", "validation"))
    assert held.isdisjoint(texts_of(after, "all", "train")) and 40 < len(held) < 120


def test_duplicates_go_over_all_sources_and_before_the_split(tmp_path):
    texts = make_texts(1, 60)
    first = write(tmp_path / "first.jsonl", texts + texts)
    second = {"kind": "files", "paths": [write(tmp_path / "second.jsonl", [*texts[:30], "新"])], "validation": 1}
    prepared = prepare(recipe(first, second), tmp_path / "cache", silent)
    assert prepared.source("first")["dropped"]["duplicate"] == {"count": 60, "first": f"{first}:61"}
    assert texts_of(prepared, "second", "validation") == ["新"] and prepared.open("second", "train") == []


def test_a_source_of_copies_is_told(tmp_path):
    first, second = (write(tmp_path / name, make_texts(1)) for name in ("a.jsonl", "b.jsonl"))
    with pytest.raises(BuddyError, match="b: all of its 40 documents are copies"):
        prepare(recipe(first, second), tmp_path / "cache", silent)


def _decide(shares: list[float], counts: list[int], seed: int = 0) -> list[np.ndarray]:
    high, low = np.random.default_rng(seed).integers(0, 2**64, (2, sum(counts)), dtype=np.uint64)
    stops = np.cumsum([0, *counts])
    held = [Held(str(i), int(stops[i]), int(stops[i + 1]), share) for i, share in enumerate(shares)]
    return np.split(decide(high, low, held), stops[1:-1])


def test_the_split_is_never_empty_on_either_side():
    for seed in range(20):
        for fates in _decide([0.001, 0.999], [3, 3], seed):
            assert sorted(set(fates)) == [0, 1]
    none, whole = _decide([0, 1], [5, 5])
    assert not none.any() and whole.all()
    with pytest.raises(BuddyError, match="one document cannot be split"):
        _decide([0.5], [1])
    (many,) = _decide([0.01], [100_000])
    assert 900 < many.sum() < 1100


def test_a_vocabulary_larger_than_the_model(tmp_path):
    path = write(tmp_path / "a.jsonl", make_texts(0))
    folder = prepare(recipe(path), tmp_path / "cache", silent).path / "tokenizer"
    with pytest.raises(
        BuddyError, match=r"vocabulary is larger than the model's: ids reach 299, model.vocab_size is 299"
    ):
        prepare(recipe(path, vocab_size=299, tokenizer={"base": str(folder)}), tmp_path / "cache", silent)


def test_verify_names_what_changed(tmp_path, many):
    wanted = recipe(many)
    prepared = prepare(wanted, tmp_path / "cache", silent)
    assert verify(prepared, wanted) == []
    shard = prepared.path / prepared.source("many")["splits"]["train"]["shards"][2]["path"]
    data = bytearray(shard.read_bytes())
    data[7] ^= 1
    shard.write_bytes(data)
    write(Path(many) / "1.jsonl", make_texts(9))
    write(Path(many) / "7.jsonl", make_texts(7))
    (Path(many) / "3.jsonl").unlink()
    faults = verify(prepared, wanted)
    assert len(faults) == 4 and str(shard) in faults[0]
    assert f"{many}/1.jsonl: changed" in faults[1]
    assert f"{many}/3.jsonl: gone" in faults[2]
    assert f"{many}/7.jsonl: new" in faults[3]


def test_a_file_that_changes_while_it_is_read(tmp_path):
    path = write(tmp_path / "a.jsonl", make_texts(0))

    def emit(event):
        if getattr(event, "task", "") == "prepare: read" and event.done == 0:
            write(Path(path), make_texts(1))

    with pytest.raises(BuddyError, match=r"a\.jsonl: changed while it was read"):
        prepare(recipe(path), tmp_path / "cache", emit)


def test_too_little_space(tmp_path, monkeypatch):
    path = write(tmp_path / "a.jsonl", make_texts(0))
    monkeypatch.setattr(prepare_module.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, 0))
    with pytest.raises(BuddyError, match=r"about 15.3 kB are needed .* 0 bytes are free"):
        prepare(recipe(path), tmp_path / "cache", silent)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_is_one_line(tmp_path, many, monkeypatch, workers):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(prepare_module, "_judge", full)
    with pytest.raises(BuddyError, match="no space left; free some and start again"):
        prepare(recipe(many, workers=workers), tmp_path / "cache", silent)


def test_two_at_once(tmp_path):
    """The second waits for the first, then finds what it made."""
    path = write(tmp_path / "a.jsonl", make_texts(0))
    wanted = recipe(path)
    (tmp_path / "go.py").write_text(BREAK_OFF.replace("signal.SIGKILL", "signal.SIGSTOP"), "utf-8")
    (tmp_path / "recipe.json").write_text(wanted.model_dump_json(by_alias=True), "utf-8")
    arguments = [tmp_path / "recipe.json", tmp_path / "cache", "prepare: tokenise", 1]
    other = subprocess.Popen([sys.executable, tmp_path / "go.py", *map(str, arguments)])
    try:
        _wait_for(lambda: psutil.Process(other.pid).status() == psutil.STATUS_STOPPED, 30)
        notes = []

        def emit(event):
            if isinstance(event, Note):
                notes.append(event.text)
                threading.Timer(0.2, lambda: os.kill(other.pid, signal.SIGCONT)).start()

        prepared = prepare(wanted, tmp_path / "cache", emit)
        assert other.wait(30) == 0
    finally:
        other.kill()
    assert len(notes) == 1 and "another process" in notes[0] and verify(prepared, wanted) == []


def test_real_text_with_the_qwen_tokenizer(tmp_path):
    file = CORPUS / "d2l-zh.jsonl.gz"
    if not file.is_file():
        pytest.skip(f"no {file}")
    wanted = recipe(str(file), vocab_size=151_936, tokenizer={"base": "qwen3"})
    prepared = prepare(wanted, tmp_path / "cache", silent)
    entry = prepared.source("d2l-zh")
    with gzip.open(file) as lines:
        texts = [json.loads(line)["text"].strip() for line in lines]
    read = texts_of(prepared, "d2l-zh", "train") + texts_of(prepared, "d2l-zh", "validation")
    assert sorted(read) == sorted(texts) and entry["documents_out"] == 145
    assert prepared.manifest["tokenizer"]["dtype"] == "uint32"
