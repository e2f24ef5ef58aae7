"""The model that a tuning run begins with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from accelerate import PartialState
from transformers import PreTrainedTokenizerBase

from buddygpt.data.tokenizer import largest_id, load_tokenizer, make_chat_tokenizer
from buddygpt.hub.presence import see_model
from buddygpt.model import BuddyGPTForCausalLM
from buddygpt.model.interop import as_buddygpt
from buddygpt.recipe.errors import BuddyError
from buddygpt.recipe.runs import Run, find_model
from buddygpt.recipe.schema import Chapter
from buddygpt.recipe.tuning import TuningSection


@dataclass(frozen=True)
class Base:
    """Where a tuning run begins.

    Args:
        source: a model folder or hub id.
        tokenizer: its tokenizer, with the chat template and the end of a turn as its end.
    """

    source: Path | str
    tokenizer: PreTrainedTokenizerBase

    @property
    def hub_id(self) -> str | None:
        """The hub's name for it; None for a folder."""
        return self.source if isinstance(self.source, str) else None

    def load(self, section: TuningSection) -> BuddyGPTForCausalLM:
        """The model on its device, its weights in fp32, attention as the section says.

        Raises:
            BuddyError: it cannot be loaded, or its vocabulary is smaller than the tokenizer's.
        """
        model = as_buddygpt(self.source).float()
        if (largest := largest_id(self.tokenizer)) >= model.config.vocab_size:
            raise BuddyError(
                f"{self.source}: its tokenizer's ids reach {largest}, but the model has {model.config.vocab_size} rows"
            )
        model.set_attn_implementation(section.attn_implementation)
        return model.to(PartialState().device)


def find_base(section: TuningSection, run: Run, chapter: Chapter) -> Base:
    """The model that a chapter begins with: the section's, or what the chapter before has left in the run.

    Raises:
        BuddyError: there is none, or its tokenizer has no chat marks.
    """
    if section.model is not None:
        source = find_model(section.model, run.path.parent)
    else:
        before = "sft" if chapter == "dpo" else "pretrain"
        source = run.chapter(before) / "model"
        if not (run.chapter(before) / "done.json").is_file():
            raise BuddyError(
                f"{run.path}: {before} has not finished here, and {chapter} begins with what it leaves; run "
                f"`buddy {before}` with this recipe first, or name a model (--set {chapter}.model=...)"
            )
    if isinstance(source, str):
        see_model(source)
    return Base(source, make_chat_tokenizer(load_tokenizer(str(source))))


def settle_ends(model: BuddyGPTForCausalLM, ends: tuple[int, int]) -> None:
    """Write both ids that end a reply into config and generation config; the trainer has put the tokenizer's one there.

    Args:
        model: to be saved.
        ends: of `chat_ends`: the end of a turn, and of a text, which also pads.
    """
    for config in (model.config, model.generation_config):
        config.eos_token_id, config.pad_token_id = list(ends), ends[1]  # type: ignore[union-attr]
