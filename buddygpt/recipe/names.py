"""The schema's names as data: what is known at a place, where a key lives, what other tools call it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, get_args

from buddygpt.recipe.base import Section
from buddygpt.recipe.schema import Recipe

OTHER_NAMES = {
    "n_embd": "model.hidden_size",
    "n_embed": "model.hidden_size",
    "n_layer": "model.num_hidden_layers",
    "n_head": "model.attention.num_attention_heads",
    "rope_parameters": "model.rope",
    "rope_scaling": "model.rope",
    "rope_type": "model.rope.kind",
    "scaling_factor": "model.rope.factor",
    "seq_len": "pretrain.sequence_length",
    "max_seq_len": "pretrain.sequence_length",
    "block_size": "pretrain.sequence_length",
    "lr": "pretrain.optimizer.learning_rate",
    "max_steps": "pretrain.tokens (steps = tokens / tokens_per_batch)",
    "num_train_epochs": "pretrain.tokens",
    "batch_size": "pretrain.micro_batch_size",
    "per_device_train_batch_size": "pretrain.micro_batch_size",
    "gradient_accumulation_steps": "pretrain.tokens_per_batch (accumulation follows from it)",
    "warmup_ratio": "pretrain.schedule.warmup",
    "warmup_steps": "pretrain.schedule.warmup (a share of the run)",
    "lr_scheduler_type": "pretrain.schedule.kind",
    "save_steps": "pretrain.save_every",
    "save_total_limit": "pretrain.keep_checkpoints",
    "eval_steps": "pretrain.eval_every",
    "evaluation_strategy": "pretrain.eval_every",
    "eval_strategy": "pretrain.eval_every",
    "bf16": "pretrain.precision",
    "fp16": "pretrain.precision",
}
"""Names that other tools use, and ours."""
TUNING_NAMES = {
    "num_train_epochs": "epochs",
    "max_steps": "epochs",
    "per_device_train_batch_size": "micro_batch_size",
    "gradient_accumulation_steps": "batch_size (accumulation follows from it)",
    "max_length": "sequence_length",
    "max_seq_length": "sequence_length",
    "cutoff_len": "sequence_length",
    "max_prompt_length": "sequence_length (prompt and answer together)",
    "model_name_or_path": "model",
    "dataset": "data.sources",
    "neat_packing": "packing",
    "rope_scaling": "rope",
    "lora_r": "lora.rank",
    "lora_rank": "lora.rank",
    "lora_alpha": "lora.alpha",
    "lora_dropout": "lora.dropout",
    "pref_beta": "beta",
    "pref_loss": "loss_type",
}
"""The same within `sft` and `dpo`; where it has no word of its own, what `OTHER_NAMES` says of pretraining holds."""


def sections_of(annotation: Any) -> list[type[Section]]:
    """The section classes inside a type: itself, or the members of a union, optional or list."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [cls for part in get_args(annotation) for cls in sections_of(part)]


def walk(
    cls: type[Section] = Recipe, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], type[Section], str]]:
    """Every field of the schema as (path of its section, section class, field name), in order."""
    for name, field in cls.model_fields.items():
        yield path, cls, name
        for section in sections_of(field.annotation):
            yield from walk(section, (*path, field.alias or name))


def fields_at(loc: Sequence[str | int]) -> tuple[list[str], list[str]]:
    """Names known at a place of the recipe (list positions and union tags are passed over), and the kinds there."""
    classes: list[type[Section]] = [Recipe]
    for part in loc:
        inside = [
            c
            for cls in classes
            if part in cls.model_fields
            for c in sections_of(cls.model_fields[str(part)].annotation)
        ]
        classes = inside or classes
    names = [field.alias or name for cls in classes for name, field in cls.model_fields.items()]
    kinds = [
        tag for cls in classes if "kind" in cls.model_fields for tag in get_args(cls.model_fields["kind"].annotation)
    ]
    return list(dict.fromkeys(names)), kinds


def our_name(key: str, chapter: str) -> str | None:
    """What a key of another tool is called here; in a chapter that tunes, there."""
    if chapter not in ("sft", "dpo"):
        return OTHER_NAMES.get(key)
    if own := TUNING_NAMES.get(key):
        return f"{chapter}.{own}"
    name = OTHER_NAMES.get(key)
    return name and name.replace("pretrain.", f"{chapter}.")


def homes_of(key: str) -> list[str]:
    """Sections of the recipe that have a field of this name."""
    return list(dict.fromkeys(".".join(path) or "the top level" for path, _, name in walk() if name == key))
