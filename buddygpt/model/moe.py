"""Mixture of experts with sigmoid scores, a selection bias and shared experts (DeepSeek-V3, arXiv 2412.19437, 2.1.2).

Shapes: B rows of T tokens, N = B x T, C channels, E experts, A experts chosen for a token, F width inside an expert.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from buddygpt.model.configuration import BuddyGPTConfig
from buddygpt.model.experts import mix_experts, unstack
from buddygpt.model.mlp import GateMLP


class Load(NamedTuple):
    """What one layer's router did with the real tokens of a batch in training.

    It leaves the layer beside its output and is counted outside: a layer that is recomputed in the backward pass
    makes it again and nobody takes it.

    Args:
        tokens_E: tokens that chose each expert; None outside training.
        balance_B: `sequence_balance` of each row; None outside training and where that loss is off.
    """

    tokens_E: Tensor | None = None
    balance_B: Tensor | None = None


class MoEGate(nn.Module):
    """Scores experts and chooses some for each token.

    The bias steers which experts are chosen and never the weight they get; no gradient reaches it, a rule moves it
    (`buddygpt.training.balance`). Both tensors stay in fp32 when the model is cast: steps of 0.001 would be lost.

    `tokens_per_expert` (E,) counts, in training, the tokens that chose each expert since the rule last took them; None
    where there were none. It is no buffer: it is empty whenever a model is saved, and DDP sends buffers of rank 0 to
    all others.
    """

    e_score_correction_bias: Tensor

    def __init__(self, config: BuddyGPTConfig):
        super().__init__()
        experts = config.n_routed_experts
        self.chosen = config.num_experts_per_tok
        self.factor = config.routed_scaling_factor
        self.weight = nn.Parameter(torch.empty(experts, config.hidden_size, dtype=torch.float32))
        self.register_buffer("e_score_correction_bias", torch.zeros(experts, dtype=torch.float32))
        self.tokens_per_expert: Tensor | None = None

    def forward(self, x_NC: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scores (N, E), indices (N, A) of the chosen experts, their weights (N, A), which sum to the scaling factor.

        Equations 12 to 16; scores and weights are fp32.
        """
        with torch.autocast(x_NC.device.type, enabled=False):  # close scores decide: fp32
            scores_NE = (x_NC.float() @ self.weight.float().T).sigmoid()
        indices_NA = (scores_NE.detach() + self.e_score_correction_bias).topk(self.chosen, dim=-1, sorted=False).indices
        weights_NA = scores_NE.gather(-1, indices_NA)
        return scores_NE, indices_NA, self.factor * weights_NA / (weights_NA.sum(-1, keepdim=True) + 1e-20)

    def count(self, tokens_E: Tensor) -> None:
        """Add to the counter."""
        self.tokens_per_expert = tokens_E if self.tokens_per_expert is None else self.tokens_per_expert + tokens_E

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> MoEGate:
        """Follow to a device, not to a narrower type."""

        def moved(tensor: Tensor) -> Tensor:
            result = fn(tensor)
            return result if result.dtype == torch.float32 else tensor.to(result.device, torch.float32)

        return super()._apply(moved, recurse)


class MoELayer(nn.Module):
    """Routed experts beside shared ones that every token passes."""

    def __init__(self, config: BuddyGPTConfig):
        super().__init__()
        width = config.moe_intermediate_size
        self.balanced = config.router_aux_loss_coef > 0
        self.gate = MoEGate(config)
        self.experts = nn.ModuleList(GateMLP(config.hidden_size, width) for _ in range(config.n_routed_experts))
        self.shared_experts = GateMLP(config.hidden_size, width * config.n_shared_experts)
        self.register_load_state_dict_pre_hook(_unstack)

    def forward(self, x_BTC: Tensor, real_BT: Tensor | None = None) -> tuple[Tensor, Load]:
        """(B, T, C) to the same shape, and the load.

        Args:
            x_BTC: the stream.
            real_BT: true for real tokens, which alone are counted; None where all are.
        """
        x_NC = x_BTC.flatten(0, 1)
        scores_NE, indices_NA, weights_NA = self.gate(x_NC)
        routed_NC = mix_experts(x_NC, indices_NA, weights_NA, self.experts)
        y_BTC = self.shared_experts(x_BTC) + routed_NC.to(x_BTC.dtype).view_as(x_BTC)
        if not self.training:
            return y_BTC, Load()
        rows, experts = x_BTC.shape[0], scores_NE.shape[-1]
        tokens_BE = _tally(indices_NA.view(rows, -1, self.gate.chosen), real_BT, experts)
        balance_B = (
            sequence_balance(scores_NE.view(rows, -1, experts), self.gate.chosen, real_BT) if self.balanced else None
        )
        return y_BTC, Load(tokens_BE.sum(0).long(), balance_B)


def sequence_balance(scores_BTE: Tensor, chosen: int, real_BT: Tensor | None = None) -> Tensor:
    """The balance loss (B,) of each row, equations 17 to 20 without the coefficient: sum over experts of f x P.

    f is an expert's share of the row's choices over an even share, by the scores without the bias (equation 18); P,
    through which the gradient flows, the mean of its scores, each token's normalised over all experts. 1 where even.
    """
    experts = scores_BTE.shape[-1]
    real_BT1 = torch.ones_like(scores_BTE[..., :1]) if real_BT is None else real_BT[..., None].to(scores_BTE.dtype)
    tokens_B1 = real_BT1.sum(1).clamp(min=1)
    choices_BE = _tally(scores_BTE.detach().topk(chosen, dim=-1, sorted=False).indices, real_BT, experts)
    shares_BTE = scores_BTE / (scores_BTE.sum(-1, keepdim=True) + 1e-20)
    mean_BE = (shares_BTE * real_BT1).sum(1) / tokens_B1
    return (experts / (chosen * tokens_B1) * choices_BE * mean_BE).sum(-1)


def _tally(indices_BTA: Tensor, real_BT: Tensor | None, experts: int) -> Tensor:
    """Real tokens (B, E) of each row that chose each expert; fp32 holds such numbers exactly, on every device."""
    ones = torch.ones_like(indices_BTA, dtype=torch.float32)
    if real_BT is not None:
        ones = ones * real_BT[..., None]
    zeros = ones.new_zeros(indices_BTA.shape[0], experts)
    return zeros.scatter_add_(1, indices_BTA.flatten(1), ones.flatten(1))


def _unstack(module: nn.Module, state: dict[str, Any], prefix: str, *rest: Any) -> None:
    unstack(state, prefix + "experts.")
