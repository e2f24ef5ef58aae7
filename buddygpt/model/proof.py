"""Proof that two models are one: fp32 logits of the same ids, beside buddygpt and in a process without it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from buddygpt.model.architectures import HEAD, buddy_state
from buddygpt.model.configuration import BuddyGPTConfig
from buddygpt.model.modeling import BuddyGPTForCausalLM
from buddygpt.model.whole import fill, outline, see_none
from buddygpt.recipe.errors import BuddyError

TOLERANCE = 1e-5
"""Largest difference of fp32 logits; see `allowed`."""
PROBE_TOKENS = 48
PROBE_TEXTS = {
    # Where tokenizers of the same words part: marks before line breaks, figures, apostrophes, blanks in a row.
    "text": "春眠不觉晓，处处闻啼鸟。 2 + 2 = 4\n<|im_end|> naïve 𠮷\n\n第1题。\n\nA. it'S 12,345.67！？\n\t(a)  b\r\n",
    "turns": [{"role": "user", "content": "你好"}],
}


def allowed(largest: float) -> float:
    """Difference that two equal models may show: absolute for logits within +-1, relative to the largest beyond.

    fp32 itself rounds a logit of 30 by 2e-6, in every one of some hundred sums.
    """
    return TOLERANCE * max(1.0, largest)


def in_fp32(model: BuddyGPTForCausalLM) -> BuddyGPTForCausalLM:
    """The model on the CPU in fp32 and eval mode; what is so already is shared, not copied."""
    config: Any = model.config
    twin = outline(config)
    fill(twin, {name: tensor.detach().to("cpu", torch.float32) for name, tensor in model.state_dict().items()})
    return twin


def probe(config: BuddyGPTConfig) -> tuple[Tensor, Tensor]:
    """Ids (2, T) and their positions: one row from the start, one stretched over the whole context."""
    tokens = min(PROBE_TOKENS, config.max_position_embeddings)
    ids = torch.randint(config.vocab_size, (2, tokens), generator=torch.Generator().manual_seed(0))
    far = torch.linspace(0, config.max_position_embeddings - 1, tokens).long()
    return ids, torch.stack((torch.arange(tokens), far))


@torch.inference_mode()
def logits_of(model: PreTrainedModel, ids: Tensor, positions: Tensor) -> Tensor:
    """Logits (B, T, V) of a probe."""
    # The mask says that a row is one text: positions that jump would else begin new documents.
    return model(ids, attention_mask=torch.ones_like(ids), position_ids=positions, use_cache=False).logits


def compare(ours: Tensor, theirs: Tensor) -> tuple[float, float]:
    """The largest difference, NaN included, and the largest logit."""
    if ours.shape != theirs.shape:
        return float("inf"), float(ours.abs().max())
    return float((ours - theirs).abs().max()), float(ours.abs().max())


def see_same_tensors(scratch: Path, native: PreTrainedConfig, state: dict[str, Tensor], config: BuddyGPTConfig) -> None:
    """Read the files again and turn them back: every tensor must be the one it was, bit for bit."""
    written: dict[str, Tensor] = {}
    for file in sorted(scratch.glob("*.safetensors")):
        written |= load_file(file)
    back = buddy_state(native, written)
    for name, tensor in state.items():
        if name == HEAD and config.tie_word_embeddings:
            continue
        if name not in back or back[name].dtype != tensor.dtype or not torch.equal(back.pop(name), tensor):
            raise BuddyError(f"{name}: came back from the disk as another tensor; nothing was written")
    see_none("the export", "left over", back)


def reload(
    scratch: Path, config: BuddyGPTConfig, tokenizer: PreTrainedTokenizerBase | None
) -> tuple[dict[str, Any], Tensor]:
    """What a process without buddygpt finds in the folder: facts and fp32 logits of the probe."""
    with tempfile.TemporaryDirectory(prefix="buddy-export-") as place:
        work = Path(place)
        ids, positions = probe(config)
        save_file({"ids": ids, "positions": positions}, work / "probe.safetensors")
        (work / "texts.json").write_text(json.dumps(PROBE_TEXTS if tokenizer else {}), "utf-8")
        offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
        done = subprocess.run(
            [sys.executable, "-P", str(Path(__file__).with_name("reload.py")), str(scratch.absolute()), place],
            capture_output=True, text=True, check=False, env=os.environ | offline,
        )  # fmt: skip
        if done.returncode:
            last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise BuddyError(f"transformers alone cannot load the export: {last[:300]}; nothing was written")
        facts = json.loads((work / "facts.json").read_text("utf-8"))
        logits = load_file(work / "logits.safetensors")["logits"]
    see_none("the export", "missing or left over", facts["faults"])
    if tokenizer is not None:
        chat = None
        if tokenizer.chat_template:
            chat = tokenizer.apply_chat_template(PROBE_TEXTS["turns"], tokenize=False, add_generation_prompt=True)
        if facts["ids"] != tokenizer(PROBE_TEXTS["text"])["input_ids"] or facts.get("chat") != chat:
            raise BuddyError("the tokenizer, loaded again, reads a text otherwise; nothing was written")
    return facts, logits
