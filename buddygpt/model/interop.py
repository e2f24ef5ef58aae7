"""Between disks, BuddyGPT and transformers' own architectures: load whole or not at all, import, export.

`buddygpt.model.architectures` has what maps to what. Both ways are proved on the spot: an import runs both models, an
export is loaded again by a process without buddygpt, and fp32 logits must agree.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import save_torch_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

import buddygpt.model  # noqa: F401  registers the Auto classes
from buddygpt.model.architectures import HEAD, buddy_config, buddy_state, choose, native_config, native_state
from buddygpt.model.configuration import BuddyGPTConfig
from buddygpt.model.modeling import BuddyGPTForCausalLM
from buddygpt.recipe.base import spell_bytes
from buddygpt.recipe.errors import BuddyError, is_disk_full
from buddygpt.recipe.runs import free_bytes

TOLERANCE = 1e-5
"""Largest difference of fp32 logits: absolute where they are within +-1, beyond that relative to the largest of them
(fp32 itself rounds a logit of 30 by 2e-6, in every one of some hundred steps)."""
PROBE_TOKENS = 48
PROBE_TEXTS = {
    "text": "春眠不觉晓，处处闻啼鸟。 2 + 2 = 4\n<|im_end|> naïve 𠮷",
    "turns": [{"role": "user", "content": "你好"}],
}


@dataclass(frozen=True)
class Exported:
    """An export that was loaded again and found equal.

    Args:
        folder: where it lies.
        architecture: transformers' class that loads it.
        parameters: as that class counts them.
        bytes: size of the folder's files.
        difference: largest absolute difference of fp32 logits.
        largest: the largest logit, which that is to be seen beside.
    """

    folder: Path
    architecture: str
    parameters: int
    bytes: int
    difference: float
    largest: float


def load(source: Path | str) -> Any:
    """A causal language model whose weights are all there and all finite; never with remote code.

    Args:
        source: a folder or hub id: a BuddyGPT, a dense GQA model of the origin's, or any other of transformers' models,
            which stays of its own class.

    Raises:
        BuddyError: it cannot be loaded, or tensors are missing, left over (of a BuddyGPT), of another shape or not
            finite; names them.
    """
    model, info = _load(source)
    if isinstance(model, BuddyGPTForCausalLM):
        _see_none(source, "left over", info["unexpected_keys"])
    return model


def as_buddygpt(source: Path | str) -> BuddyGPTForCausalLM:
    """The model of a folder or hub id as a BuddyGPT: one already, or a Qwen2, Qwen3 or DeepSeek-V3 turned into one.

    Raises:
        BuddyError: as `load`; the architecture or a setting of it has no equal here, or the logits are not equal.
    """
    model, info = _load(source)
    _see_none(source, "left over", info["unexpected_keys"])
    if isinstance(model, BuddyGPTForCausalLM):
        return model
    try:
        ours = from_state(model.config, model.state_dict())
    except BuddyError as error:
        raise BuddyError(f"{source}: {error}") from None
    ids, positions = _probe(ours.config)
    difference, largest = _compare(_logits(_in_fp32(ours), ids, positions), _logits(model.float(), ids, positions))
    if not difference <= TOLERANCE * max(1.0, largest):
        raise BuddyError(
            f"{source}: as a BuddyGPT it gives other logits, by {difference:.1e}: a setting of its config.json is not known"
        )
    if model.generation_config is not None:
        ours.generation_config = model.generation_config
    return ours


def from_state(native: PreTrainedConfig, state: dict[str, Tensor]) -> BuddyGPTForCausalLM:
    """A BuddyGPT of the tensors of a Qwen2, Qwen3 or DeepSeek-V3, experts stacked or one by one; they are copied.

    Raises:
        BuddyError: the config has no equal, or tensors are missing, left over, of another shape or not finite.
    """
    config = buddy_config(native)
    given = {name: tensor.detach().clone() for name, tensor in buddy_state(native, state).items()}
    model = _outline(config)
    expected = {n: t for n, t in model.state_dict().items() if n != HEAD or not config.tie_word_embeddings}
    source = f"a {native.model_type}"
    _see_none(source, "missing", expected.keys() - given.keys())
    _see_none(source, "left over", given.keys() - expected.keys())
    other = [
        f"{n}: {tuple(given[n].shape)}, not {tuple(t.shape)}" for n, t in expected.items() if given[n].shape != t.shape
    ]
    _see_none(source, "misshapen", other)
    _see_finite(source, given)
    _fill(model, given)
    return model


def export(
    model: BuddyGPTForCausalLM,
    folder: Path | str,
    arch: str = "auto",
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> Exported:
    """Write a folder that transformers loads without buddygpt, and see that it does.

    It appears whole, loaded again and equal, or not at all.

    Args:
        model: any BuddyGPT, in any type; its tensors are written in that type.
        folder: a place where nothing is yet.
        arch: `qwen2`, `qwen3`, `deepseek_v3`, or `auto` for the one that holds this model.
        tokenizer: goes into the folder too, its chat template with it.

    Raises:
        BuddyError: the place is taken, the model has no such architecture, a weight is not finite, the disk is full,
            or the folder did not prove equal.
    """
    folder = Path(folder)
    config = model.config
    arch = choose(config, arch)
    if folder.exists() or folder.is_symlink():
        raise BuddyError(f"{folder}: exists already; remove it or choose another place")
    state = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    _see_finite("the model", state)
    need = sum(t.nbytes for t in state.values()) + 2**24
    if (free := free_bytes(folder.parent)) < need:
        raise BuddyError(f"{folder}: {spell_bytes(need)} are needed, {spell_bytes(free)} free; free some")
    native = native_config(config, arch)
    native.dtype = model.dtype
    with _whole_or_nothing(folder) as scratch:
        native.save_pretrained(scratch)
        save_torch_state_dict(native_state(config, arch, state), scratch)
        if model.generation_config is not None:
            model.generation_config.save_pretrained(scratch)
        if tokenizer is not None:
            tokenizer.save_pretrained(scratch)
        _see_same_tensors(scratch, native, state, config)
        facts, logits = _reload(scratch, config, tokenizer)
        difference, largest = _compare(_logits(_in_fp32(model), *_probe(config)), logits)
        if not difference <= TOLERANCE * max(1.0, largest):
            raise BuddyError(
                f"{folder}: loaded again as {facts['architecture']} it gives other logits, by {difference:.1e} where "
                f"{TOLERANCE * max(1.0, largest):.1e} is the most; nothing was written"
            )
        size = sum(p.stat().st_size for p in scratch.rglob("*") if p.is_file())
    return Exported(folder, facts["architecture"], facts["parameters"], size, difference, largest)


def _load(source: Path | str) -> tuple[Any, dict[str, Any]]:
    """The model and what transformers tells of its tensors; missing, misshapen and not finite ones refused."""
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            source, dtype="auto", trust_remote_code=False, output_loading_info=True, ignore_mismatched_sizes=True
        )
    except Exception as error:  # libraries raise anything here: a cut file, a strange config, no network
        reason = " ".join(str(error).split())
        raise BuddyError(f"{source}: cannot be loaded: {type(error).__name__}: {reason[:300]}") from error
    _see_none(source, "missing", info["missing_keys"])
    other = [f"{n}: {tuple(there)}, not {tuple(here)}" for n, there, here in info["mismatched_keys"]]
    _see_none(source, "misshapen", other)
    _see_finite(source, model.state_dict())
    if model.config.tie_word_embeddings and (head := model.get_output_embeddings()) is not None:
        embedding = model.get_input_embeddings()
        if head.weight is not embedding.weight and not torch.equal(head.weight, embedding.weight):
            raise BuddyError(f"{source}: the head differs from the embedding, to which config.json ties it")
    return model, info


def _see_none(source: Path | str, what: str, names: Any) -> None:
    if names:
        shown = ", ".join(sorted(map(str, names))[:3])
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        raise BuddyError(f"{source}: {len(names)} tensor(s) {what} ({shown}{more}); the folder is not a whole model")


def _see_finite(source: Path | str, state: dict[str, Tensor]) -> None:
    for name, tensor in state.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise BuddyError(f"{source}: {name} holds numbers that are not finite; the model is broken")


def _outline(config: BuddyGPTConfig) -> BuddyGPTForCausalLM:
    """The model without storage."""
    with torch.device("meta"):
        return BuddyGPTForCausalLM(config).eval()


def _fill(model: BuddyGPTForCausalLM, state: dict[str, Tensor]) -> None:
    """Give an outline its tensors, as they are."""
    if model.config.tie_word_embeddings:
        state = state | {HEAD: state["model.embed_tokens.weight"]}
    model.load_state_dict(state, assign=True)
    model.tie_weights()


def _in_fp32(model: BuddyGPTForCausalLM) -> BuddyGPTForCausalLM:
    """The model on the CPU in fp32 and eval mode; what is so already is shared, not copied."""
    twin = _outline(model.config)
    _fill(twin, {name: tensor.detach().to("cpu", torch.float32) for name, tensor in model.state_dict().items()})
    return twin


def _probe(config: BuddyGPTConfig) -> tuple[Tensor, Tensor]:
    """Ids (2, T) and their positions: one row from the start, one stretched over the whole context."""
    tokens = min(PROBE_TOKENS, config.max_position_embeddings)
    ids = torch.randint(config.vocab_size, (2, tokens), generator=torch.Generator().manual_seed(0))
    far = torch.linspace(0, config.max_position_embeddings - 1, tokens).long()
    return ids, torch.stack((torch.arange(tokens), far))


@torch.inference_mode()
def _logits(model: PreTrainedModel, ids: Tensor, positions: Tensor) -> Tensor:
    # The mask says that a row is one text: positions that jump would else begin new documents.
    return model(ids, attention_mask=torch.ones_like(ids), position_ids=positions, use_cache=False).logits


def _compare(ours: Tensor, theirs: Tensor) -> tuple[float, float]:
    """The largest difference, NaN included, and the largest logit."""
    if ours.shape != theirs.shape:
        return float("inf"), float(ours.abs().max())
    return float((ours - theirs).abs().max()), float(ours.abs().max())


@contextmanager
def _whole_or_nothing(folder: Path) -> Iterator[Path]:
    """A folder to write into, which takes its name where all went well and else is gone, with parents made for it."""
    made = [p for p in folder.absolute().parents if not p.exists()]
    scratch = folder.with_name(f".{folder.name}.unfinished")
    try:
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        yield scratch
        scratch.rename(folder)
    except BaseException as error:
        shutil.rmtree(scratch, ignore_errors=True)
        for parent in made:
            if parent.is_dir() and not any(parent.iterdir()):
                parent.rmdir()
        if is_disk_full(error):
            raise BuddyError(f"{folder}: no space left; nothing was written") from error
        if isinstance(error, OSError):
            raise BuddyError(f"{folder}: cannot be written: {error.strerror or error}") from error
        raise


def _see_same_tensors(
    scratch: Path, native: PreTrainedConfig, state: dict[str, Tensor], config: BuddyGPTConfig
) -> None:
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
    _see_none("the export", "left over", back)


def _reload(
    scratch: Path, config: BuddyGPTConfig, tokenizer: PreTrainedTokenizerBase | None
) -> tuple[dict[str, Any], Tensor]:
    """What a process without buddygpt finds in the folder: facts and fp32 logits of the probe."""
    with tempfile.TemporaryDirectory(prefix="buddy-export-") as place:
        work = Path(place)
        ids, positions = _probe(config)
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
    _see_none("the export", "missing or left over", facts["faults"])
    if tokenizer is not None:
        chat = None
        if tokenizer.chat_template:
            chat = tokenizer.apply_chat_template(PROBE_TEXTS["turns"], tokenize=False, add_generation_prompt=True)
        if facts["ids"] != tokenizer(PROBE_TEXTS["text"])["input_ids"] or facts.get("chat") != chat:
            raise BuddyError("the tokenizer, loaded again, reads a text otherwise; nothing was written")
    return facts, logits
