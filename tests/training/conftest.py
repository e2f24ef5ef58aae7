"""A run of pretraining small enough for a second: 12 steps of 16 windows, saved every 5, judged every 4."""

import json

import pytest
import torch

from buddygpt.data.windows import Passing
from buddygpt.events import silent
from buddygpt.recipe.pretrain import PretrainSection
from buddygpt.training import chapter
from buddygpt.training.callbacks import Brake
from buddygpt.training.checkpoints import all_checkpoints, newest_checkpoint
from tests.training.toys import pretraining

SECTION = {
    "tokens": 12 * 256,
    "tokens_per_batch": 256,
    "sequence_length": 16,
    "micro_batch_size": 4,
    "optimizer": {"kind": "muon", "learning_rate": 0.02, "adamw_learning_rate": 3e-3},
    "schedule": {"kind": "wsd"},
    "save_every": 5,
    "eval_every": 4,
}
GEOMETRY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
            "initializer_range": 0.02}  # fmt: skip
DENSE = {"intermediate_size": 48}
EXPERTS = {
    "mlp_kind": "moe", "n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1,
    "moe_intermediate_size": 24, "router_bias_update_rate": 1 / 64, "router_aux_loss_coef": 0.01,
}  # fmt: skip


class ToyRun:
    """One run in a folder, not begun.

    Args:
        folder: the chapter's.
        resume: go on from its newest checkpoint.
        mlp: feed-forward part of the model.
        emit: who is told.
        order: makes of a mixture and a section what is trained on.
        changes: to the section.
    """

    def __init__(self, folder, *, resume=False, mlp=DENSE, emit=silent, order=lambda m, _: Passing(m), **changes):
        self.folder = folder
        section = PretrainSection.model_validate(SECTION | changes)
        self.start = newest_checkpoint(folder / "checkpoints")[0] if resume else None
        # 63 windows of the 192 that the run takes: over three epochs
        self.trainer, self.watch = pretraining(folder, section, emit, (), self.start, order, **GEOMETRY | mlp)
        self.brake, self.keeper = self.watch.brake, self.watch.keeper
        self.stops = {}

        def on_step_end(args, state, control, **kwargs):
            left = self.stops.get(state.global_step, 0)
            self.stops[state.global_step] = left - 1
            self.brake.pulled = self.brake.pulled or left == 1
            return Brake.on_step_end(self.brake, args, state, control, **kwargs)

        self.brake.on_step_end = on_step_end

    def stop_at(self, step, times=1):
        """Have the run stop, saved, after the step; where it comes by more than once, the last of so many times."""
        self.stops[step] = times

    def train(self):
        """Train as a stage does."""
        return chapter.train(self.trainer, self.watch, self.folder, self.start, silent)

    def sample(self, index):
        return self.keeper.samples[index]

    def note_places(self):
        """A list that will hold the place of each sample that is read, in order."""
        order, read = self.keeper.samples, []
        kind = type(order)

        class Noting(kind):
            def __getitem__(self, index):
                read.append(order.place(index))
                return order[index]

            def __init__(self):
                pass

            def __len__(self):
                return len(order)

        self.trainer.train_dataset = Noting()
        return read

    def before_saving(self, act):
        """Call `act()` at the beginning of each save."""
        save = self.trainer._save_checkpoint

        def saved(*args):
            act()
            save(*args)

        self.trainer._save_checkpoint = saved

    def rows(self):
        return [json.loads(line) for line in (self.folder / "metrics.jsonl").read_text().splitlines()]

    def losses(self):
        return {row["step"]: row["loss"] for row in self.rows() if "loss" in row}

    def rows_of_evaluations(self):
        evaluations = [row for row in self.rows() if "eval/v/loss" in row]
        return [{key: value for key, value in row.items() if key != "seconds_eval"} for row in evaluations]

    def checkpoints(self):
        return [path.name for path in all_checkpoints(self.folder / "checkpoints")]


@pytest.fixture
def toy_training(tmp_path):
    """A `ToyRun` in `tmp_path/NAME`."""
    return lambda name, **options: ToyRun(tmp_path / name, **options)


def same_weights(a, b):
    """Whether two trainers' models are equal to the bit."""
    pairs = zip(a.model.state_dict().values(), b.model.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)
