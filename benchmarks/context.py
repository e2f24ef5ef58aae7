"""A small model made four times as long: foretelling by position and finding needles, before and after tuning.

The model learns demo prose in which passwords are told and told again (`benchmarks.passwords`), in windows of 256
tokens. It is extended to 1,024 by each scaling, and by none, and each copy is tuned on the same text, in windows of
1,024 and of 256 in turn. What is measured stands in `buddygpt.evaluation`. About a thousand seconds of one core.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch

from benchmarks.passwords import Passwords
from benchmarks.svg import stand_alone
from benchmarks.table import table
from buddygpt.evaluation.haystack import Needle, make_needles
from buddygpt.evaluation.needle import NeedleGrid, find_needles
from buddygpt.evaluation.positions import Passage, Positions, cut_passages, measure_positions
from buddygpt.model import BuddyGPTConfig, BuddyGPTForCausalLM, extend
from buddygpt.recipe.training import WSD, Muon
from buddygpt.report.context import FoundCell, PositionLine, needle_figure, positions_figure
from buddygpt.training.optimizers import build_optimizer
from buddygpt.training.schedules import rate_factor

OLD, NEW = 256, 1024
KINDS = ("none", "linear", "ntk", "yarn")
RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Phase:
    """One stretch of training.

    Args:
        lengths: tokens of a window; steps take them in turn.
        steps: optimizer steps.
        batch: tokens of a step.
        rate: peak rate of Muon, and of AdamW for the rest.
    """

    lengths: tuple[int, ...]
    steps: int
    batch: int
    rate: float


@dataclass(frozen=True)
class Work:
    """How much is trained and measured.

    Args:
        characters: of prose.
        vocabulary: entries of the tokenizer.
        lists: first, on nothing but passwords, from which looking back is learnt.
        pretrain: on prose with passwords.
        tune: the same at the new length, with some at the old one, as talks are of many lengths.
        passages: windows for bits per character.
        lengths, depths, needles: of the needles; the last of each length and depth.
    """

    characters: int = 2_000_000
    vocabulary: int = 1024
    lists: Phase = Phase((64,), 300, 2048, 0.008)
    pretrain: Phase = Phase((OLD,), 700, 4096, 0.008)
    tune: Phase = Phase((NEW, OLD), 300, 4096, 0.004)
    passages: int = 64
    lengths: tuple[int, ...] = (128, 256, 512, 768, 1024)
    depths: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    needles: int = 12


@dataclass(frozen=True)
class Measured:
    """One model, at one time."""

    kind: str
    tuned: bool
    positions: Positions
    needles: NeedleGrid


def run(work: Work = Work()) -> str:
    """The table; the figures are kept beside it."""
    text = Passwords(work.characters, work.vocabulary)
    exam = Exam.of(text, work)
    base = build(text)
    train(base, work.lists, partial(text.lists, seed=1))
    train(base, work.pretrain, partial(text.windows, seed=2))
    found = []
    for kind in KINDS:
        model = deepcopy(base)
        if kind != "none":
            extend(model, NEW, kind)
        found.append(exam.take(model, kind, tuned=False))
        train(model, work.tune, partial(text.windows, seed=3))
        found.append(exam.take(model, kind, tuned=True))
    return "\n\n".join([_setting(work, base), _table(found), *_draw(found)])


def build(text: Passwords) -> BuddyGPTForCausalLM:
    """The untrained model."""
    torch.manual_seed(0)
    return BuddyGPTForCausalLM(
        BuddyGPTConfig(
            vocab_size=len(text.tokenizer), hidden_size=128, num_hidden_layers=4, max_position_embeddings=OLD,
            num_attention_heads=4, num_key_value_heads=4, intermediate_size=320,
            eos_token_id=text.tokenizer.eos_token_id,
        )
    )  # fmt: skip


def train(model: Any, phase: Phase, windows: Callable[[int], Iterator[Sequence[int]]]) -> None:
    """Muon and AdamW over windows of length + 1 ids; warm-up, stable, decay."""
    section = Muon(kind="muon", learning_rate=phase.rate)
    schedule = WSD(kind="wsd", warmup=0.05, decay=0.3)
    optimizer = build_optimizer(model, section)
    plan = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_factor(schedule, step, phase.steps))
    streams = {length: windows(length) for length in phase.lengths}
    model.train()
    for _, length in zip(range(phase.steps), cycle(phase.lengths), strict=False):
        ids = torch.tensor(list(islice(streams[length], phase.batch // length)))
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(input_ids=ids[:, :-1], shift_labels=ids[:, 1:]).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        plan.step()


@dataclass(frozen=True)
class Exam:
    """What every model is asked: the same held-out prose, the same needles in it."""

    text: Passwords
    passages: list[Passage]
    needles: list[Needle]

    @classmethod
    def of(cls, text: Passwords, work: Work) -> Exam:
        """Windows of held-out paragraphs in a row, and needles in other held-out ones."""
        half = len(text.held_out) // 2
        ids = text.encode(["\n".join(text.held_out[:half])])
        passages = cut_passages(text.tokenizer, ids, NEW, work.passages)
        needles = make_needles(text.tokenizer, text.held_out[half:], work.lengths, work.depths, work.needles)
        return cls(text, passages, needles)

    def take(self, model: Any, kind: str, tuned: bool) -> Measured:
        """Both measures of one model."""
        positions = measure_positions(model, self.passages, batch=4)
        return Measured(kind, tuned, positions, find_needles(model, self.text.tokenizer, self.needles, batch=6))


def _setting(work: Work, model: BuddyGPTForCausalLM) -> str:
    lists, pretrain, tune = (
        f"{p.steps} x {p.batch:,} tokens in windows of {' and '.join(map(str, p.lengths))}"
        for p in (work.lists, work.pretrain, work.tune)
    )
    return (
        f"{model.num_parameters() / 1e6:.2f} M parameters, rotary width {model.config.rotary_dim}, bf16 autocast, "
        f"seed 0. Trained: {lists}, of passwords alone; then {pretrain}, of prose with passwords. "
        f"Tuned: {tune}, of the same prose with passwords, no talks. "
        f"Bits per character of {work.passages} held-out windows of {NEW:,} tokens of prose, by position; needles, "
        f"{work.needles} of each of {len(work.lengths)} lengths and {len(work.depths)} depths, are found where the "
        "greedy answer is exactly the number."
    )


def _table(found: Sequence[Measured]) -> str:
    base, control = (m.positions.between(0, OLD) for m in found if m.kind == "none")
    rows = []
    for one in sorted(found, key=lambda m: m.tuned):
        old = one.positions.between(0, OLD)
        far = [cell.log_prob for cell in one.needles.cells if cell.length > OLD]
        rows.append(
            (
                one.kind + (", tuned" if one.tuned else ""),
                f"{old:.3f}",
                f"{100 * (old / base - 1):+.1f} %",
                f"{100 * (old / control - 1):+.1f} %" if one.tuned else "",
                f"{one.positions.between(OLD, NEW // 2):.3f}",
                f"{one.positions.between(NEW // 2, NEW):.3f}",
                f"{one.needles.share(longest=OLD):.0%}",
                f"{one.needles.share(shortest=OLD):.0%}",
                f"{sum(far) / len(far):.2f}",
            )
        )
    head = (
        "scaling", f"bits, positions below {OLD}", "to the base model", "to none, tuned",
        f"{OLD} to {NEW // 2}", f"{NEW // 2} to {NEW:,}", f"needles found, texts up to {OLD}", f"{2 * OLD} to {NEW:,}",
        "log-probability of the number there",
    )  # fmt: skip
    return table(head, rows)


def _draw(found: Sequence[Measured]) -> list[str]:
    """Writes both figures; gives their Markdown."""
    base, drawn, maps = found[0].positions, [], []
    for tuned in (False, True):
        lines = [
            PositionLine(m.kind, m.positions.edges, m.positions.bits, m.positions.errors, KINDS.index(m.kind))
            for m in found
            if m.tuned == tuned
        ]
        if tuned:
            lines.append(PositionLine("none, not tuned", base.edges, base.bits, base.errors, 7, dashed=True))
        # Untuned curves lie so far apart that a logarithm serves them; tuned ones are near, but for the dashed one.
        top = 1.6 * max(m.positions.between(0, NEW) for m in found if m.tuned) if tuned else None
        figure = positions_figure(lines, OLD, top=top, name=f"positions-{tuned}")
        drawn.append(replace(figure, english=f"{figure.english}, {'tuned' if tuned else 'not tuned'}"))
    for one in found:
        title = one.kind + (", tuned" if one.tuned else "")
        cells = [FoundCell(c.length, c.depth, c.share) for c in one.needles.cells]
        maps.append(needle_figure(title, cells, OLD, f"needles-{one.kind}-{one.tuned}"))
    written = []
    for name, svg in (("positions", stand_alone(drawn)), ("needles", stand_alone(maps, columns=2))):
        path = RESULTS / f"{datetime.date.today()}-context-{name}.svg"
        path.write_text(svg, "utf-8")
        written.append(f"![{name}]({path.name})")
    return written
