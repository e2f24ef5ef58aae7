"""What trl's trainers do beside training that this project does otherwise or not at all."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def hush_renamed() -> None:
    """Keep back a warning that users can do nothing about.

    transformers is about to rename `gradient_checkpointing`; trl 1.16 has that name in its arguments and in every step.
    """
    warnings.filterwarnings("ignore", message=".*gradient_checkpointing", category=FutureWarning)


@contextmanager
def native_head(module: Any) -> Iterator[None]:
    """Inside, a trainer of trl's `module` is built without its own head over the model's `forward`.

    Our models answer `fused_lm_head=True` themselves. Taking theirs away afterwards would be too late: accelerate has
    wrapped a reference's `forward` for autocast by then.

    Args:
        module: where the trainer's class stands, such as `trl.trainer.dpo_trainer`.
    """
    theirs = module.add_fused_lm_head
    module.add_fused_lm_head = lambda *_, **__: None
    try:
        yield
    finally:
        module.add_fused_lm_head = theirs


class Discreet:
    """Mixed into a trainer of trl: nothing is sent to its makers, and checkpoints hold no draft of a model card."""

    def _send_telemetry(self) -> None:
        pass

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """None is made here."""

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        super()._save(output_dir, state_dict)  # type: ignore[misc]
        folder = self.args.output_dir if output_dir is None else output_dir  # type: ignore[attr-defined]
        Path(folder, "README.md").unlink(missing_ok=True)  # peft's draft
