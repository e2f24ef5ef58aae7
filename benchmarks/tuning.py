"""SFT and DPO beside trl's own trainers, on the same rows of real files with the same weights at the 0.1b shape.

The folder of real files has to lie beside the checkout, as ../shared/data. About a quarter of an hour on two quiet
cores, most of it trl's.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.model import build_model, forget_peak, held
from benchmarks.table import measure_in_turn, table

ROOT = Path(__file__).parents[1]
Train = Callable[[], Any]
FILES = {"sft": "sft/alpaca_zh_demo.json", "dpo": "dpo/dpo_zh_demo.json"}
"""Below the folder of shared data; 1,000 questions with answers, 300 pairs, both Chinese."""
LENGTH, TALKS, PAIRS = 512, 4, 2
"""Tokens of a row; rows, and pairs, which are two rows each, of a micro-batch."""
STEPS = {"trl": 2, "other": 4}
"""Steps of a process with the one that warms up; those of trl take several times as long."""
SHORT = 256
"""Most tokens of the pairs whose first loss is compared in fp32."""
ROUNDS = {"sft": 2, "dpo": 1}
"""How often each side's process is run, in turn."""


def run() -> str:
    """Tables of SFT, of DPO, of first losses in fp32, and what LLaMA-Factory says."""
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder, "rows.json")
        rows.write_text(json.dumps(_prepare(Path(folder, "cache"))), "utf-8")
        parts = [_speed("sft", rows), _speed("dpo", rows), _first_losses(rows), _llamafactory(rows)]
    return "\n\n".join([_WHAT, *parts])


_WHAT = f"""\
SFT: {TALKS} packed windows x {LENGTH} of {FILES["sft"]}, ids, positions and labels (answers only) the same on all
sides, talks isolated. DPO: {PAIRS} pairs x {LENGTH} of {FILES["dpo"]}, those whose longer side fills the length. The
peers train transformers' Qwen2 with the same weights. A step is forward, backward, clipping and AdamW under bf16
autocast; the first one is left out. Memory is the peak of the process above what it held once the models were built,
less gradients and moments: above weights, gradients, moments and reference. trl's default has gradient checkpointing
on; speed is compared with that default, memory with trl under the same setting."""

SIDES = {
    "sft": {
        "plain": "plain loop over Qwen2, full logits",
        "ours": "ours",
        "ours-checkpointing": "ours, gradient checkpointing",
        "trl": "trl, no gradient checkpointing",
        "trl-checkpointing": "trl's default: gradient checkpointing",
    },
    "dpo": {
        "ours-cached": "ours, cached reference",
        "ours-live": "ours, live reference",
        "ours-live-checkpointing": "ours, live reference, gradient checkpointing",
        "trl-cached": "trl, precomputed reference, no gradient checkpointing",
        "trl-live": "trl, live reference, no gradient checkpointing",
        "trl-live-checkpointing": "trl's default: live reference, gradient checkpointing",
    },
}


def _speed(stage: str, rows: Path) -> str:
    """Each side's speed and memory beside the default of trl, and beside trl as that side is set."""
    commands = {side: ["-m", "benchmarks.tuning", stage, side, "bf16", str(rows)] for side in SIDES[stage]}
    found = measure_in_turn(commands, ROUNDS[stage])
    speed = {side: median(run["tokens_per_second"] for run in runs) for side, runs in found.items()}
    memory = {side: median(run["gb"] for run in runs) for side, runs in found.items()}
    default = speed[next(reversed(speed))]
    lines = []
    for side, runs in found.items():
        peer = "trl" + side[side.find("-") :] if "-" in side else "trl"
        each = [run["tokens_per_second"] for run in runs]
        lines.append(
            (
                SIDES[stage][side],
                f"{median(run['seconds'] for run in runs):.2f}",
                f"{speed[side]:.0f} ({min(each):.0f} - {max(each):.0f})",
                f"{speed[side] / default:.2f} x",
                f"{speed[side] / speed['plain']:.2f} x" if "plain" in speed else "",
                f"{memory[side]:.2f}",
                f"{memory[side] / memory[peer]:.2f} x" if side.startswith("ours") else "",
                f"{runs[0]['loss']:.5f}",
            )
        )
    head = (
        stage.upper(), "seconds a step", "tokens/s (least - most of the runs)", "to trl's default", "to the plain loop",
        "GB above the rest", "to trl's", "first loss, bf16",
    )  # fmt: skip
    return table(head, lines)


def _first_losses(rows: Path) -> str:
    """In fp32 both sides see the same rows by trl's own collators, and must say the same."""
    lines = []
    for stage, ours in (("sft", "ours"), ("dpo", "ours-live"), ("dpo", "ours-cached")):
        theirs = ours.replace("ours", "trl")
        commands = {side: ["-m", "benchmarks.tuning", stage, side, "fp32", str(rows)] for side in (ours, theirs)}
        (a,), (b,) = measure_in_turn(commands, 1).values()
        for key in ("loss", "grad_norm", "logps/chosen", "logps/rejected"):
            if key in a:
                lines.append((SIDES[stage][ours], key, f"{a[key]:.6f}", f"{b[key]:.6f}", f"{abs(a[key] - b[key]):.1e}"))
    what = (
        f"Step 1 in fp32: the first {TALKS} talks padded to the longest, and the first {PAIRS} pairs of at most "
        f"{SHORT} tokens; no gradient checkpointing."
    )
    return what + "\n\n" + table(("side", "value", "ours", "trl's", "difference"), lines)


def _llamafactory(rows: Path) -> str:
    """What LLaMA-Factory says of the same ids where its command is on PATH: it wants older libraries than ours."""
    command = shutil.which("llamafactory-cli")
    if command is None:
        return "LLaMA-Factory: its command is not on PATH, so it was not measured."
    import torch
    from datasets import Dataset, DatasetDict

    torch.manual_seed(0)
    model, given = rows.parent / "qwen2", json.loads(rows.read_text("utf-8"))
    build_model("0.1b", (), "transformers", head=True).save_pretrained(model)
    _tokenizer().save_pretrained(model)
    lines = []
    for name, steps, bf16 in (("talks", 1, False), ("windows", STEPS["trl"], True)):
        listed = [_as_theirs(window) for window in given[name][: steps * TALKS]]
        features = [row | {"attention_mask": [1] * len(row.pop("position_ids"))} for row in listed]
        DatasetDict(train=Dataset.from_list(features)).save_to_disk(rows.parent / f"lf-{name}")
        out = rows.parent / f"lf-{name}-out"
        settings = {
            "model_name_or_path": model, "tokenized_path": rows.parent / f"lf-{name}", "output_dir": out,
            "dataset": "none", "stage": "sft", "finetuning_type": "full", "template": "chatml",
            "cutoff_len": LENGTH, "per_device_train_batch_size": TALKS, "max_steps": steps, "logging_steps": 1,
            "do_train": "true", "disable_shuffling": "true", "use_cpu": "true", "report_to": "none",
            "bf16": str(bf16).lower(), "save_strategy": "'no'",
        }  # fmt: skip
        recipe = rows.parent / f"lf-{name}.yaml"
        recipe.write_text("".join(f"{key}: {value}\n" for key, value in settings.items()), "utf-8")
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        done = subprocess.run([command, "train", str(recipe)], capture_output=True, text=True, env=environment)
        if done.returncode:
            return f"LLaMA-Factory: failed: {done.stderr.strip().splitlines()[-1]}"
        log = [json.loads(line) for line in (out / "trainer_log.jsonl").read_text("utf-8").splitlines()]
        seconds = json.loads((out / "train_results.json").read_text("utf-8"))["train_runtime"]
        tokens = sum(len(row["input_ids"]) for row in features)
        lines.append((name, "bf16" if bf16 else "fp32", steps, f"{log[0]['loss']:.4f}", f"{tokens / seconds:.0f}"))
    what = "LLaMA-Factory's own SFT on the same ids, with its defaults; windows there are not isolated."
    return what + "\n\n" + table(("rows", "precision", "steps", "first loss", "tokens/s, all steps"), lines)


def measure(stage: str, side: str, precision: str, path: str) -> dict[str, float]:
    """One side of one row: the median step after the first, the peak, and what the first step said."""
    import torch

    torch.manual_seed(0)
    rows = json.loads(Path(path).read_text("utf-8"))
    steps = STEPS["trl" if side.startswith("trl") else "other"] if precision == "bf16" else 1
    model = build_model("0.1b", (), "buddygpt" if side.startswith("ours") else "transformers", head=True).train()
    build = {"sft": _plain if side == "plain" else _sft, "dpo": _dpo}[stage]
    clock = _clock()
    train = build(model, side, precision, steps, rows, Path(path).parent, clock)
    size = sum(p.numel() * p.element_size() for p in model.parameters()) / 2**30
    forget_peak()
    before = held("VmRSS")
    train()
    taken = [b - a for a, b in zip(clock.ends, clock.ends[1:], strict=False)]
    seconds = median(taken) if taken else 0.0
    tokens = LENGTH * (TALKS if stage == "sft" else 2 * PAIRS)
    return clock.first | {
        "seconds": seconds,
        "tokens_per_second": tokens / seconds if seconds else 0.0,
        "gb": held("VmHWM") - before - 3 * size,  # gradients and two moments
    }


def _clock() -> Any:
    """A callback that keeps when steps ended, and what is said of the first; nothing is saved or evaluated."""
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        def __init__(self) -> None:
            self.ends: list[float] = []
            self.first: dict[str, float] = {}

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
            self.ends.append(time.perf_counter())
            control.should_save = control.should_evaluate = False
            return control

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            self.first = self.first or {k: float(v) for k, v in logs.items() if k in _KEPT}

    return Clock()


_KEPT = ("loss", "grad_norm", "logps/chosen", "logps/rejected")


def _plain(model: Any, side: str, precision: str, steps: int, rows: Any, folder: Path, clock: Any) -> Train:
    """The loop that one writes by hand."""
    import torch

    def train() -> None:
        optimizer = torch.optim.AdamW(model.parameters(), lr=2e-5)
        for step in range(steps):
            batch = _collate(list(map(_as_theirs, rows["windows"][step * TALKS : (step + 1) * TALKS])))
            with torch.autocast("cpu", torch.bfloat16):
                loss = model(**batch, use_cache=False).loss
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            clock.first = clock.first or {"loss": float(loss.detach()), "grad_norm": float(norm)}
            clock.ends.append(time.perf_counter())

    return train


def _sft(model: Any, side: str, precision: str, steps: int, rows: Any, folder: Path, clock: Any) -> Train:
    """Windows in bf16; in fp32 talks, which each side's own collator pads."""
    windows = rows["windows" if precision == "bf16" else "talks"]
    if side.startswith("ours"):
        from buddygpt.training.sft import SFTTrainer

        section = _section("sft", side, precision)
        keeper = _keeper(section, windows, folder)
        return SFTTrainer(model, _tokenizer(), section, keeper, [], [clock], _pace(section, steps)).train
    import trl
    from datasets import Dataset

    args = trl.SFTConfig(
        dataset_kwargs={"skip_prepare_dataset": True}, **_trl_arguments(side, precision, TALKS, steps, folder)
    )
    own = {"data_collator": _collate} if precision == "bf16" else {}  # trl's own has no positions of packed talks
    return _in_order(trl.SFTTrainer)(
        model, args, train_dataset=Dataset.from_list(list(map(_as_theirs, windows))), processing_class=_tokenizer(),
        callbacks=[clock], **own,
    ).train  # fmt: skip


def _dpo(model: Any, side: str, precision: str, steps: int, rows: Any, folder: Path, clock: Any) -> Train:
    pairs = rows["pairs" if precision == "bf16" else "short"][: PAIRS * steps]
    if side.startswith("ours"):
        from buddygpt.events import silent
        from buddygpt.training.dpo import DPOTrainer

        section = _section("dpo", side, precision)
        scores = Path(tempfile.mkdtemp(dir=folder))  # a round does not find those of the one before
        keeper, pace = _keeper(section, pairs, folder), _pace(section, steps)
        return DPOTrainer(model, _tokenizer(), section, keeper, {}, [clock], pace, scores, silent).train
    import trl
    from datasets import Dataset

    cached = "cached" in side
    args = trl.DPOConfig(precompute_ref_log_probs=cached, **_trl_arguments(side, precision, PAIRS, steps, folder))

    class Trainer(_in_order(trl.DPOTrainer)):  # type: ignore[misc]
        def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
            return dataset  # they are ids already

    return Trainer(
        model, None if cached else copy.deepcopy(model), args, train_dataset=Dataset.from_list(pairs),
        processing_class=_tokenizer(), callbacks=[clock],
    ).train  # fmt: skip


def _in_order(trainer: type) -> type:
    """The class, its rows in the order in which they stand."""
    from torch.utils.data import SequentialSampler

    class InOrder(trainer):  # type: ignore[misc,valid-type]
        def _get_train_sampler(self, dataset: Any = None) -> Any:
            return SequentialSampler(self.train_dataset)

    return InOrder


def _trl_arguments(side: str, precision: str, rows: int, steps: int, folder: Path) -> dict[str, Any]:
    """What of trl's settings is not its default."""
    return {
        "output_dir": str(folder),
        "max_steps": steps,
        "per_device_train_batch_size": rows,
        "gradient_checkpointing": side.endswith("checkpointing"),
        "bf16": precision == "bf16",
        "use_cpu": True,
        "logging_steps": 1,
        "disable_tqdm": True,
        "report_to": "none",
        "save_strategy": "no",
        "remove_unused_columns": False,
    }


def _pace(section: Any, steps: int) -> Any:
    from buddygpt.training.pace import Pace

    return Pace(steps, section.batch_size, 1, save_every=steps, eval_every=steps, tokens=lambda done: done)


def _keeper(section: Any, rows: Sequence[Any], folder: Path) -> Any:
    """Of rows in their order."""
    from buddygpt.data.windows import Passing
    from buddygpt.events import silent
    from buddygpt.training.checkpoints import Shelf
    from buddygpt.training.guard import Guard
    from buddygpt.training.keeper import Keeper

    shelf = Shelf(folder / "checkpoints", 1)
    return Keeper(folder, shelf, Guard(section.guard), Passing(rows), section.batch_size, str, silent)


def _section(stage: str, side: str, precision: str) -> Any:
    """The recipe's section."""
    recipe = _recipe(
        f"{stage}.precision={precision}",
        f"{stage}.gradient_checkpointing={str(side.endswith('checkpointing')).lower()}",
        f"dpo.reference={'cached' if 'cached' in side else 'live'}",
    )
    return getattr(recipe, stage)


def _recipe(*changes: str) -> Any:
    """0.1b with both sections over the real files."""
    from buddygpt.recipe.loader import load_recipe

    shared = (ROOT / ".." / "shared" / "data").resolve()
    common = "optimizer: {kind: adamw, learning_rate: 2e-5}, schedule: {kind: cosine, warmup: 0}"
    sections = [
        f"{stage}={{data: {{sources: [{{kind: files, name: rows, paths: ['{shared / FILES[stage]}']}}]}}, "
        f"sequence_length: {LENGTH}, batch_size: {size}, micro_batch_size: {size}, {common}}}"
        for stage, size in (("sft", TALKS), ("dpo", PAIRS))
    ]
    return load_recipe(ROOT / "recipes" / "0.1b.yaml", [*sections, *changes])


def _tokenizer() -> Any:
    from buddygpt.data.tokenizer import load_tokenizer
    from buddygpt.data.tokenizer.chat import make_chat_tokenizer

    return make_chat_tokenizer(load_tokenizer("qwen3"))


def _prepare(cache: Path) -> dict[str, list[dict[str, Any]]]:
    """The rows that are measured, by the pipeline: `windows`, `talks`, `pairs` that fill the length, `short` ones."""
    from buddygpt.data.lengths import Openings
    from buddygpt.data.prepare import prepare
    from buddygpt.data.talks import PairRows, TalkWindows
    from buddygpt.data.tokenizer import DocumentEncoder
    from buddygpt.events import silent

    recipe, tokenizer = _recipe(), _tokenizer()
    openings = Openings.of(DocumentEncoder(tokenizer))
    shards = {
        stage: prepare(recipe, cache, silent, stage=stage, tokenizer=tokenizer).open("rows", "train")  # type: ignore[arg-type]
        for stage in FILES
    }
    packed = TalkWindows("rows", shards["sft"], LENGTH, openings, packing=True)
    full = [number for number in range(len(packed)) if packed.size(number) == LENGTH]
    talks = TalkWindows("rows", shards["sft"], LENGTH, openings, packing=False)
    pairs = list(map(PairRows("rows", shards["dpo"], LENGTH, openings).__getitem__, range(PAIRS * 100)))
    return {
        "windows": [_listed(packed[number]) for number in full[: TALKS * max(STEPS.values())]],
        "talks": [_listed(talks[number]) for number in range(TALKS)],
        "pairs": [pair for pair in pairs if _longest(pair) == LENGTH][: PAIRS * max(STEPS.values())],
        "short": [pair for pair in pairs if _longest(pair) <= SHORT][:PAIRS],
    }


def _listed(window: Any) -> dict[str, list[int]]:
    return {key: values.tolist() for key, values in window.items()}


def _as_theirs(window: Any) -> dict[str, list[int]]:
    """As trl and transformers take it: `labels` as long as the ids, each judged by the position before it."""
    return {key: window[key] for key in ("input_ids", "position_ids")} | {"labels": window["labels"][:-1]}


def _longest(pair: Any) -> int:
    return len(pair["prompt_ids"]) + max(len(pair["chosen_ids"]), len(pair["rejected_ids"]))


def _collate(rows: Sequence[Any]) -> Any:
    """Rows of one length."""
    import torch

    return {key: torch.tensor([row[key] for row in rows]) for key in rows[0]}


if __name__ == "__main__":
    os.environ["HF_HUB_OFFLINE"] = os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    print(json.dumps(measure(*sys.argv[1:])))
