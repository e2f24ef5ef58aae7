"""Talks and pairs through the whole preparing: every row accounted for, one question on one side, the same bytes."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from buddygpt.data import demo, staging
from buddygpt.data.formats import Message, Pair
from buddygpt.data.prepare import find_prepared, prepare, verify
from buddygpt.data.staging import Staged
from buddygpt.data.talks import Documents
from buddygpt.data.template import ANSWER, GIVEN, REJECTED, labelled_segments, pair_segments
from buddygpt.data.tokenizer import load_tokenizer, make_chat_tokenizer
from buddygpt.events import silent
from buddygpt.recipe.errors import BuddyError
from buddygpt.recipe.schema import Recipe

REAL = Path(__file__).parents[2] / ".." / "shared" / "data"
SPLITS = ("train", "validation")


@pytest.fixture(scope="session")
def tune(make_recipe):
    """A recipe that tunes on these sources: paths, or sections; `data` takes more fields of their section."""

    def recipe(stage: str, *sources: dict | str, **data) -> Recipe:
        given = make_recipe("text.jsonl").model_dump(mode="json", by_alias=True, exclude_none=True)
        listed = [{"kind": "files", "paths": [s]} if isinstance(s, str) else s for s in sources]
        section = {
            "data": {"validation": 0.2, "workers": 1} | data | {"sources": listed},
            "batch_size": 4,
            "micro_batch_size": 2,
            "optimizer": {"kind": "adamw", "learning_rate": 1e-3},
            "schedule": {"kind": "cosine"},
        }
        return Recipe.model_validate(given | {stage: section})

    return recipe


@pytest.fixture
def save(tmp_path):
    """Rows as a .jsonl file; gives its path."""

    def rows(name: str, *given: dict) -> str:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in given), "utf-8")
        return str(path)

    return rows


def ask(question, answer):
    return {"instruction": question, "output": answer}


def prefer(question, chosen, rejected):
    return {"prompt": question, "chosen": chosen, "rejected": rejected}


def asked(count, start=0):
    return [ask(f"第{n}问是什么？", f"答案是{n * 7}。") for n in range(start, start + count)]


def preferred(count):
    return [prefer(f"第{n}问？", f"好的{n}。", f"坏的{n}。") for n in range(count)]


def documents(prepared, source, split):
    """Ids and labels of each document of a split."""
    found = Documents(prepared.open(source, split))
    return [found.read(n) for n in range(len(found))]


def parts(tokenizer, prepared, source, split):
    """Each document as the texts that are given, learned and rejected."""
    return [
        tuple(tokenizer.decode(ids[labels == label].tolist()) for label in (GIVEN, ANSWER, REJECTED))
        for ids, labels in documents(prepared, source, split)
    ]


def both(tokenizer, prepared, source):
    return [row for split in SPLITS for row in parts(tokenizer, prepared, source, split)]


def told(question):
    return f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"


def test_every_row_of_talks_is_accounted_for(tmp_path, tune, save, chat_tokenizer):
    rows = asked(30)
    one = save("one.jsonl", *rows, rows[3], ask("问", ""), ask("", "答"), ask(" \u200b ", "答"), ask("问", "\u200b"))
    many = save("all/pairs.jsonl", *preferred(12), prefer("问", "同", "同"), prefer("第0问？", "好的0。", "更坏。"))
    (tmp_path / "all" / "README.md").write_text("# 关于", "utf-8")
    wanted = tune("sft", one, str(Path(many).parent))
    prepared = prepare(wanted, tmp_path / "cache", silent, stage="sft", tokenizer=chat_tokenizer)
    a, b = prepared.source("one"), prepared.source("all")
    assert a["documents_in"] == 35 and a["documents_out"] == 30 and a["render"] == "talk"
    assert {reason: (drop["count"], drop["first"]) for reason, drop in a["dropped"].items()} == {
        "no answer": (1, f"{one}:32"),
        "no question": (1, f"{one}:33"),
        "empty": (2, f"{one}:34"),
        "duplicate": (1, f"{one}:31"),
    }
    assert b["documents_in"] == 15 and b["documents_out"] == 12
    assert {reason: drop["count"] for reason, drop in b["dropped"].items()} == {
        "chosen equals rejected": 1, "text, not a conversation": 1, "duplicate": 1,
    }  # fmt: skip
    assert sorted(both(chat_tokenizer, prepared, "one")) == sorted(
        (told(row["instruction"]), f"{row['output']}<|im_end|>", "") for row in rows
    )
    assert sorted(both(chat_tokenizer, prepared, "all")) == sorted(
        (told(row["prompt"]), f"{row['chosen']}<|im_end|>", "") for row in preferred(12)
    )
    for source, split in itertools.product(("one", "all"), SPLITS):
        entry, read = prepared.source(source)["splits"][split], documents(prepared, source, split)
        assert entry["documents"] == len(read) > 0
        assert entry["tokens"] == sum(len(ids) for ids, _ in read)
        assert entry["learned"] == sum(int((labels == ANSWER).sum()) for _, labels in read)
    assert prepared.manifest["tokenizer"]["end"] == chat_tokenizer.eos_token_id and prepared.check() == []
    assert prepared.tokenizer().chat_template == chat_tokenizer.chat_template


def test_every_row_of_pairs_is_accounted_for(tmp_path, tune, save, chat_tokenizer):
    rows = preferred(30)
    path = save(
        "a.jsonl", *rows, rows[2], prefer("问", "同", "同 "), prefer("问", "好", ""), prefer("问", "同\u200b", "同")
    )
    talks = save("b/talks.jsonl", *asked(3))
    save("b/pairs.jsonl", *[prefer(f"乙{n}？", "好", "坏") for n in range(9)])
    wanted = tune("dpo", path, {"kind": "files", "paths": [f"{Path(talks).parent}/pairs.jsonl"], "name": "b"})
    prepared = prepare(wanted, tmp_path / "cache", silent, stage="dpo", tokenizer=chat_tokenizer)
    entry = prepared.source("a")
    assert entry["documents_in"] == 34 and entry["documents_out"] == 30 and entry["render"] == "pair"
    assert {reason: (drop["count"], drop["first"]) for reason, drop in entry["dropped"].items()} == {
        "chosen equals rejected": (2, f"{path}:32"),
        "no rejected answer": (1, f"{path}:33"),
        "duplicate": (1, f"{path}:31"),
    }
    assert sorted(both(chat_tokenizer, prepared, "a")) == sorted(
        (told(row["prompt"]), f"{row['chosen']}<|im_end|>", f"{row['rejected']}<|im_end|>") for row in rows
    )
    with pytest.raises(BuddyError) as caught:
        prepare(tune("dpo", talks), tmp_path / "cache", silent, stage="dpo", tokenizer=chat_tokenizer)
    (line,) = caught.value.lines
    assert line == f"{talks}: no text in any of 3 rows: 3 not a pair of answers (first {talks}:1)"


def test_shards_hold_what_the_template_says_and_nothing_between(tmp_path, tune, save, chat_tokenizer, chat_encoder):
    system, tools = Message("system", "你是助手。"), ('{"name": "f", "arguments": {}}',)
    talk = [system, Message("user", "问<|im_end|>？"), Message("assistant", "", "想", tools), Message("tool", "晴")]
    talk += [Message("assistant", "好"), Message("user", "再问"), Message("assistant", "再答")]
    turns = [{"role": m.role, "content": m.content} for m in talk]
    turns[2] |= {"reasoning_content": "想", "tool_calls": [{"function": json.loads(call)} for call in tools]}
    path = save("a.jsonl", {"messages": turns}, *[{"messages": [*turns[:1], {"role": "user", "content": f"{n}"},
                {"role": "assistant", "content": "答"}]} for n in range(20)])  # fmt: skip
    prepared = prepare(tune("sft", path), tmp_path, silent, stage="sft", tokenizer=chat_tokenizer)
    expected, labels = chat_encoder.encode_labelled([labelled_segments(talk)])
    found = [(i.tolist(), m.tolist()) for split in SPLITS for i, m in documents(prepared, "a", split)]
    assert (expected[0], labels[0].tolist()) in found and len(found) == 21
    both_sides = Pair(tuple(talk[:-1]), Message("assistant", "好", "想"), Message("assistant", "坏", "", tools))
    row = {"prompt": turns[:-1], "chosen": [turns[-1] | {"content": "好", "reasoning_content": "想"}],
           "rejected": [turns[-1] | {"content": "坏", "tool_calls": turns[2]["tool_calls"]}]}  # fmt: skip
    others = [row | {"prompt": [{"role": "user", "content": f"{n}"}]} for n in range(20)]
    path = save("b.jsonl", row, *others)
    prepared = prepare(tune("dpo", path), tmp_path, silent, stage="dpo", tokenizer=chat_tokenizer)
    expected, labels = chat_encoder.encode_labelled([pair_segments(both_sides)])
    found = [(i.tolist(), m.tolist()) for split in SPLITS for i, m in documents(prepared, "b", split)]
    assert (expected[0], labels[0].tolist()) in found and len(found) == 21


def questions(tokenizer, prepared, split):
    return {prompt for s in prepared.manifest["sources"] for prompt, *_ in parts(tokenizer, prepared, s, split)}


def test_a_question_stands_on_one_side_whatever_is_answered(tmp_path, tune, save, chat_tokenizer):
    rows = [ask(f"问{n}？", f"答{n}之{k}") for n in range(60) for k in range(4)]
    one = save("one.jsonl", *rows[::2])
    two = save("two.jsonl", *rows[1::2], *asked(20))
    three = save("three.jsonl", *[ask(f"问{n}？", "别的") for n in range(60)])
    sources = [
        one, {"kind": "files", "paths": [two], "validation": 0.6}, {"kind": "files", "paths": [three], "validation": 0},
    ]  # fmt: skip
    prepared = prepare(tune("sft", *sources), tmp_path / "cache", silent, stage="sft", tokenizer=chat_tokenizer)
    train, held = (questions(chat_tokenizer, prepared, split) for split in SPLITS)
    assert train and held and not train & held and len(train | held) == 80
    assert 20 < len(held) < 60  # by the largest share
    out = sum(s["documents_out"] for s in prepared.manifest["sources"].values())
    assert out == len(rows) + 80  # and none is dropped for it


@pytest.mark.parametrize("share", [1e-9, 1 - 1e-9])
def test_some_on_each_side_are_whole_questions(tmp_path, tune, save, chat_tokenizer, monkeypatch, share):
    monkeypatch.setattr(staging, "BATCH_BYTES", 1)
    for k in range(3):
        save(f"all/{k}.jsonl", *[ask(f"问{n}？", f"答{n}之{k}") for n in range(4)])
    wanted = tune("sft", str(tmp_path / "all"), validation=share)
    prepared = prepare(wanted, tmp_path / "cache", silent, stage="sft", tokenizer=chat_tokenizer)
    train, held = (questions(chat_tokenizer, prepared, split) for split in SPLITS)
    assert not train & held and {len(train), len(held)} == {1, 3}
    assert {prepared.source("all")["splits"][split]["documents"] for split in SPLITS} == {3, 9}


def test_rows_that_all_ask_one_question_cannot_be_split(tmp_path, tune, save, chat_tokenizer):
    path = save("a.jsonl", *[ask("问？", f"答{n}") for n in range(9)])
    with pytest.raises(BuddyError, match=r"^a: its rows all ask one question, which cannot be split into training and"):
        prepare(tune("sft", path), tmp_path / "cache", silent, stage="sft", tokenizer=chat_tokenizer)


def test_the_same_words_said_by_others_are_no_duplicate(tmp_path, tune, save, chat_tokenizer):
    pairs = [ask("甲\n乙", "丙"), ask("甲", "乙\n丙"), ask("甲", "乙\n丙")]
    path = save("a.jsonl", *asked(20), *pairs)
    prepared = prepare(tune("sft", path), tmp_path / "cache", silent, stage="sft", tokenizer=chat_tokenizer)
    assert prepared.source("a")["dropped"] == {"duplicate": {"count": 1, "first": f"{path}:23"}}
    path = save("b.jsonl", *preferred(20), prefer("问", "好", "坏"), prefer("问", "坏", "好"))
    prepared = prepare(tune("dpo", path), tmp_path / "cache", silent, stage="dpo", tokenizer=chat_tokenizer)
    assert prepared.source("b")["dropped"] == {}


def test_talks_are_cleaned_whole_and_never_rewritten(tmp_path, tune, save, chat_tokenizer):
    long = [ask(f"请问第{n}个问题是什么意思呢？", f"ＡＢＣ这是第{n}个问题的答案，我们慢慢来说。") for n in range(20)]
    path = save("a.jsonl", *long, ask("问", "答"))
    wanted = tune("sft", path, clean={"min_length": 10, "fold_width": True})
    prepared = prepare(wanted, tmp_path / "cache", silent, stage="sft", tokenizer=chat_tokenizer)
    entry = prepared.source("a")
    assert entry["dropped"] == {"too short": {"count": 1, "first": f"{path}:21"}} and entry["edits"] == {}
    assert {answer for _, answer, _ in both(chat_tokenizer, prepared, "a")} == {
        r["output"] + "<|im_end|>" for r in long
    }


@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_a_set_without_an_answer_is_one_line(tmp_path, tune, save, chat_tokenizer, stage):
    rows = asked(5) if stage == "sft" else preferred(5)
    path = save(
        "a.jsonl", *[{key: "" if key in ("output", "chosen") else text for key, text in r.items()} for r in rows]
    )
    with pytest.raises(BuddyError) as caught:
        prepare(tune(stage, path), tmp_path / "cache", silent, stage=stage, tokenizer=chat_tokenizer)
    (line,) = caught.value.lines
    assert line.startswith("a: nothing is left of its 5 rows: 5 no answer (first ") and f"{path}:1)" in line
    assert find_prepared(tune(stage, path), tmp_path / "cache", stage=stage, tokenizer=chat_tokenizer) is None


def test_plain_text_is_told_apart_from_talks(tmp_path, tune, write, make_texts, chat_tokenizer):
    path = write(tmp_path / "a.jsonl", make_texts(0))
    for stage, reason in (("sft", "text, not a conversation"), ("dpo", "not a pair of answers")):
        with pytest.raises(BuddyError, match=rf"no text in any of 40 rows: 40 {reason} \(first {path}:1\)"):
            prepare(tune(stage, path), tmp_path / "cache", silent, stage=stage, tokenizer=chat_tokenizer)


@pytest.fixture
def many_talks(tmp_path, monkeypatch, save) -> str:
    """A folder of five files, a task for each."""
    monkeypatch.setattr(staging, "BATCH_BYTES", 1)
    for n in range(5):
        save(f"many/{n}.jsonl", *preferred(8 * n + 8)[8 * n :])
    return str(tmp_path / "many")


def test_workers_change_nothing(tmp_path, tune, many_talks, chat_tokenizer, contents):
    one, two = (
        prepare(tune("sft", many_talks, workers=n), tmp_path / str(n), silent, stage="sft", tokenizer=chat_tokenizer)
        for n in (1, 2)
    )
    assert contents(one.path) == contents(two.path)
    assert sum(name.endswith(".ds.labels") for name in contents(one.path)) >= 5


BREAK_OFF = """
import os, signal, sys
from pathlib import Path
from buddygpt.data import staging
from buddygpt.data.prepare import prepare
from buddygpt.data.tokenizer import load_tokenizer
from buddygpt.recipe.schema import Recipe

def main(recipe, cache, task, done, tokenizer):
    staging.BATCH_BYTES = 1
    def emit(event):
        if getattr(event, "task", "") == task and event.done >= int(done):
            os.kill(os.getpid(), signal.SIGKILL)
    wanted = Recipe.model_validate_json(Path(recipe).read_text())
    prepare(wanted, Path(cache), emit, stage="dpo", tokenizer=load_tokenizer(tokenizer))

if __name__ == "__main__":
    main(*sys.argv[1:])
"""


@pytest.mark.parametrize(("task", "workers"), [("prepare: read", 1), ("prepare: tokenise", 2)])
def test_killed_and_started_again(tmp_path, tune, many_talks, chat_tokenizer, contents, task, workers):
    chat_tokenizer.save_pretrained(tmp_path / "tokenizer")
    tokenizer = load_tokenizer(str(tmp_path / "tokenizer"))
    wanted, killed = tune("dpo", many_talks), tune("dpo", many_talks, workers=workers)
    (tmp_path / "break_off.py").write_text(BREAK_OFF, "utf-8")
    (tmp_path / "recipe.json").write_text(json.dumps(killed.as_dict()), "utf-8")
    arguments = [tmp_path / "recipe.json", tmp_path / "a", task, 2, tmp_path / "tokenizer"]
    process = subprocess.run([sys.executable, tmp_path / "break_off.py", *map(str, arguments)], timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert find_prepared(wanted, tmp_path / "a", stage="dpo", tokenizer=tokenizer) is None
    (folder,) = (path for path in (tmp_path / "a").iterdir() if path.is_dir())
    for rest in ("00009.ds.1.tmp", "00009.ds.1.tmp.index", "00009.ds.1.tmp.labels"):
        (folder / "shards/many/train").mkdir(parents=True, exist_ok=True)
        (folder / "shards/many/train" / rest).touch()
    again, whole = (prepare(wanted, tmp_path / c, silent, stage="dpo", tokenizer=tokenizer) for c in "ab")
    assert contents(again.path) == contents(whole.path)


def test_damaged_labels_are_found(tmp_path, tune, save, chat_tokenizer):
    path = save("a.jsonl", *asked(30))
    wanted = tune("sft", path)
    prepared = prepare(wanted, tmp_path / "cache", silent, stage="sft", tokenizer=chat_tokenizer)
    assert verify(prepared, wanted, "sft") == []
    record = prepared.records("a", "train")[0]
    labels = prepared.path / f"{record.path}.labels"
    whole = labels.read_bytes()
    assert len(whole) == record.tokens and whole.count(bytes([ANSWER])) == record.learned
    labels.write_bytes(bytes([1 - whole[0]]) + whole[1:])
    (fault,) = verify(prepared, wanted, "sft")
    assert fault.startswith(f"{labels}: changed since it was written")
    labels.write_bytes(whole[:-3])
    for broken in (lambda: None, labels.unlink):
        broken()
        with pytest.raises(BuddyError, match=rf"{labels.name}: missing, or not the {len(whole)} bytes written"):
            prepared.open("a", "train")
        assert len(verify(prepared, wanted, "sft")) == 1


def test_no_two_uses_share_a_folder(tmp_path, tune, save, make_recipe, chat_tokenizer, monkeypatch):
    path = save("a.jsonl", *preferred(30))
    cache = tmp_path / "cache"
    folders = [
        prepare(tune(stage, path), cache, silent, stage=stage, tokenizer=chat_tokenizer).path
        for stage in ("sft", "dpo")
    ]
    chat_tokenizer.save_pretrained(tmp_path / "tokenizer")
    for render in ("text", "chat"):
        source = {"kind": "files", "paths": [path], "render": render}
        text = make_recipe(source, tokenizer={"base": str(tmp_path / "tokenizer")})
        folders.append(prepare(text, cache, silent).path)
    assert len(set(folders)) == 4
    find = lambda tokenizer: find_prepared(tune("sft", path), cache, stage="sft", tokenizer=tokenizer)  # noqa: E731
    assert find(chat_tokenizer).path == folders[0]
    other = make_chat_tokenizer(chat_tokenizer)
    other.add_tokens(["甲乙"])
    assert find(other) is None
    other = make_chat_tokenizer(chat_tokenizer)
    other.chat_template += " "
    assert find(other) is None
    for change in (  # what is rendered, what is learned of it, what is saved
        ("chat_segments", lambda talk: []),
        ("labelled_segments", lambda talk: []),
        ("CHAT_TEMPLATE", "x"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(f"buddygpt.data.template.{change[0]}", change[1])
            assert find(chat_tokenizer) is None
    assert find(chat_tokenizer).path == folders[0]


@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_the_demo_world_is_a_source_of_both(tmp_path, tune, chat_tokenizer, stage):
    wanted = tune(stage, {"kind": "demo", "seed": 3})
    prepared = prepare(wanted, tmp_path, silent, stage=stage, tokenizer=chat_tokenizer)
    entry = prepared.source("demo")
    rows = list(demo.talks(3) if stage == "sft" else demo.pairs(3))
    assert entry["documents_in"] == len(rows) and set(entry["dropped"]) <= {"duplicate"}
    first = rows[0].messages[0].content if stage == "sft" else rows[0].prompt[0].content
    assert any(prompt.startswith(told(first)) for prompt, *_ in both(chat_tokenizer, prepared, "demo"))


def test_what_another_version_staged_is_told(tmp_path, tune, save, chat_tokenizer):
    np.save(tmp_path / "00000.npy", np.zeros(3, [(name, "<u8") for name in ("high", "low", "bytes", "row", "file")]))
    with pytest.raises(BuddyError, match="staged by another version; remove"):
        Staged(tmp_path).index(0)


COUNTS = {
    "sft": {
        "alpaca_zh_demo": (1000, 992, {"duplicate": 8}),
        "glaive_toolcall_zh_demo": (300, 257, {"duplicate": 43}),
        "identity": (91, 91, {}),
    },
    "dpo": {"dpo_en_demo": (300, 295, {"duplicate": 5}), "dpo_zh_demo": (300, 289, {"duplicate": 11})},
}
"""Rows in and out; each duplicate is a row that stands in the file twice, letter for letter."""


@pytest.mark.parametrize("stage", COUNTS)
def test_real_rows_lose_nothing_but_copies(tmp_path, tune, chat_tokenizer, stage):
    paths = [REAL / stage / f"{name}.json" for name in COUNTS[stage]]
    if missing := [path for path in paths if not path.is_file()]:
        pytest.skip(f"no {missing[0]}")
    wanted = tune(stage, *map(str, paths), validation=0.05)
    prepared = prepare(wanted, tmp_path, silent, stage=stage, tokenizer=chat_tokenizer)
    for path in paths:
        entry = prepared.source(path.stem)
        dropped = {reason: drop["count"] for reason, drop in entry["dropped"].items()}
        assert (entry["documents_in"], entry["documents_out"], dropped) == COUNTS[stage][path.stem]
        rows = [json.dumps(row, sort_keys=True) for row in json.loads(path.read_text("utf-8"))]
        assert len(rows) - len(set(rows)) == dropped.get("duplicate", 0)
        for split in SPLITS:
            for ids, labels in documents(prepared, path.stem, split):
                assert labels[-1] == (ANSWER if stage == "sft" else REJECTED) and ids[-1] == chat_tokenizer.eos_token_id
