"""Small trainings that the tests of several processes compare: by themselves, and as one of two processes.

`python -m tests.training.two_processes FOLDER`, once for each process, with RANK and the like in its environment.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import torch
from torch.distributed.fsdp import FSDPModule
from transformers import TrainerCallback

from buddygpt.data.windows import Passing
from buddygpt.events import silent
from buddygpt.training import chapter, launch
from buddygpt.training.meter import Meter
from tests.training.conftest import DENSE, ToyRun

SECTION = {
    "tokens": 9 * 64, "tokens_per_batch": 256, "sequence_length": 16, "micro_batch_size": 2, "precision": "fp32",
    "optimizer": {"kind": "adamw", "learning_rate": 1e-2}, "schedule": {"kind": "wsd", "warmup": 0.2},
    "save_every": 100, "eval_every": 4,
}  # fmt: skip
EXPERTS = {
    "mlp_kind": "moe", "n_routed_experts": 8, "num_experts_per_tok": 2, "n_shared_experts": 1,
    "moe_intermediate_size": 24, "router_bias_update_rate": 1 / 64,
}  # fmt: skip
LONG = {"tokens": 12 * 256}
FSDP = {"parallel": {"kind": "fsdp"}}
SPARSE = {"tokens": 20 * 8, "tokens_per_batch": 8, "sequence_length": 4, "micro_batch_size": 1}
"""Four tokens a process in each of 20 steps, and eight experts."""


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


def train(folder, *, stop=None, mlp=DENSE, die=None, back=False, **changes):
    """Train, or go on; stop in step `stop[0]`, when process `stop[1]` is asked; `back` to the begin, and there again.

    Gives trainer, rows, windows read.
    """

    def order(mixture, section):
        return Watched(mixture, section.micro_batch_size) if section.sequence_length == 16 else Passing(mixture)

    toy = ToyRun(folder, resume=True, mlp=mlp, order=order, **SECTION | changes)

    class Asked(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            toy.brake.pulled = (state.global_step, launch.rank()) == stop

        def on_substep_end(self, args, state, control, **kwargs):
            if (state.global_step, launch.rank()) == die:
                os.kill(os.getpid(), signal.SIGKILL)

    toy.trainer.callback_handler.callbacks.insert(0, Asked())
    toy.trainer.train(resume_from_checkpoint=str(toy.start) if toy.start else None)
    if back:
        begin = folder / "checkpoints" / "checkpoint-0"
        toy.keeper.load(begin)
        toy.watch.go_back(0)
        toy.trainer.train(resume_from_checkpoint=str(begin))
    return toy.trainer, toy.watch.meter.rows, getattr(toy.keeper.samples, "read", [])


def judges_again(folder, trainer):
    """Whether a run that goes on after its last evaluation judges once more; process 1 sees no figures on the disk."""
    (meter,) = (one for one in trainer.callback_handler.callbacks if isinstance(one, Meter))
    start = folder / "whole" / "checkpoints" / "checkpoint-12"
    there, recipe = folder / ("whole" if launch.rank() == 0 else "late"), SimpleNamespace(as_dict=dict)
    watch = chapter.watch(
        there, recipe, meter.work, meter.pace, {}, start, trainer.keeper.samples, [], trainer.processing_class, silent
    )
    return watch.judge_again


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
    trainer, _, _ = train(folder / "whole", **LONG)
    found["again"] = judges_again(folder, trainer)
    train(folder / "two then one", stop=(5, 1), **LONG)
    train(folder / "one then two", **LONG)
    trainer, _, _ = train(folder / "experts", mlp=EXPERTS, **SPARSE)
    found["finite"] = all(bool(torch.isfinite(p).all()) for p in trainer.model.parameters())
    train(folder / "back", stop=(3, 0), back=True, **LONG, **FSDP)
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
