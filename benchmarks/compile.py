"""Training steps with plain and with compiled layers, and with gradient checkpointing: speed, warm-up, memory.

A step is a forward and backward pass under bf16 autocast over windows of packed documents that see only themselves, and
one of fused AdamW. One process; each case tells its row as soon as it is known, and what fails is told as failed.
"""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from benchmarks.table import table

LIMIT_S = 150
"""Seconds after which no further case is begun."""
STEPS, WARM = 6, 2
"""Steps that are timed, and steps before them."""
GPU = (("0.1b", None, 16), ("0.1b-32k", None, 16), ("0.3b-mla", 12, 8), ("0.7b-moe", 12, 8))
"""Recipe, layers where not all, windows of 1,024 tokens."""
CPU = (("tiny", None, 4), ("0.1b-32k", 2, 1))
"""The same in windows of 256 tokens."""
KINDS = (False, "selective", True)


@dataclass(frozen=True)
class Case:
    """One row.

    Args:
        recipe, layers, windows: what is trained.
        compiled: its layers are.
        checkpointing: as in a recipe.
    """

    recipe: str
    layers: int | None
    windows: int
    compiled: bool
    checkpointing: bool | str


def run() -> str:
    """Medians of steps."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    begun, found = time.perf_counter(), []
    for case in _cases(GPU if device == "cuda" else CPU):
        row: dict[str, Any] = asdict(case)
        if time.perf_counter() - begun > LIMIT_S:
            row["failed"] = "out of time"
        else:
            try:
                row |= _measure(case, device)
            except Exception as error:
                row["failed"] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:90]
        print(json.dumps(row), flush=True)
        found.append(row)
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    plain = {(r["recipe"], r["checkpointing"]): r for r in found if not r["compiled"]}
    head = (
        "recipe", "layers", "layers are", "checkpointing", "tokens/s", "of plain ones", "first step, s", "step, ms",
        "peak, GiB", "attention", "first loss", "loss of the last step",
    )  # fmt: skip
    length = 1024 if device == "cuda" else 256
    what = f"{name}; {length} tokens a window; medians of {STEPS} steps. A first step has what is compiled in it."
    return what + "\n\n" + table(head, [_cells(row, plain) for row in found])


def _cases(recipes: tuple[tuple[str, int | None, int], ...]) -> Iterator[Case]:
    """What matters most comes first."""
    for kind in KINDS:
        for recipe in recipes:
            for compiled in (False, True):
                yield Case(*recipe, compiled, kind)


def _cells(row: dict[str, Any], plain: dict[Any, dict[str, Any]]) -> list[object]:
    layers = "all" if row["layers"] is None else row["layers"]
    first = [row["recipe"], layers, "compiled" if row["compiled"] else "plain", str(row["checkpointing"]).lower()]
    if "failed" in row:
        return [*first, row["failed"], *[""] * 7]
    other = plain[row["recipe"], row["checkpointing"]].get("per_second")
    return [
        *first,
        f"{row['per_second']:,.0f}",
        f"{row['per_second'] / other:.2f} x" if other else "",
        f"{row['first_s']:.1f}",
        f"{1000 * row['step_s']:.1f}",
        f"{row['gib']:.2f}" if row["gib"] else "",
        row["attention"],
        f"{row['losses'][0]:.5f}",
        f"{row['losses'][-1]:.5f}",
    ]


def _measure(case: Case, device: str) -> dict[str, Any]:
    import torch

    from buddygpt.model import BuddyGPTConfig, BuddyGPTForCausalLM, flash
    from buddygpt.model.compiled import compile_layers
    from buddygpt.recipe.loader import load_recipe
    from buddygpt.recipe.shipped import shipped_recipes

    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    sets = [] if case.layers is None else [f"model.num_hidden_layers={case.layers}"]
    config = BuddyGPTConfig.from_recipe(load_recipe(shipped_recipes()[case.recipe], sets))
    torch.manual_seed(0)
    with torch.device(device):
        model = BuddyGPTForCausalLM(config).train()
    model.selective = case.checkpointing == "selective"
    if case.checkpointing:
        model.gradient_checkpointing_enable()
    if case.compiled:
        torch._dynamo.reset()
        compile_layers(model, dynamic=False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    chosen: list[str] = []
    choose = flash.choose

    def watched(*args: Any) -> Any:
        backend = choose(*args)
        chosen.append(backend.name)
        return backend

    flash.choose = watched
    shape = (case.windows, 1024 if device == "cuda" else 256)
    seconds, losses = [], []
    try:
        for number in range(1 + WARM + STEPS):
            draw = torch.Generator().manual_seed(number)
            ids = torch.randint(config.vocab_size, shape, generator=draw).to(device)
            documents = (torch.rand(shape, generator=draw) < 1 / 300).cumsum(-1).to(device)
            _wait(device)
            begun = time.perf_counter()
            with torch.autocast(device, torch.bfloat16):
                loss = model(ids, shift_labels=ids, document_ids=documents, use_cache=False).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            _wait(device)
            seconds.append(time.perf_counter() - begun)
            losses.append(float(loss.detach()))
    finally:
        flash.choose = choose
    step = median(seconds[1 + WARM :])
    return {
        "per_second": shape[0] * shape[1] / step,
        "step_s": step,
        "first_s": seconds[0],
        "gib": torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else None,
        "attention": chosen[-1],
        "losses": losses,
    }


def _wait(device: str) -> None:
    import torch

    if device == "cuda":
        torch.cuda.synchronize()
