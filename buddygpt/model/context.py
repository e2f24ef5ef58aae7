"""A longer context: which scaling of RoPE a config or model has, and what transformers' own models call it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from transformers import PreTrainedModel

from buddygpt.model.configuration import BuddyGPTConfig, checked
from buddygpt.model.rope import SCALINGS, raised_theta
from buddygpt.recipe.errors import did_you_mean
from buddygpt.recipe.model import DynamicRope, LinearRope, Llama3Rope, NTKRope, YarnRope

Scaling = LinearRope | NTKRope | DynamicRope | YarnRope | Llama3Rope
Target = TypeVar("Target", BuddyGPTConfig, PreTrainedModel)
_KEEPS_ORIGINAL = ("dynamic", "yarn", "llama3")


def extend(target: Target, length: int, kind: str | Scaling = "linear", factor: float | None = None) -> Target:
    """Give a config or a loaded model a longer context, in place; a model turns by the new angles from the next call.

    The factor is `length` over the original length, however often the model was extended before; the base stays, and
    so do the other fields of a scaling that the model has already.
    Weights do not change: all but short extensions want some training at the new length.

    Args:
        target: a `BuddyGPTConfig`, or a model that has one; saved with the new length.
        length: the longest context from now on, in tokens.
        kind: linear, ntk, dynamic, yarn or llama3; or a scaling's section from `buddygpt.recipe.model`, whose given
            fields, the factor among them, are taken as they stand.
        factor: in place of the one that the length asks for.

    Returns:
        The same object.

    Raises:
        TypeError: neither a BuddyGPTConfig nor a model with one.
        ValueError: a shorter length, an unknown scaling, or one that cannot be; nothing has changed then.
    """
    config = target.config if isinstance(target, PreTrainedModel) else target
    if not isinstance(config, BuddyGPTConfig):
        raise TypeError(f"{type(target).__name__} is neither a BuddyGPTConfig nor a model with one")
    if length < config.max_position_embeddings:
        raise ValueError(
            f"length: {length} tokens are fewer than the {config.max_position_embeddings} that the model has; "
            "a context only grows, and a shorter text needs no change"
        )
    name = kind if isinstance(kind, str) else kind.kind
    if name not in (known := [k for k in SCALINGS if k != "default"]):
        raise ValueError(f"kind: '{name}' is unknown; one of {', '.join(known)}{did_you_mean(name, known)}")
    now, before = config.rope_parameters, original_length(config)
    rope = dict(now) if now["rope_type"] == name else {"rope_type": name, "rope_theta": now["rope_theta"]}
    if name in _KEEPS_ORIGINAL:
        if before != int(before):
            raise ValueError(f"kind: {name} needs a whole original length, but this model's is {before:g} tokens")
        rope["original_max_position_embeddings"] = int(before)
    rope["factor"] = length / before if factor is None else factor
    if not isinstance(kind, str):
        rope |= kind.model_dump(exclude_unset=True, exclude={"kind"})
    if name in ("linear", "ntk") and rope["factor"] * before < length * (1 - 1e-6):
        raise ValueError(
            f"factor: {rope['factor']:g} x {before:g} tokens do not reach {length}; at least {length / before:g} does"
        )
    flat = checked(config.to_dict() | {"max_position_embeddings": length, "rope_parameters": rope})
    config.max_position_embeddings, config.rope_parameters = flat["max_position_embeddings"], flat["rope_parameters"]
    return target


@contextmanager
def as_before(model: PreTrainedModel, length: int, rope: dict[str, Any]) -> Iterator[None]:
    """Inside, an extended model turns by the angles of old.

    Args:
        model: one of ours.
        length, rope: `max_position_embeddings` and `rope_parameters` of its config before it was extended.
    """
    config = model.config
    now = config.max_position_embeddings, config.rope_parameters
    config.max_position_embeddings, config.rope_parameters = length, rope
    try:
        yield
    finally:
        config.max_position_embeddings, config.rope_parameters = now


def original_length(config: BuddyGPTConfig) -> float:
    """The longest context before any scaling: kept beside it, or for linear and NTK the length over the factor."""
    rope = config.rope_parameters
    return rope.get("original_max_position_embeddings") or config.max_position_embeddings / rope.get("factor", 1.0)


def to_transformers(config: BuddyGPTConfig) -> dict[str, Any]:
    """`max_position_embeddings` and `rope_parameters` with which transformers' own models turn by the same angles.

    Static NTK has no name there: it is written as `default` with the raised base. Dynamic NTK counts from
    `max_position_embeddings` there, which becomes the original length.
    """
    rope = {name: value for name, value in config.rope_parameters.items() if value is not None}
    longest = config.max_position_embeddings
    if rope["rope_type"] == "ntk":
        rope = {"rope_type": "default", "rope_theta": raised_theta(rope, config.rotary_dim)}
    elif rope["rope_type"] == "dynamic":
        longest = rope.pop("original_max_position_embeddings")
    return {"max_position_embeddings": longest, "rope_parameters": rope}
