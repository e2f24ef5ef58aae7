"""The run directory: one folder holds one model's life.

runs/NAME/recipe.yaml     the resolved recipe
runs/NAME/data            a link to the prepared shards, which runs with the same data share
runs/NAME/data-report.html  what became of the text, by `buddy data report`
runs/NAME/pretrain/       checkpoints/  model/  metrics.jsonl  report.html  report.json  trackers/
runs/NAME/sft/, dpo/      the same, and data, before.json; sft also context.json where the context was extended
runs/NAME/eval/           scores, a folder for each of these models
runs/NAME/export/         the model for other programs, a folder for each kind
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from buddygpt.recipe.errors import BuddyError, did_you_mean
from buddygpt.recipe.schema import Chapter, Recipe
from buddygpt.recipe.training import MAY_CHANGE


@dataclass(frozen=True)
class Run:
    """One run directory; making the object touches nothing on disk."""

    path: Path

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    def chapter(self, name: str) -> Path:
        """Folder of one stage."""
        return self.path / name

    def data(self, chapter: Chapter = "pretrain") -> Path:
        """Where a chapter's prepared text or rows lie: a link."""
        return (self.path if chapter == "pretrain" else self.chapter(chapter)) / "data"

    def data_report(self, chapter: Chapter = "pretrain") -> Path:
        """The page about a chapter's text or rows."""
        return self.data(chapter).with_name("data-report.html")

    def link_data(self, target: Path, chapter: Chapter = "pretrain") -> None:
        """Point `data` at a chapter's prepared text, by a relative path so that both can move together.

        Raises:
            BuddyError: the folder cannot be written.
        """
        link = self.data(chapter)
        try:
            link.parent.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            # The system follows it from where the folder really is, which may itself be a link to another disk.
            there = os.path.relpath(target.resolve(), link.parent.resolve())
            link.symlink_to(there, target_is_directory=True)
        except OSError as error:
            raise BuddyError(f"{link}: cannot be written: {error.strerror}; choose another folder with --run") from None

    def finished(self) -> Iterator[Path]:
        """Model folders of finished stages, the latest stage first."""
        for chapter in reversed(get_args(Chapter)):
            if (self.path / chapter / "done.json").is_file():
                yield self.path / chapter / "model"

    def claim(self, recipe: Recipe, *sections: str) -> None:
        """Write the recipe into a new run, or see that the run is this recipe's; what may change is written anew.

        Args:
            recipe: the resolved recipe.
            *sections: those that must agree with a recipe already there; where none are named, none must.

        Raises:
            BuddyError: as `check`, or the folder cannot be written.
        """
        changed = self.check(recipe, *sections)
        file = self.path / "recipe.yaml"
        if file.is_file() and not changed:
            return
        now = recipe.as_dict()
        if file.is_file():
            from buddygpt.recipe.loader import load_recipe

            now = load_recipe(file).as_dict() | recipe.as_dict(*sections)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            write_atomically(file, dump_yaml(now))
        except OSError as error:
            raise BuddyError(
                f"{self.path}: cannot be written: {error.strerror}; choose another folder with --run"
            ) from None

    def check_chapter(self, recipe: Recipe, chapter: Chapter) -> list[str]:
        """See that a tuning chapter fits the run: its section is what it began with, the model's are the run's.

        Returns, raises:
            As `check`.
        """
        return self.check(recipe, *self._deciding(recipe, chapter))

    def claim_chapter(self, recipe: Recipe, chapter: Chapter) -> None:
        """Write a tuning chapter's section into the run's recipe, beside those before; `push`, too, where it is said.

        Raises:
            BuddyError: as `claim`.
        """
        self.claim(recipe, *self._deciding(recipe, chapter))
        from buddygpt.recipe.loader import load_recipe

        file = self.path / "recipe.yaml"
        theirs, ours = load_recipe(file).as_dict(), recipe.as_dict()
        said = {"push": ours["push"]} if "push" in recipe.model_fields_set else {}
        now = {**theirs, chapter: ours[chapter], **said}
        if theirs != now:
            write_atomically(file, dump_yaml(now))

    def _deciding(self, recipe: Recipe, chapter: Chapter) -> list[str]:
        """Sections that must agree: a chapter that has not begun may be anything."""
        section = recipe.sft if chapter == "sft" else recipe.dpo
        sections = ["model", "tokenizer"] if section and section.model is None else []
        return [*sections, chapter] if (self.chapter(chapter) / "checkpoints").is_dir() else sections

    def check(self, recipe: Recipe, *sections: str) -> list[str]:
        """See that the run, where it exists, is this recipe's.

        Returns:
            A line for each field that differs and may: `MAY_CHANGE` of recipe/training.py.

        Raises:
            BuddyError: the folder holds something else, or another recipe's run; names the first fields that differ.
        """
        file = self.path / "recipe.yaml"
        if not file.is_file():
            if self.path.exists() and not (
                self.path.is_dir() and all(p in (self.data(), self.data_report()) for p in self.path.iterdir())
            ):
                raise BuddyError(f"{self.path}: exists and is not a run; choose another folder with --run")
            return []
        from buddygpt.recipe.loader import load_recipe

        theirs = load_recipe(file)
        if not sections or theirs.digest(*sections) == recipe.digest(*sections):
            return []
        found = list(differences(theirs.as_dict(*sections), recipe.as_dict(*sections)))
        differing = [(key, old, new) for key, old, new in found if not _may_change(key)]
        if not differing:
            return [f"{key}: {old} before, {new} from here on" for key, old, new in found]
        shown = ", ".join(f"{key} ({old} there, {new} here)" for key, old, new in differing[:3])
        more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
        raise BuddyError(
            f"{self.path}: belongs to a recipe that differs in {shown}{more}; "
            f"give this one another name (--set name={recipe.name}-2) or remove the folder"
        )


def _may_change(key: str) -> bool:
    """Whether a field, by its path in a recipe, may change when a run goes on."""
    section, _, field = key.partition(".")
    return section in get_args(Chapter) and not MAY_CHANGE.isdisjoint((field, field.partition(".")[0]))


def differences(a: Any, b: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Fields in which two recipes differ, as plain data: path, old and new value in words."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in dict.fromkeys((*a, *b)):
            yield from differences(a.get(key), b.get(key), f"{path}.{key}" if path else key)
    elif a != b:
        yield path, _brief(a), _brief(b)


def _brief(value: Any) -> str:
    text = (
        "none"
        if value is None
        else json.dumps(value, ensure_ascii=False)
        if isinstance(value, (dict, list))
        else str(value)
    )
    return text if len(text) <= 60 else text[:57] + "..."


def runs_in(root: Path) -> list[Run]:
    """Runs below `root`, the one touched last first."""
    if not root.is_dir():
        return []
    found = [p.parent for p in root.glob("*/recipe.yaml")]
    return [Run(p) for p in sorted(found, key=_touched, reverse=True)]


def _touched(path: Path) -> float:
    marks = [path / "recipe.yaml", *path.glob("*/done.json"), *path.glob("*/metrics.jsonl")]
    return max(p.stat().st_mtime for p in marks)


def newest_model(root: Path) -> Path:
    """The newest finished model of the newest run that has one.

    Raises:
        BuddyError: there is none.
    """
    for run in runs_in(root):
        for model in run.finished():
            return model
    raise BuddyError(
        f"{root}/: no finished model; make one with `buddy pretrain tiny`, or name a model folder or hub id"
    )


def find_run(root: Path, name: str) -> Run:
    """The run called `name`.

    Raises:
        BuddyError: there is none; names near ones.
    """
    runs = runs_in(root)
    for run in runs:
        if run.name == name:
            return run
    raise BuddyError(f"{name}: no such run below {root}/{did_you_mean(name, [r.name for r in runs])}")


def find_model(target: str | None, runs: Path) -> Path | str:
    """The model folder or hub id that a target names.

    Raises:
        BuddyError: nothing of that name; names near ones.
    """
    if target is None:
        return newest_model(runs)
    path = Path(target)
    if (path / "config.json").is_file():
        return path
    if (path / "recipe.yaml").is_file() or (runs / target / "recipe.yaml").is_file():
        run = Run(path) if (path / "recipe.yaml").is_file() else find_run(runs, target)
        for model in run.finished():
            return model
        raise BuddyError(
            f"{run.path}: no stage of this run has finished; go on: `buddy pretrain {run.path}/recipe.yaml --resume`"
        )
    if path.exists():
        raise BuddyError(f"{path}: neither a run nor a model folder (no config.json in it)")
    if target.count("/") == 1 and not target.startswith((".", "/", "~", "runs/")):
        return target
    if runs_in(runs):
        find_run(runs, target)
    raise BuddyError(f"{target}: no such run, folder or hub id (owner/name)")


def run_of(model: Path) -> Run | None:
    """The run in which a model's folder is what a stage has left; None for any other folder."""
    folder = model.absolute()
    run = folder.parent.parent
    inside = folder.name == "model" and folder.parent.name in get_args(Chapter) and (run / "recipe.yaml").is_file()
    return Run(run) if inside else None


def model_name(source: Path | str) -> str:
    """What a model is called: its run's name, its folder's, or the last part of its hub id."""
    if isinstance(source, str):
        return source.rpartition("/")[2]
    whole = source.resolve()
    return whole.parent.parent.name if run_of(source) else whole.name


def export_place(source: Path | str, kind: str) -> Path:
    """Where an export lies: `runs/NAME/export/KIND` for a run's model, `FOLDER-KIND` for any other."""
    if isinstance(source, str):
        return Path(f"{model_name(source)}-{kind}")
    if run_of(source):
        return source.parent.parent / "export" / kind
    whole = source if source.name not in ("", "..") else source.resolve()
    return whole.with_name(f"{whole.name}-{kind}")


def dump_yaml(data: dict[str, Any]) -> str:
    """Plain data as YAML text."""
    from io import StringIO

    from ruamel.yaml import YAML

    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.allow_unicode = True
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    out = StringIO()
    yaml.dump(data, out)
    return out.getvalue()


def free_bytes(path: Path) -> int:
    """Free space on the disk where `path` lies, or will."""
    return shutil.disk_usage(next(p for p in (path, *path.absolute().parents) if p.is_dir())).free


def write_atomically(path: Path, text: str) -> None:
    """Write a text file whole or not at all: under another name, synced, renamed."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
