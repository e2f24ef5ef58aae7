"""trl's SFTTrainer over our windows, with the model's own loss."""

from __future__ import annotations

from collections.abc import Sequence

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer, TrainerCallback
from transformers.trainer_callback import PrinterCallback
from trl import SFTConfig
from trl import SFTTrainer as TrlTrainer
from trl.trainer import sft_trainer

from buddygpt.recipe.sft import SFTSection
from buddygpt.training.keeper import Keeper
from buddygpt.training.lora import lora_config, share_inputs
from buddygpt.training.pace import Pace
from buddygpt.training.seam import Discreet, hush_renamed, native_head
from buddygpt.training.trainer import HeldOut, Seams, collate, trainer_options


class SFTTrainer(Discreet, TrlTrainer, Seams):
    """An SFTTrainer over windows of talks in training order.

    The loss is the model's own: the same number as trl's mean of `log_probs`, but its gradients are made in the forward
    pass, so that the head costs three matrix products and not four.

    Args:
        model: is trained; it gets adapters where the section has `lora`.
        tokenizer: saved into each checkpoint.
        section: the recipe's `sft`.
        keeper: of the windows in training order, and of the checkpoints.
        held_out: talks to evaluate on.
        callbacks: watchers.
        pace: of the run.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        section: SFTSection,
        keeper: Keeper,
        held_out: Sequence[HeldOut],
        callbacks: Sequence[TrainerCallback],
        pace: Pace,
    ):
        self.section, self.keeper, self.held_out = section, keeper, held_out
        model.selective = section.gradient_checkpointing == "selective"
        hush_renamed()
        arguments = SFTConfig(
            **trainer_options(section, keeper.shelf.folder, pace),
            gradient_checkpointing=bool(section.gradient_checkpointing),
            max_length=None,  # the windows fit already
            dataset_kwargs={"skip_prepare_dataset": True},
        )
        with native_head(sft_trainer):
            super().__init__(
                model=model,
                args=arguments,
                data_collator=collate,
                train_dataset=Dataset.from_dict({"index": [0]}),  # trl checks for its type
                eval_dataset={},
                processing_class=tokenizer,
                callbacks=list(callbacks),
                peft_config=None if section.lora is None else lora_config(section.lora),
            )
        share_inputs(self.model)
        self.train_dataset = keeper.samples
        vars(model.config).pop("output_router_logits", None)  # trl's word for a balance loss of another kind
        self.remove_callback(PrinterCallback)  # the stage's events are what is told

    compute_loss = Trainer.compute_loss
