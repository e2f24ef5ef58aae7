"""What a geometry is made of, from the `model` section alone: no torch, no model built."""

from __future__ import annotations

from dataclasses import dataclass

from buddygpt.recipe.model import GQA, MLA, Dense, ModelSection, MoE


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


def updated_matrices(model: ModelSection) -> dict[str, Matrix]:
    """One layer's matrices that low-rank updates lie beside: those that are called as layers.

    Routed experts and MLA's `kv_up_proj` are read, for grouped and for absorbed products: an update beside them would
    be passed over.
    """
    matrices = attention_matrices(model) | mlp_matrices(model)
    return {
        name: matrix
        for name, matrix in matrices.items()
        if name.endswith("_proj") and name != "kv_up_proj" and not name.startswith("experts.")
    }


def count_updates(model: ModelSection, rank: int) -> int:
    """Parameters of all low-rank updates: two narrow matrices beside each."""
    return model.num_hidden_layers * sum(rank * (m.inputs + m.outputs) for m in updated_matrices(model).values())


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
        f"{parameters.total:,} parameters, {parameters.vocabulary_share:.0%} of them {tables(parameters)}{active}; "
        f"native architecture: {native_architecture(model) or 'none'}"
    )


def tables(parameters: Parameters) -> str:
    """What the vocabulary's parameters are called."""
    return "embedding and head" if parameters.head else "embedding"
