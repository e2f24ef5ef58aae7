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

from buddygpt.data import demo
from buddygpt.data import prepare as prepare_module
from buddygpt.data.duplicates import Duplicates
from buddygpt.data.fates import fate_file, write_fates
from buddygpt.data.prepare import find_prepared, prepare, verify
from buddygpt.data.sources import InputFile, Source
from buddygpt.data.staging import INDEX, KEY, Batch, Staged
from buddygpt.data.tokenizer import load_tokenizer
from buddygpt.events import Note, silent
from buddygpt.recipe.errors import BuddyError

CORPUS = Path(__file__).parents[2] / ".." / "shared" / "data" / "corpus"


def test_what_goes_in_comes_out(tmp_path, make_recipe, make_texts, write, texts_of):
    one, two = make_texts(1), make_texts(2)
    first = write(tmp_path / "one.jsonl", [*one, one[3], "  ", "甲<|endoftext|>", "乙<|im_end|>丙"])
    (tmp_path / "two").mkdir()
    for n, text in enumerate(two):
        (tmp_path / "two" / f"{n:02d}.txt").write_text(text, "utf-8")
    (tmp_path / "two" / "99.md").write_text(f"\n{one[0]}\n", "utf-8")
    (tmp_path / "two" / "notes.rst").write_text("x", "utf-8")
    prepared = prepare(make_recipe(first, str(tmp_path / "two")), tmp_path / "cache", silent)

    a, b = prepared.manifest["sources"].values()
    assert a["documents_in"] == 44 and a["documents_out"] == 42 and a["edits"] == {"end markers": 1}
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


def test_the_demo_corpus(tmp_path, make_recipe, texts_of):
    prepared = prepare(make_recipe({"kind": "demo", "characters": 5000, "seed": 3}), tmp_path, silent)
    texts = texts_of(prepared, "demo", "train") + texts_of(prepared, "demo", "validation")
    assert sorted(texts) == sorted({text.strip() for text in demo.paragraphs(3, 5000)})


def test_workers_change_nothing(tmp_path, many, make_recipe, contents):
    one = prepare(make_recipe(many, workers=1), tmp_path / "a", silent)
    two = prepare(make_recipe(many, workers=2), tmp_path / "b", silent)
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
def test_killed_and_started_again(tmp_path, many, task, workers, make_recipe, contents):
    wanted = make_recipe(many, workers=workers)
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
    again = prepare(make_recipe(many), tmp_path / "a", events.append)
    assert next(e.done for e in events if getattr(e, "task", "") == task) >= 2  # what was done stays done
    assert contents(again.path) == contents(prepare(make_recipe(many), tmp_path / "b", silent).path)


PREPARE = BREAK_OFF.replace("    def emit(event):", "    def emit(event):\n        return")


@pytest.mark.slow
def test_killed_at_any_moment(tmp_path, many, make_recipe, contents):
    """Four kills at moments drawn with fixed seeds, one after the other, then to the end."""
    wanted = make_recipe(many, workers=2, clean={}, near_duplicates={})
    (tmp_path / "prepare.py").write_text(PREPARE, "utf-8")
    (tmp_path / "recipe.json").write_text(wanted.model_dump_json(by_alias=True), "utf-8")
    command = [sys.executable, tmp_path / "prepare.py", tmp_path / "recipe.json", tmp_path / "a", "", "0"]
    began = time.monotonic()
    subprocess.run([*command[:3], tmp_path / "b", *command[4:]], check=True, timeout=100)
    seconds = time.monotonic() - began
    for seed in range(4):
        process = subprocess.Popen(command)
        try:
            process.wait(random.Random(seed).uniform(0.3, 0.9) * seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    again = prepare(wanted, tmp_path / "a", silent)
    assert contents(again.path) == contents(find_prepared(wanted, tmp_path / "b").path)


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


def test_a_stopped_run_leaves_no_worker(tmp_path, many, make_recipe):
    def emit(event):
        if getattr(event, "task", "") == "prepare: tokenise" and event.done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(make_recipe(many, workers=2), tmp_path / "cache", emit)
    assert not [p for p in psutil.Process().children(recursive=True) if "spawn_main" in " ".join(p.cmdline())]


@pytest.mark.parametrize("workers", [1, 2])
def test_the_first_fault_in_order_is_told(tmp_path, many, workers, capfd, make_recipe, write):
    for n in (1, 3):
        with (Path(many) / f"{n}.jsonl").open("a") as file:
            file.write("{broken\n")
    with pytest.raises(BuddyError) as caught:
        prepare(make_recipe(many, workers=workers), tmp_path / "cache", silent)
    assert caught.value.lines[0].startswith(f"{many}/1.jsonl:41: not JSON")
    assert find_prepared(make_recipe(many), tmp_path / "cache") is None
    assert capfd.readouterr() == ("", "")  # datatrove's chatter is in its logs


def test_unchanged_is_not_repeated(tmp_path, many, make_recipe):
    first = prepare(make_recipe(many), tmp_path / "cache", silent)
    stamp = (first.path / "manifest.json").stat().st_mtime_ns
    # Neither the name of the run, nor weights, nor workers matter.
    other = make_recipe({"kind": "files", "paths": [many], "weight": 3}, workers=2).model_copy(update={"name": "other"})
    assert prepare(other, tmp_path / "cache", silent) == first == find_prepared(other, tmp_path / "cache")
    assert (first.path / "manifest.json").stat().st_mtime_ns == stamp


def test_an_unchanged_file_is_hashed_once(tmp_path, monkeypatch, make_recipe, make_texts, write):
    path = write(tmp_path / "a.jsonl", make_texts(0))
    os.utime(path, (1e9, 1e9))
    prepare(make_recipe(path), tmp_path / "cache", silent)
    monkeypatch.setattr("buddygpt.data.fingerprints.hash_file", lambda path: pytest.fail("read again"))
    assert find_prepared(make_recipe(path), tmp_path / "cache")


def test_what_changes_the_result_prepares_anew(tmp_path, make_recipe, make_texts, write):
    path = Path(write(tmp_path / "a.jsonl", make_texts(0)))
    keys = [prepare(make_recipe(str(path)), tmp_path / "cache", silent).path.name]
    for change in (
        {"tokenizer": {"train": 301}},
        {"validation": 0.3},
    ):
        assert find_prepared(make_recipe(str(path), **change), tmp_path / "cache") is None
        keys.append(prepare(make_recipe(str(path), **change), tmp_path / "cache", silent).path.name)
    data = path.read_bytes()
    path.write_bytes(data.replace("春".encode(), "秋".encode(), 1))  # same size, a moment later
    assert find_prepared(make_recipe(str(path)), tmp_path / "cache") is None
    prepared = prepare(make_recipe(str(path)), tmp_path / "cache", silent)
    assert len({*keys, prepared.path.name}) == 4
    named = make_recipe({"kind": "files", "paths": [str(path)], "map": {"text": "text"}})
    assert find_prepared(named, tmp_path / "cache") is None


def test_a_saved_tokenizer_is_known_by_content(tmp_path, make_recipe, make_texts, write):
    path = write(tmp_path / "a.jsonl", make_texts(0))
    folder = prepare(make_recipe(path), tmp_path / "cache", silent).path / "tokenizer"
    shutil.copytree(folder, tmp_path / "tokenizer")
    based = make_recipe(path, tokenizer={"base": str(tmp_path / "tokenizer")})
    first = prepare(based, tmp_path / "cache", silent)
    tokenizer = load_tokenizer(str(tmp_path / "tokenizer"))
    tokenizer.chat_template = "{{ messages }}"
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    second = prepare(based, tmp_path / "cache", silent)
    assert first.path != second.path and second.tokenizer().chat_template == "{{ messages }}"


def test_a_tokenizer_is_trained_on_a_sample_of_much_text(tmp_path, monkeypatch, make_recipe, make_texts, write):
    path = write(tmp_path / "a.jsonl", make_texts(0, 200))
    whole = prepare(make_recipe(path), tmp_path / "cache", silent).manifest["tokenizer"]
    assert whole["trained_on"]["sampled_share"] == 1
    for module in ("job", "vocabulary"):
        monkeypatch.setattr(f"buddygpt.data.{module}.SAMPLE_BYTES", whole["trained_on"]["bytes"] // 2)
    part = prepare(make_recipe(path), tmp_path / "cache", silent).manifest["tokenizer"]
    assert abs(part["trained_on"]["sampled_share"] - 0.5) < 0.01 and part["hash"] != whole["hash"]


def test_the_split_stays_when_a_file_is_added(tmp_path, make_recipe, make_texts, write, texts_of):
    folder = tmp_path / "all"
    folder.mkdir()
    write(folder / "b.jsonl", make_texts(1, 200))
    before = prepare(make_recipe(str(folder)), tmp_path / "cache", silent)
    write(folder / "a.jsonl", make_texts(2, 200))
    after = prepare(make_recipe(str(folder)), tmp_path / "cache", silent)
    for split in ("train", "validation"):
        assert set(texts_of(before, "all", split)) < set(texts_of(after, "all", split))
    held = set(texts_of(after, "all", "validation"))
    assert held.isdisjoint(texts_of(after, "all", "train")) and 40 < len(held) < 120


def test_duplicates_go_over_all_sources_and_before_the_split(tmp_path, make_recipe, make_texts, write, texts_of):
    texts = make_texts(1, 60)
    first = write(tmp_path / "first.jsonl", texts + texts)
    second = {"kind": "files", "paths": [write(tmp_path / "second.jsonl", [*texts[:30], "新"])], "validation": 1}
    prepared = prepare(make_recipe(first, second), tmp_path / "cache", silent)
    assert prepared.source("first")["dropped"]["duplicate"] == {"count": 60, "first": f"{first}:61"}
    assert texts_of(prepared, "second", "validation") == ["新"] and prepared.open("second", "train") == []


def test_a_source_of_copies_is_told(tmp_path, make_recipe, make_texts, write):
    first, second = (write(tmp_path / name, make_texts(1)) for name in ("a.jsonl", "b.jsonl"))
    with pytest.raises(BuddyError, match="b: all of its 40 documents are copies"):
        prepare(make_recipe(first, second), tmp_path / "cache", silent)


@pytest.fixture
def decide(tmp_path):
    """Fates of sources with so many documents of random hashes, in batches of at most 1,000."""

    def fates(shares: list[float], counts: list[int], seed: int = 0) -> list[np.ndarray]:
        shutil.rmtree(tmp_path / "staged", ignore_errors=True)
        (tmp_path / "staged").mkdir()
        dice = np.random.default_rng(seed)
        sources, batches = [], []
        for i, (share, count) in enumerate(zip(shares, counts, strict=True)):
            sources.append(Source(str(i), "files", (), share))
            for number, start in enumerate(range(0, count, 1000)):
                size = min(1000, count - start)
                index = np.zeros(size, INDEX)
                index["high"], index["low"] = dice.integers(0, 2**64, (2, size), dtype=np.uint64)
                index["split"] = index["high"]
                np.save(tmp_path / "staged" / f"{len(batches):05d}.npy", index)
                np.save(tmp_path / "staged" / f"{len(batches):05d}.keys.npy", np.zeros(size, KEY))
                batches.append(Batch(sources[-1], number, (InputFile("x", 1, ""),)))
        none = np.empty(0, np.uint64)
        write_fates(sources, batches, Staged(tmp_path / "staged"), Duplicates(none, none, none), tmp_path)
        found = [np.load(fate_file(tmp_path, number)) for number in range(len(batches))]
        return [
            np.concatenate([f for f, b in zip(found, batches, strict=True) if b.source is source]) for source in sources
        ]

    return fates


def test_the_split_is_never_empty_on_either_side(decide):
    for seed in range(20):
        for fates in decide([0.001, 0.999], [3, 3], seed):
            assert sorted(set(fates)) == [0, 1]
    none, whole = decide([0, 1], [5, 5])
    assert not none.any() and whole.all()
    with pytest.raises(BuddyError, match="one document cannot be split"):
        decide([0.5], [1])
    (many,) = decide([0.01], [100_000])
    assert 900 < many.sum() < 1100


def test_a_vocabulary_larger_than_the_model(tmp_path, make_recipe, make_texts, write):
    path = write(tmp_path / "a.jsonl", make_texts(0))
    folder = prepare(make_recipe(path), tmp_path / "cache", silent).path / "tokenizer"
    with pytest.raises(
        BuddyError, match=r"vocabulary is larger than the model's: ids reach 299, model.vocab_size is 299"
    ):
        prepare(make_recipe(path, vocab_size=299, tokenizer={"base": str(folder)}), tmp_path / "cache", silent)


def test_verify_names_what_changed(tmp_path, many, make_recipe, make_texts, write):
    wanted = make_recipe(many)
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


def test_a_file_that_changes_while_it_is_read(tmp_path, make_recipe, make_texts, write):
    path = write(tmp_path / "a.jsonl", make_texts(0))

    def emit(event):
        if getattr(event, "task", "") == "prepare: read" and event.done == 0:
            write(Path(path), make_texts(1))

    with pytest.raises(BuddyError, match=r"a\.jsonl: changed while it was read"):
        prepare(make_recipe(path), tmp_path / "cache", emit)


def test_too_little_space(tmp_path, monkeypatch, make_recipe, make_texts, write):
    path = write(tmp_path / "a.jsonl", make_texts(0))
    monkeypatch.setattr(prepare_module.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, 0))
    with pytest.raises(BuddyError, match=r"about 15.3 kB are needed .* 0 bytes are free"):
        prepare(make_recipe(path), tmp_path / "cache", silent)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_is_one_line(tmp_path, many, monkeypatch, workers, make_recipe):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(prepare_module, "write_fates", full)
    with pytest.raises(
        BuddyError, match=r"no space left; about .* more are needed, .* are free; free some and start again"
    ):
        prepare(make_recipe(many, workers=workers), tmp_path / "cache", silent)


def test_two_at_once(tmp_path, make_recipe, make_texts, write):
    """The second waits for the first, then finds what it made."""
    path = write(tmp_path / "a.jsonl", make_texts(0))
    wanted = make_recipe(path)
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


def test_real_text_with_the_qwen_tokenizer(tmp_path, make_recipe, texts_of):
    file = CORPUS / "d2l-zh.jsonl.gz"
    if not file.is_file():
        pytest.skip(f"no {file}")
    wanted = make_recipe(str(file), vocab_size=151_936, tokenizer={"base": "qwen3"})
    prepared = prepare(wanted, tmp_path / "cache", silent)
    entry = prepared.source("d2l-zh")
    with gzip.open(file) as lines:
        texts = [json.loads(line)["text"].strip() for line in lines]
    read = texts_of(prepared, "d2l-zh", "train") + texts_of(prepared, "d2l-zh", "validation")
    assert sorted(read) == sorted(texts) and entry["documents_out"] == 145
    assert prepared.manifest["tokenizer"]["dtype"] == "uint32"
