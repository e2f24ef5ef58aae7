"""Mixture of experts with sigmoid scores, a selection bias and shared experts (DeepSeek-V3, arXiv 2412.19437, 2.1.2).

Shapes: N tokens of the whole batch, C channels, E experts, A experts chosen for a token.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from buddygpt.model.configuration import BuddyGPTConfig
from buddygpt.model.experts import mix_experts
from buddygpt.model.mlp import GateMLP


class MoEGate(nn.Module):
    """Scores experts and chooses some for each token.

    The bias steers which experts are chosen and never the weight they get; no gradient reaches it.
    """

    e_score_correction_bias: Tensor

    def __init__(self, config: BuddyGPTConfig):
        super().__init__()
        self.chosen = config.num_experts_per_tok
        self.factor = config.routed_scaling_factor
        self.weight = nn.Parameter(torch.empty(config.n_routed_experts, config.hidden_size))
        self.register_buffer("e_score_correction_bias", torch.zeros(config.n_routed_experts))

    def forward(self, x_NC: Tensor) -> tuple[Tensor, Tensor]:
        """Indices (N, A) of the chosen experts and their weights (N, A) in fp32, which sum to the scaling factor."""
        with torch.autocast(x_NC.device.type, enabled=False):  # close scores decide: fp32
            scores_NE = (x_NC.float() @ self.weight.float().T).sigmoid()
        indices_NA = (scores_NE.detach() + self.e_score_correction_bias).topk(self.chosen, dim=-1, sorted=False).indices
        weights_NA = scores_NE.gather(-1, indices_NA)
        return indices_NA, self.factor * weights_NA / weights_NA.sum(-1, keepdim=True)


class MoELayer(nn.Module):
    """Routed experts beside shared ones that every token passes."""

    def __init__(self, config: BuddyGPTConfig):
        super().__init__()
        width = config.moe_intermediate_size
        self.gate = MoEGate(config)
        self.experts = nn.ModuleList(GateMLP(config.hidden_size, width) for _ in range(config.n_routed_experts))
        self.shared_experts = GateMLP(config.hidden_size, width * config.n_shared_experts)

    def forward(self, x_BTC: Tensor) -> Tensor:
        """(B, T, C) to the same shape."""
        x_NC = x_BTC.flatten(0, 1)
        indices_NA, weights_NA = self.gate(x_NC)
        routed_NC = mix_experts(x_NC, indices_NA, weights_NA, self.experts)
        return self.shared_experts(x_BTC) + routed_NC.to(x_BTC.dtype).view_as(x_BTC)
