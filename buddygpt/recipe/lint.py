"""What is unwise about a geometry, from the `model` section alone.

`remarks` are cautions: the model trains and chats all the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from buddygpt.recipe.geometry import count_parameters, head_widths, native_architecture, tables
from buddygpt.recipe.model import GQA, MLA, Dense, ModelSection

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
            f"{parameters.vocabulary_share:.0%} of the parameters are {tables(parameters)}",
            "a smaller vocabulary, or a wider and deeper body, puts more of them to work",
        )
