"""What pretraining would do, told without doing it: nothing is read whole, nothing is written."""

from __future__ import annotations

from pathlib import Path

from buddygpt.data.catalog import as_hub, find
from buddygpt.data.paths import find_files
from buddygpt.data.prepare import find_prepared
from buddygpt.events import Caution, Emit, Note, Table
from buddygpt.recipe.base import spell_bytes
from buddygpt.recipe.data import CatalogSource, DemoSource, FilesSource, HubRows, source_name
from buddygpt.recipe.geometry import count_parameters
from buddygpt.recipe.lint import remarks
from buddygpt.recipe.runs import Run
from buddygpt.recipe.schema import Recipe
from buddygpt.training import checkpoints
from buddygpt.training.compiled import check_compile
from buddygpt.training.facts import Work, checkpoint_bytes, memory_rows, model_rows, training_rows
from buddygpt.training.setup import accumulation_steps, check_precision, find_device


def run(recipe: Recipe, run: Run, *, cache: Path, emit: Emit) -> None:
    """Tell sizes, tokens, steps, device, kernels, memory, data, folders, and what the geometry costs.

    Raises:
        BuddyError: pretraining would stop for the same reason.
    """
    recipe.require("pretrain", "pretrain", "data")
    assert recipe.pretrain is not None and recipe.data is not None
    section = recipe.pretrain
    device = find_device()
    check_precision(section, device)
    check_compile(section, device)
    work = Work.of_pretraining(recipe, device)
    work.attention()
    accumulation = accumulation_steps(section, device.processes)
    emit(Table(recipe.name, ("", ""), tuple(model_rows(recipe.model))))
    emit(Table("training", ("", ""), tuple(training_rows(work, accumulation))))
    emit(Table("memory", ("", ""), tuple(memory_rows(work))))
    emit(Table("data", ("source", "weight", "what"), tuple(_source_rows(recipe))))
    local = not any(isinstance(source, HubRows) for source in recipe.data.sources)
    prepared = find_prepared(recipe, cache) if local else None  # a hub would have to be asked
    emit(Note(f"data: {f'prepared, {prepared.path}' if prepared else f'below {cache}'}"))
    saves = -(-section.steps // section.save_every)
    disk = spell_bytes(checkpoint_bytes(count_parameters(recipe.model).total))
    emit(
        Note(
            f"checkpoints: {saves:,}, one every {section.save_every:,} steps, the newest {section.keep_checkpoints} "
            f"stay, {disk} each; evaluated every {section.eval_every:,} steps"
        )
    )
    emit(Note(f"run: {run.path}{_state(run)}"))
    for remark in remarks(recipe.model):
        emit(Caution(str(remark)))
    emit(Note("nothing was written"))


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
