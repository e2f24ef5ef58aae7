"""A model made fit for other programs: transformers and its servers, llama.cpp, Ollama."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from buddygpt.data.tokenizer import IDLE_TOKENS, kept_tokens, load_tokenizer
from buddygpt.events import Caution, Emit, Note, Table
from buddygpt.hub.presence import see_model
from buddygpt.model import BuddyGPTForCausalLM
from buddygpt.model.architectures import see_known
from buddygpt.model.exported import see_exported
from buddygpt.model.interop import Exported, as_buddygpt, export, load
from buddygpt.model.scatter import scatter
from buddygpt.model.whole import whole_or_nothing
from buddygpt.publishing.agreement import ROUNDED
from buddygpt.publishing.gguf import INSTALL, Gguf, make_gguf, see_converter, see_fits, see_room, see_type, write_gguf
from buddygpt.publishing.ollama import MODELFILE, modelfile, see_template
from buddygpt.recipe.base import spell_bytes
from buddygpt.recipe.errors import BuddyError, did_you_mean
from buddygpt.recipe.runs import export_place, find_model, model_name

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

KINDS = ("hf", "gguf", "ollama")
TYPE = "f16"
"""Type of a GGUF's weights where none is asked for."""
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


def run(
    target: str | None,
    runs: Path,
    *,
    to: str,
    arch: str,
    output: Path | None,
    emit: Emit,
    kind: str | None = None,
    full_vocabulary: bool = False,
) -> Exported | Gguf:
    """Export the model that a target names.

    Args:
        target: a model folder, a run's name or folder, a hub id; the newest finished model where left out.
        runs: where runs lie.
        to: kind of export: `hf` is a folder for transformers, `gguf` a file for llama.cpp, `ollama` a folder with such
            a file and a Modelfile.
        arch: architecture, or `auto`.
        output: the folder to make, or for `gguf` the file (ending in .gguf) or the folder that it goes into; by default
            `export/KIND` in the model's run, or beside the model's folder.
        emit: who is told.
        kind: type of a GGUF's weights; f16 where left out. `hf` has the model's own.
        full_vocabulary: put a trimmed vocabulary's rows back at Qwen3's ids, beside the full tokenizer.

    Raises:
        BuddyError: something the user can mend; nothing was written.
    """
    if to not in KINDS:
        raise BuddyError(f"--to {to}: unknown; one of {', '.join(KINDS)}{did_you_mean(to, KINDS)}")
    see_known(arch)
    if to == "hf":
        if kind is not None:
            raise BuddyError("--type: of a GGUF file only; --to hf keeps the type that the model has")
    else:
        kind = kind or TYPE
        see_type(kind)
        see_converter()
    source = find_model(target, runs)
    if target is None:
        emit(Note(f"model: {source}"))
    place = _place(source, f"{to}-full" if full_vocabulary else to, kind, output)
    kept = to == "hf" and output is None and not full_vocabulary and _has_tokenizer(source)
    if not kept and (place.exists() or place.is_symlink()):  # told before anything is loaded
        raise BuddyError(f"{place}: exists already; remove it or choose another place with --output")
    if isinstance(source, str):
        see_model(source)
    if kept:
        return _tell(see_exported(source, place, load_tokenizer(str(source)), emit, arch), emit)
    model = load(source) if to == "hf" else as_buddygpt(source)
    if not isinstance(model, BuddyGPTForCausalLM):
        raise BuddyError(f"{source}: is a {type(model).__name__} already, which transformers loads as it is")
    tokenizer = None
    if _has_tokenizer(source):
        tokenizer = load_tokenizer(str(source))
    elif to == "hf":
        emit(Caution(f"{source}: holds no tokenizer, so the export has none"))
    else:
        raise BuddyError(f"{source}: holds no tokenizer, and a GGUF file carries one")
    if full_vocabulary:
        trained = model.config.vocab_size
        model, tokenizer = _untrimmed(model, tokenizer, source)
        emit(Note(f"vocabulary: {model.config.vocab_size:,} entries, {trained:,} of them trained"))
    if kind is None or tokenizer is None:
        return _tell(export(model, place, arch, tokenizer), emit)
    see_fits(model.config, tokenizer, arch)
    see_room(model, place, kind)
    if to == "gguf":
        made = write_gguf(model, tokenizer, place, kind, arch)
        _tell_gguf(made, kind, emit)
        return made
    return _to_ollama(model, tokenizer, place, model_name(source), kind, arch, emit)


def _tell(exported: Exported, emit: Emit) -> Exported:
    rows = (
        ("architecture", exported.architecture),
        ("parameters", f"{exported.parameters:,}"),
        ("type of weights", exported.dtype),
        ("size", spell_bytes(exported.bytes)),
        ("loaded again", f"fp32 logits within {exported.difference:.1e} (the largest is {exported.largest:.1f})"),
    )
    emit(Table(str(exported.folder), ("", ""), rows))
    emit(Note(f"serve it: transformers serve {exported.folder}"))
    return exported


def _to_ollama(
    model: BuddyGPTForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    name: str,
    kind: str,
    arch: str,
    emit: Emit,
) -> Gguf:
    """A folder with the GGUF file and a Modelfile, whole or not at all."""
    see_template(tokenizer)
    with whole_or_nothing(folder) as scratch:
        made = make_gguf(model, tokenizer, scratch, f"{name}-{kind}.gguf", kind, arch)
        (scratch / MODELFILE).write_text(modelfile(model, tokenizer, made.file.name), "utf-8")
    made = replace(made, file=folder / made.file.name)
    _tell_gguf(made, kind, emit)
    emit(Note(f"run it: ollama create {name} -f {folder / MODELFILE} && ollama run {name}"))
    return made


def _tell_gguf(made: Gguf, kind: str, emit: Emit) -> None:
    rows = [
        ("architecture", f"{made.architecture}, as llama.cpp calls it"),
        ("tensors", ", ".join(f"{count} {name}" for name, count in made.tensors.items())),
        ("size", spell_bytes(made.bytes)),
    ]
    if (found := made.agreement) is not None:
        ties = f", {found.ties} more at a tie" if found.ties else ""
        rows.append((f"llama.cpp {found.version}", f"{found.equal} of {found.tokens} tokens as ours{ties}"))
        rows.append(("", f"log probabilities within {found.difference:.1e}"))
    emit(Table(str(made.file), ("", ""), tuple(rows)))
    if found is None:
        emit(Caution(f"it was not loaded: no llama.cpp is installed here to try it with; {INSTALL} brings one"))
    elif kind not in ROUNDED:
        emit(Note(f"{kind} rounds the weights: the share of equal tokens is told, not judged"))


def _untrimmed(
    model: BuddyGPTForCausalLM, tokenizer: PreTrainedTokenizerBase | None, source: Path | str
) -> tuple[BuddyGPTForCausalLM, PreTrainedTokenizerBase]:
    """The model with a row for every entry of Qwen3, and that tokenizer, with the chat template and ends of its own."""
    if tokenizer is None:
        raise BuddyError(f"{source}: no tokenizer there tells what the rows are; leave out --full-vocabulary")
    full = load_tokenizer("qwen3")
    try:
        kept = kept_tokens(tokenizer, full)
    except BuddyError as error:
        raise BuddyError(f"{source}: {error}; leave out --full-vocabulary") from None
    if len(kept) != model.config.vocab_size:
        raise BuddyError(f"{source}: the tokenizer has {len(kept)} entries, the model {model.config.vocab_size} rows")
    rows = tokenizer.get_vocab()
    wide = scatter(model, kept, len(full), [rows[token] for token in IDLE_TOKENS])
    full.chat_template = tokenizer.chat_template
    full.eos_token, full.pad_token = tokenizer.eos_token, tokenizer.pad_token
    return wide, full


def _place(source: Path | str, to: str, kind: str | None, output: Path | None) -> Path:
    """What is to be made: a folder, or for `gguf` a file."""
    if not to.startswith("gguf"):
        return output or export_place(source, to)
    if output is not None and output.suffix == ".gguf":
        return output
    return (output or export_place(source, to)) / f"{model_name(source)}-{kind}.gguf"


def _has_tokenizer(source: Path | str) -> bool:
    return isinstance(source, str) or any((source / name).is_file() for name in TOKENIZER_FILES)
