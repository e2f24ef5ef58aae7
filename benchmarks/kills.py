"""Kill runs at random moments, let them go on, and compare with one that nobody killed: figure by figure, bit by bit.

Two runs: pretraining with Muon and accumulated micro-batches, and fine-tuning of low-rank updates with dropout and
accumulation; both read their text more than once. Each is killed with SIGKILL again and again until it has ended, at
moments drawn from the length of a whole run, so that loading, training, evaluating and saving are all hit; every third
kill waits for the next save from there on, and falls at a moment drawn from its length.

Commands are run in forked children of one process that has imported everything: a start costs no import.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.table import table

KILLS = 100
SAVE = 0.02
"""Seconds that a save of these models takes at most, most of them the disk's."""
RECIPE = """
schema: 1
name: r
model:
  vocab_size: 448
  hidden_size: 32
  num_hidden_layers: 2
  max_position_embeddings: 64
  attention: {kind: gqa, num_attention_heads: 4, num_key_value_heads: 2}
  mlp: {kind: moe, n_routed_experts: 4, num_experts_per_tok: 2, n_shared_experts: 1, moe_intermediate_size: 16}
tokenizer: {train: 400}
data: {sources: [{kind: demo, characters: 8000}], validation: 0.1}
pretrain:
  sequence_length: 32
  tokens_per_batch: 256
  micro_batch_size: 4
  tokens: 6144
  eval_tokens: 400
  optimizer: {kind: muon, learning_rate: 1e-2, adamw_learning_rate: 3e-3}
  schedule: {kind: wsd}
  save_every: 4
  eval_every: 8
sft:
  data: {sources: [{kind: files, paths: [talks.jsonl]}], validation: 0.3}
  epochs: 2
  batch_size: 2
  micro_batch_size: 1
  sequence_length: 64
  eval_tokens: 400
  save_every: 4
  eval_every: 8
  lora: {rank: 4, dropout: 0.1}
  optimizer: {kind: adamw, learning_rate: 1e-2}
  schedule: {kind: cosine}
"""


def run() -> str:
    """Kill until there were enough."""
    folder = Path(tempfile.mkdtemp())
    preload()
    try:
        write(folder)
        rows = []
        for verb in ("pretrain", "sft"):
            seconds = whole(folder, verb)
            rng = random.Random(verb)
            kills, where, runs, equal = 0, Counter(), 0, 0
            while kills < KILLS // 2:
                runs += 1
                copy = begun(folder, verb, f"broken-{verb}-{runs}")
                chapter = copy / "runs/r" / verb
                while True:
                    left = unfinished(chapter)
                    if kills % 3 == 2:
                        after, save = rng.uniform(0, seconds), rng.uniform(0, SAVE)
                    else:
                        after, save = rng.uniform(0, 1.2 * seconds), None
                    code = start(copy, verb, resume=True, after=after, save=save)
                    if code == 0:
                        break
                    kills += 1
                    where[moment(chapter, left)] += 1
                equal += not differences(folder / "runs/r" / verb, chapter)
                shutil.rmtree(copy)
            hit = ", ".join(f"{name} {count}" for name, count in where.most_common())
            rows.append((verb, f"{kills}", hit, f"{equal} of {runs}"))
        return table(("run", "kills", "where", "equal to the unbroken one"), rows)
    finally:
        shutil.rmtree(folder)


def write(folder: Path) -> None:
    """The recipe and its talks."""
    names = "春夏秋冬东南西"
    talks = [
        [{"role": "user", "content": f"{a}{b}？"}, {"role": "assistant", "content": f"{b}{a}。" * 3}]
        for a in names
        for b in names
    ]
    (folder / "r.yaml").write_text(RECIPE, "utf-8")
    lines = (json.dumps({"messages": messages}, ensure_ascii=False) + "\n" for messages in talks)
    (folder / "talks.jsonl").write_text("".join(lines), "utf-8")


def whole(folder: Path, verb: str) -> float:
    """Run a verb to its end; seconds that it took."""
    begin = time.monotonic()
    if start(folder, verb) != 0:
        raise RuntimeError((folder / "log").read_text("utf-8"))
    return time.monotonic() - begin


def begun(folder: Path, verb: str, name: str) -> Path:
    """A copy of the folder in which the verb is not begun, and what comes before it is done."""
    copy = folder.parent / f"{folder.name}-{name}"
    shutil.copytree(folder, copy, symlinks=True)
    shutil.rmtree(copy / "runs/r" / verb)
    return copy


def start(
    folder: Path,
    verb: str,
    *more: str,
    resume: bool = False,
    after: float | None = None,
    save: float | None = None,
    first: Callable[[], None] | None = None,
) -> int:
    """Run `buddy VERB r.yaml` in a forked child.

    Args:
        folder: where.
        verb: pretrain or sft.
        *more: arguments.
        resume: go on.
        after: seconds to SIGKILL; to its end where left out.
        save: the kill waits for the first save after that and for so many seconds of it.
        first: called in the child before the command.

    Returns:
        Its exit code, -9 where it was killed.
    """
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.chdir(folder)
            log = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(log, 1)
            os.dup2(log, 2)
            code = _buddy(verb, "r.yaml", *more, *(["--resume"] if resume else []), first=first)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    if after is not None:
        chapter = folder / "runs/r" / verb
        left = unfinished(chapter)
        alive = _alive(child, after)
        if save is not None:
            alive = alive and _alive(child, 60, lambda: unfinished(chapter) not in (None, left)) and _alive(child, save)
        if alive:
            os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _alive(child: int, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
    """Whether a child still runs after so many seconds, or when `until` says so."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends and not until():
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return False
        time.sleep(0.0005)
    return True


def _buddy(*arguments: str, first: Callable[[], None] | None) -> int:
    from buddygpt.cli.app import main

    sys.argv = ["buddy", *arguments]
    if first is not None:
        first()
    try:
        main()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1
    return 0


def preload() -> None:
    """Import everything that the commands take, so that a child need not."""
    import torch

    import buddygpt.stages.pretrain
    import buddygpt.stages.sft  # noqa: F401

    torch.set_num_threads(1)


def moment(chapter: Path, left: object = None) -> str:
    """What a run was doing when it was killed.

    Args:
        chapter: its folder.
        left: `unfinished` of it before the run began.
    """
    if unfinished(chapter) not in (None, left):
        return "in a save"
    if not (chapter / "checkpoints").is_dir():
        return "before the first save"
    return "else"


def unfinished(chapter: Path) -> object:
    """The checkpoint that is being written, or that a kill has left; None where there is none."""
    try:
        found = (chapter / "checkpoints" / ".writing").stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_ctime_ns


def differences(a: Path, b: Path) -> list[str]:
    """What differs between two chapters that should be equal: figures, samples, weights."""
    found = []
    for name in ("metrics.jsonl", "samples.jsonl"):
        if _figures(a / name) != _figures(b / name):
            found.append(name)
    if (a / "model/model.safetensors").read_bytes() != (b / "model/model.safetensors").read_bytes():
        found.append("model.safetensors")
    return found


TIMES = ("seconds", "tokens_per_second", "flops_per_second", "mfu", "peak_bytes")
"""Figures of the machine, not of the model: keys that begin so."""


def _figures(file: Path) -> Sequence[dict[str, object]]:
    with file.open(encoding="utf-8") as lines:  # a sample may hold U+2028, where str.splitlines would cut
        rows = [json.loads(line) for line in lines]
    told = [{k: v for k, v in row.items() if not k.startswith(TIMES)} for row in rows]
    return [row for row in told if row.keys() > {"step", "tokens"}]  # a kill may come before a save's time is written
