"""The model's fields, defined once: a recipe's `model` section and the saved config.json are both read here.

A recipe nests the variants (`attention: {kind: gqa, ...}`); a config.json is flat, as transformers has it
(`attention_kind`, `num_attention_heads`, ...). `flatten` and `unflatten` go from one to the other. Names are
transformers' own: Qwen2's for GQA, DeepSeek-V3's for MLA and MoE.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, model_validator

from buddygpt.recipe.base import FieldError, Number, Positive, PositiveNumber, Section

Factor = Annotated[Number, Field(ge=1)]


class GQA(Section):
    """Grouped-query attention (arXiv 2305.13245, section 2.2) in Qwen2's layout."""

    kind: Literal["gqa"]
    """Grouped-query attention."""
    num_attention_heads: Positive
    """Query heads."""
    num_key_value_heads: Positive
    """Key and value heads; each serves num_attention_heads / num_key_value_heads query heads."""
    head_dim: Positive | None = None
    """Width of one head; hidden_size / num_attention_heads where left out."""
    attention_bias: bool = True
    """Biases on the query, key and value projections (the output projection never has one)."""
    qk_norm: bool = False
    """RMSNorm over each query and key head before RoPE, as in Qwen3."""


class MLA(Section):
    """Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1) in DeepSeek-V3's layout."""

    kind: Literal["mla"]
    """Multi-head latent attention."""
    num_attention_heads: Positive
    """Heads."""
    q_lora_rank: Positive
    """Width of the query latent."""
    kv_lora_rank: Positive
    """Width of the key-value latent, the part of it that is cached."""
    qk_rope_head_dim: Positive
    """Rotary width of a query or key head; the key's is shared by all heads and cached."""
    qk_nope_head_dim: Positive
    """Width of a query or key head that carries no position."""
    v_head_dim: Positive
    """Width of a value head."""


class Dense(Section):
    """SwiGLU feed-forward (arXiv 2002.05202)."""

    kind: Literal["dense"]
    """One feed-forward network for every token."""
    intermediate_size: Positive
    """Width between the projections."""


class MoE(Section):
    """Sigmoid-scored mixture of experts with shared experts (DeepSeek-V3, arXiv 2412.19437, section 2.1.2)."""

    kind: Literal["moe"]
    """Routed experts beside shared ones."""
    n_routed_experts: Positive
    """Experts that the router chooses from."""
    num_experts_per_tok: Positive
    """Experts chosen for each token."""
    n_shared_experts: Positive
    """Experts that every token passes; held as one network of n_shared_experts x moe_intermediate_size."""
    moe_intermediate_size: Positive
    """Width inside one expert."""
    routed_scaling_factor: PositiveNumber = 1.0
    """Factor on the sum of the routed experts."""
    router_bias_update_rate: Annotated[Number, Field(ge=0)] = 0.001
    """How far an expert's selection bias moves at each optimizer step, towards even load; 0: not at all."""
    router_aux_loss_coef: Annotated[Number, Field(ge=0)] = 0.0
    """Coefficient of the sequence-level balance loss in training (DeepSeek-V3 trained with 1e-4); 0: none."""


class Rotary(Section):
    """What rotary positions have under every scaling."""

    rope_theta: Annotated[Number, Field(gt=1)] = 10_000.0
    """Base of the rotary frequencies."""


class DefaultRope(Rotary):
    """Rotary position embedding without scaling (RoFormer, arXiv 2104.09864, section 3.4.2)."""

    kind: Literal["default"] = "default"
    """No scaling."""


class LinearRope(Rotary):
    """Position interpolation (arXiv 2306.15595, section 2.3): every position is divided by the factor."""

    kind: Literal["linear"]
    """Every frequency divided by the factor."""
    factor: Factor
    """Longest context over the length before the scaling."""


class NTKRope(Rotary):
    """NTK-aware scaling (YaRN, arXiv 2309.00071, section 3.1): the base grows to theta x factor^(D / (D - 2))."""

    kind: Literal["ntk"]
    """A raised base: the highest frequency stays, the lowest is divided by the factor."""
    factor: Factor
    """Longest context over the length before the scaling."""


class DynamicRope(Rotary):
    """Dynamic NTK scaling (arXiv 2309.00071, section 3.3): the base grows with the sequence, once it is too long."""

    kind: Literal["dynamic"]
    """No scaling up to the original length; beyond it the base grows with the longest sequence of the call."""
    factor: Factor
    """How fast the base grows: theta x (factor x length / original - factor + 1)^(D / (D - 2))."""
    original_max_position_embeddings: Positive | None = None
    """Length before the scaling; max_position_embeddings where left out."""


class YarnRope(Rotary):
    """YaRN (arXiv 2309.00071, section 3.4): low frequencies interpolated, high ones kept, attention sharpened."""

    kind: Literal["yarn"]
    """Scaling by frequency, with a temperature."""
    factor: Factor
    """Longest context over the length before the scaling."""
    original_max_position_embeddings: Positive
    """Length before the scaling."""
    beta_fast: PositiveNumber = 32.0
    """Dimensions with more turns than this over the original length keep their frequency."""
    beta_slow: PositiveNumber = 1.0
    """Dimensions with fewer turns than this over the original length are interpolated in full."""
    attention_factor: PositiveNumber | None = None
    """Factor on cos and sin; 0.1 ln(factor) + 1, or the ratio of the two mscales, where left out."""
    mscale: Annotated[Number, Field(ge=0)] | None = None
    """Weight of ln(factor) above the line of that ratio; 0 is off. Where left out, MLA has 1 and GQA is without."""
    mscale_all_dim: Annotated[Number, Field(ge=0)] | None = None
    """The weight below the line; its square sharpens all of MLA's logits. Left out as mscale; 0 is off."""
    truncate: bool = True
    """Round the bounds of the ramp between the betas to whole dimensions."""

    @model_validator(mode="after")
    def _ramp(self) -> YarnRope:
        if self.beta_fast < self.beta_slow:
            raise FieldError("beta_fast", f"{self.beta_fast:g} is below beta_slow {self.beta_slow:g}; swap them")
        if (self.mscale is None) != (self.mscale_all_dim is None):
            lone, other = ("mscale", "mscale_all_dim") if self.mscale_all_dim is None else ("mscale_all_dim", "mscale")
            raise FieldError(lone, f"means nothing without {other}; give both or neither")
        return self


class Llama3Rope(Rotary):
    """Llama 3.1's scaling (Meta's code; the model: arXiv 2407.21783): long waves interpolated, short ones kept."""

    kind: Literal["llama3"]
    """Scaling by wavelength."""
    factor: Factor
    """Divisor of the low frequencies."""
    original_max_position_embeddings: Positive
    """Length before the scaling."""
    low_freq_factor: PositiveNumber = 1.0
    """Wavelengths above original length / this are divided by the factor."""
    high_freq_factor: PositiveNumber = 4.0
    """Wavelengths below original length / this stay; between the two, a smooth passage."""

    @model_validator(mode="after")
    def _passage(self) -> Llama3Rope:
        if self.high_freq_factor <= self.low_freq_factor:
            raise FieldError(
                "high_freq_factor",
                f"{self.high_freq_factor:g} must be greater than low_freq_factor {self.low_freq_factor:g}",
            )
        return self


def _kind_of_rope(value: Any) -> Any:
    """A section without a kind and without a scaling's factor is one without scaling."""
    return {"kind": "default"} | value if isinstance(value, dict) and "factor" not in value else value


Attention = Annotated[GQA | MLA, Field(discriminator="kind")]
Mlp = Annotated[Dense | MoE, Field(discriminator="kind")]
Rope = Annotated[
    DefaultRope | LinearRope | NTKRope | DynamicRope | YarnRope | Llama3Rope,
    Field(discriminator="kind"),
    BeforeValidator(_kind_of_rope),
]


class ModelSection(Section):
    """The geometry of one model."""

    vocab_size: Positive
    """Rows of the embedding; at least the tokenizer's length."""
    hidden_size: Positive
    """Width of the residual stream."""
    num_hidden_layers: Positive
    """Decoder layers."""
    max_position_embeddings: Positive
    """Longest context in tokens."""
    tie_word_embeddings: bool = True
    """Output head and embedding are one matrix."""
    rms_norm_eps: PositiveNumber = 1e-6
    """Added to the mean square inside RMSNorm."""
    initializer_range: PositiveNumber = 0.02
    """Standard deviation of freshly drawn matrices; buddygpt/model/modeling.py has the whole table."""
    attention: Attention
    """How tokens look at one another."""
    mlp: Mlp
    """The feed-forward part."""
    rope: Rope = DefaultRope()
    """Rotary positions."""

    @model_validator(mode="after")
    def _geometry(self) -> ModelSection:
        heads = self.attention.num_attention_heads
        if isinstance(self.attention, GQA):
            if self.attention.head_dim is None and self.hidden_size % heads:
                raise FieldError(
                    "attention.num_attention_heads",
                    f"{heads} heads do not divide hidden_size {self.hidden_size}; choose a divisor or give head_dim",
                )
            if heads % self.attention.num_key_value_heads:
                raise FieldError(
                    "attention.num_key_value_heads",
                    f"{self.attention.num_key_value_heads} key-value heads do not divide {heads} query heads",
                )
            if (width := self.attention.head_dim or self.hidden_size // heads) % 2:
                raise FieldError("attention.head_dim", f"head width {width} is odd; RoPE turns pairs")
        elif self.attention.qk_rope_head_dim % 2:
            raise FieldError(
                "attention.qk_rope_head_dim", f"rotary width {self.attention.qk_rope_head_dim} is odd; RoPE turns pairs"
            )
        if isinstance(self.mlp, MoE) and self.mlp.num_experts_per_tok > self.mlp.n_routed_experts:
            raise FieldError(
                "mlp.num_experts_per_tok",
                f"{self.mlp.num_experts_per_tok} experts for each token, but only {self.mlp.n_routed_experts} exist",
            )
        self._scaling()
        return self

    def _scaling(self) -> None:
        """What a scaling of the rotary positions needs from the other fields."""
        rope, longest = self.rope, self.max_position_embeddings
        original = getattr(rope, "original_max_position_embeddings", None) or longest
        if original > longest:
            raise FieldError(
                "rope.original_max_position_embeddings",
                f"{original} tokens before the scaling, but max_position_embeddings is only {longest}",
            )
        # Llama 3.1 itself has 8 x 8192 < 131072, and dynamic NTK has no end; YaRN's ramp ends at factor x original.
        if isinstance(rope, YarnRope) and rope.factor * original < longest * (1 - 1e-6):
            raise FieldError(
                "rope.factor",
                f"{rope.factor:g} x {original} tokens do not reach max_position_embeddings {longest}; "
                f"at least {longest / original:g} does",
            )
        if isinstance(rope, NTKRope | DynamicRope) and self.rotary_dim <= 2:
            raise FieldError("rope.kind", f"{rope.kind} needs a rotary width above 2, not {self.rotary_dim}")

    @property
    def rotary_dim(self) -> int:
        """Width of the part of a query or key head that RoPE turns."""
        if isinstance(self.attention, MLA):
            return self.attention.qk_rope_head_dim
        return self.attention.head_dim or self.hidden_size // self.attention.num_attention_heads


VARIANTS: dict[str, tuple[type[Section], ...]] = {"attention": (GQA, MLA), "mlp": (Dense, MoE)}


def flatten(model: ModelSection) -> dict[str, Any]:
    """The section as the flat names that config.json holds; RoPE as transformers' `rope_parameters`."""
    flat = model.model_dump(exclude={*VARIANTS, "rope"})
    for name in VARIANTS:
        fields = getattr(model, name).model_dump()
        flat[f"{name}_kind"] = fields.pop("kind")
        flat |= fields
    flat["rope_parameters"] = _rope_parameters(model)
    return flat


def _rope_parameters(model: ModelSection) -> dict[str, Any]:
    """transformers' `rope_parameters`, with every default that hangs on another field spelt out.

    YaRN sharpens attention by turning longer queries and keys (section 3.4, the factor on cos and sin). Of MLA's heads
    that would reach the rotary part alone; both mscales at 1 leave cos and sin and sharpen the whole logits, as
    DeepSeek-V3 does.
    """
    rope = model.rope.model_dump(exclude_none=True)
    if isinstance(model.rope, DynamicRope):
        rope.setdefault("original_max_position_embeddings", model.max_position_embeddings)
    if isinstance(model.rope, YarnRope) and isinstance(model.attention, MLA) and "attention_factor" not in rope:
        rope = {"mscale": 1.0, "mscale_all_dim": 1.0} | rope
    return {"rope_type": rope.pop("kind"), **rope}


def unflatten(flat: dict[str, Any]) -> dict[str, Any]:
    """The nested form of `flatten`'s result, ready for `ModelSection.model_validate`; other keys stay out."""
    nested: dict[str, Any] = {k: flat[k] for k in ModelSection.model_fields if k in flat}
    for name, classes in VARIANTS.items():
        kind = flat.get(f"{name}_kind")
        chosen = [cls for cls in classes if kind in get_args(cls.model_fields["kind"].annotation)]
        nested[name] = {"kind": kind} | {k: flat[k] for cls in chosen for k in cls.model_fields if k in flat}
    rope = dict(flat.get("rope_parameters") or {})
    nested["rope"] = {"kind": rope.pop("rope_type", "default"), **rope}
    return nested
