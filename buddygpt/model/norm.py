"""RMSNorm (arXiv 1910.07467)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """`weight * x / sqrt(mean(x^2) + eps)` over the last dimension, statistics in fp32.

    Args:
        dim: width that is normalised.
        eps: added to the mean square.
    """

    def __init__(self, dim: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Same shape; under autocast in its type, so that no matrix product behind has to cast again."""
        device = x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
        if device == "cpu" and not torch.compiler.is_compiling():
            if not torch.is_grad_enabled():  # one layer's call costs more than its sums when one token is decoded
                return normalised(x.float(), self.weight, self.eps, dtype)[0]
            return _RMSNorm.apply(x, self.weight, self.eps, dtype)
        return nn.functional.rms_norm(x.float(), self.weight.shape, self.weight.float(), self.eps).to(dtype)

    def extra_repr(self) -> str:
        return f"{self.weight.numel()}, eps={self.eps}"


class _RMSNorm(torch.autograd.Function):
    """What torch has as one kernel on a GPU only. Keeps its input, which the stream holds anyway, and a root a row."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
        y, root = normalised(x.float(), weight, eps, dtype)
        ctx.save_for_backward(x, weight, root)
        return y

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, None, None]:
        x, weight, root = ctx.saved_tensors
        x_ND, grad_ND, root_N1 = (t.reshape(-1, t.shape[-1]).float() for t in (x, grad_outputs[0], root))
        product_ND = grad_ND * x_ND
        grad_weight_D = root_N1[:, 0] @ product_ND
        share_N1 = (product_ND @ weight.float())[:, None] * root_N1.pow(3) / x.shape[-1]
        grad_x_ND = (grad_ND * weight).mul_(root_N1).addcmul_(x_ND, share_N1, value=-1)
        return grad_x_ND.view_as(x).to(x.dtype), grad_weight_D.to(weight.dtype), None, None


def normalised(x_32: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The result, and one over each row's root mean square."""
    root = x_32.square().mean(-1, keepdim=True).add_(eps).rsqrt_()
    return (x_32 * root).mul_(weight).to(dtype), root
