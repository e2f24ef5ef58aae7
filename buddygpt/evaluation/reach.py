"""How far a model reaches whose context is extended: foretelling by position, and needles by depth and length.

The same exam is taken by the model as it was, by the same weights with the new rotary positions, and by the tuned
model. How much is read follows from what reading costs: seconds, or a minute for a large model on a CPU.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState
from transformers import PreTrainedTokenizerBase

from buddygpt.data.prepared import read_prepared
from buddygpt.data.talks import TalkWindows
from buddygpt.data.tokenizer import chat_ends, encode_documents
from buddygpt.data.windows import TokenStream
from buddygpt.evaluation.haystack import DEPTHS, Needle, make_needles
from buddygpt.evaluation.needle import NeedleGrid, find_needles
from buddygpt.evaluation.positions import Passage, Positions, cut_passages, measure_positions
from buddygpt.model import BuddyGPTConfig
from buddygpt.model.cost import count_flops
from buddygpt.recipe.errors import BuddyError
from buddygpt.recipe.runs import write_atomically
from buddygpt.report.context import FoundCell
from buddygpt.report.reach import Context, Reached

OPERATIONS, ELSEWHERE = 6e12, 1e15
"""Floating-point operations for each of both measures, on a CPU and elsewhere: some half a minute."""
FEWEST, MOST = 2, 32
"""Windows of the new length that are read."""
MOST_NEEDLES = 10
"""Of one length and depth."""
AT_ONCE = 8192
"""Tokens."""
NARROWEST = 16
"""Positions of a range, at least: in fewer, no character may end."""
OF_PRETRAINING, OF_TALKS = "held-out text of pretraining", "held-out talks laid end to end"


@dataclass(frozen=True)
class Exam:
    """What every model is asked.

    Args:
        tokenizer: the models', with chat marks.
        old, new: longest context before and after, in tokens.
        text: what is read.
        passages: as long as the new context, but for what `ranges` does not divide; none where there is too little.
        ranges: of positions.
        needles: asked for in talks; none where there is too little.
        each: of one length and depth.
        notes: what is left out, and why.
    """

    tokenizer: PreTrainedTokenizerBase
    old: int
    new: int
    text: str
    passages: Sequence[Passage]
    ranges: int
    needles: Sequence[Needle]
    each: int
    notes: Sequence[str]

    def take(self, model: Any, precision: str) -> dict[str, Any]:
        """Both measures of one model: what `as_dict` of `Positions` and `NeedleGrid` gives, None for what is left out.

        Args:
            model: on its device; left in the mode in which it was.
            precision: bf16, fp16 or fp32.
        """
        batch = max(1, AT_ONCE // self.new)
        found: dict[str, Any] = {"positions": None, "needles": None}
        if self.passages:
            positions = measure_positions(model, self.passages, buckets=self.ranges, batch=batch, precision=precision)
            found["positions"] = positions.as_dict()
        if self.needles:
            needles = find_needles(model, self.tokenizer, self.needles, batch=batch, precision=precision)
            found["needles"] = needles.as_dict()
        return found


def make_exam(
    tokenizer: PreTrainedTokenizerBase, model: Any, old: int, new: int, text: str, texts: Sequence[str]
) -> Exam:
    """As many windows and needles as the device soon reads and the texts hold; the same ones at every call.

    Windows are of texts that are long enough by themselves where there are two such windows, else of all texts end to
    end.

    Args:
        tokenizer: with chat marks.
        model: one of ours, on its device.
        old, new: longest context before and after, in tokens.
        text: what the texts are.
        texts: held-out ones.
    """
    notes: list[str] = []
    config, operations = model.config, OPERATIONS if model.device.type == "cpu" else ELSEWHERE
    width = max(NARROWEST, min(old // 4, new - old))
    ranges = new // width
    ids = encode_documents(tokenizer, texts)
    length = ranges * width
    if sum(len(own) // length for own in ids) < FEWEST:
        ids = encode_documents(tokenizer, ["\n".join(texts)])
    most = int(np.clip(operations / (new * count_flops(config, new).forward), FEWEST, MOST))
    passages: list[Passage] = []
    try:
        passages = cut_passages(tokenizer, ids, length, most, begin=chat_ends(tokenizer)[1])
    except BuddyError as error:
        notes.append(f"{text}: {error}")
    needles, each = _needles(tokenizer, config, old, new, texts, operations, notes)
    return Exam(tokenizer, old, new, text, passages, ranges, needles, each, notes)


def _needles(
    tokenizer: PreTrainedTokenizerBase,
    config: BuddyGPTConfig,
    old: int,
    new: int,
    texts: Sequence[str],
    operations: float,
    notes: list[str],
) -> tuple[list[Needle], int]:
    """The largest grid that the operations allow, one needle in a cell at least; and how many are in a cell."""
    lengths, each = (old, new), 1
    for lengths, depths in (((old // 2, old, (old + new) // 2, new), DEPTHS), ((old, new), (0.0, 0.5))):
        cost = 2 * len(depths) * sum(n * count_flops(config, n).forward for n in lengths)  # each is read twice
        each = int(np.clip(operations / cost, 1, MOST_NEEDLES))
        if cost <= operations:
            break
    found: list[Needle] = []
    for length in lengths:
        try:
            found += make_needles(tokenizer, texts, [length], depths, each, chat=True)
        except BuddyError as error:
            notes.append(str(error))
    return found, each if found else 0


def held_out_texts(
    folder: Path, talks: Sequence[TalkWindows], tokenizer: PreTrainedTokenizerBase, new: int
) -> tuple[str, list[str]]:
    """Texts that no training has seen, and what they are: of pretraining where enough are there, else talks as text.

    Args:
        folder: where the run's text of pretraining lies, if it does.
        talks: held-out ones.
        tokenizer: of the talks.
        new: longest context in tokens; for two windows of it there must be text.
    """
    try:
        texts, count = _of_pretraining(folder, MOST * new)
    except BuddyError:  # damaged, or of another version: tuning does not need it
        texts, count = [], 0
    if count >= FEWEST * new:
        return OF_PRETRAINING, texts
    spoken: list[list[int]] = []
    count = 0
    for source in talks:
        for number in range(source.talks):
            if count < MOST * new:
                spoken.append(source.documents.read(number)[0].tolist())
                count += len(spoken[-1])
    return OF_TALKS, tokenizer.batch_decode(spoken, skip_special_tokens=True)


def _of_pretraining(folder: Path, most: int) -> tuple[list[str], int]:
    """Held-out texts of each source, of at most so many tokens each, and their tokens."""
    texts: list[str] = []
    count = 0
    if (prepared := read_prepared(folder)) is not None:
        tokenizer = prepared.tokenizer()
        for name in prepared.manifest["sources"]:
            stream = TokenStream(name, prepared.open(name, "validation"), int(tokenizer.eos_token_id))
            ids, ended = stream.read(0, min(most, len(stream)))
            count += len(ids)
            documents = np.split(ids, np.flatnonzero(np.diff(ended)) + 1)
            texts += tokenizer.batch_decode([document.tolist() for document in documents], skip_special_tokens=True)
            texts[-1] = texts[-1].rstrip("\ufffd")  # the cut may lie within a character
    return texts, count


class ReachRecord:
    """What was measured of each model of a run, in a file, so that a run that goes on need not measure anew.

    Args:
        file: context.json.
        exam: that all models take.
        scaling: of rotary positions.
        resumed: what the file holds counts; without it, it is of an earlier try.
    """

    def __init__(self, file: Path, exam: Exam, scaling: str, resumed: bool):
        self._file, self._exam = file, exam
        facts = {"old": exam.old, "new": exam.new, "scaling": scaling, "text": exam.text, "notes": list(exam.notes)}
        counts = {"windows": len(exam.passages), "needles": exam.each}
        self._record: dict[str, Any] = {**facts, **counts, "models": {}}
        if resumed and file.is_file():
            self._record["models"] = json.loads(file.read_text("utf-8"))["models"]

    def measure(self, name: str, model: Any, precision: str) -> None:
        """Let a model take the exam, unless the file knows it; `name` is one of those of `buddygpt.report.reach`."""
        models = self._record["models"]
        if name not in models:
            models[name] = self._exam.take(model, precision)
            if PartialState().is_main_process:
                write_atomically(self._file, json.dumps(self._record, ensure_ascii=False))

    def page(self) -> Context:
        """What a page shows of it."""
        models = {name: self._reached(**found) for name, found in self._record["models"].items()}
        return Context(**self._record | {"models": models})

    def _reached(self, positions: dict[str, Any] | None, needles: dict[str, Any] | None) -> Reached:
        old, found = self._exam.old, {}
        if positions is not None:
            read = Positions.from_dict(positions)
            end = read.edges[-1]
            found |= {"edges": read.edges, "bits": read.bits, "errors": read.errors}
            found |= {"old_bits": read.between(0, old), "new_bits": read.between(_edge(read, old), end)}
        if needles is not None:
            grid = NeedleGrid.from_dict(needles)
            found["cells"] = [FoundCell(cell.length, cell.depth, cell.share) for cell in grid.cells]
            lengths = [cell.length for cell in grid.cells]
            found["old_found"] = grid.share(longest=old) if min(lengths) <= old else None
            found["new_found"] = grid.share(shortest=old) if max(lengths) > old else None
        return Reached(**found)


def _edge(positions: Positions, old: int) -> int:
    """Where the last range ends that lies wholly within the old length."""
    return max(edge for edge in positions.edges if edge <= old)
