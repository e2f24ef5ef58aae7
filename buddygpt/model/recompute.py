"""Selective recomputation: of a layer the dear results stay, the cheap ones are made again in the backward pass.

Korthikanti et al. (arXiv 2205.05198, section 5) keep all but attention's scores, which the fused kernels of today keep
nowhere. Here what a matrix product or an attention kernel gives stays; norms, rotations, the gate's product and casts
are made again from it. A router's choice stays too: made again it might be another one.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts

PRODUCTS = frozenset({"aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "aten::_grouped_mm", "aten::topk"})
"""Operators whose results stay. Those that write into a given tensor do not: keeping them would skip the writing."""

ATTENTION = ("aten::_scaled_dot_product_", "torch_attn::", "flash_attn::", "flash_attn_3::")
"""How names of operators begin that are attention kernels. FlashAttention 4 is no operator of torch: it runs again."""


def keep_products(inner: int) -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    """`context_fn` of `torch.utils.checkpoint.checkpoint`: for a layer's forward pass, and for making it again.

    Args:
        inner: width that `down_proj` reads. What it gives is a layer's end and read by nothing: it does not stay. Where
            another product reads that width too, it is made again: slower, never wrong.
    """

    def policy(context: Any, operator: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
        name = operator.name()
        kept = name in PRODUCTS and not (name == "aten::mm" and args[0].shape[1] == inner)
        kept = kept or name.startswith(ATTENTION)
        return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE

    return create_selective_checkpoint_contexts(policy)
