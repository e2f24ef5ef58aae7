"""What a geometry is made of and what is unwise about it, from the `model` section alone: no torch, no model built.

`remarks` are cautions: the model trains and chats all the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from buddygpt.recipe.model import GQA, MLA, Dense, ModelSection, MoE

PAGED_HEAD_SIZES = (32, 64, 80, 96, 112, 120, 128, 192, 256)
"""Head sizes of vLLM's paged-attention kernels (vllm/attention/ops/paged_attn.py, get_supported_head_sizes). Its
FlashInfer backend takes 64, 128 and 256 of them (vllm/v1/attention/backends/flashinfer.py)."""
FLASH_STEP, FLASH_MOST = 8, 256
"""flash-attn 2 pads head sizes to a multiple of 8 and takes at most 256 (csrc/flash_attn/flash_api.cpp); vLLM's
FlashAttention backend takes multiples of 8 up to 256 (vllm/v1/attention/backends/flash_attn.py, supports_head_size),
and up to version 0.10 only multiples of 32."""
VLLM_LATENT, VLLM_ROPE = 512, 64
"""What vLLM's MLA kernels are built for: "Head size 40 is not supported by MLACommon. Supported head sizes are: [576]"
(vLLM issue 22193). Its Triton backend has since taken other sizes."""
ALIGNMENT, TILE = 8, 64
"""Of a bf16 width: 16 bytes for tensor cores to be used well, 128 bytes on an A100 and later (NVIDIA, Matrix
Multiplication Background User's Guide, section 2.2, table 1)."""
TILE_WASTE = 0.01
"""Share of empty tile columns from which a width is worth a remark."""
EMBEDDING_SHARE = 0.5
"""Share of the parameters in the vocabulary's tables from which it is worth a remark."""


@dataclass(frozen=True)
class Matrix:
    """Weights that a token's vector is multiplied with.

    Args:
        inputs, outputs: widths.
        copies: how many there are in a layer (experts).
        used: how many of them one token passes.
    """

    inputs: int
    outputs: int
    copies: int = 1
    used: int = 1

    @property
    def size(self) -> int:
        """Parameters of one copy."""
        return self.inputs * self.outputs


@dataclass(frozen=True)
class Parameters:
    """Numbers that are trained, by what they are; buffers (the router's selection bias) are not among them.

    Args:
        embedding: vocabulary x width.
        head: the output head where it is a matrix of its own, else 0.
        matrices: all other matrices, those of every expert included.
        vectors: norms and biases.
        idle: parameters of the experts that are not chosen for a token.
    """

    embedding: int
    head: int
    matrices: int
    vectors: int
    idle: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.embedding + self.head + self.matrices + self.vectors

    @property
    def active(self) -> int:
        """Those that one token passes: all but the experts that are not chosen for it."""
        return self.total - self.idle

    @property
    def vocabulary_share(self) -> float:
        """Share of embedding and head in the total, 0 to 1."""
        return (self.embedding + self.head) / self.total


@dataclass(frozen=True)
class Remark:
    """One thing about a geometry that costs something.

    Args:
        field: dotted path below `model`.
        cost: what it costs.
        remedy: what would be right.
    """

    field: str
    cost: str
    remedy: str

    def __str__(self) -> str:
        return f"model.{self.field}: {self.cost}; {self.remedy}"


def head_widths(model: ModelSection) -> tuple[int, int]:
    """Width of a query or key head, and of a value head."""
    attention = model.attention
    if isinstance(attention, MLA):
        return attention.qk_nope_head_dim + attention.qk_rope_head_dim, attention.v_head_dim
    width = attention.head_dim or model.hidden_size // attention.num_attention_heads
    return width, width


def attention_matrices(model: ModelSection) -> dict[str, Matrix]:
    """One layer's projections, by the names of their modules."""
    attention, width = model.attention, model.hidden_size
    key, value = head_widths(model)
    heads = attention.num_attention_heads
    out = {"o_proj": Matrix(heads * value, width)}
    if isinstance(attention, GQA):
        shared = attention.num_key_value_heads * key
        narrow = Matrix(width, shared)
        return {"q_proj": Matrix(width, heads * key), "k_proj": narrow, "v_proj": narrow} | out
    rank = attention.kv_lora_rank
    return {
        "q_down_proj": Matrix(width, attention.q_lora_rank),
        "q_up_proj": Matrix(attention.q_lora_rank, heads * key),
        "kv_down_proj": Matrix(width, rank + attention.qk_rope_head_dim),
        "kv_up_proj": Matrix(rank, heads * (attention.qk_nope_head_dim + value)),
    } | out


def mlp_matrices(model: ModelSection) -> dict[str, Matrix]:
    """One layer's feed-forward matrices; gate, up and down in turn."""
    mlp, width = model.mlp, model.hidden_size
    if isinstance(mlp, Dense):
        return _gated("", width, mlp.intermediate_size)
    return (
        {"gate": Matrix(width, mlp.n_routed_experts)}
        | _gated("experts.", width, mlp.moe_intermediate_size, mlp.n_routed_experts, mlp.num_experts_per_tok)
        | _gated("shared_experts.", width, mlp.moe_intermediate_size * mlp.n_shared_experts)
    )


def _gated(prefix: str, width: int, inner: int, copies: int = 1, used: int = 1) -> dict[str, Matrix]:
    wide, narrow = Matrix(width, inner, copies, used), Matrix(inner, width, copies, used)
    return {f"{prefix}gate_proj": wide, f"{prefix}up_proj": wide, f"{prefix}down_proj": narrow}


def count_parameters(model: ModelSection) -> Parameters:
    """Parameters of the model that this section builds."""
    matrices = [*attention_matrices(model).values(), *mlp_matrices(model).values()]
    table, layers = model.vocab_size * model.hidden_size, model.num_hidden_layers
    return Parameters(
        embedding=table,
        head=0 if model.tie_word_embeddings else table,
        matrices=layers * sum(m.size * m.copies for m in matrices),
        vectors=layers * (2 * model.hidden_size + _attention_vectors(model)) + model.hidden_size,
        idle=layers * sum(m.size * (m.copies - m.used) for m in matrices),
    )


def _attention_vectors(model: ModelSection) -> int:
    """Biases and norms inside one layer's attention."""
    attention = model.attention
    if isinstance(attention, MLA):
        return attention.q_lora_rank + attention.kv_lora_rank
    projections = attention_matrices(model)
    biases = sum(projections[n].outputs for n in ("q_proj", "k_proj", "v_proj")) if attention.attention_bias else 0
    return biases + (2 * head_widths(model)[0] if attention.qk_norm else 0)


def cache_numbers(model: ModelSection) -> int:
    """Numbers that the cache keeps of one token, all layers together: keys and values, or latent and rotary key."""
    attention = model.attention
    if isinstance(attention, MLA):
        each = attention.kv_lora_rank + attention.qk_rope_head_dim
    else:
        each = 2 * attention.num_key_value_heads * head_widths(model)[0]
    return model.num_hidden_layers * each


def native_architecture(model: ModelSection) -> str | None:
    """transformers' own architecture (its `model_type`) that has this layout; None where we know of none.

    DeepSeek-V3's layers are dense up to `first_k_dense_replace`, so it holds the dense MLA model too; Qwen2 has
    biases on queries, keys and values always, which are 0 for a model without.
    """
    if isinstance(model.attention, MLA):
        return "deepseek_v3"
    if isinstance(model.mlp, MoE):
        return None
    return "qwen3" if model.attention.qk_norm else "qwen2"


def size_line(model: ModelSection) -> str:
    """Size, the vocabulary's share of it, and the native architecture, in one line."""
    parameters = count_parameters(model)
    active = f", {parameters.active:,} active for a token" if parameters.idle else ""
    return (
        f"{parameters.total:,} parameters, {parameters.vocabulary_share:.0%} of them {_tables(parameters)}{active}; "
        f"native architecture: {native_architecture(model) or 'none'}"
    )


def _tables(parameters: Parameters) -> str:
    return "embedding and head" if parameters.head else "embedding"


def remarks(model: ModelSection) -> list[Remark]:
    """What the geometry costs: kernels that refuse it, matrix units that idle, where the parameters lie."""
    return [*_heads(model), *_latent(model), *_widths(model), *_export(model), *_share(model)]


def _heads(model: ModelSection) -> Iterator[Remark]:
    """Head sizes that kernels and servers refuse."""
    attention, (width, _) = model.attention, head_widths(model)
    if isinstance(attention, MLA):
        field = "attention.qk_nope_head_dim"
    else:
        field = "attention.num_attention_heads" if attention.head_dim is None else "attention.head_dim"
    if width % FLASH_STEP or width > FLASH_MOST:
        who = "flash-attn and vLLM's backend on it" if width > FLASH_MOST else "vLLM's FlashAttention backend"
        yield Remark(
            field,
            f"head size {width} is refused by {who}",
            f"a multiple of {FLASH_STEP} up to {FLASH_MOST} is taken",
        )
    elif isinstance(attention, GQA) and width not in PAGED_HEAD_SIZES:
        whole = attention.head_dim is None and model.hidden_size % 64 == 0
        better = f"{model.hidden_size // 64} heads of 64 are" if whole else "64 and 128 are"
        yield Remark(
            field,
            f"head size {width} is refused by vLLM's paged-attention and FlashInfer kernels",
            f"{better} taken everywhere",
        )


def _latent(model: ModelSection) -> Iterator[Remark]:
    """The latent width that servers are built for."""
    attention = model.attention
    if not isinstance(attention, MLA):
        return
    latent, rope = attention.kv_lora_rank, attention.qk_rope_head_dim
    if (latent, rope) != (VLLM_LATENT, VLLM_ROPE):
        yield Remark(
            "attention.kv_lora_rank",
            f"latent {latent} + rope {rope} = {latent + rope}, and most of vLLM's MLA kernels refuse all but "
            f"{VLLM_LATENT + VLLM_ROPE}",
            f"kv_lora_rank {VLLM_LATENT} with qk_rope_head_dim {VLLM_ROPE} is what they take; transformers serves any",
        )


def _widths(model: ModelSection) -> Iterator[Remark]:
    """Widths that leave a matrix unit's rows unaligned or its tiles partly empty."""
    for field, width in _named_widths(model):
        better = -(-width // TILE) * TILE
        if width % ALIGNMENT:
            yield Remark(
                field,
                f"{width:,} is no multiple of {ALIGNMENT}, so rows are unaligned and matrix units slow down",
                f"{better:,} is a multiple of {TILE}",
            )
        elif (waste := (better - width) / better) >= TILE_WASTE:
            yield Remark(
                field,
                f"{width:,} is no multiple of {TILE}, which leaves {waste:.0%} of its matrix tiles empty",
                f"{better:,} would fill them",
            )


def _named_widths(model: ModelSection) -> Iterator[tuple[str, int]]:
    attention, mlp = model.attention, model.mlp
    yield "vocab_size", model.vocab_size
    yield "hidden_size", model.hidden_size
    if isinstance(attention, MLA):
        yield "attention.q_lora_rank", attention.q_lora_rank
        yield "attention.kv_lora_rank", attention.kv_lora_rank
    else:
        key, _ = head_widths(model)
        yield "attention.num_attention_heads", attention.num_attention_heads * key
        yield "attention.num_key_value_heads", attention.num_key_value_heads * key
    if isinstance(mlp, Dense):
        yield "mlp.intermediate_size", mlp.intermediate_size
    else:
        yield "mlp.moe_intermediate_size", mlp.moe_intermediate_size


def _export(model: ModelSection) -> Iterator[Remark]:
    """Layouts that plain transformers cannot load."""
    if native_architecture(model) is None:
        yield Remark(
            "mlp.kind",
            "gqa with moe exports to no architecture of plain transformers, so only this package runs it",
            "mla with moe exports as deepseek_v3, a dense feed-forward as qwen2",
        )


def _share(model: ModelSection) -> Iterator[Remark]:
    """Parameters that lie in the vocabulary's tables instead of the layers."""
    parameters = count_parameters(model)
    if parameters.vocabulary_share > EMBEDDING_SHARE:
        yield Remark(
            "vocab_size",
            f"{parameters.vocabulary_share:.0%} of the parameters are {_tables(parameters)}",
            "a smaller vocabulary, or a wider and deeper body, puts more of them to work",
        )
