"""The cache: what attention keeps of the tokens before, in buffers made once instead of tensors that grow.

A subclass of transformers' Cache, so `generate` takes it too, beam search included. For GQA the two buffers of a layer
hold keys and values; for MLA the first holds the latent and the shared rotary key side by side, `kv_lora_rank +
qk_rope_head_dim` numbers a token, and the second nothing.
Shapes: B batch, K key-value heads, N capacity, S tokens held, T tokens of this call, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

from buddygpt.model.configuration import BuddyGPTConfig


class KVCache(Cache):
    """Two buffers a layer, written in place. For inference: no gradient passes through it.

    All layers share one count of tokens, which moves when the last layer has written: a forward pass that is broken
    off leaves the cache as it was.

    With `static` every call sees the whole buffers, and the count is a tensor: shapes, addresses and guards stay the
    same from step to step, so that torch.compile and CUDA graphs need one graph for all of decoding. Slots beyond the
    last token are zero or stale, and the mask hides them. Without, a call sees the filled part as a view: no mask and
    no wasted work where nothing is compiled.

    Args:
        config: the model's config.
        batch: rows, B; times the beams where beam search uses the cache.
        capacity: tokens a row, N. What does not fit doubles the buffers; with `static` it is an error.
        dtype: type of keys and values: the model's, or autocast's.
        device: where the model is.
        static: fixed shapes, see above.
    """

    def __init__(
        self,
        config: BuddyGPTConfig,
        batch: int,
        capacity: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        *,
        static: bool = False,
    ):
        super().__init__(layers=[])
        self.static = static
        self.buffers = [
            tuple(
                torch.zeros(batch, heads, capacity, width, dtype=dtype, device=device) for heads, width in held(config)
            )
            for _ in range(config.num_hidden_layers)
        ]
        self._count: Any = torch.zeros((), dtype=torch.long, device=device) if static else 0
        if static:
            self._pin()

    def _pin(self) -> None:
        """Promise torch.compile that these tensors stay where they are: CUDA graphs then write to them in place."""
        for tensor in (self._count, *(buffer for pair in self.buffers for buffer in pair)):
            torch._dynamo.mark_static_address(tensor)

    @property
    def capacity(self) -> int:
        """Tokens that a row of the buffers can hold."""
        return self.buffers[0][0].shape[-2]

    @property
    def batch_size(self) -> int:
        """Rows."""
        return self.buffers[0][0].shape[0]

    @property
    def is_compileable(self) -> bool:
        """False: for such a cache transformers makes masks of four dimensions, which the model does not take."""
        return False

    def update(self, a: Tensor, b: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append this call's tensors (B, K, T, D) to a layer's two buffers.

        Returns:
            All that is held, (B, K, S, D); with `static` the whole buffers, (B, K, N, D).

        Raises:
            ValueError: the number of rows is another; the static buffers are full.
        """
        if a.shape[0] != self.batch_size:
            raise ValueError(f"the cache was made for {self.batch_size} rows, this call has {a.shape[0]}")
        start, tokens = self._count, a.shape[-2]
        if layer_idx == 0 and not torch.compiler.is_compiling():  # there, whoever decodes must know that there is room
            self._make_room(int(start) + tokens)
        pair = self.buffers[layer_idx]
        if self.static:
            slots = start + torch.arange(tokens, device=a.device)
            for buffer, new in zip(pair, (a, b), strict=True):
                buffer.index_copy_(2, slots, new)
            if layer_idx == len(self.buffers) - 1:
                self._count.add_(tokens)
            return pair[0], pair[1]
        end = start + tokens
        for buffer, new in zip(pair, (a, b), strict=True):
            buffer[:, :, start:end] = new
        if layer_idx == len(self.buffers) - 1:
            self._count = end
        return pair[0][:, :, :end], pair[1][:, :, :end]

    def _make_room(self, needed: int) -> None:
        capacity = self.capacity
        if needed <= capacity:
            return
        if self.static:
            raise ValueError(f"the static cache holds {capacity:,} tokens, {needed:,} are needed; make it larger")
        more = max(needed, 2 * capacity) - capacity
        grow = torch.nn.functional.pad
        self.buffers = [(grow(a, (0, 0, 0, more)), grow(b, (0, 0, 0, more))) for a, b in self.buffers]

    def get_seq_length(self, layer_idx: int = 0) -> Any:
        """Tokens held: an int, or with `static` a tensor of its own without dimensions."""
        return self._count.clone() if self.static else self._count

    def get_max_length(self, layer_idx: int | None = None) -> int:
        """Most tokens; -1, transformers' word for no end, where the buffers grow."""
        return self.capacity if self.static else -1

    def get_mask_sizes(self, query_length: int, layer_idx: int = 0) -> tuple[int, int]:
        """Number of keys that the next call of so many tokens will see, and the first one's position."""
        return (self.capacity if self.static else self._count + query_length), 0

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last `-tokens_to_remove` tokens: transformers counts them as a negative number.

        Raises:
            ValueError: the number is positive, or more tokens than are held.
        """
        if tokens_to_remove > 0 or int(self._count) + tokens_to_remove < 0:
            raise ValueError(f"crop({tokens_to_remove}): give a negative number of tokens, {int(self._count)} are held")
        self._count += tokens_to_remove  # in place where it is a tensor

    def reset(self) -> None:
        """Forget everything, keep the buffers."""
        self._count *= 0

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Row i becomes what row `beam_idx[i]` was; the buffers stay where they are."""
        for pair in self.buffers:
            for buffer in pair:
                buffer.copy_(buffer.index_select(0, beam_idx.to(buffer.device)))

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Each row `repeats` times, one after the other."""
        self.buffers = [(a.repeat_interleave(repeats, 0), b.repeat_interleave(repeats, 0)) for a, b in self.buffers]

    def batch_select_indices(self, indices: Tensor) -> None:
        """Only these rows."""
        self.buffers = [(a[indices], b[indices]) for a, b in self.buffers]

    def __len__(self) -> int:
        return len(self.buffers)

    def __repr__(self) -> str:
        kind = "static" if self.static else "dynamic"
        return f"KVCache({kind}, {self.batch_size} rows, {int(self._count)} of {self.capacity} tokens)"


def held(config: BuddyGPTConfig) -> list[tuple[int, int]]:
    """Heads and width of the two tensors that a layer's attention hands to the cache."""
    if config.attention_kind == "mla":
        return [(1, config.kv_lora_rank + config.qk_rope_head_dim), (1, 0)]
    return [(config.num_key_value_heads, config.rotary_dim)] * 2


@dataclass
class PrefixCache:
    """What a model has read, kept from one prompt to the next: only what follows the longest equal beginning is read.

    The beginnings are compared as ids, since a template may write an old turn otherwise than it was generated.
    """

    ids: list[int] = field(default_factory=list)
    cache: Cache | None = None

    def rewind(self, prompt: Sequence[int]) -> int:
        """Crop to the longest beginning that `prompt` shares, short of its last token; how many tokens that is."""
        shared = 0
        for mine, theirs in zip(self.ids, prompt[:-1], strict=False):
            if mine != theirs:
                break
            shared += 1
        if self.cache is None or not _croppable(self.cache):
            self.forget()
            return 0
        self.cache.crop(shared - int(self.cache.get_seq_length()))
        del self.ids[shared:]
        return shared

    def forget(self) -> None:
        """Begin from nothing."""
        self.ids, self.cache = [], None


def _croppable(cache: Cache) -> bool:
    """Whether tokens can be taken back: not where a layer keeps a window or a state instead of all tokens."""
    return isinstance(cache, KVCache) or all(type(layer) is DynamicLayer for layer in cache.layers)
