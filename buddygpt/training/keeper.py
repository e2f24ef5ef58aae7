"""What keeps a run from being lost: where its checkpoints lie, the guard over its steps, and what it passes over.

In each checkpoint lies `cursor.json`: the step, the places in the order of samples that the run passes over, and the
guard's memory. Together they are the run's place in the data. `passed-over.json` in the chapter's folder holds the
places as of the last time that the run went back, which is later than any checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from buddygpt.data.windows import Passing
from buddygpt.events import Caution, Emit
from buddygpt.recipe.errors import BuddyError
from buddygpt.recipe.runs import write_atomically
from buddygpt.training.checkpoints import WRITING, Shelf, step_of
from buddygpt.training.guard import Guard, Rewind, Verdict, told_steps

CURSOR, PASSED = "cursor.json", "passed-over.json"
TEXTS = ("input_ids", "prompt_ids", "chosen_ids", "rejected_ids")
"""Fields of a sample that can be read."""


@dataclass(frozen=True)
class Keeper:
    """Keeps one chapter's run.

    Args:
        folder: the chapter's.
        shelf: its checkpoints.
        guard: judges its steps.
        samples: what it trains on, in order.
        batch: samples of an optimizer step.
        decode: token ids to text.
        emit: who is told.
    """

    folder: Path
    shelf: Shelf
    guard: Guard
    samples: Passing[Any]
    batch: int
    decode: Callable[[Sequence[int]], str]
    emit: Emit

    def clear(self, begins: bool) -> None:
        """Remove what a save that was cut short has left, and where a run begins what an earlier one passed over."""
        self.shelf.clear()
        if begins:
            (self.folder / PASSED).unlink(missing_ok=True)

    def load(self, checkpoint: Path | None) -> None:
        """Take back the place of a run that goes on; what it passed over later is known, too."""
        if checkpoint is None:
            return
        passed = self.folder / PASSED
        cursor = json.loads((checkpoint / CURSOR).read_text("utf-8"))
        later = json.loads(passed.read_text("utf-8")) if passed.is_file() else {"passed_over": [], "rewound": 0}
        self.samples.skip([*cursor["passed_over"], *later["passed_over"]])
        self.guard.rewound = max(self.guard.rewound, later["rewound"])
        self.guard.load(cursor["guard"])

    def save(self, step: int) -> Path:
        """Add the run's place to the checkpoint that is being written, and put it among the others."""
        cursor = {"step": step, "passed_over": self.samples.skipped, "guard": self.guard.state()}
        file = self.shelf.folder / WRITING / f"checkpoint-{step}" / CURSOR
        file.write_text(json.dumps(cursor), "utf-8")
        return self.shelf.finish(step)

    def skip(self, step: int, verdict: Verdict, losses: Sequence[float]) -> None:
        """Write down the text of a step that is skipped, and tell.

        Args:
            step: from 1.
            verdict: why.
            losses: of the micro-batches of all processes, in the order of their samples; they add up to the step's.
        """
        again = f"-try-{self.guard.rewound + 1}" if self.guard.rewound else ""  # after going back it is another text
        file = self.folder / "skipped" / f"step-{step}{again}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, "\n".join(self._text(step, verdict, losses)) + "\n")
        self.emit(Caution(f"step {step} is skipped: {verdict.reason}; its text: {file}"))

    def pass_over(self, trouble: Rewind, checkpoint: Path, writes: bool) -> None:
        """Pass over the samples of skipped steps from now on.

        Args:
            trouble: raised by the guard.
            checkpoint: that the run goes back to.
            writes: whether this process is the one that writes.

        Raises:
            BuddyError: the run has gone back as often as the recipe allows, and numbers are not finite.
        """
        rewinds = self.guard.section.rewinds
        if self.guard.rewound >= rewinds and not trouble.finite:
            raise BuddyError(
                f"{self.folder}: {told_steps(trouble.steps)} skipped ({trouble.reason}), after going back "
                f"{rewinds} times; {checkpoint.name} is whole; their text is in {self.folder / 'skipped'}; train anew "
                "with a lower learning rate under another name (--set name=...)"
            )
        ahead = [step for step in trouble.steps if step > step_of(checkpoint)]  # it may lie between two of them
        places = [
            self.samples.place(index) for step in ahead for index in range((step - 1) * self.batch, step * self.batch)
        ]
        self.guard.rewound += 1
        if self.guard.rewound <= rewinds:
            self.samples.skip(places)
            what = f"without the {len(places):,} samples of {told_steps(ahead)}"
        else:
            what = "and lets spikes pass from here on"
        if writes:
            passed = {"passed_over": self.samples.skipped, "rewound": self.guard.rewound}
            write_atomically(self.folder / PASSED, json.dumps(passed))
        self.emit(Caution(f"{told_steps(trouble.steps)} skipped in a row: going back to {checkpoint.name}, {what}"))

    def _text(self, step: int, verdict: Verdict, losses: Sequence[float]) -> Iterator[str]:
        yield f"step {step} was skipped: {verdict.reason}"
        first, each = (step - 1) * self.batch, self.batch // len(losses)
        for number, loss in enumerate(losses):
            yield f"==== micro-batch {number + 1} of {len(losses)}, its part of the loss {loss:.6g}"
            for index in range(first + number * each, first + (number + 1) * each):
                sample = self.samples[index]
                yield f"---- sample {index + 1 - first}, of {self.samples.source(index)}"
                for key in TEXTS:
                    if key in sample:
                        part = "" if key == "input_ids" else f"[{key.removesuffix('_ids')}] "
                        yield part + self.decode([int(i) for i in sample[key]])
