"""BuddyGPT's configs and tensors as transformers' own architectures spell them, and back.

| BuddyGPT | transformers |
| --- | --- |
| gqa, dense | Qwen2ForCausalLM |
| gqa with qk_norm, dense | Qwen3ForCausalLM |
| mla, dense | DeepseekV3ForCausalLM, first_k_dense_replace = num_hidden_layers |
| mla, moe | DeepseekV3ForCausalLM, first_k_dense_replace = 0 |

Qwen2 always has query, key and value biases, Qwen3 with `attention_bias` an output bias too: where BuddyGPT has none,
zeros stand. DeepSeek-V3 pairs rotary dimensions as neighbours (2i, 2i + 1), BuddyGPT half against half (i, i + D/2):
the rows that make them change places, and the products stay the same. Nothing here touches a disk.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import DeepseekV3Config, PreTrainedConfig, Qwen2Config, Qwen3Config

from buddygpt.model.configuration import BuddyGPTConfig
from buddygpt.model.context import to_transformers
from buddygpt.model.experts import unstack
from buddygpt.recipe.errors import BuddyError, did_you_mean

ARCHITECTURES = ("qwen2", "qwen3", "deepseek_v3")
EXTENDED = "extended_max_position_embeddings"
"""Our own key beside theirs: their dynamic NTK takes `max_position_embeddings` for the length before the scaling."""
HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"

_SHARED = (
    "vocab_size hidden_size num_hidden_layers max_position_embeddings tie_word_embeddings rms_norm_eps "
    "initializer_range num_attention_heads bos_token_id eos_token_id pad_token_id"
).split()
_LATENT = "q_lora_rank kv_lora_rank qk_rope_head_dim qk_nope_head_dim v_head_dim".split()
_EXPERTS = "n_routed_experts num_experts_per_tok n_shared_experts moe_intermediate_size routed_scaling_factor".split()

_NATIVE_PARTS = {
    "post_layernorm": "post_attention_layernorm",
    "q_down_proj": "q_a_proj",
    "q_down_layernorm": "q_a_layernorm",
    "q_up_proj": "q_b_proj",
    "kv_down_proj": "kv_a_proj_with_mqa",
    "kv_down_layernorm": "kv_a_layernorm",
    "kv_up_proj": "kv_b_proj",
}
_OUR_PARTS = {theirs: ours for ours, theirs in _NATIVE_PARTS.items()}


def see_known(arch: str) -> None:
    """See that `arch` is one of the architectures, or `auto`.

    Raises:
        BuddyError: it is not; names those that are.
    """
    if arch not in ("auto", *ARCHITECTURES):
        known = ", ".join(("auto", *ARCHITECTURES))
        raise BuddyError(f"arch '{arch}': unknown; one of {known}{did_you_mean(arch, ARCHITECTURES)}")


def choose(config: BuddyGPTConfig, arch: str) -> str:
    """The architecture that holds a model of this config; `auto` takes the one that does.

    Raises:
        BuddyError: `arch` is unknown or cannot hold it; says why, and which one can.
    """
    see_known(arch)
    latent, experts = config.attention_kind == "mla", config.mlp_kind == "moe"
    if experts and not latent:
        raise BuddyError(
            "none of qwen2, qwen3 and deepseek_v3 has grouped-query attention together with these experts; "
            "the nearest that can be exported: attention mla with mlp moe, or attention gqa with mlp dense"
        )
    if experts and config.n_routed_experts < 2:
        raise BuddyError("n_routed_experts 1: DeepSeek-V3's router ranks a group by its two best; it needs at least 2")
    fitting = "deepseek_v3" if latent else "qwen3" if config.qk_norm else "qwen2"
    if arch not in ("auto", fitting):
        has = "multi-head latent attention" if latent else f"grouped-query attention with qk_norm {config.qk_norm}"
        needs = {
            "qwen2": "grouped-query attention without qk_norm",
            "qwen3": "grouped-query attention with qk_norm",
            "deepseek_v3": "multi-head latent attention",
        }[arch]
        raise BuddyError(f"arch {arch} has {needs}, this model has {has}; {fitting} holds it")
    return fitting


def native_config(config: BuddyGPTConfig, arch: str) -> PreTrainedConfig:
    """The config of the same model in transformers' own architecture."""
    fields: dict[str, Any] = {name: getattr(config, name, None) for name in _SHARED}
    fields |= {"dtype": config.dtype, "hidden_act": "silu"} | to_transformers(config)
    if fields["max_position_embeddings"] != config.max_position_embeddings:
        fields[EXTENDED] = config.max_position_embeddings
    if arch == "deepseek_v3":
        experts = config.mlp_kind == "moe"
        fields |= {name: getattr(config, name) for name in _LATENT}
        if experts:
            fields |= {name: getattr(config, name) for name in _EXPERTS}
            fields["intermediate_size"] = config.moe_intermediate_size  # of no layer
        else:  # the numbers of experts that are in no layer
            fields |= dict(zip(_EXPERTS, (2, 1, 1, config.intermediate_size, 1.0), strict=True))
            fields["intermediate_size"] = config.intermediate_size
        fields |= {
            "num_key_value_heads": config.num_attention_heads,
            "first_k_dense_replace": 0 if experts else config.num_hidden_layers,
            "num_nextn_predict_layers": 0,
            "n_group": 1,
            "topk_group": 1,
            "norm_topk_prob": True,
            "rope_interleave": True,
        } | {"moe_layer_freq": 1, "scoring_func": "sigmoid", "topk_method": "noaux_tc"}  # these three for other servers
        return DeepseekV3Config(**fields, architectures=["DeepseekV3ForCausalLM"])
    fields |= {
        "num_key_value_heads": config.num_key_value_heads,
        "intermediate_size": config.intermediate_size,
        "use_sliding_window": False,
    }
    if arch == "qwen3":
        width = config.head_dim or config.hidden_size // config.num_attention_heads
        return Qwen3Config(
            **fields, head_dim=width, attention_bias=config.attention_bias, architectures=["Qwen3ForCausalLM"]
        )
    if config.head_dim not in (None, config.hidden_size // config.num_attention_heads):
        fields["head_dim"] = config.head_dim
    if not config.attention_bias:
        fields["attention_bias"] = False  # Qwen2 does not read it: it tells us that the zeros are no biases
    return Qwen2Config(**fields, architectures=["Qwen2ForCausalLM"])


def native_state(config: BuddyGPTConfig, arch: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A BuddyGPT's tensors under the names, and in the layout, of the architecture's files; a tied head is left out."""
    lacking: tuple[str, ...] = ()
    if arch == "qwen2" and not config.attention_bias:
        lacking = ("self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight")
    elif arch == "qwen3" and config.attention_bias:
        lacking = ("self_attn.o_proj.weight",)
    native: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if config.tie_word_embeddings and name == HEAD:
            continue
        if arch == "deepseek_v3":
            tensor = _with_rotary_rows(config, name, tensor, _neighbours)
        native[_renamed(name, _NATIVE_PARTS)] = tensor
        if name.endswith(lacking):
            native[name.removesuffix("weight") + "bias"] = tensor.new_zeros(tensor.shape[0])
    return native


def buddy_config(native: PreTrainedConfig) -> BuddyGPTConfig:
    """The config of a BuddyGPT equal to a Qwen2, Qwen3 or DeepSeek-V3.

    Raises:
        BuddyError: another architecture, or a setting that BuddyGPT has not; names it.
    """
    if native.model_type not in ARCHITECTURES:
        raise BuddyError(f"architecture '{native.model_type}' cannot become a BuddyGPT; {', '.join(ARCHITECTURES)} can")
    _refuse(native, hidden_act="silu", attention_dropout=0.0)
    fields: dict[str, Any] = {name: getattr(native, name, None) for name in _SHARED}
    fields |= {"dtype": native.dtype} | _our_rope(native)
    if native.model_type == "deepseek_v3":
        fields |= {"attention_kind": "mla"} | {name: getattr(native, name) for name in _LATENT}
        _refuse(native, attention_bias=False)
        if native.q_lora_rank is None:
            raise BuddyError("q_lora_rank null: queries without a latent are not in BuddyGPT")
        if native.first_k_dense_replace >= native.num_hidden_layers:
            fields |= {"mlp_kind": "dense", "intermediate_size": native.intermediate_size}
        else:
            _refuse(native, first_k_dense_replace=0, norm_topk_prob=True, topk_group=native.n_group)
            fields |= {"mlp_kind": "moe"} | {name: getattr(native, name) for name in _EXPERTS}
    else:
        _refuse(native, use_sliding_window=False, layer_types=["full_attention"] * native.num_hidden_layers)
        width = getattr(native, "head_dim", None)
        fields |= {
            "attention_kind": "gqa",
            "mlp_kind": "dense",
            "num_key_value_heads": native.num_key_value_heads,
            "intermediate_size": native.intermediate_size,
            "head_dim": None if width == native.hidden_size // native.num_attention_heads else width,
            "attention_bias": getattr(native, "attention_bias", True),
            "qk_norm": native.model_type == "qwen3",
        }
    try:
        return BuddyGPTConfig(**fields)
    except ValueError as error:
        raise BuddyError(str(error)) from None


def buddy_state(native: PreTrainedConfig, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a Qwen2, Qwen3 or DeepSeek-V3 under BuddyGPT's names, experts stacked or one by one.

    Raises:
        BuddyError: a bias that BuddyGPT has not is not zero, or a tied head differs from the embedding; names it.
    """
    config = buddy_config(native)
    lacking = ("self_attn.o_proj.bias",)
    if config.attention_kind == "gqa" and not config.attention_bias:
        lacking += ("self_attn.q_proj.bias", "self_attn.k_proj.bias", "self_attn.v_proj.bias")
    ours: dict[str, Tensor] = {}
    for name, tensor in _unstacked(state).items():
        if name.endswith(lacking):
            if bool(tensor.any()):
                raise BuddyError(f"{name} is not zero; BuddyGPT has no such bias")
            continue
        name = _renamed(name, _OUR_PARTS)
        if native.model_type == "deepseek_v3" and native.rope_interleave:
            tensor = _with_rotary_rows(config, name, tensor, _halves)
        ours[name] = tensor
    if config.tie_word_embeddings and HEAD in ours:
        head = ours.pop(HEAD)
        if EMBEDDING in ours and not torch.equal(head, ours[EMBEDDING]):
            raise BuddyError(f"{HEAD} differs from {EMBEDDING}, to which the config ties it")
    return ours


def _refuse(native: PreTrainedConfig, **only: Any) -> None:
    """See that settings that BuddyGPT lacks are at the value at which they do nothing."""
    for name, harmless in only.items():
        value = getattr(native, name, None)
        if value is not None and value != harmless:
            raise BuddyError(f"{name} {value}: BuddyGPT has only {harmless}")


def _renamed(name: str, parts: dict[str, str]) -> str:
    return ".".join(parts.get(part, part) for part in name.split("."))


def _our_rope(native: PreTrainedConfig) -> dict[str, Any]:
    """The fields of `to_transformers` turned back; transformers' config classes have shaped the older flat ones."""
    rope = {k: v for k, v in dict(native.rope_parameters or {}).items() if v is not None and k != "type"}
    if rope.get("partial_rotary_factor") == 1:
        del rope["partial_rotary_factor"]
    if native.model_type == "deepseek_v3" and rope.get("rope_type") == "yarn":
        rope = {"mscale": 0.0, "mscale_all_dim": 0.0} | rope  # left out, they are off there, and 1 here
    fields: dict[str, Any] = {"rope_parameters": rope}
    if rope.get("rope_type") == "dynamic":
        rope["original_max_position_embeddings"] = native.max_position_embeddings
        fields["max_position_embeddings"] = getattr(native, EXTENDED, native.max_position_embeddings)
    return fields


def _unstacked(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Experts one by one, however they came."""
    single = dict(state)
    for name in state:
        if name.endswith("mlp.experts.down_proj"):
            unstack(single, name.removesuffix("down_proj"))
    return single


def _with_rotary_rows(config: BuddyGPTConfig, name: str, tensor: Tensor, order: Any) -> Tensor:
    """`tensor` with the rows that make rotary dimensions put in another order, where it has such rows."""
    rope = config.qk_rope_head_dim
    if name.endswith("self_attn.q_up_proj.weight"):
        heads = tensor.unflatten(0, (config.num_attention_heads, -1))
        return torch.cat((heads[:, :-rope], order(heads[:, -rope:])), dim=1).flatten(0, 1)
    if name.endswith("self_attn.kv_down_proj.weight"):
        return torch.cat((tensor[:-rope], order(tensor[-rope:][None])[0]))
    return tensor


def _neighbours(rows: Tensor) -> Tensor:
    """(heads, D, in) from half against half to neighbouring pairs."""
    return rows.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2)


def _halves(rows: Tensor) -> Tensor:
    """(heads, D, in) from neighbouring pairs to half against half."""
    return rows.unflatten(1, (-1, 2)).transpose(1, 2).flatten(1, 2)
