"""What a card says of a model's shape and of its data, as rows of tables: words in Chinese and in English."""

from __future__ import annotations

import re

from buddygpt.model.interop import Exported
from buddygpt.publishing.sources import Source
from buddygpt.publishing.story import Story
from buddygpt.recipe.base import spell_bytes
from buddygpt.recipe.geometry import count_parameters, head_widths
from buddygpt.recipe.model import MLA, DefaultRope, ModelSection, MoE
from buddygpt.recipe.tokenizer import TokenizerSection

Words = tuple[str, str]
"""In Chinese and in English."""
Row = tuple[str | Words, ...]
STAGES: dict[str, Words] = {
    "pretrain": ("预训练", "pretraining"),
    "sft": ("微调", "fine-tuning"),
    "dpo": ("偏好调优", "preference tuning"),
}


def shape_rows(story: Story, exported: Exported) -> list[Row]:
    """Architecture and size."""
    rows: list[Row] = [(("结构", "architecture"), f"`{exported.architecture}`")]
    if (model := story.geometry) is None:
        return [*rows, (("参数量", "parameters"), f"{exported.parameters:,}")]
    count = count_parameters(model)
    table = count.embedding + count.head
    what = ("词嵌入和输出层", "embedding and head") if count.head else ("词嵌入", "embedding")
    rows += [
        (("参数量", "parameters"), f"{count.total:,}"),
        ((f"其中{what[0]}", f"of which {what[1]}"), f"{table:,} ({count.vocabulary_share:.0%})"),
    ]
    if count.idle:
        rows.append((("每个词元激活", "active for a token"), f"{count.active:,}"))
    tokens = f"{model.max_position_embeddings:,}"
    rows += [
        (("层数 × 宽度", "layers × width"), f"{model.num_hidden_layers} × {model.hidden_size:,}"),
        (("注意力", "attention"), _attention(model)),
        (("前馈", "feed-forward"), _mlp(model)),
        (("上下文", "context"), (f"{tokens} 个词元；{_rope(model)[0]}", f"{tokens} tokens; {_rope(model)[1]}")),
        (("词表", "vocabulary"), _vocabulary(story, model)),
    ]
    dtype, size = exported.dtype, spell_bytes(exported.bytes)
    return [*rows, (("权重", "weights"), (f"{dtype}；连同分词器 {size}", f"{dtype}; {size} with the tokenizer"))]


def _attention(model: ModelSection) -> Words:
    a, (key, value) = model.attention, head_widths(model)
    if isinstance(a, MLA):
        return (
            f"MLA：{a.num_attention_heads} 个头；潜向量宽度：查询 {a.q_lora_rank}，键值 {a.kv_lora_rank}；"
            f"每头：位置部分 {a.qk_rope_head_dim}，其余 {a.qk_nope_head_dim}，值 {value}",
            f"MLA: {a.num_attention_heads} heads; latents: query {a.q_lora_rank}, key-value {a.kv_lora_rank}; "
            f"of a head: rotary {a.qk_rope_head_dim}, other {a.qk_nope_head_dim}, value {value}",
        )
    more = ("，QK-norm", ", QK-norm") if a.qk_norm else ("", "")
    return (
        f"GQA：{a.num_attention_heads} 个查询头，{a.num_key_value_heads} 个键值头，头宽 {key}{more[0]}",
        f"GQA: {a.num_attention_heads} query heads, {a.num_key_value_heads} key-value heads, {key} wide{more[1]}",
    )


def _mlp(model: ModelSection) -> Words:
    m = model.mlp
    if not isinstance(m, MoE):
        return (f"SwiGLU，宽 {m.intermediate_size:,}", f"SwiGLU, {m.intermediate_size:,} wide")
    return (
        f"混合专家：{m.n_routed_experts} 个专家中每个词元选 {m.num_experts_per_tok} 个，"
        f"另有 {m.n_shared_experts} 个共享专家，每个宽 {m.moe_intermediate_size:,}",
        f"mixture of experts: {m.num_experts_per_tok} of {m.n_routed_experts} for each token, {m.n_shared_experts} "
        f"shared, each {m.moe_intermediate_size:,} wide",
    )


def _rope(model: ModelSection) -> Words:
    rope = model.rope
    base = f"RoPE θ = {rope.rope_theta:,.0f}"
    if isinstance(rope, DefaultRope):
        return base, base
    return f"{base}，{rope.kind} 扩展 {rope.factor:g} 倍", f"{base}, {rope.kind} scaling by {rope.factor:g}"


def _vocabulary(story: Story, model: ModelSection) -> Words:
    size = f"{model.vocab_size:,}"
    first = story.stages[0] if story.stages else None
    tokenizer: TokenizerSection | None = first.recipe.tokenizer if first and first.name == "pretrain" else None
    if tokenizer and tokenizer.train:
        return f"{size}；在训练文本上训练的字节级 BPE", f"{size}; byte-level BPE trained on the training text"
    if tokenizer and tokenizer.keep:
        return (
            f"{size}；Qwen3 分词器中训练文本最常用的词元",
            f"{size}; those entries of Qwen3's tokenizer that the training text uses most",
        )
    if tokenizer and tokenizer.base == "qwen3":
        return f"{size}；Qwen3 的分词器", f"{size}; Qwen3's tokenizer"
    return size, size


def source_rows(story: Story) -> list[Row]:
    """Each source of each stage: name, terms, how much."""
    rows: list[Row] = []
    for stage in story.stages:
        for source in stage.sources:
            counts = ["" if n is None else f"{n:,}" for n in (source.rows, source.tokens)]
            epochs = "" if source.epochs is None else f"{source.epochs:.2f}"
            rows.append((STAGES[stage.name], _source(source), spell_licence(source), *counts, epochs))
    return rows


def plain(text: str) -> str:
    """A name as Markdown shows it, letter by letter; `cell` sees to what parts a table."""
    return re.sub(r"([\\`*_\[\]#~])", r"\\\1", text)


def _source(source: Source) -> Words:
    name = plain(source.name)
    if source.kind == "demo":
        return f"{name}：buddygpt 生成的虚构小镇文本", f"{name}: texts about an invented town, made by buddygpt"
    if source.kind == "files":
        return f"{name}（自有文件）", f"{name} (own files)"
    places = [f"[{plain(source.id)}](https://huggingface.co/datasets/{source.id})"] if source.id else []
    if source.modelscope:
        places.append(f"[ModelScope](https://modelscope.cn/datasets/{source.modelscope})")
    words = " · ".join(dict.fromkeys([*([] if source.name == source.id else [name]), *places]))
    return words, words


def spell_licence(source: Source) -> Words:
    """A source's licence with what it forbids."""
    if source.kind == "demo":
        return "不含第三方文本", "no text of third parties"
    licence = source.licence
    text = (licence.text or "未注明", licence.text or "not stated")
    if not licence.sure:
        text = f"{text[0]}（未核实）", f"{text[1]} (not verified)"
    for chinese, english in licence.limits:
        text = f"{text[0]}；{chinese}", f"{text[1]}; {english}"
    return text
