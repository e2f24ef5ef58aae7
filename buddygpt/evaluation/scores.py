"""How measures run a model: in eval mode, without gradients, under the autocast of training; and its log-probabilities.

Shapes: B texts, T tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from buddygpt.model.loss import linear_log_probs

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


@contextmanager
def measuring(model: Any, precision: str) -> Iterator[None]:
    """Eval mode, no gradients, autocast to `precision`; the mode is put back afterwards.

    Args:
        model: a causal language model.
        precision: bf16, fp16 or fp32, as in a recipe's training section.
    """
    training = model.training
    model.eval()
    try:
        with torch.no_grad(), torch.autocast(model.device.type, DTYPES[precision], enabled=precision != "fp32"):
            yield
    finally:
        model.train(training)


def token_log_probs(model: Any, ids_BT: Tensor, targets_BT: Tensor) -> Tensor:
    """Log-probability in nats of each position's target (B, T), fp32, without the logits; call it while `measuring`.

    Args:
        model: a causal language model, ours or transformers'.
        ids_BT: what is read.
        targets_BT: what each position is to foretell; -100 gives 0 and costs nothing.
    """
    hidden_BTC = model.base_model(input_ids=ids_BT.to(model.device), use_cache=False).last_hidden_state
    return linear_log_probs(hidden_BTC, model.get_output_embeddings().weight, targets_BT.to(model.device))
