"""`BuddyGPTConfig`: the recipe's model section, flat, as transformers saves and loads it."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError
from transformers import PreTrainedConfig

from buddygpt.model import origin
from buddygpt.recipe.model import ModelSection, flatten, unflatten
from buddygpt.recipe.schema import Recipe

# The geometry of buddygpt-0.1b; what a config made without arguments holds.
_DEFAULTS = flatten(
    ModelSection.model_validate(
        {
            "vocab_size": 151_669,
            "hidden_size": 768,
            "num_hidden_layers": 8,
            "max_position_embeddings": 1024,
            "attention": {"kind": "gqa", "num_attention_heads": 16, "num_key_value_heads": 8},
            "mlp": {"kind": "dense", "intermediate_size": 1536},
        }
    )
)


class BuddyGPTConfig(PreTrainedConfig):
    """Geometry of one model under flat, standard names; fields and checks are those of `ModelSection`.

    Args:
        **kwargs: fields of `buddygpt.recipe.model.ModelSection`, flat (`attention_kind`, `mlp_kind`,
            `rope_parameters`), and whatever PreTrainedConfig knows. A field left out has buddygpt-0.1b's value.
            Or the fields of the origin's config.json, which `buddygpt.model.origin` translates.

    Raises:
        ValueError: the geometry cannot be; the message names the field.
    """

    model_type = "buddygpt"
    keys_to_ignore_at_inference = ["cache", "past_key_values"]
    has_no_defaults_at_init = True  # config.json holds every field, so a later default changes no old model

    def __init__(self, **kwargs: Any):
        if origin.is_origin(kwargs):
            kwargs = origin.translate(kwargs)
        if kwargs.get("rope_scaling") is not None:
            raise ValueError("rope_scaling: is called rope_parameters here, and holds rope_type and rope_theta too")
        given = {k: v for k, v in kwargs.items() if v is not None}
        super().__init__(**(kwargs | checked(_defaults_for(given) | given)))

    @classmethod
    def from_recipe(cls, recipe: Recipe, **kwargs: Any) -> BuddyGPTConfig:
        """The config of a recipe's model; further fields, such as token ids, by keyword."""
        return cls(**flatten(recipe.model), **kwargs)

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """As transformers has it, but a length or scaling given by keyword passes the same checks as the file's."""
        given = {k: kwargs.pop(k, None) for k in ("max_position_embeddings", "rope_parameters")}
        return super().from_dict(config_dict | {k: v for k, v in given.items() if v is not None}, **kwargs)

    def _validate_ntk_rope_parameters(self, rope_parameters: Any, ignore_keys: Any = None) -> None:
        """transformers' hook; it does not know the name, and `ModelSection` has checked the fields."""

    def _validate_dynamic_rope_parameters(self, rope_parameters: Any, ignore_keys: Any = None) -> None:
        """transformers' hook; it would warn of the original length, which it takes from elsewhere."""

    @property
    def rotary_dim(self) -> int:
        """Width of the part of a query or key head that RoPE turns."""
        if self.attention_kind == "mla":
            return self.qk_rope_head_dim
        return self.head_dim or self.hidden_size // self.num_attention_heads


def checked(fields: dict[str, Any]) -> dict[str, Any]:
    """Flat fields after `ModelSection`'s checks, defaults filled in, other keys left out.

    Raises:
        ValueError: the geometry cannot be; the message names the field.
    """
    try:
        return flatten(ModelSection.model_validate(unflatten(fields)))
    except ValidationError as error:
        raise ValueError("; ".join(map(_told, error.errors(include_url=False)))) from None


def _told(fault: Any) -> str:
    """One of pydantic's faults under the flat name of its field."""
    cause = fault.get("ctx", {}).get("error")
    place = getattr(cause, "key", None) or ".".join(map(str, fault["loc"]))
    if fault["type"] == "union_tag_invalid":
        return f"{place}: '{fault['ctx']['tag']}' is unknown; one of {fault['ctx']['expected_tags']}"
    return f"{place.rpartition('.')[2]}: {cause or fault['msg']}"


def _defaults_for(given: dict[str, Any]) -> dict[str, Any]:
    """Defaults that fit the chosen variants: GQA's heads are no default for an MLA model."""
    kinds = {name: given.get(name, _DEFAULTS[name]) for name in ("attention_kind", "mlp_kind")}
    fitting = {
        name for name in _DEFAULTS if name in ModelSection.model_fields or name in kinds or name == "rope_parameters"
    }
    for name, kind in kinds.items():
        if kind == _DEFAULTS[name]:
            section = unflatten(_DEFAULTS)[name.removesuffix("_kind")]
            fitting |= set(section) - {"kind"}
    return {name: value for name, value in _DEFAULTS.items() if name in fitting} | kinds
