"""Every field of a training section does something: with another value, something that can be seen is another.

The schema is walked: a field that is added has no case here and fails by its name. A case is one line: the change, and
what of `Seen` it must change.
"""

import hashlib
import json
from collections import namedtuple
from contextlib import nullcontext
from typing import get_args

import pytest
import torch
from pydantic import BaseModel, ValidationError

from buddygpt.data.demo import paragraphs
from buddygpt.data.lengths import Openings
from buddygpt.data.prepare import prepare
from buddygpt.data.tokenizer import DocumentEncoder, load_tokenizer, make_chat_tokenizer, train_tokenizer
from buddygpt.events import Note, silent
from buddygpt.model import flash
from buddygpt.model.modeling import DecoderLayer
from buddygpt.recipe.dpo import DPOSection
from buddygpt.recipe.errors import BuddyError
from buddygpt.recipe.loader import load_recipe
from buddygpt.recipe.pretrain import PretrainSection
from buddygpt.recipe.runs import Run
from buddygpt.recipe.sft import SFTSection
from buddygpt.stages import dpo, pretrain, sft
from buddygpt.training import chapter, compiled, trackers
from buddygpt.training.base import find_base
from buddygpt.training.branch import branch_point
from buddygpt.training.guard import Guard, Rewind
from buddygpt.training.parallel import parallel_options
from tests.training.toys import PRETRAIN, TUNING, fine_tuning, make_model, preferring, pretraining

Case = namedtuple("Case", "change seen base", defaults=({},))
"""The change of a section, what it must change, and a change that both sides of the comparison have."""
REFUSED = "refused"
"""In place of what is seen: the schema takes no other value."""
KINDS = {
    "pretrain": (pretraining, PretrainSection, PRETRAIN),
    "sft": (fine_tuning, SFTSection, TUNING),
    "dpo": (preferring, DPOSection, TUNING),
}
ADAMW = {"kind": "adamw", "learning_rate": 1e-2}
MUON = {"kind": "muon", "learning_rate": 1e-2, "adamw_learning_rate": 1e-3}
COSINE, LINEAR, WSD = ({"kind": kind, "warmup": 0.25} for kind in ("cosine", "linear", "wsd"))
FSDP = {"kind": "fsdp"}


def muon(seen, **change):
    return Case({"optimizer": MUON | change}, seen, {"optimizer": MUON})


COMMON = {
    "micro_batch_size": Case({"micro_batch_size": 2}, "rows"),
    "optimizer": Case({"optimizer": MUON}, "groups"),
    "schedule": Case({"schedule": COSINE}, "rates"),
    "max_grad_norm": Case({"max_grad_norm": 1e-6}, "weights"),
    "precision": Case({"precision": "bf16"}, "types"),
    "attn_implementation": Case({"attn_implementation": "eager"}, "kernels"),
    "gradient_checkpointing": Case({"gradient_checkpointing": "selective"}, "recomputed"),
    "compile": Case({"compile": True}, "notes"),
    "guard": Case({"guard": {"patience": 5}}, "guard"),
    "trackers": Case({"trackers": ["tensorboard"]}, "tracked"),
    "keep_checkpoints": Case({"keep_checkpoints": 1}, "checkpoints"),
    "keep_every": Case({"keep_every": 1}, "checkpoints", {"save_every": 1}),
    "seed": Case({"seed": 1}, "losses"),
    "save_every": Case({"save_every": 3}, "checkpoints"),
    "eval_every": Case({"eval_every": 1}, "evaluations"),
    "parallel": Case({"parallel": FSDP}, "shared"),
    "parallel.fsdp.reshard_after_forward": Case(
        {"parallel": FSDP | {"reshard_after_forward": False}}, "shared", {"parallel": FSDP}
    ),
}
TUNED = COMMON | {
    "model": Case({"model": "base"}, "begins"),
    "data": Case({"data": {"sources": [{"kind": "demo", "seed": 1}], "validation": 0.2}}, "data"),
    "epochs": Case({"epochs": 0.5}, "steps"),
    "batch_size": Case({"batch_size": 8}, "steps"),
    "lora": Case({"lora": {}}, "updates"),
    "lora.rank": Case({"lora": {"rank": 2}}, "updates", {"lora": {}}),
    "lora.alpha": Case({"lora": {"alpha": 1}}, "losses", {"lora": {}}),
    "lora.dropout": Case({"lora": {"dropout": 0.5}}, "losses", {"lora": {}}),
}
CASES = {
    "pretrain": COMMON
    | {
        "tokens": Case({"tokens": 128}, "steps"),
        "tokens_per_batch": Case({"tokens_per_batch": 128}, "steps"),
        "sequence_length": Case({"sequence_length": 8}, "losses"),
        "isolate_documents": Case({"isolate_documents": False}, "losses"),
        "eval_tokens": Case({"eval_tokens": 100}, "judged"),
        "prompts": Case({"prompts": ["一"]}, "prompts"),
        "z_loss": Case({"z_loss": 0.1}, "weights"),
        "start_from": Case({"start_from": "another"}, "begins"),
        "guard.deviations": Case({"guard": {"deviations": None}}, "guard"),
        "guard.window": Case({"guard": {"window": 500}}, "guard"),
        "guard.patience": Case({"guard": {"patience": 5}}, "guard"),
        "guard.rewinds": Case({"guard": {"rewinds": 0}}, "guard"),
        "optimizer.adamw.learning_rate": Case({"optimizer": ADAMW | {"learning_rate": 1e-3}}, "rates"),
        "optimizer.adamw.betas": Case({"optimizer": ADAMW | {"betas": [0.5, 0.5]}}, "weights"),
        "optimizer.adamw.eps": Case({"optimizer": ADAMW | {"eps": 1e-2}}, "weights"),
        "optimizer.adamw.weight_decay": Case({"optimizer": ADAMW | {"weight_decay": 0.5}}, "weights"),
        "optimizer.muon.learning_rate": muon("rates", learning_rate=1e-3),
        "optimizer.muon.momentum": muon("weights", momentum=0.5),
        "optimizer.muon.weight_decay": muon("weights", weight_decay=0.5),
        "optimizer.muon.adamw_learning_rate": muon("weights", adamw_learning_rate=1e-2),
        "optimizer.muon.betas": muon("weights", betas=[0.5, 0.5]),
        "optimizer.muon.eps": muon("weights", eps=1e-2),
        "schedule.cosine.warmup": Case({"schedule": COSINE | {"warmup": 0.5}}, "rates", {"schedule": COSINE}),
        "schedule.cosine.min_ratio": Case({"schedule": COSINE | {"min_ratio": 0.5}}, "rates", {"schedule": COSINE}),
        "schedule.linear.warmup": Case({"schedule": LINEAR | {"warmup": 0.5}}, "rates", {"schedule": LINEAR}),
        "schedule.linear.min_ratio": Case({"schedule": LINEAR | {"min_ratio": 0.5}}, "rates", {"schedule": LINEAR}),
        "schedule.wsd.warmup": Case({"schedule": WSD | {"warmup": 0.5}}, "rates"),
        "schedule.wsd.decay": Case({"schedule": WSD | {"decay": 0.75}}, "rates"),
        "schedule.wsd.min_ratio": Case({"schedule": WSD | {"decay": 0.75, "min_ratio": 0.5}}, "rates",
                                       {"schedule": WSD | {"decay": 0.75}}),
    },
    "sft": TUNED
    | {
        "sequence_length": Case({"sequence_length": 96}, "windows"),
        "packing": Case({"packing": False}, "windows", {"sequence_length": 512}),
        "rope": Case({"rope": {"kind": "yarn"}}, "rope", {"sequence_length": 512}),
        "rope.kind": Case({"rope": {"kind": "yarn"}}, "rope", {"sequence_length": 512}),
        "rope.factor": Case({"rope": {"factor": 16.0}}, "rope", {"sequence_length": 512}),
        "eval_tokens": Case({"eval_tokens": 100}, "windows"),
    },
    "dpo": TUNED
    | {
        "sequence_length": Case({"sequence_length": 24}, "windows"),
        "parallel": Case({"parallel": FSDP}, REFUSED),
        "parallel.fsdp.reshard_after_forward": Case({"parallel": FSDP}, REFUSED),
        "beta": Case({"beta": 0.5}, "losses"),
        "loss_type": Case({"loss_type": ["ipo"]}, "losses"),
        "label_smoothing": Case({"label_smoothing": 0.2}, "losses", {"loss_type": ["robust"]}),
        "reference": Case({"reference": "live"}, "reference"),
        "eval_pairs": Case({"eval_pairs": 2}, "windows"),
    },
}  # fmt: skip
ONCE = ("optimizer", "schedule", "guard", "data")
"""Sections within a section that are walked for pretraining alone, or have tests of their own."""


def fields_of(schema, kind, prefix=""):
    """All fields by their paths; those of a section that is one of several stand below its kind."""
    for name, field in schema.model_fields.items():
        if name == "kind" and prefix.count(".") > 1:
            continue  # which of several it is
        yield prefix + name
        if name == "data" or (name in ONCE and kind != "pretrain"):
            continue
        parts = [a for a in (field.annotation, *get_args(field.annotation)) if isinstance(a, type)]
        below = [part for part in parts if issubclass(part, BaseModel)]
        for part in below:
            word = get_args(part.model_fields["kind"].annotation)[0] if len(below) > 1 else ""
            yield from fields_of(part, kind, f"{prefix}{name}." + (f"{word}." if word else ""))


PATHS = [(kind, path) for kind, (_, schema, _) in KINDS.items() for path in fields_of(schema, kind)]


def test_no_case_is_left_of_a_field_that_is_gone():
    assert {(kind, path) for kind, cases in CASES.items() for path in cases} <= set(PATHS)


@pytest.mark.parametrize(("kind", "path"), PATHS, ids=[f"{kind}-{path}" for kind, path in PATHS])
def test_a_field_acts(kind, path, see):
    case = CASES[kind].get(path)
    assert case is not None, f"{kind}.{path} is new: add what it changes to CASES"
    if case.seen == REFUSED:
        with pytest.raises(ValidationError):
            KINDS[kind][1].model_validate(KINDS[kind][2] | case.change)
        return
    assert see(kind, case.base, case.seen) != see(kind, case.base | case.change, case.seen)


RECIPE = """
schema: 1
name: toy
model:
  vocab_size: 300
  hidden_size: 16
  num_hidden_layers: 1
  max_position_embeddings: 64
  attention: {kind: gqa, num_attention_heads: 2, num_key_value_heads: 1}
  mlp: {kind: dense, intermediate_size: 24}
tokenizer: {train: 300}
data: {sources: [{kind: demo, characters: 20000}], validation: 0.1}
"""


class Seen:
    """What is seen of a kind of training. What only the stage reads is seen in what the stage makes of it.

    Args:
        kind: the chapter.
        change: of the kind's toy section.
        folder: of this training.
        root: has a tokenizer and a model in `base`, and is the folder of runs, of which `toy` is one.
    """

    def __init__(self, kind, change, folder, root):
        build, schema, fields = KINDS[kind]
        self.kind, self.folder, self.root, self.build = kind, folder, root, build
        self.section = schema.model_validate(fields | change)
        self.recipe = load_recipe(root / "r.yaml").model_copy(update={kind: self.section})

    def __getattr__(self, name):
        if name not in self.__dict__.setdefault("results", {}):
            made = getattr(type(self), f"_{name}", None)
            self.results |= self._train() if made is None else {name: made(self)}
        return self.results[name]

    def _train(self):
        notes, seen = [], {"rows": set(), "types": set(), "kernels": set()}
        choose = flash.choose

        def choosing(name, demand):
            backend = choose(name, demand)
            if demand.gradient:
                seen["types"].add(demand.dtype)
                seen["kernels"].add(backend.name)
            return backend

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(flash, "choose", choosing)
            patch.setattr(compiled, "compile_layers", lambda *_, **__: None)  # test_compiled.py has it
            trainer, watch = self.build(self.folder, self.section, notes.append)
            layers = [m for m in trainer.model.modules() if isinstance(m, DecoderLayer)]
            layers[0].register_forward_pre_hook(
                lambda m, inputs: seen["rows"].add(len(inputs[0])) if torch.is_grad_enabled() else None
            )
            chapter.train(trainer, watch, self.folder, None, notes.append)
        state = trainer.model.state_dict()
        rows = [row for row in watch.meter.rows if "loss" in row]
        functions = [getattr(layer, "_gradient_checkpointing_func", None) for layer in layers]
        return seen | {
            "losses": [row["loss"] for row in rows],
            "rates": [row["learning_rate"] for row in rows],
            "steps": trainer.state.global_step,
            "evaluations": [row["step"] for row in watch.meter.rows if any(key.startswith("eval/") for key in row)],
            "weights": hashlib.sha256(b"".join(t.numpy().tobytes() for t in state.values())).hexdigest(),
            "checkpoints": sorted(path.name for path in (self.folder / "checkpoints").iterdir()),
            "groups": [type(o).__name__ for o in getattr(trainer.optimizer.optimizer, "pair", [trainer.optimizer])],
            "recomputed": [(m.gradient_checkpointing, str(f)[:60]) for m, f in zip(layers, functions, strict=True)],
            "notes": [note.text.split(" in ")[0] for note in notes if isinstance(note, Note)],
            "updates": {name: p.shape for name, p in trainer.model.named_parameters() if p.requires_grad},
            "guard": self._judged_steps(trainer.keeper.guard.section),
            "reference": getattr(trainer, "ref_model", None) is not None,
        }

    @staticmethod
    def _judged_steps(section):
        """What the guard says of a long run with six spikes in a row, twice."""
        guard, found = Guard(section), []
        for step in range(1, 400):
            spiked = step % 200 > 193
            verdict = guard.judge(step, 9.0 if spiked else 2 + step % 3 / 10, 1.0)
            found.append(verdict is not None)
            try:
                if verdict is not None:
                    guard.lose_patience(verdict)
            except Rewind:
                guard.rewound += 1
                guard._row.clear()
                found.append("back")
        return found

    def _tracked(self):
        check = trackers.check_trackers
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(trackers, "find_spec", lambda name: None)
            with pytest.raises(BuddyError) if self.section.trackers else nullcontext() as refused:
                return check(self.section, self.kind)
            return str(refused.value)  # tests of trackers have what one is told

    def _tokenizer(self):
        return make_chat_tokenizer(load_tokenizer(str(self.root / "base")))

    def _prepared(self):
        tokenizer = None if self.kind == "pretrain" else self.tokenizer
        return prepare(self.recipe, self.root / "cache", silent, stage=self.kind, tokenizer=tokenizer)

    def _data(self):
        return self.prepared.path.name

    def _begins(self):
        section = self.section
        if self.kind == "pretrain":
            with pytest.raises(BuddyError) if section.start_from else nullcontext() as refused:
                return section.start_from and branch_point(self.recipe, Run(self.root / "toy"), silent)
            return str(refused.value)  # it looks for that run; tests of branches have the rest
        if section.model is not None:
            section = section.model_copy(update={"model": str(self.root / section.model)})
        return find_base(section, Run(self.root / "toy"), self.kind).source

    def _shared(self):
        return parallel_options(self.section)  # what several processes make of it, tests of launching have

    def _context(self):
        model = make_model(self.section, max_position_embeddings=64)
        length = sft._reach(model, self.section, silent)
        return length, model.config.rope_parameters

    def _rope(self):
        return self.context[1]

    def _windows(self):
        openings = Openings.of(DocumentEncoder(self.tokenizer))
        if self.kind == "sft":
            found = sft._windows(self.prepared, self.section, self.context[0], openings)
        else:
            found = dpo._pairs(self.prepared, self.section, dpo._length(self.section, 64), openings)
        return [[(len(source), source.tokens) for source in sources] for sources in found]

    def _judged(self):
        return [text.tokens for text in pretrain._texts(self.recipe, self.prepared, self.prepared.tokenizer())[1]]

    def _prompts(self):
        return pretrain._prompts(self.recipe)


@pytest.fixture(scope="module")
def see(tmp_path_factory):
    """What is asked for of a kind of training with a change; each is run once."""
    root = tmp_path_factory.mktemp("fields")
    (root / "r.yaml").write_text(RECIPE, "utf-8")
    for folder in (root / "base", root / "toy" / "pretrain" / "model", root / "toy" / "sft" / "model"):
        make_model(PretrainSection.model_validate(PRETRAIN)).save_pretrained(folder)
        train_tokenizer(list(paragraphs(5, 20_000)), 300).save_pretrained(folder)
        (folder.parent / "done.json").write_text("{}")
    known = {}

    def seen(kind, change, what):
        key = json.dumps([kind, change])
        if key not in known:
            known[key] = Seen(kind, change, root / f"run-{len(known)}", root)
        return getattr(known[key], what)

    return seen
