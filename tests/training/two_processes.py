"""Small trainings that the tests of several processes compare: by themselves, and as one of two processes.

`python -m tests.training.two_processes FOLDER`, once for each process, with RANK and the like in its environment.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, models
from torch.distributed.fsdp import FSDPModule
from transformers import PreTrainedTokenizerFast, set_seed

from buddygpt.data.windows import Mixture, Passing, StreamWindows, TokenStream, evaluation_windows
from buddygpt.events import silent
from buddygpt.model import BuddyGPTConfig, BuddyGPTForCausalLM
from buddygpt.recipe.pretrain import PretrainSection
from buddygpt.training import balance as balancing
from buddygpt.training import launch
from buddygpt.training.callbacks import Brake, Meter
from buddygpt.training.checkpoints import newest_checkpoint
from buddygpt.training.pace import pretraining_pace
from buddygpt.training.setup import find_device
from buddygpt.training.trainer import HeldOut, PretrainTrainer
from tests.training.kept import keep

SECTION = {
    "tokens": 9 * 64, "tokens_per_batch": 256, "sequence_length": 16, "micro_batch_size": 2, "precision": "fp32",
    "optimizer": {"kind": "adamw", "learning_rate": 1e-2}, "schedule": {"kind": "wsd", "warmup": 0.2},
    "save_every": 100, "eval_every": 4,
}  # fmt: skip
DENSE = {"intermediate_size": 48}
EXPERTS = {
    "mlp_kind": "moe", "n_routed_experts": 8, "num_experts_per_tok": 2, "n_shared_experts": 1,
    "moe_intermediate_size": 24, "router_bias_update_rate": 1 / 64,
}  # fmt: skip
LONG = {"tokens": 12 * 256}
FSDP = {"parallel": {"kind": "fsdp"}}
SPARSE = {"tokens": 20 * 8, "tokens_per_batch": 8, "sequence_length": 4, "micro_batch_size": 1}
"""Four tokens a process in each of 20 steps, and eight experts."""


class Shard:
    def __init__(self, seed, tokens):
        rng = np.random.default_rng(seed)
        self.tokens = rng.integers(1, 60, tokens).astype(np.uint16)
        self.document_ends = np.arange(7, tokens + 1, 7)
        self.tokens[self.document_ends - 1] = 0


class Watched(Passing):
    """Windows of very different numbers of targets; which ones were read is written down."""

    def __init__(self, windows, micro):
        super().__init__(windows)
        self.micro, self.read = micro, []

    def __getitem__(self, index):
        self.read.append(index)
        window = super().__getitem__(index)
        batch = index // self.micro  # dealt in turn: with two processes the odd ones are the second one's
        hidden = 16 if 8 <= batch < 16 and batch % 2 else (index * 5) % 16  # in step 2 it has no target at all
        labels = window["labels"].copy()
        labels[1 : 1 + hidden] = -100
        return window | {"labels": labels, "shift_labels": labels[1:]}


def train(folder, *, stop=None, mlp=DENSE, die=None, **changes):
    """Train, or go on; stop in step `stop[0]`, when process `stop[1]` is asked. Gives trainer, rows, windows read."""
    section = PretrainSection.model_validate(SECTION | changes)
    device = find_device()
    start, _ = newest_checkpoint(folder / "checkpoints")
    source = StreamWindows(TokenStream("s", [Shard(0, 1000)], 0), section.sequence_length)
    windows = Mixture([source], [1.0], section.steps * section.tokens_per_batch // section.sequence_length, 0)
    windows = Watched(windows, section.micro_batch_size) if section.sequence_length == 16 else Passing(windows)
    held, stop_at = evaluation_windows(TokenStream("v", [Shard(1, 200)], 0), section.sequence_length, 150)
    set_seed(0)
    model = BuddyGPTForCausalLM(
        BuddyGPTConfig(
            vocab_size=64, hidden_size=32, num_hidden_layers=2, max_position_embeddings=32,
            num_attention_heads=4, num_key_value_heads=2, **mlp,
        )
    )  # fmt: skip
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), eos_token="<e>", pad_token="<e>")
    brake, balance = Brake(), balancing.Balance()
    pace = pretraining_pace(section, device.processes)
    step = int(start.name[11:]) if start else 0
    meter = Meter("pretrain", folder / "metrics.jsonl", pace, silent, step, balance.figures)

    class Asked(Brake):
        def on_step_end(self, args, state, control, **kwargs):
            brake.pulled = (state.global_step, launch.rank()) == stop
            return control

        def on_substep_end(self, args, state, control, **kwargs):
            if (state.global_step, launch.rank()) == die:
                os.kill(os.getpid(), signal.SIGKILL)

    keeper = keep(folder, windows, pace.batch, **{"recipe.yaml": "x"})
    keeper.load(start)
    trainer = PretrainTrainer(
        model, tokenizer, section, keeper, [HeldOut("v", held, stop_at, 2 * stop_at)],
        [balance, Asked(), brake, meter], pace,
    )  # fmt: skip
    trainer.train(resume_from_checkpoint=str(start) if start else None)
    return trainer, meter.rows, getattr(windows, "read", [])


def main(folder):
    written = []

    def hook(event, arguments):
        if event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            written.append(str(arguments[0]))
        elif event in ("os.rename", "os.remove", "os.rmdir", "shutil.rmtree"):
            written.append(str(arguments[0]))

    sys.addaudithook(hook)
    rank, found = launch.rank(), {}
    _, _, found["read"] = train(folder / "nine")
    train(folder / "whole", **LONG)
    train(folder / "two then one", stop=(5, 1), **LONG)
    train(folder / "one then two", **LONG)
    trainer, _, _ = train(folder / "experts", mlp=EXPERTS, **SPARSE)
    found["finite"] = all(bool(torch.isfinite(p).all()) for p in trainer.model.parameters())
    train(folder / "split", stop=(5, 0), **LONG, **FSDP)
    trainer, _, _ = train(folder / "split", **LONG, **FSDP)
    for module in trainer.model.modules():
        if isinstance(module, FSDPModule):  # an evaluation leaves the outermost one whole
            module.reshard()
    local = sum(p.to_local().numel() for p in trainer.model.parameters())
    found["share"] = local / sum(p.numel() for p in trainer.model.parameters())
    found["written"] = sorted({path for path in written if path.startswith(str(folder))})
    (folder.parent / f"{rank}.json").write_text(json.dumps(found))
    begun = time.monotonic()
    try:
        train(folder / "dead", die=(3, 1), **LONG)
    except RuntimeError as error:
        found |= {"lost": launch.is_peer_lost(error), "seconds": time.monotonic() - begun}
        (folder.parent / f"{rank}.json").write_text(json.dumps(found))
    os._exit(0)  # freeing a gloo group can wait for ever on its own thread (torch 2.13)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
