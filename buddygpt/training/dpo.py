"""trl's DPOTrainer with our order of pairs, our head, and reference scores known by content."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback
from transformers.trainer_callback import PrinterCallback
from trl import DPOConfig
from trl import DPOTrainer as TrlTrainer
from trl.trainer import dpo_trainer

from buddygpt.events import Emit, Progress
from buddygpt.recipe.dpo import DPOSection
from buddygpt.training.keeper import Keeper
from buddygpt.training.lora import lora_config, share_inputs
from buddygpt.training.pace import Pace
from buddygpt.training.reference import Pair, Score, ScoreFile, pair_key, weights_hash
from buddygpt.training.seam import Discreet, hush_renamed, native_head
from buddygpt.training.trainer import Seams, for_trackers, shares, trainer_options

SAVED_EVERY = 64
"""Batches of reference scores that a kill may cost."""


class DPOTrainer(Discreet, TrlTrainer, Seams):
    """A DPOTrainer over pairs in training order.

    Args:
        model: the policy, which is its own reference as it is now; it gets adapters where the section has `lora`.
        tokenizer: saved into each checkpoint; its padding token pads.
        section: the recipe's `dpo`.
        keeper: of the pairs in training order, none longer than the model, and of the checkpoints.
        held_out: name to pairs to evaluate on.
        callbacks: watchers.
        pace: of the run.
        scores: folder of reference scores, which runs share, and all processes of a run.
        emit: who is told how far the reference's scores are.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        section: DPOSection,
        keeper: Keeper,
        held_out: Mapping[str, Sequence[Pair]],
        callbacks: Sequence[TrainerCallback],
        pace: Pace,
        scores: Path,
        emit: Emit,
    ):
        self.section, self.keeper, self.held_out, self.emit = section, keeper, held_out, emit
        cached = section.reference == "cached"
        kernels = f"{PartialState().device.type} {model.config._attn_implementation}"
        self.file = ScoreFile(scores, weights_hash(model), section.precision, kernels) if cached else None
        self.scores: dict[bytes, Score] = {}
        reference = None
        if not cached and section.lora is None:
            reference = copy.deepcopy(model).requires_grad_(False).eval()
        model.selective = section.gradient_checkpointing == "selective"
        hush_renamed()
        arguments = DPOConfig(
            **trainer_options(section, keeper.shelf.folder, pace),
            gradient_checkpointing=bool(section.gradient_checkpointing),
            max_length=None,  # the pairs fit already
            precompute_ref_log_probs=cached,
            disable_dropout=False,  # the model has none; the recipe's `lora.dropout` is meant
            loss_type=list(section.loss_type),
            beta=section.beta,
            label_smoothing=section.label_smoothing,
        )
        with native_head(dpo_trainer):
            super().__init__(
                model=model,
                ref_model=reference,
                args=arguments,
                train_dataset=Dataset.from_dict({"index": [0]}),  # trl checks for its type; see `_prepare_dataset`
                eval_dataset={},
                processing_class=tokenizer,
                callbacks=list(callbacks),
                peft_config=None if section.lora is None else lora_config(section.lora),
            )
        share_inputs(self.model)
        self.remove_callback(PrinterCallback)  # the stage's events are what is told
        for judged in held_out.values():
            self._score(judged)

    def _prepare_dataset(self, dataset: Any, processing_class: Any, args: Any, dataset_name: str) -> Any:
        return self.keeper.samples

    def _precompute_ref_logps(self, dataset: Any, name: str, batch_size: int) -> Any:
        self._score(dataset)
        return _Scored(dataset, self.scores)

    def _score(self, pairs: Sequence[Pair]) -> None:
        """See that the reference's scores of all pairs are known; what is computed moves no global random state."""
        if self.file is not None:
            self.scores |= self.file.load()
            self.accelerator.wait_for_everyone()  # all share the work by what all have read
        missing: dict[bytes, tuple[int, int]] = {}
        for index in range(len(pairs)):
            if (key := pair_key(pair := pairs[index])) not in self.scores:
                missing[key] = -_tokens(pair), index
        # Long ones first: alike lengths pad little, and what does not fit into memory shows at once.
        order = sorted(missing, key=lambda key: (missing[key][0], key))
        mine = order[self.args.process_index :: self.args.world_size]
        found: dict[bytes, Score] = {}
        at_once = self.section.micro_batch_size
        try:
            for start in range(0, len(mine), at_once):
                keys = mine[start : start + at_once]
                found |= zip(keys, self._reference([pairs[missing[key][1]] for key in keys]), strict=True)
                if self.file is not None and len(found) >= SAVED_EVERY * at_once:
                    self.file.add(found)
                    found = {}
                self.emit(Progress("reference", start + len(keys), len(mine), "pairs"))
        finally:
            if self.file is not None:
                self.file.add(found)
        if self.file is None:
            self.scores |= gather_object(list(found.items()))
            return
        self.accelerator.wait_for_everyone()
        if self.is_world_process_zero():
            self.file.gather()
        self.accelerator.wait_for_everyone()
        self.scores |= self.file.load()

    def _reference(self, pairs: Sequence[Pair]) -> list[Score]:
        model = self.ref_model or self.model
        training = model.training
        model.eval()
        try:
            batch = self._prepare_inputs(self.data_collator(pairs))
            return list(zip(*(side.tolist() for side in self.compute_ref_log_probs(model, batch)), strict=True))
        finally:
            model.train(training)

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Judge every held-out pair, the same ones at every call.

        Means over pairs: `accuracy`, the share whose chosen answer has the higher reward (half for equal ones);
        `margin`, by how much; `chosen_log_ratio` and `rejected_log_ratio`, in nats, to the reference.
        """
        training = self.model.training
        self.model.eval()
        metrics: dict[str, float] = {}
        try:
            for name, pairs in self.held_out.items():
                chosen, rejected, accuracy = self._judge(pairs)
                metrics[f"{metric_key_prefix}/{name}/accuracy"] = accuracy
                metrics[f"{metric_key_prefix}/{name}/margin"] = self.section.beta * (chosen - rejected)
                metrics[f"{metric_key_prefix}/{name}/chosen_log_ratio"] = chosen
                metrics[f"{metric_key_prefix}/{name}/rejected_log_ratio"] = rejected
            self.log(for_trackers(metrics))
        finally:
            self.model.train(training)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    @torch.no_grad()
    def _judge(self, pairs: Sequence[Pair]) -> tuple[float, float, float]:
        """Means of both sides' log-ratios, and the accuracy, over the pairs of all processes."""
        totals = torch.zeros(3, dtype=torch.float64)
        for some in shares(pairs, self.section.micro_batch_size, self.args.process_index, self.args.world_size):
            batch = self._prepare_inputs(self.data_collator(some or [pairs[0]]))
            labels = batch["input_ids"].masked_fill(batch.pop("completion_mask") == 0, -100)
            with self.accelerator.autocast():
                found = self.model(**batch, labels=labels, fused_lm_head=True).log_probs.sum(-1)
            if not some:
                continue
            known = torch.tensor([self.scores[pair_key(pair)] for pair in some], dtype=torch.float64)
            ratios = torch.stack(found.double().cpu().chunk(2), dim=-1) - known
            margins = ratios[:, 0] - ratios[:, 1]
            totals[:2] += ratios.sum(0)
            totals[2] += (margins.sign() + 1).sum() / 2
        of_all = zip(*gather_object([totals.tolist()]), strict=True)
        chosen, rejected, accuracy = (sum(total) / len(pairs) for total in of_all)
        return chosen, rejected, accuracy


class _Scored:
    """Pairs with their reference's scores, as trl's collator takes them."""

    def __init__(self, pairs: Sequence[Pair], scores: Mapping[bytes, Score]):
        self._pairs, self._scores = pairs, scores

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> dict[str, Any]:
        pair = self._pairs[index]
        chosen, rejected = self._scores[pair_key(pair)]
        return {**pair, "ref_chosen_logps": chosen, "ref_rejected_logps": rejected}


def _tokens(pair: Pair) -> int:
    return len(pair["prompt_ids"]) + max(len(pair["chosen_ids"]), len(pair["rejected_ids"]))
