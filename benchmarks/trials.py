"""One training run of the comparison of optimizers, with the product's own trainer, in a process that runs many.

The text comes as arrays of one file, so that a machine with a GPU needs neither the corpus nor what prepares it.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ARRAYS, FACTS = "tokens.npz", "facts.json"
POINTS = 10
"""Evaluations of a run, evenly spaced, the last at its end."""
TIMED, WARM = 40, 10
"""Steps of a run that is only timed, and those of them that are not counted."""


@dataclass(frozen=True)
class Setting:
    """What is compared.

    Args:
        name: as it is told.
        optimizer: its `kind`.
        schedule: the recipe's section.
        qk_norm: the model's.
    """

    name: str
    optimizer: str
    schedule: Mapping[str, Any]
    qk_norm: bool = False


@dataclass(frozen=True)
class Trial:
    """One run.

    Args:
        purpose: "time", "rate", "seed" or "budget".
        setting: what is compared.
        rate: peak rate of all parameters.
        seed: of weights and order.
        tokens: budget, which the schedule is fitted to.
    """

    purpose: str
    setting: Setting
    rate: float
    seed: int
    tokens: int


@dataclass(frozen=True)
class Bench:
    """What all runs share.

    Args:
        data: folder of the prepared arrays.
        geometry: of the model, flat.
        sequence_length, batch, micro_batch: tokens of a window, tokens of a step, windows at once.
        eval_tokens: most of each held-out text.
        precision, attention: fields of the recipe.
    """

    data: Path
    geometry: Mapping[str, Any]
    sequence_length: int
    batch: int
    micro_batch: int
    eval_tokens: int
    precision: str = "bf16"
    attention: str = "auto"


@dataclass(frozen=True)
class Tokens:
    """One split of one source, as a shard."""

    tokens: NDArray[np.integer]
    document_ends: NDArray[np.integer]


def run_trial(bench: Bench, trial: Trial) -> dict[str, Any]:
    """Train once.

    Returns:
        The trial, its losses, its evaluations as {tokens, text: bits per character}, and seconds: of training, without
        evaluations, and the median of a step; steps, and those of them that the guard skipped.
    """
    import tempfile

    from transformers import PreTrainedTokenizerFast, TrainerCallback, set_seed

    from buddygpt.data.windows import Mixture, Passing, StreamWindows
    from buddygpt.events import silent
    from buddygpt.model import BuddyGPTConfig, BuddyGPTForCausalLM
    from buddygpt.recipe.pretrain import PretrainSection
    from buddygpt.training.checkpoints import Shelf
    from buddygpt.training.guard import Guard
    from buddygpt.training.keeper import Keeper
    from buddygpt.training.pace import pretraining_pace
    from buddygpt.training.trainer import Unsaved

    optimizer = {"kind": trial.setting.optimizer, "learning_rate": trial.rate}
    section = PretrainSection.model_validate(
        {
            "tokens": trial.tokens, "tokens_per_batch": bench.batch, "sequence_length": bench.sequence_length,
            "micro_batch_size": bench.micro_batch, "optimizer": optimizer, "schedule": dict(trial.setting.schedule),
            "save_every": 10**9, "eval_every": 10**9, "seed": trial.seed, "precision": bench.precision,
            "attn_implementation": bench.attention,
        }
    )  # fmt: skip
    training, held_out, tokenizer = _texts(bench)
    sources = [StreamWindows(stream, bench.sequence_length) for stream in training]
    windows = Mixture(
        sources, [len(s) for s in sources], section.steps * bench.batch // bench.sequence_length, trial.seed
    )
    set_seed(trial.seed)
    end = tokenizer.token_to_id("<|endoftext|>")
    model = BuddyGPTForCausalLM(
        BuddyGPTConfig(
            **bench.geometry, qk_norm=trial.setting.qk_norm, bos_token_id=None, eos_token_id=end, pad_token_id=end,
            attn_implementation=bench.attention,
        )
    )  # fmt: skip
    timed = trial.purpose == "time"
    points = set() if timed else {round(section.steps * part / POINTS) for part in range(1, POINTS + 1)}
    losses: list[float] = []
    evaluations: list[dict[str, float]] = []
    seconds: list[float] = []

    class Recorder(TrainerCallback):
        """Clocks steps, asks for evaluations, keeps figures."""

        clock = 0.0

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.clock = time.perf_counter()

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
            control.should_save = False
            control.should_evaluate = state.global_step in points
            control.should_training_stop = (timed and state.global_step == TIMED) or control.should_training_stop
            return control

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            if "loss" in logs:
                seconds.append(time.perf_counter() - self.clock)
                losses.append(logs["loss"])
                self.clock = time.perf_counter()

        def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> None:
            found = {text.name: metrics[f"eval/{text.name}/bits_per_character"] for text in held_out}
            evaluations.append({"tokens": state.global_step * bench.batch, **found})
            self.clock = time.perf_counter()

    with tempfile.TemporaryDirectory() as name:
        folder, pace = Path(name), pretraining_pace(section, 1)
        keeper = Keeper(
            folder, Shelf(folder, 1), Guard(section.guard), Passing(windows), pace.batch, tokenizer.decode, silent
        )
        tokens = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>")
        trainer = Unsaved(model, tokens, section, keeper, held_out, [Recorder()], pace)
        error = None
        try:
            trainer.train()
        except Exception as fault:  # one that diverges and is stopped must not end the others
            error = f"{type(fault).__name__}: {fault}"
        skipped = len(list(folder.glob("skipped/*")))
    return {
        **asdict(trial),
        "setting": trial.setting.name,
        "error": error,
        "steps": len(losses),
        "skipped": skipped,
        "losses": [round(loss, 4) if math.isfinite(loss) else None for loss in losses],
        "evaluations": evaluations,
        "seconds": sum(seconds),
        "seconds_per_step": float(np.median(seconds[WARM:] or seconds or [0.0])),
    }


def _texts(bench: Bench) -> tuple[list[Any], list[Any], Any]:
    """Training streams, held-out texts, tokenizer; read once in a process."""
    from tokenizers import Tokenizer

    from buddygpt.data.windows import TokenStream, evaluation_windows
    from buddygpt.training.trainer import HeldOut

    key = (bench.data, bench.sequence_length)
    if key not in _READ:
        facts = json.loads((bench.data / FACTS).read_text("utf-8"))
        tokenizer = Tokenizer.from_file(str(bench.data / "tokenizer.json"))
        end = tokenizer.token_to_id("<|endoftext|>")
        with np.load(bench.data / ARRAYS) as arrays:
            splits = {name: Tokens(arrays[f"{name}/tokens"], arrays[f"{name}/ends"]) for name in facts["tokens"]}
        training = [TokenStream(name, [splits[f"{name}/train"]], end) for name in facts["sources"]]
        held_out = []
        for name, parts in facts["held_out"].items():
            stream = TokenStream(name, [splits[part] for part in parts], end)
            windows, stop = evaluation_windows(stream, bench.sequence_length, bench.eval_tokens)
            ids, _ = stream.read(0, stop)
            held_out.append(HeldOut(name, windows, stop, len(tokenizer.decode(ids[ids != end].tolist()))))
        _READ[key] = training, held_out, tokenizer
    return _READ[key]


_READ: dict[Any, tuple[list[Any], list[Any], Any]] = {}


def keep_arrays(
    folder: Path,
    splits: Mapping[str, tuple[NDArray[np.integer], NDArray[np.integer]]],
    sources: Sequence[str],
    held_out: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    """Write what `run_trial` reads.

    Args:
        folder: where; it has `tokenizer.json` already.
        splits: tokens, and where documents end, by SOURCE/train or SOURCE/validation.
        sources: to train on.
        held_out: parts of each held-out text.

    Returns:
        The facts as written.
    """
    arrays = {}
    for name, (tokens, ends) in splits.items():
        arrays |= {f"{name}/tokens": tokens, f"{name}/ends": ends}
    np.savez_compressed(folder / ARRAYS, **arrays)
    facts = {
        "sources": list(sources),
        "held_out": {name: list(parts) for name, parts in held_out.items()},
        "tokens": {name: len(tokens) for name, (tokens, _) in splits.items()},
    }
    (folder / FACTS).write_text(json.dumps(facts, indent=1), "utf-8")
    return facts
