"""What a run knows of its model: read once, from the files that the stages have written. Nothing is guessed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from buddygpt.data.fingerprints import hash_weights
from buddygpt.data.prepared import read_prepared
from buddygpt.data.staging import CONTAMINATED
from buddygpt.publishing.sources import Source, describe, is_hub_id
from buddygpt.recipe.errors import BuddyError
from buddygpt.recipe.loader import load_recipe
from buddygpt.recipe.model import ModelSection
from buddygpt.recipe.pretrain import PretrainSection
from buddygpt.recipe.runs import Run, find_model, run_of
from buddygpt.recipe.schema import Chapter, Recipe
from buddygpt.recipe.training import TrainingSection
from buddygpt.recipe.tuning import TuningSection
from buddygpt.report.page import load_rows
from buddygpt.report.scores import Measured, measured_in

Figures = Mapping[str, float]


@dataclass(frozen=True)
class Stage:
    """A chapter of the model's life.

    Args:
        name: pretrain, sft or dpo.
        recipe: of its run.
        section: of that recipe.
        sources: what it read.
        metrics: rows of metrics.jsonl; empty where there is none.
        done: what was recorded at its end; empty where nothing was.
        guarded: items of the evaluation sets that were kept out, by set; None where that is not known.
        contaminated: documents that held a piece of one and were left out, by set.
    """

    name: Chapter
    recipe: Recipe
    section: TrainingSection
    sources: tuple[Source, ...]
    metrics: Sequence[Mapping[str, Any]] = ()
    done: Mapping[str, Any] = field(default_factory=dict)
    guarded: Mapping[str, int] | None = None
    contaminated: Mapping[str, int] = field(default_factory=dict)

    @property
    def steps(self) -> int | None:
        """Optimizer steps."""
        return self.done.get("step")

    @property
    def tokens(self) -> int | None:
        """Tokens that it read, over all epochs."""
        return next((row["tokens"] for row in reversed(self.metrics) if "tokens" in row), None)

    @property
    def seconds(self) -> float | None:
        """Time of its steps; evaluations and saving are not in it."""
        times = [row["seconds"] for row in self.metrics if row.get("seconds")]
        return sum(times) if times else None

    @property
    def final(self) -> Figures:
        """Its last figures on held-out data."""
        return self.done.get("metrics", {})

    @property
    def made_on(self) -> Mapping[str, Any]:
        """Device and versions; empty where they are not recorded."""
        return self.done.get("made_on", {})

    def columns(self) -> dict[str, Figures]:
        """What it changed: figures of the model that it began with and of its own, by stage."""
        if not self.done.get("after"):
            return {}
        return {str(self.done.get("began", "before")): self.done.get("before", {}), self.name: self.done["after"]}


@dataclass(frozen=True)
class Story:
    """All that a card is written from; what is not known is None or empty.

    Args:
        name: of the recipe.
        chat: it answers turns; else it goes on with a text.
        geometry: shape of the model.
        stages: the chapters that led to it, the first one first.
        base: the hub's id of the foreign model that the first stage began with.
        whole: the first stage began with weights drawn at random, so that the stages tell everything.
        measured: its scores.
        others_measured: there are scores in its folder, but of other weights.
    """

    name: str | None
    chat: bool
    geometry: ModelSection | None
    stages: tuple[Stage, ...] = ()
    base: str | None = None
    whole: bool = False
    measured: Measured | None = None
    others_measured: bool = False

    @property
    def sources(self) -> list[Source]:
        """Of all stages."""
        return [source for stage in self.stages for source in stage.sources]


def read_story(model: Path, run: Run | None) -> Story:
    """What a model's folder and its run tell.

    Args:
        model: folder with config.json.
        run: the run in which the model lies; None where it lies in none.

    Raises:
        BuddyError: a file of the run cannot be read.
    """
    story = Story(None, _has_template(model), _geometry(model))
    chapter = model.absolute().parent.name
    if run is None or chapter not in ("pretrain", "sft", "dpo"):
        return story
    stages, base, whole = _lineage(run, chapter, frozenset())
    results = run.path / "eval" / chapter / "results.json"
    measured = measured_in(results, hash_weights(model)) if results.is_file() else None
    return replace(
        story,
        name=load_recipe(run.path / "recipe.yaml").name,
        stages=tuple(stages),
        base=base,
        whole=whole,
        measured=measured,
        others_measured=results.is_file() and measured is None,
    )


def _geometry(model: Path) -> ModelSection | None:
    """The shape that config.json tells; None for a model that has no equal here."""
    from transformers import AutoConfig

    from buddygpt.model.architectures import buddy_config
    from buddygpt.model.configuration import BuddyGPTConfig
    from buddygpt.model.cost import as_section

    try:
        config: Any = AutoConfig.from_pretrained(model)
        return as_section(config if isinstance(config, BuddyGPTConfig) else buddy_config(config))
    except (BuddyError, ValueError, OSError):
        return None


def _has_template(model: Path) -> bool:
    if (model / "chat_template.jinja").is_file():
        return True
    try:
        return bool(json.loads((model / "tokenizer_config.json").read_text("utf-8")).get("chat_template"))
    except (OSError, ValueError):
        return False


def _lineage(run: Run, chapter: Any, seen: frozenset[Path]) -> tuple[list[Stage], str | None, bool]:
    """The stages up to a chapter, the foreign model before them, and whether nothing at all was before them."""
    recipe = load_recipe(run.path / "recipe.yaml")
    section = getattr(recipe, chapter)
    folder = run.chapter(chapter).resolve()
    if section is None or folder in seen:
        return [], None, False
    seen |= {folder}
    stage = _stage(run, chapter, recipe, section)
    if chapter == "pretrain":
        return [stage], None, True
    if section.model is None:
        before, base, whole = _lineage(run, "sft" if chapter == "dpo" else "pretrain", seen)
        return [*before, stage], base, whole
    told = stage.done.get("hub_model")  # only what was fetched from a hub then: a path may look like an id
    if told and is_hub_id(told):
        return [stage], told, False
    try:
        found = find_model(section.model, run.path.parent)
    except BuddyError:
        return [stage], None, False
    if isinstance(found, Path) and (other := run_of(found)) is not None:
        before, base, whole = _lineage(other, found.absolute().parent.name, seen)
        return [*before, stage], base, whole
    return [stage], None, False


def _stage(run: Run, chapter: Chapter, recipe: Recipe, section: TrainingSection) -> Stage:
    folder = run.chapter(chapter)
    prepared = read_prepared(run.data(chapter))
    manifest = prepared.manifest if prepared else None
    rows = recipe.rows(chapter)
    given = list(rows.sources) if rows else []
    sources = [describe(source, number, manifest) for number, source in enumerate(given, 1)]
    guarded = ((manifest or {}).get("decontaminate") or {}).get("sets", {})
    contaminated: dict[str, int] = {}
    for own in (manifest or {}).get("sources", {}).values():
        for reason, drop in own["dropped"].items():
            if reason.startswith(CONTAMINATED):
                name = reason.removeprefix(CONTAMINATED).strip()
                contaminated[name] = contaminated.get(name, 0) + drop["count"]
    file = folder / "done.json"
    return Stage(
        chapter,
        recipe,
        section,
        tuple(_with_epochs(sources, [source.weight for source in given], section)),
        load_rows(folder / "metrics.jsonl"),
        json.loads(file.read_text("utf-8")) if file.is_file() else {},
        None if manifest is None else {name: counts["items"] for name, counts in guarded.items()},
        contaminated,
    )


def _with_epochs(
    sources: Sequence[Source], weights: Sequence[float | None], section: TrainingSection
) -> Sequence[Source]:
    """The sources with how often each was read: weights part the tokens; in tuning without weights sizes do."""
    if any(source.tokens is None for source in sources):
        return sources
    tokens = [source.tokens or 0 for source in sources]
    if isinstance(section, PretrainSection):
        read: float = section.steps * section.tokens_per_batch
        plain = [1.0] * len(sources)
    else:
        assert isinstance(section, TuningSection)
        read, plain = section.epochs * sum(tokens), [float(size) for size in tokens]
    given = [default if weight is None else weight for weight, default in zip(weights, plain, strict=True)]
    shares = [share if size else 0.0 for share, size in zip(given, tokens, strict=True)]
    total = sum(shares)
    return [
        replace(source, epochs=read * share / total / size) if size and total else source
        for source, share, size in zip(sources, shares, tokens, strict=True)
    ]
