"""A short piece of real training on the user's own device, with random tokens: how fast it is and what it takes.

It runs in a process of its own, whose memory nobody else has used, and which may run out of memory alone. The trainer
is the real one, with windows, optimizer, precision and kernels as the recipe says; only accumulation is shortened: a
step has a first micro-batch, others that add to its gradients, and an end, each timed by itself.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import TrainerCallback

import buddygpt
from buddygpt.data.windows import Mixture, Passing, StreamWindows, TokenStream, Window
from buddygpt.events import silent
from buddygpt.model import BuddyGPTConfig, BuddyGPTForCausalLM
from buddygpt.recipe.data import DataSection, DemoSource
from buddygpt.recipe.errors import BrokenOff, is_out_of_memory
from buddygpt.recipe.pretrain import PretrainSection
from buddygpt.recipe.schema import Recipe
from buddygpt.training.balance import Balance
from buddygpt.training.checkpoints import Shelf
from buddygpt.training.compiled import warm_up
from buddygpt.training.guard import Guard
from buddygpt.training.keeper import Keeper
from buddygpt.training.pace import Pace
from buddygpt.training.setup import find_device, resident_bytes
from buddygpt.training.stopwatch import Timeline

SECONDS = 40.0
"""After so long no further step begins."""
MOST_STEPS = 200
"""Steps that are run at most; the first one warms up. Where steps are short, those of one second differ by half."""
MICRO_BATCHES = 3
"""Of a step of the probe, where the recipe's has as many."""
DOCUMENT, OF_THE_DEMO = 300, 130
"""Mean tokens of a made-up document; where all text is the built-in one, as many as there."""
PROGRAM = "import buddygpt.stages.pretrain; from buddygpt.training.probe import main; main()"
"""What the process runs: with all that a run has imported, so that it takes as much memory."""
WINDOWS = 64
"""Different windows; they are read again and again."""


@dataclass(frozen=True)
class Probe:
    """What was measured.

    Args:
        micro_batch_size: windows of a micro-batch.
        accumulation: micro-batches of a step here.
        step: seconds of one such step.
        fetch: seconds to read one micro-batch.
        first: forward and backward of a step's first micro-batch, in seconds.
        further: of one that adds to the gradients.
        end: optimizer, log: what a step takes beside its micro-batches.
        warm_up: what the first step of all took longer.
        judging: forward pass of a micro-batch without gradients.
        steps: that were measured.
        peak_bytes: most memory: of a GPU what torch has allocated, else of the whole process.
        reserved_bytes: of a GPU, what torch has taken from the driver.
    """

    micro_batch_size: int
    accumulation: int
    step: float
    fetch: float
    first: float
    further: float
    end: float
    warm_up: float
    judging: float
    steps: int
    peak_bytes: int
    reserved_bytes: int | None

    def step_seconds(self, accumulation: int) -> float:
        """One optimizer step of so many micro-batches, in seconds: a measured one, and those that it lacks."""
        return self.step + (accumulation - self.accumulation) * (self.fetch + self.further)


def probe(recipe: Recipe, micro_batch_size: int, accumulation: int, seconds: float = SECONDS) -> Probe | None:
    """Train for a moment; nothing is left of it.

    Args:
        recipe: with a `pretrain` section.
        micro_batch_size: in place of the recipe's.
        accumulation: micro-batches of a step.
        seconds: about how long.

    Returns:
        None where memory did not suffice.

    Raises:
        BrokenOff: it failed in another way.
    """
    asked = {
        "recipe": recipe.as_dict("schema", "name", "model", "tokenizer", "pretrain"),
        "micro_batch_size": micro_batch_size,
        "accumulation": min(accumulation, MICRO_BATCHES),
        "seconds": seconds,
        "document": OF_THE_DEMO if recipe.data and _is_demo(recipe.data) else DOCUMENT,
    }
    package = str(Path(buddygpt.__file__).parents[1])
    path = os.pathsep.join(p for p in (package, os.environ.get("PYTHONPATH")) if p)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=json.dumps(asked), capture_output=True, text=True, encoding="utf-8", check=False,
        env=os.environ | {"PYTHONPATH": path},
    )  # fmt: skip
    if done.returncode == 0:
        found = json.loads(done.stdout.splitlines()[-1])
        return Probe(**found) if found else None
    if done.returncode == -9:  # the kernel's own way to say that memory is out
        return None
    last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    raise BrokenOff(f"the probe failed: {last}")


def _is_demo(data: DataSection) -> bool:
    return all(isinstance(source, DemoSource) for source in data.sources)


def measure(recipe: Recipe, micro_batch_size: int, accumulation: int, seconds: float, document: int) -> Probe:
    """What `probe` runs in its process."""
    from buddygpt.training.trainer import Unsaved

    device = find_device()
    assert recipe.pretrain is not None
    tokens = micro_batch_size * recipe.pretrain.sequence_length * accumulation
    section = recipe.pretrain.model_copy(update={"micro_batch_size": micro_batch_size, "tokens_per_batch": tokens})
    torch.manual_seed(section.seed)
    config = BuddyGPTConfig.from_recipe(recipe, bos_token_id=None, attn_implementation=section.attn_implementation)
    model, clock = BuddyGPTForCausalLM(config), Clock(torch.device(device.kind), seconds)
    windows, batch = Passing(_windows(recipe, section, document)), micro_batch_size * accumulation
    pace = Pace(MOST_STEPS, batch, accumulation, MOST_STEPS, MOST_STEPS, lambda done: done * tokens)
    with tempfile.TemporaryDirectory() as name:  # the trainer makes one; nothing is left of it
        folder = Path(name)
        keeper = Keeper(folder, Shelf(folder, 1), Guard(section.guard), windows, batch, str, silent)
        trainer = Unsaved(model, None, section, keeper, [], [Balance(), clock], pace)  # type: ignore[arg-type]
        if section.compile:
            warm_up(trainer, "pretrain", silent)
        trainer.train()
        judging = _judge(trainer, micro_batch_size)
    peak, reserved = resident_bytes(), None
    if device.kind not in ("cpu", "mps"):
        memory: Any = torch.get_device_module(device.kind)
        peak, reserved = int(memory.max_memory_allocated()), int(memory.max_memory_reserved())
    return Probe(
        micro_batch_size, accumulation, **clock.figures(), judging=judging, peak_bytes=peak, reserved_bytes=reserved
    )


def _windows(recipe: Recipe, section: PretrainSection, document: int) -> Mixture[Window]:
    """Windows of random tokens in documents of random lengths, as many as the probe may take."""
    rng, length = np.random.default_rng(section.seed), WINDOWS * section.sequence_length
    ends = np.cumsum(rng.geometric(1 / document, size=2 + 2 * length // document))
    tokens = rng.integers(0, recipe.model.vocab_size, length, dtype=np.uint32)
    shard = MadeUp(tokens, np.append(ends[ends < length], length))
    stream = StreamWindows(TokenStream("probe", [shard], 0), section.sequence_length)
    return Mixture([stream], [1.0], MOST_STEPS * section.tokens_per_batch // section.sequence_length, section.seed)


@dataclass(frozen=True)
class MadeUp:
    """What a shard offers, of nothing."""

    tokens: NDArray[np.integer]
    document_ends: NDArray[np.integer]


class Clock(TrainerCallback):
    """Takes the times of a step's parts, and ends training in time.

    A row has the end of the step before, the begin, the end of each micro-batch, the end: moments of the device's own,
    which nobody waits for within a step. A run does not wait there, either: where the host is no faster than the device
    it hands in one micro-batch while the one before is still computed.

    Args:
        device: where the model is.
        seconds: after so long no further step begins.
    """

    def __init__(self, device: torch.device, seconds: float):
        self.timeline, self.seconds = Timeline(device), seconds
        self.began = 0.0
        self.last: Any = None
        self.rows: list[list[Any]] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begin."""
        self.began, self.last = time.perf_counter(), self.timeline.now()

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The step's windows are there."""
        self.rows.append([self.last, self.timeline.now()])

    def on_substep_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A micro-batch has been passed."""
        self.rows[-1].append(self.timeline.now())

    on_pre_optimizer_step = on_substep_end  # the last one; gradients are clipped already

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        """Nothing is saved, nothing judged."""
        control.should_save = control.should_evaluate = False
        return control

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        """The step's loss has been read."""
        if len(self.rows) == state.global_step and len(self.rows[-1]) == 2 + args.gradient_accumulation_steps:
            self.last = self.timeline.now()
            self.rows[-1].append(self.last)
            spent = time.perf_counter() - self.began
            if len(self.rows) > 1 and spent * (1 + 1 / len(self.rows)) > self.seconds:
                control.should_training_stop = True
        return control

    def figures(self) -> dict[str, Any]:
        """What `Probe` tells of steps: medians over all but the first."""
        rows = [row for row in self.rows if len(row) == len(self.rows[0])]
        warm, *rest = ([self.timeline.seconds(*pair) for pair in itertools.pairwise(row)] for row in rows)
        spans = rest or [warm]
        step, first = median(map(sum, spans)), median(span[1] for span in spans)
        return {
            "step": step,
            "fetch": median(span[0] for span in spans) / (len(warm) - 2),
            "first": first,
            "further": median(x for span in spans for x in span[2:-1]) if len(warm) > 3 else first,
            "end": median(span[-1] for span in spans),
            "warm_up": max(0.0, sum(warm) - step),
            "steps": len(spans),
        }


def _judge(trainer: Any, micro_batch_size: int) -> float:
    """Seconds of a micro-batch's forward pass as an evaluation makes it; the second one counts."""
    some = [trainer.train_dataset[index] for index in range(micro_batch_size)]
    seconds = 0.0
    for _ in range(2):
        begun = time.perf_counter()
        trainer._nats(some)
        seconds = time.perf_counter() - begun
    return seconds


def main() -> None:
    """Read what to measure from standard input, write what was found as the last line of standard output."""
    asked = json.load(sys.stdin)
    recipe = Recipe.model_validate(asked.pop("recipe"))
    try:
        found = asdict(measure(recipe, **asked))
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        found = None
    print(json.dumps(found))  # noqa: T201
