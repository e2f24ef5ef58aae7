"""A run of pretraining small enough for a second: 12 steps of 16 windows, saved every 5, judged every 4."""

import json
from collections import ChainMap

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast, set_seed

from buddygpt.data.windows import Mixture, Passing, StreamWindows, TokenStream, evaluation_windows
from buddygpt.events import silent
from buddygpt.model import BuddyGPTConfig, BuddyGPTForCausalLM
from buddygpt.recipe.pretrain import PretrainSection
from buddygpt.training import balance as balancing
from buddygpt.training import chapter
from buddygpt.training.callbacks import Brake, Meter, Samples
from buddygpt.training.checkpoints import all_checkpoints, newest_checkpoint
from buddygpt.training.pace import pretraining_pace
from buddygpt.training.trainer import HeldOut, PretrainTrainer
from tests.training.kept import keep

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
DENSE = {"intermediate_size": 48}
EXPERTS = {
    "mlp_kind": "moe", "n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1,
    "moe_intermediate_size": 24, "router_bias_update_rate": 1 / 64, "router_aux_loss_coef": 0.01,
}  # fmt: skip


class Shard:
    def __init__(self, seed, tokens):
        rng = np.random.default_rng(seed)
        self.tokens = rng.integers(1, 60, tokens).astype(np.uint16)
        self.document_ends = np.arange(7, tokens + 1, 7)
        self.tokens[self.document_ends - 1] = 0


class ToyRun:
    """One run in a folder, not begun.

    Args:
        folder: the chapter's.
        resume: go on from its newest checkpoint.
        mlp: feed-forward part of the model.
        emit: who is told.
        changes: to the section.
    """

    def __init__(self, folder, *, resume=False, mlp=DENSE, emit=silent, **changes):
        self.folder = folder
        section = PretrainSection.model_validate(SECTION | changes)
        self.start = newest_checkpoint(folder / "checkpoints")[0] if resume else None
        step = int(self.start.name[11:]) if self.start else 0
        stream = TokenStream("s", [Shard(0, 1000)], 0)  # 63 windows of the 192 that the run takes: over three epochs
        source = StreamWindows(stream, section.sequence_length)
        windows = Mixture([source], [1.0], section.tokens // section.sequence_length, 0)
        held, stop_at = evaluation_windows(TokenStream("v", [Shard(1, 200)], 0), section.sequence_length, 150)
        set_seed(0)
        self.model = BuddyGPTForCausalLM(
            BuddyGPTConfig(
                vocab_size=64, hidden_size=32, num_hidden_layers=2, max_position_embeddings=32,
                num_attention_heads=4, num_key_value_heads=2, **mlp,
            )
        )  # fmt: skip
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), eos_token="<e>", pad_token="<e>")
        self.brake, self.balance = Brake(), balancing.Balance()
        pace = pretraining_pace(section, 1)
        self.keeper = keep(
            folder, Passing(windows), pace.batch, guard=section.guard, emit=emit,
            keep=section.keep_checkpoints, keep_every=section.keep_every, **{"recipe.yaml": "x"},
        )  # fmt: skip
        self.keeper.load(self.start)
        figures = ChainMap(self.keeper.guard.figures, self.balance.figures)
        meter = Meter("pretrain", folder / "metrics.jsonl", pace, silent, step, figures)
        again = pace.judges(step) and not any("eval/v/loss" in row and row["step"] == step for row in meter.rows)
        self.stops = {}
        run = self

        class StopAt(Brake):
            def on_step_end(self, args, state, control, **kwargs):
                left = run.stops.get(state.global_step, 0)
                run.stops[state.global_step] = left - 1
                run.brake.pulled = left == 1
                return control

        samples = Samples([], [], tokenizer, folder / "samples.jsonl", silent, step)
        self.watch = chapter.Watch(self.balance, samples, self.brake, meter, self.keeper, again)
        self.trainer = PretrainTrainer(
            self.model, tokenizer, section, self.keeper, [HeldOut("v", held, stop_at, 2 * stop_at)],
            [self.balance, StopAt(), self.brake, meter], pace,
        )  # fmt: skip

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
        return [row for row in self.rows() if "eval/v/loss" in row]

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
