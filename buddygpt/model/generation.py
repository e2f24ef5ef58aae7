"""Decoding: one loop for samples, chat and evaluation, for our models and any causal one of transformers.

Prompts of different lengths stand in one batch, padded on the left; a row's text is what it would be alone, greedy or
drawn. The global random state is neither read nor moved.
Shapes: B batch, T tokens of this call, N tokens that a row may reach, V vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import torch
from tokenizers.decoders import DecodeStream
from torch import Tensor
from transformers import PreTrainedTokenizerBase
from transformers.cache_utils import Cache

from buddygpt.model.cache import KVCache, PrefixCache
from buddygpt.model.configuration import BuddyGPTConfig
from buddygpt.model.modeling import CACHE
from buddygpt.model.sampling import Sampling, choose, draws
from buddygpt.model.shortlist import Shortlist
from buddygpt.model.step import Step, fits


def generate(
    model: Any,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    stop: Collection[int] = (),
    vocabulary: int | None = None,
    cache: KVCache | None = None,
) -> list[list[int]]:
    """Continue each prompt until a stop id or the most tokens; new ids only, the stop id left out.

    Args:
        model: a causal language model in eval mode; compiled where wanted.
        prompts: token ids, none empty.
        sampling: how tokens are drawn. A seed gives row i the same text whatever rows stand below it.
        stop: ids that end a row, see `stop_ids`.
        vocabulary: ids from here on are never taken: rows of the head beyond the tokenizer's are padding.
        cache: buffers to work in, whose content is lost; made where left out.

    Raises:
        ValueError: an empty prompt; the static cache is too small.
    """
    texts: list[list[int]] = [[] for _ in prompts]
    if prompts and sampling.max_new_tokens > 0:
        if cache is not None:
            cache.reset()
        for tokens in _decode(model, prompts, sampling, frozenset(stop), vocabulary, cache):
            for text, token in zip(texts, tokens, strict=True):
                if token is not None:
                    text.append(token)
    return texts


def stream(
    model: Any,
    prompt: Sequence[int],
    sampling: Sampling,
    *,
    stop: Collection[int] = (),
    vocabulary: int | None = None,
    prefix: PrefixCache | None = None,
    shortlist: Shortlist | None = None,
) -> Iterator[int]:
    """Continue one prompt, id by id as they come; arguments as those of `generate`.

    Args:
        prefix: reuses what an earlier call has read, and keeps what this one reads.
        shortlist: of the head's first `vocabulary` rows, for the same texts in less time.
    """
    if sampling.max_new_tokens > 0:
        for (token,) in _decode(model, [prompt], sampling, frozenset(stop), vocabulary, None, prefix, shortlist):
            if token is not None:
                yield token


@torch.no_grad()
def _decode(
    model: Any,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    stop: frozenset[int],
    vocabulary: int | None,
    cache: Cache | None,
    prefix: PrefixCache | None = None,
    shortlist: Shortlist | None = None,
) -> Iterator[list[int | None]]:
    """One id a row and step, None for a row that has ended; ends with the last row."""
    if not all(prompts):
        raise ValueError("a prompt has no tokens; give at least one, such as the end-of-text id")
    longest = max(map(len, prompts))
    past = prefix.rewind(prompts[0]) if prefix is not None else 0
    cache = prefix.cache if prefix is not None else cache
    slots = longest + sampling.max_new_tokens - 1  # the last token is never read
    if cache is None and isinstance(model.config, BuddyGPTConfig):
        cache = _new_cache(model, len(prompts), slots)
    static = False
    if isinstance(cache, KVCache) and cache.static:
        if slots > cache.capacity:
            raise ValueError(f"the static cache holds {cache.capacity:,} tokens, {slots:,} may be needed")
        static, slots = True, cache.capacity
    ids_BT, mask_BN = (tensor.to(model.device) for tensor in _pad_left(prompts, longest, slots))
    lengths_B1 = mask_BN[:, :longest].sum(-1, keepdim=True)
    padded = min(map(len, prompts)) < longest
    ids_BT = ids_BT[:, past:]
    draws_BN = draws(len(prompts), sampling)
    options: dict[str, Any] = {"logits_to_keep": 1} if _takes(model, "logits_to_keep") else {}
    running = [True] * len(prompts)
    one: Step | None = None
    for step in range(sampling.max_new_tokens):
        end = past + ids_BT.shape[1]
        if padded:  # others than ours count positions from the cache alone
            positions = mask_BN[:, :longest].cumsum(-1) - 1 if step == 0 else lengths_B1 + (step - 1)
            options["position_ids"] = positions.clamp(min=0)
        try:
            if one is not None:
                x_C = one(int(ids_BT), cache)  # type: ignore[arg-type]
                logits_BV = None if shortlist else model.lm_head(x_C[None])
            else:
                out = model(
                    input_ids=ids_BT,
                    attention_mask=mask_BN if static else mask_BN[:, :end],
                    use_cache=True,
                    **{CACHE: cache},
                    **options,
                )
                cache, logits_BV = out[CACHE], out.logits[:, -1]
        except BaseException:  # Ctrl-C too: some layers may have read more than others
            if prefix is not None:
                prefix.forget()
            raise
        if prefix is not None:
            prefix.cache = cache
            prefix.ids += ids_BT[0].tolist()
        past = end
        if logits_BV is not None:
            chosen_B = choose(logits_BV[:, :vocabulary], sampling, draws_BN[:, step])
        else:
            chosen_B = shortlist.choose(x_C, sampling, draws_BN[:, step])  # type: ignore[union-attr]
        tokens = chosen_B.tolist()
        running = [on and token not in stop for on, token in zip(running, tokens, strict=True)]
        yield [token if on else None for on, token in zip(running, tokens, strict=True)]
        if not any(running):
            return
        ids_BT = chosen_B[:, None]
        if step == 0 and fits(model, cache):
            one = Step(model)


def _pad_left(prompts: Sequence[Sequence[int]], longest: int, slots: int) -> tuple[Tensor, Tensor]:
    """Ids (B, longest) and the mask (B, slots), 1 for real tokens and for those to come."""
    ids_BT = torch.tensor([[0] * (longest - len(p)) + list(p) for p in prompts])
    first_B1 = torch.tensor([[longest - len(p)] for p in prompts])
    return ids_BT, (torch.arange(slots) >= first_B1).long()


def _new_cache(model: Any, rows: int, capacity: int) -> KVCache:
    device = model.device
    autocast = torch.is_autocast_enabled(device.type)
    dtype = torch.get_autocast_dtype(device.type) if autocast else model.dtype
    return KVCache(model.config, rows, capacity, dtype, device)


def _takes(model: Any, name: str) -> bool:
    whole = getattr(model, "_orig_mod", model)  # what torch.compile wraps
    return name in inspect.signature(whole.forward).parameters


def stop_ids(model: Any, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """All ids that end a text: the tokenizer's, the generation config's and the config's, each one id or a list."""
    stops: set[int] = set()
    for source in (tokenizer, getattr(model, "generation_config", None), model.config):
        ids = getattr(source, "eos_token_id", None)
        stops |= set(ids if isinstance(ids, Iterable) else [] if ids is None else [ids])
    return frozenset(stops)


class CharacterStream:
    """Turns ids into text as they come, whole characters only; bytes of one never finished are left out.

    Args:
        tokenizer: a fast tokenizer; its special tokens leave no text.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self._backend: Any = tokenizer.backend_tokenizer  # type: ignore[attr-defined]
        self._stream = DecodeStream(skip_special_tokens=True)
        self.text, self.tokens = "", 0

    def push(self, token: int) -> str:
        """The text that this id completes; empty where a character's bytes are still to come."""
        self.tokens += 1
        piece = self._stream.step(self._backend, token) or ""
        self.text += piece
        return piece
