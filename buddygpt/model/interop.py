"""Between disks, BuddyGPT and transformers' own architectures: load whole or not at all, import, export.

`buddygpt.model.architectures` has what maps to what. Both ways are proved on the spot: an import runs both models, an
export is loaded again by a process without buddygpt, and fp32 logits must agree (`buddygpt.model.proof`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import save_torch_state_dict
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedTokenizerBase

import buddygpt.model  # noqa: F401  registers the Auto classes
from buddygpt.model.architectures import HEAD, buddy_config, buddy_state, choose, native_config, native_state
from buddygpt.model.modeling import BuddyGPTForCausalLM
from buddygpt.model.proof import allowed, compare, in_fp32, logits_of, probe, reload, see_same_tensors
from buddygpt.model.whole import fill, outline, see_finite, see_none, whole_or_nothing
from buddygpt.recipe.base import spell_bytes
from buddygpt.recipe.errors import BuddyError
from buddygpt.recipe.runs import free_bytes


@dataclass(frozen=True)
class Exported:
    """An export that was loaded again and found equal.

    Args:
        folder: where it lies.
        architecture: transformers' class that loads it.
        parameters: as that class counts them.
        dtype: type of the weights.
        bytes: size of the folder's files.
        difference: largest absolute difference of fp32 logits.
        largest: the largest logit, which that is to be seen beside.
    """

    folder: Path
    architecture: str
    parameters: int
    dtype: str
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
        see_none(source, "left over", info["unexpected_keys"])
    return model


def as_buddygpt(source: Path | str) -> BuddyGPTForCausalLM:
    """The model of a folder or hub id as a BuddyGPT: one already, or a Qwen2, Qwen3 or DeepSeek-V3 turned into one.

    Raises:
        BuddyError: as `load`; the architecture or a setting of it has no equal here, or the logits are not equal.
    """
    model, info = _load(source)
    see_none(source, "left over", info["unexpected_keys"])
    if isinstance(model, BuddyGPTForCausalLM):
        return model
    try:
        ours = from_state(model.config, model.state_dict())
    except BuddyError as error:
        raise BuddyError(f"{source}: {error}") from None
    config: Any = ours.config
    ids, positions = probe(config)
    difference, largest = compare(logits_of(in_fp32(ours), ids, positions), logits_of(model.float(), ids, positions))
    if not difference <= allowed(largest):
        raise BuddyError(
            f"{source}: as a BuddyGPT it gives other logits, by {difference:.1e}: its config.json has a setting that "
            "is not known here"
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
    model = outline(config)
    expected = {n: t for n, t in model.state_dict().items() if n != HEAD or not config.tie_word_embeddings}
    source = f"a {native.model_type}"
    see_none(source, "missing", expected.keys() - given.keys())
    see_none(source, "left over", given.keys() - expected.keys())
    other = [
        f"{n}: {tuple(given[n].shape)}, not {tuple(t.shape)}" for n, t in expected.items() if given[n].shape != t.shape
    ]
    see_none(source, "misshapen", other)
    see_finite(source, given)
    fill(model, given)
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
    config: Any = model.config
    arch = choose(config, arch)
    if folder.exists() or folder.is_symlink():
        raise BuddyError(f"{folder}: exists already; remove it or choose another place")
    state = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    see_finite("the model", state)
    need = sum(t.nbytes for t in state.values()) + 2**24
    if (free := free_bytes(folder.parent)) < need:
        raise BuddyError(f"{folder}: {spell_bytes(need)} are needed, {spell_bytes(free)} free; free some")
    native = native_config(config, arch)
    native.dtype = model.dtype
    with whole_or_nothing(folder) as scratch:
        native.save_pretrained(scratch)
        save_torch_state_dict(native_state(config, arch, state), scratch)
        if model.generation_config is not None:
            model.generation_config.save_pretrained(scratch)
        if tokenizer is not None:
            tokenizer.save_pretrained(scratch)
        for weights in scratch.glob("*.safetensors"):  # written for the owner alone; a server may be another user
            weights.chmod((scratch / "config.json").stat().st_mode)
        see_same_tensors(scratch, native, state, config)
        facts, logits = reload(scratch, config, tokenizer)
        difference, largest = compare(logits_of(in_fp32(model), *probe(config)), logits)
        if not difference <= allowed(largest):
            raise BuddyError(
                f"{folder}: loaded again as {facts['architecture']} it gives other logits, by {difference:.1e} where "
                f"{allowed(largest):.1e} is the most; nothing was written"
            )
        size = sum(p.stat().st_size for p in scratch.rglob("*") if p.is_file())
    dtype = str(model.dtype).removeprefix("torch.")
    return Exported(folder, facts["architecture"], facts["parameters"], dtype, size, difference, largest)


def _load(source: Path | str) -> tuple[Any, dict[str, Any]]:
    """The model and what transformers tells of its tensors; missing, misshapen and not finite ones refused."""
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            source, dtype="auto", trust_remote_code=False, output_loading_info=True, ignore_mismatched_sizes=True
        )
        model, info = loaded
    except Exception as error:  # libraries raise anything here: a cut file, a strange config, no network
        reason = " ".join(str(error).split())
        raise BuddyError(f"{source}: cannot be loaded: {type(error).__name__}: {reason[:300]}") from error
    see_none(source, "missing", info["missing_keys"])
    other = [f"{n}: {tuple(there)}, not {tuple(here)}" for n, there, here in info["mismatched_keys"]]
    see_none(source, "misshapen", other)
    see_finite(source, model.state_dict())
    if model.config.tie_word_embeddings and (head := model.get_output_embeddings()) is not None:
        embedding = model.get_input_embeddings()
        if head.weight is not embedding.weight and not torch.equal(head.weight, embedding.weight):
            raise BuddyError(f"{source}: the head differs from the embedding, to which config.json ties it")
    return model, info
