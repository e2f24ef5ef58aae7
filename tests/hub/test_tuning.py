"""Talks and pairs from a hub: prepared by the shape and the map that the catalog knows of them."""

from __future__ import annotations

import json

import pytest

from buddygpt.data.catalog import find
from buddygpt.data.prepare import prepare
from buddygpt.data.talks import Documents
from buddygpt.data.template import ANSWER, GIVEN
from buddygpt.data.tokenizer import make_chat_tokenizer, train_tokenizer
from buddygpt.events import silent
from buddygpt.recipe.schema import Recipe

ID = "someone/mountains"


@pytest.fixture(scope="module")
def tokenizer():
    return make_chat_tokenizer(train_tokenizer(["春眠不觉晓，处处闻啼鸟。\n\n"] * 3, 290))


@pytest.fixture
def prepared(tmp_path, tokenizer):
    """Prepare one source of a stage."""

    def of(stage, source):
        gqa = {"kind": "gqa", "num_attention_heads": 2, "num_key_value_heads": 1}
        recipe = Recipe.model_validate(
            {
                "schema": 1, "name": "test",
                "model": {"vocab_size": 512, "hidden_size": 32, "num_hidden_layers": 1, "max_position_embeddings": 64,
                          "attention": gqa, "mlp": {"kind": "dense", "intermediate_size": 48}},
                "tokenizer": {"train": 300}, "hub": {"order": ["mirror"]},
                stage: {"data": {"sources": [source], "validation": 0.2, "workers": 1}, "batch_size": 2,
                        "micro_batch_size": 2, "optimizer": {"kind": "adamw", "learning_rate": 1e-3},
                        "schedule": {"kind": "cosine"}},
            }
        )  # fmt: skip
        return prepare(recipe, tmp_path / "cache", silent, stage=stage, tokenizer=tokenizer)

    return of


def read(tokenizer, prepared, name):
    found = set()
    for split in ("train", "validation"):
        documents = Documents(prepared.open(name, split))
        for ids, labels in map(documents.read, range(len(documents))):
            prompt, answer = (tokenizer.decode(ids[labels == label].tolist()) for label in (GIVEN, ANSWER))
            found.add((prompt.split("\n")[1].removesuffix("<|im_end|>"), answer))
    return found


def lines(*rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def test_a_set_on_a_hub(hubs, tokenizer, prepared):
    rows = [{"q": f"第{n}问", "a": f"答{n}", "grade": n} for n in range(20)]
    hubs.mirror.files = {"data/a.jsonl": lines(*rows)}
    source = {"kind": "hub", "id": ID, "files": ["data/*"], "map": {"prompt": "q", "response": "a", "score": "grade"}}
    made = prepared("sft", source | {"min_score": 5})
    entry = made.source("mountains")
    assert entry["render"] == "talk" and entry["dropped"]["low score"]["count"] == 5
    assert read(tokenizer, made, "mountains") == {(row["q"], row["a"] + "<|im_end|>") for row in rows[5:]}
    assert entry["origin"]["id"] == ID


def test_a_set_of_the_catalog_has_its_map_and_its_shape(hubs, tokenizer, prepared, monkeypatch):
    """The map of ultrafeedback-chinese; the shape of belle-0.5m, whose rows could be read as conversations here."""
    known = {name: find(name).model_copy(update={"huggingface": ID, "modelscope": None, "size": None})
             for name in ("ultrafeedback-chinese", "belle-0.5m")}  # fmt: skip
    known["ultrafeedback-chinese"] = known["ultrafeedback-chinese"].model_copy(update={"files": ["data/a.jsonl"]})
    monkeypatch.setattr("buddygpt.data.sources.find", known.__getitem__)
    pairs = [
        {"instruction": f"第{n}问", "chosen_response": f"好{n}", "rejected_response": f"坏{n}", "prompt": "别的"}
        for n in range(20)
    ]
    said = [{"role": "user", "content": "别的"}, {"role": "assistant", "content": "别答"}]
    talks = [{"instruction": f"第{n}问", "output": f"答{n}", "input": "", "conversations": said} for n in range(20)]
    hubs.mirror.files = {"data/a.jsonl": lines(*pairs), "Belle_open_source_0.5M.json": lines(*talks)}
    for stage, name, key in (
        ("dpo", "ultrafeedback-chinese", "chosen_response"),
        ("sft", "ultrafeedback-chinese", "chosen_response"),
        ("sft", "belle-0.5m", "output"),
    ):
        made = prepared(stage, {"kind": "catalog", "dataset": name})
        rows = talks if name == "belle-0.5m" else pairs
        assert read(tokenizer, made, name) == {(row["instruction"], row[key] + "<|im_end|>") for row in rows}
        assert made.source(name)["map"] == known[name].map and made.source(name)["dropped"] == {}
