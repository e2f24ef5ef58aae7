"""A model made fit for other programs: one of transformers' own architectures, in a folder that needs no buddygpt."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from buddygpt.data.tokenizer import IDLE_TOKENS, kept_tokens, load_tokenizer
from buddygpt.events import Caution, Emit, Note, Table
from buddygpt.hub.presence import see_model
from buddygpt.model import BuddyGPTForCausalLM
from buddygpt.model.architectures import see_known
from buddygpt.model.interop import Exported, export, load
from buddygpt.model.scatter import scatter
from buddygpt.recipe.base import spell_bytes
from buddygpt.recipe.errors import BuddyError, did_you_mean
from buddygpt.recipe.runs import find_model

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

KINDS = ("hf",)
LATER = ("gguf", "ollama")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


def run(
    target: str | None,
    runs: Path,
    *,
    to: str,
    arch: str,
    output: Path | None,
    emit: Emit,
    full_vocabulary: bool = False,
) -> Exported:
    """Export the model that a target names.

    Args:
        target: a model folder, a run's name or folder, a hub id; the newest finished model where left out.
        runs: where runs lie.
        to: kind of export; `hf` is a folder for transformers.
        arch: architecture, or `auto`.
        output: the folder to make; by default `export/KIND` in the model's run, or beside the model's folder.
        emit: who is told.
        full_vocabulary: put a trimmed vocabulary's rows back at Qwen3's ids, beside the full tokenizer.

    Raises:
        BuddyError: something the user can mend; nothing was written.
    """
    if to in LATER:
        raise BuddyError(f"--to {to}: not in this version; --to hf writes a folder for transformers")
    if to not in KINDS:
        raise BuddyError(f"--to {to}: unknown; one of {', '.join(KINDS)}{did_you_mean(to, KINDS + LATER)}")
    see_known(arch)
    source = find_model(target, runs)
    if target is None:
        emit(Note(f"model: {source}"))
    folder = output or _beside(source, to)
    if folder.exists():  # told before anything is loaded
        raise BuddyError(f"{folder}: exists already; remove it or choose another place with --output")
    if isinstance(source, str):
        see_model(source)
    model = load(source)
    if not isinstance(model, BuddyGPTForCausalLM):
        raise BuddyError(f"{source}: is a {type(model).__name__} already, which transformers loads as it is")
    tokenizer = None
    if isinstance(source, Path) and not any((source / name).is_file() for name in TOKENIZER_FILES):
        emit(Caution(f"{source}: holds no tokenizer, so the export has none"))
    else:
        tokenizer = load_tokenizer(str(source))
    if full_vocabulary:
        trained = model.config.vocab_size
        model, tokenizer = _untrimmed(model, tokenizer, source)
        emit(Note(f"vocabulary: {model.config.vocab_size:,} entries, {trained:,} of them trained"))
    exported = export(model, folder, arch, tokenizer)
    rows = (
        ("architecture", exported.architecture),
        ("parameters", f"{exported.parameters:,}"),
        ("type of weights", str(model.dtype).removeprefix("torch.")),
        ("size", spell_bytes(exported.bytes)),
        ("loaded again", f"fp32 logits within {exported.difference:.1e} (the largest is {exported.largest:.1f})"),
    )
    emit(Table(str(folder), ("", ""), rows))
    emit(Note(f"serve it: transformers serve {folder}"))
    return exported


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


def _beside(source: Path | str, kind: str) -> Path:
    """`runs/NAME/export/KIND` for a run's model, `FOLDER-KIND` for any other."""
    if isinstance(source, str):
        return Path(f"{source.rpartition('/')[2]}-{kind}")
    run = source.absolute().parent.parent
    if (run / "recipe.yaml").is_file() and source.name == "model":
        return source.parent.parent / "export" / kind
    whole = source if source.name not in ("", "..") else source.resolve()
    return whole.with_name(f"{whole.name}-{kind}")
