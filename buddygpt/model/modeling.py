"""The model: embedding, decoder layers, norm, head; and how its weights are drawn.

Shapes: B batch, T tokens of this call, C channels (hidden_size), D rotary width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import GenerationMixin, PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.utils.generic import ModelOutput, can_return_tuple

from buddygpt.model.attention import ATTENTION
from buddygpt.model.cache import KVCache
from buddygpt.model.configuration import BuddyGPTConfig
from buddygpt.model.flash import check_name
from buddygpt.model.linear import Linear
from buddygpt.model.loss import IGNORE_INDEX, TiedGradient, linear_cross_entropy, linear_scores, tied_embedding
from buddygpt.model.mlp import GateMLP
from buddygpt.model.moe import MoEGate, MoELayer
from buddygpt.model.norm import RMSNorm
from buddygpt.model.recompute import keep_products
from buddygpt.model.rope import rotary_tables
from buddygpt.model.visibility import Visibility

CACHE = "cache" if "cache" in {f.name for f in fields(BaseModelOutputWithPast)} else "past_key_values"
"""What transformers calls a cache in a model's output and hands back to it; the name changed within version 5."""


@dataclass
class DecoderOutput(BaseModelOutputWithPast):
    """What the decoder gives.

    Args:
        balance_B: (B,), in training with a balance loss: the layers' `sequence_balance`, summed.
    """

    balance_B: Tensor | None = None


@dataclass
class ScoredOutput(ModelOutput):
    """What a call with `fused_lm_head=True` gives, by the names that trl's trainers read.

    Each tensor but the loss is (B, T - 1) for `labels`, (B, T) for `shift_labels`, and 0 where nothing is judged;
    `linear_scores` tells what the four in the middle are.

    Args:
        loss: as without `fused_lm_head`.
        label_mask: true where a label is judged.
    """

    loss: Tensor | None = None
    log_probs: Tensor | None = None
    entropy: Tensor | None = None
    mean_logits: Tensor | None = None
    is_top1: Tensor | None = None
    label_mask: Tensor | None = None


class Embedding(nn.Embedding):
    """An embedding whose gradient can be made together with that of the head."""

    def forward(self, input: Tensor, tied: TiedGradient | None = None) -> Tensor:
        """Ids (B, T) to rows (B, T, C)."""
        return super().forward(input) if tied is None else tied_embedding(input, self.weight, tied)


class DecoderLayer(GradientCheckpointingLayer):
    """Attention, then feed-forward, each on the normalised stream and added back to it.

    `compiled` computes `run` in training where it is set (`buddygpt.model.compiled`).
    """

    compiled: Callable[..., tuple[Tensor, Tensor | None, Tensor | None]] | None = None

    def __init__(self, config: BuddyGPTConfig, layer_idx: int):
        super().__init__()
        self.self_attn = ATTENTION[config.attention_kind](config, layer_idx)
        self.mlp = (
            GateMLP(config.hidden_size, config.intermediate_size) if config.mlp_kind == "dense" else MoELayer(config)
        )
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, *inputs: Any) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """What `run` computes of the same inputs."""
        if self.compiled is not None and self.training and torch.is_grad_enabled():
            return self.compiled(self, *inputs)
        return self.run(*inputs)

    def run(
        self,
        x_BTC: Tensor,
        cos_BTD: Tensor,
        sin_BTD: Tensor,
        visible: Visibility,
        cache: Cache | None,
        real_BT: Tensor | None,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """(B, T, C) to (B, T, C), beside it the two parts of a `Load`, None for dense layers and outside training.

        A flat tuple: the reentrant kind of gradient checkpointing would cut a nested one off from the gradient.
        """
        x_BTC = x_BTC + self.self_attn(self.input_layernorm(x_BTC), cos_BTD, sin_BTD, visible, cache)
        if isinstance(self.mlp, MoELayer):
            y_BTC, load = self.mlp(self.post_layernorm(x_BTC), real_BT)
            return x_BTC + y_BTC, *load
        return x_BTC + self.mlp(self.post_layernorm(x_BTC)), None, None


class BuddyGPTPreTrainedModel(PreTrainedModel):
    """What both models share: how transformers treats them, and the initial weights."""

    config_class = BuddyGPTConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _can_set_attn_implementation_cached_value = True
    _no_split_modules = ["DecoderLayer"]
    _skip_keys_device_placement = ["past_key_values"]
    _keep_in_fp32_modules_strict = {"mlp.gate.weight", "e_score_correction_bias"}
    selective = False
    """Gradient checkpointing, where it is on, keeps what `recompute.PRODUCTS` and attention give."""

    def _check_and_adjust_attn_implementation(self, attn_implementation: str | None, *args: Any, **kwargs: Any) -> str:
        """transformers' seam: backends are ours to choose, at each call, for its device, type and shape."""
        return check_name(attn_implementation)

    def _set_gradient_checkpointing(  # type: ignore[override]
        self, enable: bool = True, gradient_checkpointing_func: Callable[..., Any] = checkpoint, **kwargs: Any
    ) -> None:
        """transformers' seam; no argument of a trainer's, which trackers write down and checkpoints hold."""
        if self.selective:
            c: Any = self.config
            inner = c.intermediate_size if c.mlp_kind == "dense" else c.n_shared_experts * c.moe_intermediate_size
            contexts = partial(keep_products, inner)
            gradient_checkpointing_func = partial(gradient_checkpointing_func, context_fn=contexts)
        super()._set_gradient_checkpointing(enable, gradient_checkpointing_func, **kwargs)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Draw one module's weights. With s = initializer_range and L = num_hidden_layers:

        | tensor | drawn from |
        | --- | --- |
        | embedding, and the head tied to it | N(0, s) |
        | matrices, the router's included | N(0, s) |
        | o_proj, down_proj: they write into the residual stream | N(0, s / sqrt(2 L)), GPT-2 (Radford 2019, 2.3) |
        | biases, the router's selection bias | 0 |
        | RMSNorm weights | 1 |

        The first loss is then near ln V + C s^2 / 2: the final norm leaves rows of length sqrt(C), so that logits are
        drawn from about N(0, C s^2).
        """
        std = self.config.initializer_range
        if isinstance(module, (nn.Linear, nn.Embedding)):
            scale = (2 * self.config.num_hidden_layers) ** -0.5 if getattr(module, "writes_residual", False) else 1.0
            nn.init.normal_(module.weight, 0.0, std * scale)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, RMSNorm):
            nn.init.ones_(module.weight)
        elif isinstance(module, MoEGate):
            nn.init.normal_(module.weight, 0.0, std)
            nn.init.zeros_(module.e_score_correction_bias)


class BuddyGPTModel(BuddyGPTPreTrainedModel):
    """Token ids to hidden states."""

    def __init__(self, config: BuddyGPTConfig):
        super().__init__(config)
        self.embed_tokens = Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(DecoderLayer(config, i) for i in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.gradient_checkpointing = False
        for name, module in self.named_modules():
            if name.endswith(("o_proj", "down_proj")) and not name.endswith(("q_down_proj", "kv_down_proj")):
                module.writes_residual = True  # type: ignore[assignment]
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        cache: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        document_ids: Tensor | None = None,
        output_hidden_states: bool | None = None,
        past_key_values: Cache | None = None,
        tied: TiedGradient | None = None,
        **kwargs: Any,
    ) -> DecoderOutput:
        """Run the decoder.

        Args:
            input_ids: (B, T) token ids.
            attention_mask: (B, past + T), 1 for real tokens, 0 for padding on either side; with a static cache
                (B, capacity) too, so that its shape stays the same.
            position_ids: (B, T); counted from the mask, or onwards from the cache, where left out. Given without mask
                and cache, a position that does not follow its left neighbour's begins a new packed document.
            cache: keys and values of the tokens before, read and extended.
            inputs_embeds: (B, T, C) in place of `input_ids`.
            use_cache: make a cache where none is given.
            document_ids: (B, T), equal within each packed document; documents do not see one another. No cache.
            output_hidden_states: also return the stream before each layer and after the final norm.
            past_key_values: `cache` by its older name.
            tied: where the gradient of a head that is the embedding's own matrix will be found.

        Raises:
            ValueError: not exactly one of input_ids and inputs_embeds; packed documents together with a cache.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give exactly one of input_ids and inputs_embeds")
        x_BTC = self._embedded(input_ids, tied) if inputs_embeds is None else inputs_embeds
        cache = past_key_values if cache is None else cache
        if use_cache is None:
            use_cache = not self.training and document_ids is None and bool(getattr(self.config, "use_cache", True))
        if use_cache and cache is None and not (self.gradient_checkpointing and self.training):
            cache = DynamicCache()
        past, static = 0 if cache is None else cache.get_seq_length(), False
        if isinstance(cache, KVCache) and cache.static:  # past is a tensor: no choice may hang on what it holds
            static = True
            if attention_mask is None:
                attention_mask = x_BTC.new_ones((x_BTC.shape[0], cache.capacity), dtype=torch.bool)
        else:
            past = int(past)
        if document_ids is None and position_ids is not None and attention_mask is None and not past:
            document_ids = _documents(position_ids)
        if document_ids is not None and (static or past):
            raise ValueError("packed documents cannot go on from a cache")
        tokens = x_BTC.shape[1]
        if attention_mask is not None and not static and bool(attention_mask.all()):
            attention_mask = None
        if position_ids is None:
            position_ids = _positions(attention_mask, past, tokens, x_BTC.device)
        visible = Visibility(past, tokens, attention_mask, document_ids)
        cos_BTD, sin_BTD = rotary_tables(self.config.rope_parameters, self.config.rotary_dim, position_ids)
        counted = self.training and attention_mask is not None
        real_BT = attention_mask[:, -tokens:].bool() if counted else None  # type: ignore[index]
        states, balance_B = [x_BTC], None
        for layer in self.layers:
            x_BTC, tokens_E, layer_balance_B = layer(x_BTC, cos_BTD, sin_BTD, visible, cache, real_BT)
            states.append(x_BTC)
            if tokens_E is not None:
                layer.mlp.gate.count(tokens_E)  # type: ignore[union-attr]
            if layer_balance_B is not None:
                balance_B = layer_balance_B if balance_B is None else balance_B + layer_balance_B
        x_BTC = self.norm(x_BTC)
        hidden_states = (*states[:-1], x_BTC) if output_hidden_states else None
        return DecoderOutput(x_BTC, hidden_states=hidden_states, balance_B=balance_B, **{CACHE: cache})  # type: ignore[arg-type]

    def _embedded(self, input_ids: Tensor | None, tied: TiedGradient | None) -> Tensor:
        return self.embed_tokens(input_ids) if tied is None else self.embed_tokens(input_ids, tied)


def _positions(attention_mask: Tensor | None, past: int | Tensor, tokens: int, device: torch.device) -> Tensor:
    """Positions (B or 1, T): real tokens count from 0 in each row, whatever the padding."""
    slots = past + torch.arange(tokens, device=device)
    if attention_mask is None:
        return slots[None]
    return (attention_mask.long().cumsum(-1) - 1).clamp(min=0)[:, slots]


def _documents(position_ids: Tensor) -> Tensor | None:
    """Document numbers (B, T) where positions jump, None where every row is one run."""
    starts = torch.ones_like(position_ids, dtype=torch.bool)
    starts[:, 1:] = position_ids[:, 1:] != position_ids[:, :-1] + 1
    return starts.cumsum(-1) if bool(starts[:, 1:].any()) else None


class BuddyGPTForCausalLM(BuddyGPTPreTrainedModel, GenerationMixin):
    """The decoder with a head over the vocabulary, tied to the embedding where the config says so."""

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}

    def __init__(self, config: BuddyGPTConfig):
        super().__init__(config)
        self.model = BuddyGPTModel(config)
        self.lm_head = Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        cache: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor | None = None,
        shift_labels: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
        past_key_values: Cache | None = None,
        fused_lm_head: bool = False,
        z_loss: float = 0.0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast | ScoredOutput:
        """Run the decoder and the head; `BuddyGPTModel.forward` has the other arguments.

        Args:
            labels: (B, T) token ids; position t is judged by label t + 1; -100 is not judged. With labels the result
                has a loss and no logits, unless `logits_to_keep` is given too.
            logits_to_keep: logits of this many last tokens, or of these positions; 0 and None mean all.
            shift_labels: (B, T), position t is judged by label t; in place of `labels`.
            num_items_in_batch: divisor of the loss, see `linear_cross_entropy`.
            fused_lm_head: score each label in place of the loss alone; this is how trl's trainers call a model.
            z_loss: see `linear_cross_entropy`; not with `fused_lm_head`.

        In training, `router_aux_loss_coef` times the mean of the rows' balance losses is part of the loss, each row
        weighted by its judged tokens.
        """
        width = None
        if shift_labels is None and labels is not None:
            shift_labels, width = nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORE_INDEX), labels.shape[1] - 1
        tied = None
        if shift_labels is not None and input_ids is not None and self._is_one_gradient():
            tied = kwargs["tied"] = TiedGradient()
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            cache=cache,
            inputs_embeds=inputs_embeds,
            use_cache=False if fused_lm_head else use_cache,
            past_key_values=past_key_values,
            **kwargs,
        )
        x_BTC = outputs.last_hidden_state
        loss = logits = scores = None
        if shift_labels is not None:
            shift_labels = shift_labels.to(x_BTC.device)
            judged_BT = shift_labels != IGNORE_INDEX
            items = judged_BT.sum().clamp(min=1) if num_items_in_batch is None else num_items_in_batch
            if fused_lm_head:
                scores = linear_scores(x_BTC, self.lm_head.weight, shift_labels, tied)
                loss = -scores.log_probs.sum() / items
            else:
                weight = self.lm_head.weight
                loss = linear_cross_entropy(x_BTC, weight, shift_labels, num_items_in_batch, tied, z_loss)
            if outputs.balance_B is not None:
                # Weighted as the rows' tokens are in the cross entropy, so that how a batch is split changes nothing.
                judged_B = judged_BT.sum(-1)
                loss = loss + self.config.router_aux_loss_coef * (outputs.balance_B * judged_B).sum() / items
            if scores is not None:
                columns = (column_BT[:, :width] for column_BT in scores)
                return ScoredOutput(loss, *columns, label_mask=judged_BT[:, :width])
        if shift_labels is None or logits_to_keep is not None:
            keep = logits_to_keep if isinstance(logits_to_keep, Tensor) else slice(-(logits_to_keep or 0) or None, None)
            logits = self.lm_head(x_BTC[:, keep])
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            hidden_states=outputs.hidden_states,
            **{CACHE: outputs.get(CACHE)},
        )  # type: ignore[arg-type]

    def _is_one_gradient(self) -> bool:
        """Whether head and embedding are one matrix that learns."""
        weight = self.lm_head.weight
        one = weight is self.model.embed_tokens.weight and isinstance(self.model.embed_tokens, Embedding)
        return one and weight.requires_grad and torch.is_grad_enabled() and not torch.compiler.is_compiling()
