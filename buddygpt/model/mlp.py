"""SwiGLU feed-forward (arXiv 2002.05202)."""

from __future__ import annotations

from torch import Tensor, nn

from buddygpt.model.linear import Linear


class GateMLP(nn.Module):
    """`down(silu(gate(x)) * up(x))`, without biases.

    Args:
        hidden_size: width outside.
        intermediate_size: width inside.
    """

    def __init__(self, hidden_size: int, intermediate_size: int):
        super().__init__()
        self.gate_proj = Linear(hidden_size, intermediate_size, bias=False)
        self.up_proj = Linear(hidden_size, intermediate_size, bias=False)
        self.down_proj = Linear(intermediate_size, hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., hidden_size) to the same shape."""
        return self.down_proj(nn.functional.silu(self.gate_proj(x)) * self.up_proj(x))
