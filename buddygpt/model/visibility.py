"""Who may see whom: causality, padding, documents packed into one window; as a mask, or as runs without one.

Shapes: B batch, T query tokens, S key tokens (cache included), M real tokens of the batch in one row, n runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Runs:
    """The batch as runs of tokens laid end to end, each causal within itself and blind to the others.

    Args:
        tokens_M: which of the B * T tokens they are; None where they are all of them.
        lengths: tokens of each run.
        cumulative_n1: where each run starts in M, and M itself; int32, as the kernels want it.
    """

    tokens_M: Tensor | None
    lengths: tuple[int, ...]
    cumulative_n1: Tensor


class Visibility:
    """Which keys each query may see: always causal, and nothing across documents or into padding.

    Queries are the last T of the tokens seen so far, so the causal triangle is aligned bottom-right. What the
    backends need is made once for all layers, and only where the plain causal flag does not say it all.

    Args:
        past: tokens in the cache before this call; a tensor with a static cache, where no choice may hang on it.
        queries: T.
        padding_BS: true for real tokens, over all tokens up to the last query; None where there is no padding.
        documents_BT: changes where a new document of a packed window begins; None where a row is one document.
            Only without a cache.
    """

    def __init__(
        self, past: int | Tensor, queries: int, padding_BS: Tensor | None = None, documents_BT: Tensor | None = None
    ):
        self.past, self.queries = past, queries
        self.padding_BS = None if padding_BS is None else padding_BS.bool()
        self.documents_BT = None if documents_BT is None else _numbered(documents_BT)
        self._made: dict[Any, Any] = {}

    def kind(self, keys: int) -> str:
        """What a backend must be able to do.

        `plain` (causal, queries are the keys), `step` (one query that sees every key), `chunk` (causal after a
        cache), `runs` (documents or padding, no cache), `mask` (anything else).
        """
        if isinstance(self.past, Tensor) or keys != self.past + self.queries:
            return "mask"
        if self.padding_BS is None and self.documents_BT is None:
            return "step" if self.queries == 1 else "chunk" if self.past else "plain"
        return "mask" if self.past else "runs"

    def mask(self, keys: int, device: torch.device) -> Tensor:
        """Boolean (B or 1, 1, T, S), true where a query may look; slots beyond the last token are false."""
        if ("mask", keys) not in self._made:
            slots = torch.arange(keys, device=device)
            positions = self.past + torch.arange(self.queries, device=device)
            mask = (slots <= positions[:, None])[None]
            if self.padding_BS is not None:
                real = F.pad(self.padding_BS, (0, keys - self.padding_BS.shape[-1]))
                # A padded query sees itself: a row without any key would be NaN and spread through the layers.
                mask = mask & (real[:, None] | (slots == positions[:, None]))
            if self.documents_BT is not None:
                mask = mask & (self.documents_BT[:, :, None] == self.documents_BT[:, None, :])
            self._made["mask", keys] = mask[:, None]
        return self._made["mask", keys]

    def block_mask(self, batch: int, keys: int, device: torch.device) -> Any:
        """The same rule as flex attention's sparse blocks; no T x S tensor is made on a GPU."""
        if ("blocks", keys) not in self._made:
            from torch.nn.attention.flex_attention import create_block_mask

            past, documents_BT = self.past, self.documents_BT
            real_BS = None if self.padding_BS is None else F.pad(self.padding_BS, (0, keys - self.padding_BS.shape[-1]))

            def sees(b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
                rule = key <= query + past
                if real_BS is not None:
                    rule = rule & (real_BS[b, key] | (key == query + past))
                if documents_BT is not None:
                    rule = rule & (documents_BT[b, query] == documents_BT[b, key])
                return rule

            rows = batch if real_BS is not None or documents_BT is not None else None
            self._made["blocks", keys] = create_block_mask(sees, rows, None, self.queries, keys, device=str(device))
        return self._made["blocks", keys]

    def runs(self, batch: int, device: torch.device) -> Runs:
        """The batch as runs; a row without documents and padding is one. Waits for the device once."""
        if "runs" not in self._made:
            row_BT = torch.arange(batch, device=device)[:, None].expand(batch, self.queries)
            document_BT = torch.zeros_like(row_BT) if self.documents_BT is None else self.documents_BT
            run_N = (row_BT * self.queries + document_BT).flatten()
            tokens_M = None
            if self.padding_BS is not None and not bool(self.padding_BS.all()):
                tokens_M = self.padding_BS.flatten().nonzero()[:, 0]
                run_N = run_N[tokens_M]
            _, counts_n = torch.unique_consecutive(run_N, return_counts=True)
            cumulative_n1 = F.pad(counts_n.cumsum(0), (1, 0)).to(torch.int32)
            self._made["runs"] = Runs(tokens_M, tuple(counts_n.tolist()), cumulative_n1)
        return self._made["runs"]


def _numbered(documents_BT: Tensor) -> Tensor:
    """Documents counted from 0 in each row: an id that comes again later is another document."""
    starts_BT = torch.zeros_like(documents_BT, dtype=torch.bool)
    starts_BT[:, 1:] = documents_BT[:, 1:] != documents_BT[:, :-1]
    return starts_BT.cumsum(-1)
