"""What pretraining would take, told without doing it: no text is read whole, nothing is written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

from buddygpt.data.catalog import as_hub, find
from buddygpt.data.paths import find_files
from buddygpt.data.prepare import find_prepared
from buddygpt.events import Caution, Emit, Note, Table
from buddygpt.model.cost import count_flops
from buddygpt.recipe.base import spell_bytes
from buddygpt.recipe.data import CatalogSource, DemoSource, FilesSource, HubRows, source_name
from buddygpt.recipe.errors import BuddyError
from buddygpt.recipe.geometry import count_parameters
from buddygpt.recipe.lint import remarks
from buddygpt.recipe.parallel import FSDP
from buddygpt.recipe.pretrain import PretrainSection
from buddygpt.recipe.runs import Run, free_bytes
from buddygpt.recipe.schema import Chapter, Recipe
from buddygpt.recipe.tuning import TuningSection
from buddygpt.training import checkpoints
from buddygpt.training.branch import branch_point
from buddygpt.training.cards import ASSUMED_MFU, LAUNCHES, find_card
from buddygpt.training.compiled import check_compile
from buddygpt.training.facts import (
    Rows,
    Work,
    attention_rows,
    cache_row,
    common_rows,
    lasting_checkpoints,
    missing_bytes,
    model_rows,
    operation_rows,
    training_rows,
)
from buddygpt.training.forecast import (
    assumed_hours,
    card_rows,
    choices,
    largest,
    measured_hours,
    memory_columns,
    speed_rows,
)
from buddygpt.training.probe import Probe, probe
from buddygpt.training.room import Room, expected_peak, find_room, needed
from buddygpt.training.setup import accumulation_steps, check_precision, find_device
from buddygpt.training.trackers import check_trackers

WIDE_IDS = 65_536
"""Entries of a vocabulary up to which an id takes two bytes on disk, else four."""


def run(
    recipe: Recipe,
    run: Run,
    *,
    cache: Path,
    emit: Emit,
    chapter: Chapter = "pretrain",
    probed: bool = False,
    per_hour: float | None = None,
) -> None:
    """Tell sizes, operations, memory, time, cost, disk, device, kernels, data, and what the geometry costs.

    Of tuning, whose steps are known once its rows are read, it tells all but time, cost and data.

    Args:
        recipe: with the chapter's section.
        run: the run directory that it would have.
        cache: where prepared shards lie.
        emit: who is told.
        chapter: which.
        probed: measure speed and memory by a minute of training.
        per_hour: price of one device.

    Raises:
        BuddyError: training would stop for the same reason.
    """
    recipe.require("plan" if chapter == "pretrain" else f"plan --stage {chapter}", chapter)
    if chapter == "pretrain":
        recipe.require("plan", "data")
        _pretraining(recipe, run, cache, emit, probed, per_hour)
    elif probed or per_hour is not None:
        raise BuddyError(
            "--probe and --per-hour are of pretraining: the steps of tuning are known once it reads its rows"
        )
    else:
        _tuning(recipe, run, chapter, emit)
    emit(Note("nothing was written"))


def _pretraining(recipe: Recipe, run: Run, cache: Path, emit: Emit, probed: bool, per_hour: float | None) -> None:
    assert recipe.pretrain is not None
    section, device = recipe.pretrain, find_device()
    check_trackers(section, "pretrain")
    begun = _begun(recipe, run, emit)
    check_precision(section, device)
    check_compile(section, device)
    work = Work.of_pretraining(recipe, device)
    work.attention()
    accumulation = accumulation_steps(section, device.processes)
    shape = [*model_rows(recipe.model), *operation_rows(recipe.model, section.sequence_length), cache_row(recipe.model)]
    emit(Table(recipe.name, ("", ""), tuple(shape)))
    emit(Table("training", ("", ""), tuple(training_rows(work, accumulation))))
    fitting = _tell_memory(work, find_room(device), emit)
    # Of a run that starts from another one's checkpoint time and cost are of the steps that are left.
    left = section.model_copy(update={"tokens": (section.steps - begun) * section.tokens_per_batch})
    timed, ahead = recipe.model_copy(update={"pretrain": left}), replace(work, section=left)
    if probed:
        _tell_probe(timed, ahead, fitting, per_hour, emit)
    else:
        _tell_assumed(timed, ahead, per_hour, emit)
    _tell_cards(timed, ahead, per_hour, emit)
    _tell_data(recipe, run, cache, begun, emit)
    for remark in remarks(recipe.model):
        emit(Caution(str(remark)))


def _begun(recipe: Recipe, run: Run, emit: Emit) -> int:
    """Steps that the run takes over from the one that it starts from; 0 where it has checkpoints of its own."""
    assert recipe.pretrain is not None
    own = checkpoints.whole_checkpoints(run.chapter("pretrain") / "checkpoints")
    if recipe.pretrain.start_from is None or own:
        return 0
    start = branch_point(recipe, run, emit)
    step = checkpoints.step_of(start)
    emit(Note(f"starts from {start}: time and cost are of the {recipe.pretrain.steps - step:,} steps after it"))
    return step


def _tuning(recipe: Recipe, run: Run, chapter: Literal["sft", "dpo"], emit: Emit) -> None:
    device = find_device()
    work = Work.of_tuning(recipe, chapter, device)
    section = work.section
    assert isinstance(section, TuningSection)
    check_trackers(section, chapter)
    check_precision(section, device, chapter)
    unit = "pairs" if chapter == "dpo" else "windows"
    batch = f"{section.batch_size} {unit} of up to {work.length:,} tokens, {section.micro_batch_size} at once"
    rows = [*operation_rows(work.model, work.length), *common_rows(work), ("batch", batch), *attention_rows(work)]
    emit(Table(f"{recipe.name}, {chapter}", ("", ""), (*model_rows(work.model), *rows)))
    _tell_memory(work, find_room(device), emit)
    if section.model is not None:
        emit(Caution(f"{chapter}.model: {section.model} is trained; the figures are of the recipe's own model"))
    _tell_disk(work, run, [], emit)


def _tell_memory(work: Work, room: Room | None, emit: Emit) -> int | None:
    """Memory with the recipe's micro-batch and with the largest that fits, which is returned."""
    own, kind = work.section.micro_batch_size, work.device.kind
    unit = "pairs" if work.name == "dpo" else "windows"
    fitting = None if room is None else largest(work, _choices(work), room.free)
    sizes = [own] + ([fitting] if fitting not in (None, own) else [])
    heads = ("", *(f"micro-batch {size}" for size in sizes))
    emit(Table("memory on each device", heads, tuple(memory_columns(work, sizes))))  # type: ignore[arg-type]
    if isinstance(work.section.parallel, FSDP):
        emit(Note("fsdp splits weights, gradients and optimizer over the devices; the table has them whole"))
    if room is None:
        return None
    has = f"the device has {spell_bytes(room.total)}, {spell_bytes(room.free)} of them free"
    need = needed(work.memory(), work.model, kind, work.section.precision)
    if need <= room.free:
        told = f"{has}: micro-batches of {own} {unit} fit"
        if fitting != own:
            told += f"; of those that divide the batch {fitting} is the largest (--set {_setting(work, fitting)})"
        emit(Note(told))
    elif fitting:
        emit(Caution(f"{has}: micro-batches of {own} {unit} do not fit; --set {_setting(work, fitting)} does"))
    else:
        emit(Caution(f"{has}: not even one fits; try {_smaller(work)}"))
    return fitting


def _smaller(work: Work) -> str:
    """What takes less memory where micro-batches cannot be smaller."""
    if work.section.gradient_checkpointing is not True:
        return f"--set {work.name}.gradient_checkpointing=true"
    return f"a smaller {work.name}.sequence_length, a smaller vocabulary or a smaller model"


def _choices(work: Work) -> list[int]:
    return choices(work, work.device.processes)


def _setting(work: Work, size: int | None) -> str:
    return f"{work.name}.micro_batch_size={size}"


def _tell_probe(recipe: Recipe, work: Work, fitting: int | None, per_hour: float | None, emit: Emit) -> None:
    """Speed and memory as measured on this device."""
    section, device = recipe.pretrain, work.device
    assert section is not None and recipe.data is not None
    if device.processes > 1:
        raise BuddyError("--probe: measures one device; run it without a launcher")
    emit(Note("probing: about a minute of training on random tokens"))
    found = _probe(recipe, work, fitting, emit)
    if found is None:
        return
    hours = measured_hours(found, section, len(recipe.data.sources), device.processes)
    card = find_card(device.name)
    mfu = None if card is None else _mfu(recipe, hours.tokens_per_second, card.peak)
    size, memory = found.micro_batch_size, work.split(found.micro_batch_size).memory()
    accumulation = section.tokens_per_batch // section.sequence_length // size
    predicted = spell_bytes(expected_peak(memory, work.model, device.kind, section.precision))
    taken = f"{spell_bytes(found.peak_bytes)}, {predicted} predicted"
    if found.reserved_bytes is not None:
        taken += f"; {spell_bytes(found.reserved_bytes)} taken from the device"
    rows = [
        ("micro-batch", f"{size} windows, {accumulation} in a step"),
        ("a micro-batch", f"{found.first:.4g} s, one that adds to gradients {found.further:.4g} s"),
        ("end of a step", f"{found.end:.4g} s"),
        ("a step", f"{found.step_seconds(accumulation):.4g} s, the first one {found.warm_up:.2g} s more"),
        *speed_rows(hours, mfu, per_hour, device.processes),
        ("memory", taken),
    ]
    emit(Table(f"measured in {found.steps} steps", ("", ""), tuple(rows)))


def _mfu(recipe: Recipe, tokens_per_second: float, peak: float) -> float:
    """Operations that the model needs over those that the device could do."""
    assert recipe.pretrain is not None
    return tokens_per_second * count_flops(recipe.model, recipe.pretrain.sequence_length).training / peak


def _probe(recipe: Recipe, work: Work, fitting: int | None, emit: Emit) -> Probe | None:
    """What was measured with the recipe's micro-batch, or with the largest smaller one that does fit."""
    own = work.section.micro_batch_size
    tries = [size for size in reversed(_choices(work)) if size <= (own if fitting is None else min(own, fitting))]
    windows = max(_choices(work))
    for size in tries:
        if size < own:
            emit(Caution(f"micro-batches of {own} windows do not fit; trying --set {_setting(work, size)}"))
        found = probe(recipe, size, windows // size)
        if found is not None:
            return found
    emit(Caution("not even one window fits; nothing was measured"))
    return None


def _tell_assumed(recipe: Recipe, work: Work, per_hour: float | None, emit: Emit) -> None:
    """Time on this device by its data sheet."""
    card = find_card(work.device.name)
    assert recipe.pretrain is not None and recipe.data is not None
    if card is None:
        emit(Note("time: no data sheet of this device is here; --probe measures it in about a minute"))
        return
    processes = work.device.processes
    hours = assumed_hours(recipe.model, recipe.pretrain, len(recipe.data.sources), card.peak, processes)
    rows = speed_rows(hours, _mfu(recipe, hours.tokens_per_second, card.peak * processes), per_hour, processes)
    emit(Table("time, assumed; --probe measures it in about a minute", ("", ""), tuple(rows)))


def _tell_cards(recipe: Recipe, work: Work, per_hour: float | None, emit: Emit) -> None:
    """Other cards by their data sheets."""
    assert recipe.data is not None
    heads = ("card", "TFLOP/s", "GB", "largest micro-batch", "tokens/s", "whole budget")
    if per_hour is not None:
        heads += (f"at {per_hour:g} an hour",)
    emit(Table("one card, by data sheets", heads, tuple(card_rows(work, len(recipe.data.sources), per_hour))))
    emit(
        Note(
            f"assumed: {ASSUMED_MFU:.0%} of the bf16 peak, and {LAUNCHES * 1000:g} ms a layer at least; this program "
            "reached 6% to 19% on an H200 or H100, by recipe; --probe measures"
        )
    )


def _tell_data(recipe: Recipe, run: Run, cache: Path, begun: int, emit: Emit) -> None:
    """Sources, and what lies on the disk."""
    section = recipe.pretrain
    assert section is not None and recipe.data is not None
    emit(Table("data", ("source", "weight", "what"), tuple(_source_rows(recipe))))
    local = not any(isinstance(source, HubRows) for source in recipe.data.sources)
    prepared = find_prepared(recipe, cache) if local else None  # a hub would have to be asked
    emit(Note(f"data: {f'prepared, {prepared.path}' if prepared else f'below {cache}'}"))
    width = 2 if recipe.model.vocab_size <= WIDE_IDS else 4
    size = section.steps * section.tokens_per_batch * width
    files = ("token files", f"{spell_bytes(size)} where the text is as long as the budget")
    _tell_disk(Work.of_pretraining(recipe, find_device()), run, [files], emit)
    if prepared is None and size > (free := free_bytes(cache)):
        told = f"{spell_bytes(size)} where the text is as long as the budget, and {spell_bytes(free)} are free"
        emit(Caution(f"{cache}: token files that are not there yet take {told}"))
    saves = -(-section.steps // section.save_every) - begun // section.save_every
    every = f"one every {section.save_every:,} steps"
    emit(Note(f"checkpoints: {saves:,}, {every}; evaluated every {section.eval_every:,} steps"))
    emit(Note(f"run: {run.path}{_state(run)}"))


def _tell_disk(work: Work, run: Run, files: Rows, emit: Emit) -> None:
    section = work.section
    steps = section.steps if isinstance(section, PretrainSection) else 0  # of tuning they are known once rows are read
    parameters, kept = count_parameters(work.model).total, lasting_checkpoints(section, steps)
    each = work.checkpoint_bytes()
    folder, free = run.chapter(work.name), free_bytes(run.path)
    rows = [
        *files,
        ("checkpoints", f"{spell_bytes((kept + 1) * each)}: {kept} that stay and a new one, {spell_bytes(each)} each"),
        ("model", spell_bytes(4 * parameters)),
        ("free there", spell_bytes(free)),
    ]
    emit(Table("disk", ("", ""), tuple(rows)))
    if (need := missing_bytes(work, steps, folder)) > free:
        told = f"{spell_bytes(need)} are needed for checkpoints and model, {spell_bytes(free)} free"
        emit(Caution(f"{folder}: {told}; free some, or choose another folder with --run"))


def _source_rows(recipe: Recipe) -> list[tuple[str, str, str]]:
    assert recipe.data is not None
    rows = []
    for source in recipe.data.sources:
        if isinstance(source, DemoSource):
            what = f"made here, {source.characters:,} characters, seed {source.seed}"
        elif isinstance(source, FilesSource):
            files = find_files(source)
            what = f"{len(files):,} file(s), {spell_bytes(sum(f.stat().st_size for f in files))}"
        else:
            if isinstance(source, CatalogSource):
                source = as_hub(find(source.dataset), source)
            size = f", {spell_bytes(source.size)}" if source.size else ""
            what = f"{source.id}, {', '.join(source.files)}{size} (hub not asked)"
        rows.append((source_name(source), f"{source.relative_weight:g}", what))
    return rows


def _state(run: Run) -> str:
    folder = run.chapter("pretrain")
    if (folder / "done.json").is_file():
        return ", finished"
    whole = checkpoints.whole_checkpoints(folder / "checkpoints")
    if whole:
        return f", unfinished, saved at step {checkpoints.step_of(whole[-1])}; --resume would go on from there"
    return ", new"
