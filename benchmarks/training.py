"""An optimizer step of the 0.1b model beside transformers' Qwen2 with the same weights, batch and autocast."""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from statistics import median

from benchmarks.table import measure_in_turn, table

BATCH, LENGTH, STEPS, ROUNDS = 2, 1024, 3, 3
SIDES = {"qwen2": "transformers Qwen2ForCausalLM", "buddygpt": "buddygpt", "packed": "buddygpt, documents isolated"}


def run() -> str:
    """Tokens a second (median of the rounds' best steps) and peak memory, whole processes in turn."""
    found = measure_in_turn({side: ["-m", "benchmarks.training", side] for side in SIDES}, ROUNDS)
    speed = {side: median(r["tokens_per_second"] for r in runs) for side, runs in found.items()}
    memory = {side: median(r["peak_gb"] for r in runs) for side, runs in found.items()}
    losses = {side: runs[0]["loss"] for side, runs in found.items()}
    rows = [
        (
            SIDES[side],
            f"{speed[side]:,.0f}",
            f"{speed[side] / speed['qwen2']:.2f} x",
            f"{memory[side]:.2f}",
            f"{memory[side] / memory['qwen2']:.2f} x",
            f"{losses[side]:.4f}",
        )
        for side in SIDES
    ]
    head = ("model", "tokens/s", "of Qwen2", "peak GB", "of Qwen2", "first loss")
    what = (
        f"{BATCH} x {LENGTH} tokens, bf16 autocast, forward, backward and AdamW step; {ROUNDS} processes each in turn."
    )
    return what + "\n\n" + table(head, rows)


def measure(side: str) -> dict[str, float]:
    """Train a few steps of one side."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from buddygpt.model import BuddyGPTConfig, BuddyGPTForCausalLM
    from buddygpt.recipe.loader import load_recipe

    recipe = load_recipe(Path(__file__).parents[1] / "recipes" / "0.1b.yaml")
    torch.manual_seed(0)
    ours = BuddyGPTForCausalLM(BuddyGPTConfig.from_recipe(recipe))
    model: torch.nn.Module = ours
    if side == "qwen2":
        c = ours.config
        names = (
            "vocab_size", "hidden_size", "num_hidden_layers", "max_position_embeddings", "num_attention_heads",
            "num_key_value_heads", "intermediate_size", "rms_norm_eps", "tie_word_embeddings", "rope_parameters",
        )  # fmt: skip
        model = Qwen2ForCausalLM(Qwen2Config(**{n: getattr(c, n) for n in names}))
        state = {n.replace("post_layernorm", "post_attention_layernorm"): t for n, t in ours.state_dict().items()}
        model.load_state_dict(state)
        del ours, state
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    ids = torch.randint(recipe.model.vocab_size, (BATCH, LENGTH))
    batch = {"input_ids": ids, "labels": ids, "use_cache": False}
    if side == "packed":
        batch["document_ids"] = torch.arange(LENGTH)[None].expand(BATCH, -1) // 300
    model.train()
    seconds, losses = [], []
    for _ in range(STEPS + 1):
        begun = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - begun)
        losses.append(loss.item())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"tokens_per_second": BATCH * LENGTH / min(seconds[1:]), "peak_gb": peak, "loss": losses[0]}


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1])))
