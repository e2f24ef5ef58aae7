"""A run with three stages as the stages leave it on disk, its figures invented, and the private things of a machine."""

import json
from copy import deepcopy

import torch
from ruamel.yaml import YAML

from buddygpt.data.fingerprints import hash_weights
from buddygpt.model import BuddyGPTConfig, BuddyGPTForCausalLM
from buddygpt.model.interop import Exported
from buddygpt.recipe.loader import load_recipe
from buddygpt.recipe.runs import dump_yaml
from buddygpt.report.scores import Measured, Score, plain

OPTIMIZER = {"kind": "muon", "learning_rate": 0.01, "adamw_learning_rate": 2e-5}
TUNING = {"batch_size": 8, "micro_batch_size": 4, "optimizer": OPTIMIZER, "schedule": {"kind": "cosine"}}
RECIPE = {
    "schema": 1,
    "name": "sage",
    "model": {
        "vocab_size": 400, "hidden_size": 32, "num_hidden_layers": 2, "max_position_embeddings": 128,
        "attention": {"kind": "gqa", "num_attention_heads": 4, "num_key_value_heads": 2},
        "mlp": {"kind": "dense", "intermediate_size": 48},
    },
    "tokenizer": {"train": 400},
    "data": {"sources": [{"kind": "catalog", "dataset": "wikipedia-zh"}, {"kind": "demo", "weight": 3}]},
    "pretrain": {
        "tokens": 40_000, "tokens_per_batch": 400, "sequence_length": 40, "micro_batch_size": 10, "save_every": 50,
        "eval_every": 50, "optimizer": OPTIMIZER, "schedule": {"kind": "wsd"},
    },
    "sft": TUNING | {"epochs": 1.5, "data": {"sources": [{"kind": "catalog", "dataset": "alpaca"}]}},
    "dpo": TUNING | {"data": {"sources": [{"kind": "files", "paths": ["pairs.jsonl"]}]}},
}  # fmt: skip
MADE_ON = {
    "kind": "cuda", "name": "NVIDIA H100", "processes": 8, "peak_bytes": 70_000_000_000,
    "versions": {"buddygpt": "0.1.0", "torch": "2.13.0", "git": "abc1234"},
}  # fmt: skip
FACTS = {"facts held out": 0.25, "stops by itself": 0.5}
SCORE = Score(
    "cmmlu", "acc,none", 0.2612, 0.0041, 11_582, 0.2533, 0.2693, 0.25, False, 5, True, total=11_582, cut=7,
    settings={"dtype": "bf16", "device": "cuda", "lm_eval": "0.4.13", "date": "2026-11-26T03:18+00:00"},
)  # fmt: skip


def recipe(**changes):
    """`RECIPE` with other values, e.g. `{"sft.model": "a/b"}`; None takes a field out."""
    told = deepcopy(RECIPE)
    for place, value in changes.items():
        *path, last = place.split(".")
        section = told
        for name in path:
            section = section[name]
        section[last] = value
        if value is None:
            del section[last]
    return told


def source(rows, tokens, dropped=None):
    """A source's part of a manifest, as far as a card reads it."""
    train = {"documents": rows, "tokens": tokens}
    return {"splits": {"train": train}, "dropped": dropped or {}, "files": [{"name": "/home/mallory/x.jsonl"}]}


MANIFESTS = {
    "pretrain": {
        "decontaminate": {"ngram": 13, "sets": {"ceval": {"items": 1346, "guarded": 1300}}},
        "sources": {
            "wikipedia-zh": source(
                900, 50_000, {"holds a piece of ceval": {"count": 12, "first": "/home/mallory/x:1"}}
            ),
            "demo": source(70, 2_000),
        },
    },
    "sft": {"decontaminate": None, "sources": {"alpaca": source(52_000, 300_000)}},
    "dpo": {"decontaminate": None, "sources": {"pairs": source(123, 4_567)}},
}
FIGURES = {
    "pretrain": {
        "step": 100, "baseline": {"demo": 1.9},
        "metrics": {"eval/demo/bits_per_character": 1.234, "eval/wikipedia-zh/bits_per_character": 4.5},
    },
    "sft": {"step": 30, "metrics": {}, "began": "pretrain", "before": FACTS, "after": FACTS | {"facts held out": 0.75}},
    "dpo": {
        "step": 20, "metrics": {"eval/pairs/accuracy": 0.8125, "kl/reply": 0.5}, "began": "sft",
        "before": FACTS | {"facts held out": 0.75}, "after": FACTS | {"stops by itself": 1.0},
    },
}  # fmt: skip


def write_model(folder, chat=True):
    """A small model with weights drawn at random; no tokenizer."""
    torch.manual_seed(0)
    config = BuddyGPTConfig(
        vocab_size=400, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=48, max_position_embeddings=128,
    )  # fmt: skip
    BuddyGPTForCausalLM(config).save_pretrained(folder)
    if chat:
        (folder / "chat_template.jinja").write_text("{{ messages }}", "utf-8")
    return folder


def write_run(path, told=None, stages=("pretrain", "sft", "dpo"), done=None, scores=(SCORE,)):
    """The run of a recipe, with what its stages record; the last stage's model folder.

    Args:
        path: of the run.
        told: its recipe.
        stages: those that have finished.
        done: more of what a stage records, by stage.
        scores: of the last stage.
    """
    path.mkdir(parents=True)
    given = path / "given.yaml"
    yaml = YAML(typ="safe")
    with given.open("w", encoding="utf-8") as file:
        yaml.dump(told or RECIPE, file)
    (path / "recipe.yaml").write_text(dump_yaml(load_recipe(given).as_dict()), "utf-8")
    given.unlink()
    for stage in stages:
        folder, data = path / stage, path / "data" if stage == "pretrain" else path / stage / "data"
        data.mkdir(parents=True)
        folder.mkdir(exist_ok=True)
        (data / "manifest.json").write_text(json.dumps({"format": 2, **MANIFESTS[stage]}), "utf-8")
        rows = [
            {"step": n, "tokens": 400 * n, "loss": 6 - n / 40, "seconds": 0.5}
            for n in range(1, FIGURES[stage]["step"] + 1)
        ]
        rows.append({"step": rows[-1]["step"], "tokens": rows[-1]["tokens"], **FIGURES[stage]["metrics"]})
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        record = FIGURES[stage] | {"made_on": MADE_ON} | (done or {}).get(stage, {})
        (folder / "done.json").write_text(json.dumps(record), "utf-8")
    model = write_model(folder / "model", stages[-1] != "pretrain")
    results = path / "eval" / stages[-1] / "results.json"
    results.parent.mkdir(parents=True)
    measured = plain(Measured(f"sage/{stages[-1]}", tuple(scores))) | {"weights": hash_weights(model)}
    results.write_text(json.dumps({"buddygpt": measured}), "utf-8")
    return model


def exported(folder):
    """What an export of the model would say of itself."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text('{"dtype": "bfloat16"}', "utf-8")
    return Exported(folder, "Qwen2ForCausalLM", 29_280, "float32", 123_456, 1e-6, 3.0)
