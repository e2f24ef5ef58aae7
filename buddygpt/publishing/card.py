"""The model card: README.md with its pictures, in Chinese and in English, from what the run knows and nothing else."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from buddygpt.model.interop import Exported
from buddygpt.publishing import facts, making, outcomes
from buddygpt.publishing.facts import STAGES, Words
from buddygpt.publishing.frontmatter import front_matter, spell_front_matter
from buddygpt.publishing.pictures import stage_pictures
from buddygpt.publishing.recipes import public_recipe
from buddygpt.publishing.story import Story, read_story
from buddygpt.recipe.geometry import count_parameters
from buddygpt.recipe.push import PushHub
from buddygpt.recipe.runs import Run
from buddygpt.report.words import spell_count

TINY = 1_000_000_000
"""Parameters below which a card says that the model is small."""


@dataclass(frozen=True)
class Card:
    """What is published about a model.

    Args:
        text: README.md, its front matter included.
        pictures: name in the repository to PNG.
        cautions: what whoever publishes must be told first.
        scored: the run's results.json is of these very weights.
    """

    text: str
    pictures: dict[str, bytes]
    cautions: tuple[str, ...]
    scored: bool


def make_card(
    model: Path, run: Run | None, exported: Exported, places: Mapping[PushHub, str], licence: str | None = None
) -> Card:
    """Write a model's card. The same model and run give the same bytes.

    Args:
        model: folder of the model, as its run has it.
        run: the run that it comes from; None for a folder of no run, of which there is less to tell.
        exported: the folder that is published.
        places: repositories by hub.
        licence: of the weights; left out where None.

    Raises:
        BuddyError: a file of the run cannot be read.
    """
    story = read_story(model, run)
    pictures = stage_pictures(story.stages)
    told = data_cautions(story)
    name = next((repo.partition("/")[2] for repo in places.values()), None) or story.name or "model"
    text = _environment().get_template("card.md.j2").render(
        front=spell_front_matter(front_matter(story, licence)),
        name=name,
        story=story,
        places=places,
        size=_size(story, exported),
        way=_way(story),
        cautions=told,
        shape=facts.shape_rows(story, exported),
        sources=facts.source_rows(story),
        stages=[STAGES[stage.name] for stage in story.stages],
        training=making.training_rows(story.stages),
        pictures=[(STAGES[stage.name], f"figures/{stage.name}.png") for stage in story.stages],
        drawn=pictures,
        changes=outcomes.change_rows(story.stages),
        scores=outcomes.score_rows(story),
        settings=", ".join(outcomes.score_settings(story)),
        guarded=_guarded(story),
        unsearched=[STAGES[stage.name] for stage in story.stages if stage.guarded == {}],
        limits=_limits(story, exported),
        versions=_versions(story),
        recipe=public_recipe(story.stages),
        licence=licence,
    )  # fmt: skip
    return Card(
        re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n",
        pictures,
        _cautions(story, told, licence),
        story.measured is not None,
    )


def data_cautions(story: Story) -> list[Words]:
    """What data and base ask of everybody who uses the model."""
    told: list[Words] = []
    for source in {source.name: source for source in story.sources}.values():
        chinese, english = facts.spell_licence(source)
        if source.licence.limits:
            told.append((f"训练数据 {source.name}：{chinese}", f"training data {source.name}: {english}"))
        elif source.kind != "demo" and source.licence.text is None:
            told.append((f"训练数据 {source.name} 没有注明许可", f"training data {source.name} states no licence"))
    if story.base:
        told.append((f"由 {story.base} 训练而来，须同时遵守其许可", f"made from {story.base}; its licence holds too"))
    elif story.stages and not story.whole:
        told.append(("起点是另一个模型，其来历没有记录", "began with another model, of which nothing is recorded"))
    return told


def _cautions(story: Story, told: list[Words], licence: str | None) -> tuple[str, ...]:
    """For whoever publishes."""
    lines = [english for _, english in told]
    if not story.stages:
        lines.append("the model lies in no run: its card tells neither data nor training")
    if story.others_measured:
        lines.append("the scores in its run are of other weights and are left out; `buddy eval` makes them anew")
    if licence is None:
        lines.append("no licence for the weights: name one in the recipe's push.license")
    return tuple(lines)


def _size(story: Story, exported: Exported) -> str:
    count = count_parameters(story.geometry) if story.geometry else None
    return spell_count(count.total if count else exported.parameters)


def _way(story: Story) -> Words:
    """How the model came to be, in a few words; empty where that is not known."""
    names = [STAGES[stage.name] for stage in story.stages]
    chinese, english = " → ".join(name[0] for name in names), " → ".join(name[1] for name in names)
    if story.whole:
        return f"用 buddygpt 从零训练：{chinese}", f"trained from scratch with buddygpt: {english}"
    if story.base:
        return f"用 buddygpt 在 {story.base} 上训练：{chinese}", f"trained with buddygpt from {story.base}: {english}"
    return (f"用 buddygpt 训练：{chinese}", f"trained with buddygpt: {english}") if names else ("", "")


def _guarded(story: Story) -> list[tuple[Words, str, str, str]]:
    """Evaluation sets kept out of each stage's data: set, items, documents that were left out."""
    return [
        (STAGES[stage.name], facts.plain(name), f"{items:,}", f"{stage.contaminated.get(name, 0):,}")
        for stage in story.stages
        for name, items in (stage.guarded or {}).items()
    ]


def _limits(story: Story, exported: Exported) -> list[Words]:
    told: list[Words] = []
    if exported.parameters < TINY:
        size = _size(story, exported)
        told.append(
            (
                f"模型很小（{size} 参数）：会编造事实，推理和计算不可靠，请勿用于医疗、法律、金融等决定",
                f"The model is small ({size} parameters): it makes facts up, and its reasoning and sums cannot be "
                "relied on; do not use it for medical, legal or financial decisions",
            )
        )
    if story.whole:
        if all(source.kind == "demo" for source in story.sources):
            told.append(
                (
                    "只读过一个虚构小镇的文本，对真实世界一无所知",
                    "It has read nothing but texts about an invented town and knows nothing of the real world",
                )
            )
        else:
            told.append(("知识全部来自上面的训练数据", "All it knows comes from the data above"))
        languages = {code for source in story.sources for code in source.languages}
        if languages == {"zh"} and all(source.languages for source in story.sources):
            told.append(("训练数据只有中文", "The training data are Chinese only"))
    if not story.chat:
        told.append(
            ("这是基座模型：只会续写，不会对话", "It is a base model: it goes on with a text and does not converse")
        )
    told.append(
        (
            "buddygpt 不做安全对齐，也不过滤输出：可能出现不当或有偏见的内容",
            "buddygpt trains for no safety and filters no output: it may say what is unfit or biased",
        )
    )
    return told


def _versions(story: Story) -> str:
    """What the last stage was made with."""
    known = story.stages[-1].made_on.get("versions", {}) if story.stages else {}
    return ", ".join(f"{name} {version}" for name, version in known.items())


def _environment() -> Environment:
    environment = Environment(  # Markdown: cells are escaped by `cell`
        loader=PackageLoader("buddygpt", "publishing"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"cell": cell, "plain": facts.plain}
    return environment


def cell(value: str | Words, language: int) -> str:
    """A table's cell in one language; what Markdown would take for marks of its own is spelled out."""
    text = value if isinstance(value, str) else value[language]
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
