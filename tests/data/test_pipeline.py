"""The whole way of rows to shards with every part on: near duplicates, evaluation sets, talks, archives, parts."""

from __future__ import annotations

import io
import json
import random
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from buddygpt.data import duplicates, fingerprints, staging
from buddygpt.data.duplicates import MatchStep, count_parts, settle_duplicates
from buddygpt.data.prepare import find_prepared, prepare
from buddygpt.data.template import chat_segments
from buddygpt.events import Note, Table, silent
from buddygpt.recipe.errors import BuddyError

HAN = [chr(c) for c in range(0x4E00, 0x4E00 + 3000)]


def paragraph(seed: int, length: int = 300) -> str:
    return "".join(random.Random(seed).choices(HAN, k=length))


def changed(text: str, at: tuple[int, ...] = (50, 200)) -> str:
    return "".join("异" if i in at else c for i, c in enumerate(text))


def kept(prepared, texts_of, *sources: str) -> set[str]:
    return {t for s in sources for split in ("train", "validation") for t in texts_of(prepared, s, split)}


def test_near_duplicates_go_and_short_texts_stay(tmp_path, make_recipe, write, texts_of):
    texts = [paragraph(n) for n in range(30)]
    near = [changed(text) for text in texts[:10]]
    short = ["我喜欢健身", "我喜欢普洱茶", "春江潮水连海平", "春江潮水连海生"]
    path = write(tmp_path / "a.jsonl", [*texts, *near, *short])
    notes: list = []
    prepared = prepare(make_recipe(path, near_duplicates={}), tmp_path / "cache", notes.append)
    assert any("bands of" in n.text for n in notes if isinstance(n, Note))
    source = prepared.source("a")
    assert source["dropped"]["near duplicate"]["count"] == 10 and source["documents_out"] == 34
    left = kept(prepared, texts_of, "a")
    assert set(short) < left and all((t in left) != (n in left) for t, n in zip(texts, near, strict=False))
    samples = json.loads((prepared.path / "samples.json").read_text("utf-8"))["near_duplicates"]
    assert len(samples["pairs"]) == 10 and samples["largest_group"] == 2
    for pair in samples["pairs"]:
        assert {pair["removed"][1], pair["kept"][1]} in [{t, n} for t, n in zip(texts, near, strict=False)]
        assert pair["removed"][0].startswith(f"{path}:") and pair["removed"] != pair["kept"]
    assert prepare(make_recipe(path), tmp_path / "cache", silent).source("a")["documents_out"] == 44


def test_what_stays_depends_on_no_order(tmp_path, make_recipe, write, texts_of, monkeypatch):
    """Rows, files and sources shuffled, another number of tasks: the same texts stay, on the same side."""
    texts = [paragraph(n, 150) for n in range(40)]
    texts += [changed(t, (9,)) for t in texts[:20]] + [changed(t, (9, 60)) + "长" for t in texts[:10]] + texts[5:15]
    found = []
    for seed in range(3):
        dice = random.Random(seed)
        dice.shuffle(texts)
        folder = tmp_path / str(seed)
        folder.mkdir()
        names = ["a", "b", "c"]
        dice.shuffle(names)
        for n, name in enumerate(names):
            write(folder / f"{name}.jsonl", texts[n::3])
        if seed:
            monkeypatch.setattr(staging, "BATCH_BYTES", 1)
            monkeypatch.setattr(duplicates, "PART_DOCUMENTS", 7)
        paths = [str(folder / f"{name}.jsonl") for name in names]
        wanted = make_recipe(*paths, near_duplicates={}, workers=1 + seed // 2)
        prepared = prepare(wanted, tmp_path / "cache", silent)
        found.append([{t for s in "abc" for t in texts_of(prepared, s, split)} for split in ("train", "validation")])
    assert found[0] == found[1] == found[2] and len(found[0][0] | found[0][1]) == 40


def test_all_pieces_find_what_one_finds(tmp_path, make_recipe, write, monkeypatch):
    """Duplicates of one table cut into many ranges are those of one range."""
    texts = [paragraph(n, 120) for n in range(60)]
    path = write(tmp_path / "a.jsonl", texts + [changed(t, (9,)) for t in texts] + texts[:30])
    work = {}
    monkeypatch.setattr(shutil, "rmtree", lambda *args, **kwargs: None)
    prepare(make_recipe(path, near_duplicates={}), tmp_path / "cache", silent)
    staged = staging.Staged(next((tmp_path / "cache").rglob("staged")))
    bands = len(np.load(next(staged.folder.glob("*.bands.npy"))))
    for parts in (1, 2, 16):
        step = MatchStep(staged, staged.starts(1), 1 + bands, parts, tmp_path / str(parts))
        for rank in range(step.tasks):
            step.run(rank=rank)
        work[parts] = settle_duplicates(step)
    for other in (2, 16):
        for name in ("exact", "near", "kept"):
            assert np.array_equal(getattr(work[1], name), getattr(work[other], name))
    assert len(work[1].exact) == 30 and len(work[1].near) == 60
    assert [count_parts(n) for n in (0, 1, 1 << 20, (1 << 20) + 1, 5 << 20)] == [1, 1, 1, 2, 8]


def test_evaluation_sets_are_kept_out(tmp_path, make_recipe, write, texts_of):
    question = paragraph(777, 60)
    exam = tmp_path / "exam.zip"
    with zipfile.ZipFile(exam, "w") as archive:
        archive.writestr("test/a.csv", f"question,A,B,answer\n{question},甲,乙,A\n")
    texts = [paragraph(n) for n in range(20)]
    leaked = paragraph(99, 100) + question[5:45] + paragraph(98, 100)
    path = write(tmp_path / "a.jsonl", [*texts, leaked])
    told: list = []
    wanted = make_recipe(path, decontaminate={"paths": [str(exam)]})
    prepared = prepare(wanted, tmp_path / "cache", told.append)
    assert prepared.source("a")["dropped"]["holds a piece of exam"] == {"count": 1, "first": f"{path}:21"}
    assert kept(prepared, texts_of, "a") == set(texts)
    (table,) = [event for event in told if isinstance(event, Table)]
    assert table.rows == (("exam", "1", "1"),)
    (sample,) = json.loads((prepared.path / "samples.json").read_text("utf-8"))["sources"]["a"].values()
    assert leaked[:50] in str(sample)
    assert prepared.manifest["decontaminate"] == {"ngram": 13, "sets": {"exam": {"items": 1, "guarded": 1}}}
    exam.write_bytes(b"PK")  # another set is another result
    assert find_prepared(wanted, tmp_path / "cache") is None
    with pytest.raises(BuddyError, match=r"exam\.zip: no whole archive"):
        prepare(wanted, tmp_path / "cache", silent)
    with pytest.raises(BuddyError, match=r"data\.decontaminate: .*nowhere: no such file"):
        prepare(make_recipe(path, decontaminate={"paths": [str(tmp_path / "nowhere")]}), tmp_path / "cache", silent)


def test_rows_of_instructions_as_text_and_as_talks(tmp_path, make_recipe, make_texts, texts_of):
    rows = [{"instruction": f"第{n}<|im_end|>问", "input": "", "output": t} for n, t in enumerate(make_texts(0))]
    path = tmp_path / "a.json"
    path.write_text(json.dumps(rows, ensure_ascii=False), "utf-8")
    plain = prepare(make_recipe(str(path)), tmp_path / "cache", silent)
    assert kept(plain, texts_of, "a") == {f"{row['instruction']}\n{row['output']}" for row in rows}
    talks = {"kind": "files", "paths": [str(path)], "render": "chat"}
    chat = prepare(make_recipe(talks), tmp_path / "cache", silent)
    tokenizer = chat.tokenizer()
    marks = tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    found = set()
    for split in ("train", "validation"):
        for shard in chat.open("a", split):
            for ids in np.split(shard.tokens, shard.document_ends[:-1]):
                assert [t for t in ids.tolist() if t in marks] == marks * 2  # what was typed is text
                found.add(tokenizer.decode(ids[:-1].tolist()))
    template = "<|im_start|>user\n{instruction}<|im_end|>\n<|im_start|>assistant\n{output}<|im_end|>\n"
    assert found == {template.format(**row) for row in rows}
    assert chat.source("a")["edits"] == plain.source("a")["edits"] == {}
    assert chat.source("a")["render"] == "chat" and chat.path != plain.path
    assert chat.source("a")["splits"]["train"]["bytes"] == plain.source("a")["splits"]["train"]["bytes"]


def test_a_changed_template_prepares_talks_anew(tmp_path, make_recipe, make_texts, monkeypatch):
    rows = [{"prompt": "问", "response": text} for text in make_texts(0)]
    (tmp_path / "a.json").write_text(json.dumps(rows), "utf-8")
    plain, chat = (
        make_recipe({"kind": "files", "paths": [str(tmp_path / "a.json")], "render": render})
        for render in ("text", "chat")
    )
    for wanted in (plain, chat):
        prepare(wanted, tmp_path / "cache", silent)
    monkeypatch.setattr("buddygpt.data.template.chat_segments", lambda talk: [*chat_segments(talk), "\n"])
    assert find_prepared(plain, tmp_path / "cache") and find_prepared(chat, tmp_path / "cache") is None


def test_archives_are_read_in_place(tmp_path, make_recipe, make_texts, texts_of):
    texts = make_texts(1, 40)
    lines = [json.dumps({"text": t}, ensure_ascii=False).encode() + b"\n" for t in texts]
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/1.jsonl", b"".join(lines[:10]))
        archive.writestr("x/2.jsonl", b"".join(lines[10:20]))
        archive.writestr("x/notes.doc", b"?")
    for name, mode, part in (("b.tar", "w", lines[20:30]), ("c.tar.gz", "w:gz", lines[30:])):
        with tarfile.open(tmp_path / name, mode) as archive:
            info = tarfile.TarInfo("3.jsonl")
            info.size = len(b"".join(part))
            archive.addfile(info, io.BytesIO(b"".join(part)))
    paths = [str(tmp_path / name) for name in ("a.zip", "b.tar", "c.tar.gz")]
    prepared = prepare(make_recipe(*paths), tmp_path / "cache", silent)
    assert kept(prepared, texts_of, "a", "b", "c") == set(texts)
    assert prepared.source("a")["files_skipped"] == 1
    with zipfile.ZipFile(tmp_path / "out.zip", "w") as archive:
        archive.writestr("../../evil.jsonl", lines[0])
    with pytest.raises(BuddyError, match=r"out\.zip: \.\./\.\./evil\.jsonl: leads out of the archive"):
        prepare(make_recipe(str(tmp_path / "out.zip")), tmp_path / "cache", silent)
    assert not list(tmp_path.rglob("evil*"))


def test_a_large_file_is_read_in_parts(tmp_path, make_recipe, make_texts, write, texts_of, contents, monkeypatch):
    texts = make_texts(1, 200)
    path = write(tmp_path / "a.jsonl", texts + texts[:3])
    whole = prepare(make_recipe(path), tmp_path / "a", silent)
    monkeypatch.setattr(fingerprints, "PART_BYTES", 5000)
    monkeypatch.setattr(fingerprints.survey_file, "__defaults__", (5000,))
    monkeypatch.setattr(staging, "BATCH_BYTES", 1)
    parts = prepare(make_recipe(path, workers=2), tmp_path / "b", silent)
    assert len(parts.open("a", "train")) > 3
    for split in ("train", "validation"):
        assert texts_of(parts, "a", split) == texts_of(whole, "a", split)
    assert parts.source("a")["dropped"] == whole.source("a")["dropped"]
    assert parts.source("a")["dropped"]["duplicate"]["first"] == f"{path}:201"
    assert parts.source("a")["files"] == whole.source("a")["files"]
    Path(path).write_text(Path(path).read_text("utf-8") + "{broken\n", "utf-8")
    with pytest.raises(BuddyError, match=r"a\.jsonl:204: not JSON"):
        prepare(make_recipe(path), tmp_path / "b", silent)


@pytest.mark.parametrize("damage", ["objects", "cut", "text"])
def test_a_damaged_work_file_is_refused(tmp_path, make_recipe, make_texts, write, damage):
    """Arrays with Python objects could run code when they are loaded; none is."""
    path = write(tmp_path / "a.jsonl", make_texts(1))

    def emit(event):
        if getattr(event, "task", "") == "prepare: read" and event.done == event.total:
            (index,) = (tmp_path / "cache").rglob("00000.keys.npy")
            if damage == "objects":
                np.save(index, np.array([{"a": 1}], dtype=object), allow_pickle=True)
            else:
                index.write_bytes(index.read_bytes()[:-3] if damage == "cut" else b"no array")

    with pytest.raises(BuddyError, match=r"00000\.keys\.npy: damaged .*; remove .* and start again"):
        prepare(make_recipe(path), tmp_path / "cache", emit)


def test_cleaning_is_counted_and_shown(tmp_path, make_recipe, make_texts, write, texts_of):
    good = [f"{text}我们在这里说的是一件很普通的事情，也就是它的来历。" for text in make_texts(1)]
    bad = "\n".join(["这一行重复了许多遍，没有别的话。"] * 30)
    path = write(tmp_path / "a.jsonl", [*good, bad, good[0] + "\u200b甲"])
    wanted = make_recipe(path, clean={"common_ngram": None, "repeated_ngrams": None, "function_words": False})
    prepared = prepare(wanted, tmp_path / "cache", silent)
    source = prepared.source("a")
    assert source["dropped"] == {"repeated lines": {"count": 1, "first": f"{path}:41"}}
    assert source["edits"] == {"control characters": 1}
    assert kept(prepared, texts_of, "a") == {*good, good[0] + "甲"}
    assert "这一行重复了许多遍" in (prepared.path / "samples.json").read_text("utf-8")
