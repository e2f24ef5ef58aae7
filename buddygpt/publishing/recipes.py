"""A recipe as a stranger may read it: what decides the model, and nothing of the machine it was made on."""

from __future__ import annotations

from typing import Any

from buddygpt.publishing.sources import file_name, is_hub_id, public_name
from buddygpt.publishing.story import Stage
from buddygpt.recipe.runs import dump_yaml

HERE = "(local)"
"""Stands for what lies on the machine of whoever trained."""
_UNTOLD = {"executor", "workers", "prompts", "keep_checkpoints", "attn_implementation", "save_every"}
"""Fields that change nothing in the result."""
_REPOSITORY = {"files", "exclude", "id", "modelscope", "revision", "dataset"}
"""Fields of a hub's source: a slash in them is no path."""


def public_recipe(stages: tuple[Stage, ...]) -> str:
    """The resolved recipe of these stages as YAML; empty without stages."""
    if not stages:
        return ""
    first = stages[0]
    told: dict[str, Any] = {"schema": 1, "name": stages[-1].recipe.name}
    if first.name == "pretrain":  # a tuned model has its geometry from the model that it began with
        told |= first.recipe.as_dict("model", "tokenizer")
        if told["tokenizer"].get("base") not in (None, "qwen3"):
            told["tokenizer"]["base"] = HERE
    for stage in stages:
        sections = stage.recipe.as_dict(*(("data", "pretrain") if stage.name == "pretrain" else (stage.name,)))
        data = sections["data"] if stage.name == "pretrain" else sections[stage.name]["data"]
        rows = stage.recipe.rows(stage.name)
        assert rows is not None
        for number, (source, told_source) in enumerate(zip(rows.sources, data["sources"], strict=True), 1):
            if "name" in told_source:
                told_source["name"] = public_name(source, number)
        if stage.name != "pretrain" and "model" in sections[stage.name]:
            hub_id = stage.done.get("hub_model")
            sections[stage.name]["model"] = hub_id if hub_id and is_hub_id(hub_id) else HERE
        told |= sections
    return dump_yaml(_public(told))


def _public(value: Any, field: str = "") -> Any:
    """Plain data without what is of one machine only: a path keeps its file's name."""
    if isinstance(value, dict):
        return {key: _public(inner, key) for key, inner in value.items() if key not in _UNTOLD}
    if isinstance(value, list):
        return [_public(inner, field) for inner in value]
    if field == "paths":
        return file_name(value) or HERE
    if isinstance(value, str) and field not in _REPOSITORY | {"model"} and any(mark in value for mark in "/\\~"):
        return HERE
    return value
