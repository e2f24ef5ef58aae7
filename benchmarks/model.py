"""The model beside transformers' Qwen2 and DeepSeek-V3 on the same weights: training steps, decoding, packing, loss."""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.table import measure_in_turn, table

ROUNDS = 3
SIDES = ("transformers", "buddygpt")
WORK = {
    "moe-layers": "MLA + MoE, 4 layers of the 0.7b shape without head, 2 x 1,024, forward + backward",
    "moe-head": "the same with the head of 151,669",
    "gqa": "GQA at 0.1b with head, 2 x 1,024, forward + backward",
    "chat-bf16": "a greedy reply of 128 tokens to 64 at 0.1b, bf16, from the first token on",
    "chat-fp32": "the same in fp32",
    "decode": "MLA decoding, 24 layers of the 0.7b shape, context 4,096, batch 1, bf16",
    "decode-attention": "of it the attention part",
    "packed": "window of 8 documents x 512 at 0.1b without head, forward + backward",
    "loss": "loss alone, 2,048 x 768 x 151,669, bf16, forward + backward",
}
PEERS = {
    "moe-layers": "DeepseekV3Model, grouped_mm",
    "moe-head": "DeepseekV3ForCausalLM, grouped_mm",
    "gqa": "Qwen2ForCausalLM with labels",
    "chat-bf16": "Qwen2ForCausalLM.generate",
    "chat-fp32": "Qwen2ForCausalLM.generate",
    "decode": "DeepseekV3ForCausalLM",
    "decode-attention": "DeepseekV3Attention",
    "packed": "ours, the same tokens as one causal window",
    "loss": "cross entropy of plain fp32 logits",
}


def run() -> str:
    """Medians of whole processes in turn."""
    rows = []
    for work in WORK:
        found = measure_in_turn({side: ["-m", "benchmarks.model", work, side] for side in SIDES}, ROUNDS)
        speed = {side: median(r["per_second"] for r in runs) for side, runs in found.items()}
        memory = {side: median(r["gb"] for r in runs) for side, runs in found.items()}
        pairs = [b["per_second"] / a["per_second"] for a, b in zip(*found.values(), strict=True)]
        unit = found["buddygpt"][0]["unit"]
        rows.append(
            (
                WORK[work],
                PEERS[work],
                *(f"{speed[side]:,.4g} {unit}" for side in SIDES),
                f"{median(pairs):.2f} x ({min(pairs):.2f} - {max(pairs):.2f})",
                *(f"{memory[side]:.2f}" for side in SIDES),
                f"{memory['buddygpt'] / memory['transformers']:.2f} x",
                "; ".join(f"{found[side][0]['check']:.8g}" for side in SIDES),
            )
        )
    head = (
        "work", "peer", "peer's speed", "ours", "ours / peer (least - most of the pairs)", "peer GB", "ours GB",
        "memory", "check: loss, logit or sum of ids of both",
    )  # fmt: skip
    what = (
        f"The same weights on both sides, {ROUNDS} processes each in turn, the best of 3 steps in each. Training runs "
        "under bf16 autocast. Memory is the peak of the process from when the model is built; for the loss, what came "
        "on top of its inputs."
    )
    return what + "\n\n" + table(head, rows)


def measure(work: str, side: str) -> dict[str, Any]:
    """One side of one row."""
    import torch

    torch.manual_seed(0)
    if work == "loss":
        return _loss(side)
    if work.startswith("chat"):
        return _chat(side, torch.bfloat16 if work == "chat-bf16" else torch.float32)
    if work.startswith("decode"):
        return _decode(side, attention=work == "decode-attention")
    if work == "packed":
        return _packed(side)
    name = "0.1b" if work == "gqa" else "0.7b-moe"
    layers = () if work == "gqa" else ("model.num_hidden_layers=4",)
    model = build_model(name, layers, side, head=work != "moe-layers").train()
    ids = _ids(2, 1024)
    head = {"labels": ids} if work != "moe-layers" else {}

    def step() -> float:
        with torch.autocast("cpu", torch.bfloat16):
            out = model(input_ids=ids, use_cache=False, **head)
            loss = out.loss if head else out.last_hidden_state.float().pow(2).mean()
        loss.backward()
        model.zero_grad()
        return float(loss.detach())

    return _timed(step, ids.numel(), "tokens/s")


def _ids(*shape: int) -> Any:
    """Tokens, the same on both sides whatever was drawn before."""
    import torch

    return torch.randint(151_669, shape, generator=torch.Generator().manual_seed(1))


def _packed(side: str) -> dict[str, Any]:
    import torch

    model = build_model("0.1b", ("model.max_position_embeddings=4096",), "buddygpt", head=False).train()
    ids = _ids(1, 8 * 512)
    documents = {} if side == "transformers" else {"document_ids": torch.arange(8 * 512)[None] // 512}

    def step() -> float:
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(input_ids=ids, use_cache=False, **documents).last_hidden_state.float().pow(2).mean()
        loss.backward()
        model.zero_grad()
        return float(loss.detach())

    return _timed(step, ids.numel(), "tokens/s")


def _loss(side: str) -> dict[str, Any]:
    import torch
    from torch.nn import functional as F

    from buddygpt.model.loss import linear_cross_entropy

    hidden = torch.randn(2048, 768, dtype=torch.bfloat16).requires_grad_()
    weight = torch.empty(151_669, 768, dtype=torch.bfloat16)
    for part in weight.split(4096):  # no fp32 copy of the whole: it would hide in the peak
        part.copy_(0.02 * torch.randn(part.shape))
    weight.requires_grad_()
    targets = torch.randint(151_669, (2048,))
    before = held("VmRSS")

    def step() -> float:
        if side == "buddygpt":
            loss = linear_cross_entropy(hidden, weight, targets)
        else:
            loss = F.cross_entropy((hidden @ weight.T).float(), targets)
        loss.backward()
        hidden.grad = weight.grad = None
        return float(loss.detach())

    return _timed(step, 2048, "rows/s", before)


def _chat(side: str, dtype: Any) -> dict[str, Any]:
    """A reply as `buddy chat` decodes it; the reading of the prompt, and what gives the first token, is not timed."""
    from buddygpt.model.generation import stream
    from buddygpt.model.sampling import Sampling
    from buddygpt.model.shortlist import make_shortlist

    tokens, prompt = 128, _ids(1, 64)
    model = build_model("0.1b", (), side, head=True).to(dtype).eval()
    forget_peak()
    shortlist = make_shortlist(model, 151_669) if side == "buddygpt" else None

    def reply(length: int) -> list[int]:
        if side == "buddygpt":
            sampling = Sampling(max_new_tokens=length, temperature=0.0)
            return list(stream(model, prompt[0].tolist(), sampling, shortlist=shortlist))
        whole = model.generate(prompt, max_new_tokens=length, min_new_tokens=length, do_sample=False, pad_token_id=0)
        return whole[0, prompt.shape[1] :].tolist()

    def seconds(length: int) -> float:
        begun = time.perf_counter()
        reply(length)
        return time.perf_counter() - begun

    said = reply(tokens)
    best = min(seconds(tokens) - seconds(1) for _ in range(3))
    return {"per_second": (tokens - 1) / best, "unit": "tokens/s", "gb": held("VmHWM"), "check": sum(said)}


def _decode(side: str, attention: bool) -> dict[str, Any]:
    """A token after 4,096; with `attention`, only what its layers spend in attention."""
    import torch

    from buddygpt.model.cache import KVCache
    from buddygpt.model.modeling import CACHE

    model = build_model("0.7b-moe", ("model.max_position_embeddings=8192",), side, head=True).to(torch.bfloat16).eval()
    context, steps, spent = 4096, 8, [0.0]
    forget_peak()
    if attention:
        for layer in model.model.layers:
            layer.self_attn.forward = _clocked(layer.self_attn.forward, spent)
    cache: Any = KVCache(model.config, 1, context + steps, torch.bfloat16) if side == "buddygpt" else None
    with torch.inference_mode():
        for part in _ids(1, context).split(512, dim=1):
            out = model(input_ids=part, use_cache=True, logits_to_keep=1, **{CACHE: cache})
            cache = out[CACHE]
        if side == "buddygpt":
            numbers = sum(t.numel() for pair in cache.buffers for t in pair) / cache.capacity / len(model.model.layers)
            assert numbers == 40, f"{numbers} numbers a token and layer"
        token, best = torch.zeros(1, 1, dtype=torch.long), float("inf")
        for _ in range(steps):
            spent[0], begun = 0.0, time.perf_counter()
            out = model(input_ids=token, use_cache=True, logits_to_keep=1, **{CACHE: cache})
            best = min(best, spent[0] if attention else time.perf_counter() - begun)
    return {
        "per_second": 1 / best,
        "unit": "tokens/s",
        "gb": held("VmHWM"),
        "check": float(out.logits[0, -1].float().max()),
    }


def _clocked(function: Callable[..., Any], spent: list[float]) -> Callable[..., Any]:
    """The function, its seconds added to `spent`."""

    def clocked(*args: Any, **kwargs: Any) -> Any:
        begun = time.perf_counter()
        result = function(*args, **kwargs)
        spent[0] += time.perf_counter() - begun
        return result

    return clocked


def build_model(name: str, changes: tuple[str, ...], side: str, head: bool) -> Any:
    """The recipe's model, or transformers' own with the same weights."""
    import torch
    from transformers import DeepseekV3ForCausalLM, Qwen2ForCausalLM

    from buddygpt.model import BuddyGPTConfig, BuddyGPTForCausalLM
    from buddygpt.model.architectures import choose, native_config, native_state
    from buddygpt.recipe.loader import load_recipe

    recipe = load_recipe(Path(__file__).parents[1] / "recipes" / f"{name}.yaml", changes)
    model: Any = BuddyGPTForCausalLM(BuddyGPTConfig.from_recipe(recipe))
    if side == "transformers":
        arch = choose(model.config, "auto")
        native: Any = native_config(model.config, arch)
        if arch == "deepseek_v3":
            native._experts_implementation = "grouped_mm"
        state = native_state(model.config, arch, model.state_dict())
        with torch.device("meta"):
            model = (DeepseekV3ForCausalLM if arch == "deepseek_v3" else Qwen2ForCausalLM)(native)
        model = model.to_empty(device="cpu")
        model.load_state_dict(_stacked(state, native), strict=False)
        model.tie_weights()
        rotary = model.model.rotary_emb
        model.model.rotary_emb = type(rotary)(native)  # its buffers were empty
    return model if head else model.model


def _stacked(state: dict[str, Any], native: Any) -> dict[str, Any]:
    """Experts as transformers holds them in memory."""
    import torch

    for layer in range(native.num_hidden_layers):
        prefix = f"model.layers.{layer}.mlp.experts."
        if f"{prefix}0.gate_proj.weight" not in state:
            continue
        parts = {
            part: torch.stack([state.pop(f"{prefix}{e}.{part}.weight") for e in range(native.n_routed_experts)])
            for part in ("gate_proj", "up_proj", "down_proj")
        }
        state[prefix + "gate_up_proj"] = torch.cat((parts["gate_proj"], parts["up_proj"]), dim=1)
        state[prefix + "down_proj"] = parts["down_proj"]
    return state


def forget_peak() -> None:
    """Let the peak of the process's memory begin at what it holds now: what building took does not count."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")


def held(name: str) -> float:
    """`VmHWM`, the peak since `forget_peak`, or `VmRSS`, what is held now, in GB of 2^30 bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 2**20


def _timed(step: Callable[[], float], count: int, unit: str, before: float = 0.0) -> dict[str, Any]:
    """The best of three after one that warms up, and the peak of the process beyond `before`."""
    forget_peak()
    check, best = step(), float("inf")
    for _ in range(3):
        begun = time.perf_counter()
        check = step()
        best = min(best, time.perf_counter() - begun)
    return {"per_second": count / best, "unit": unit, "gb": held("VmHWM") - before, "check": check}


if __name__ == "__main__":
    print(json.dumps(measure(*sys.argv[1:])))
