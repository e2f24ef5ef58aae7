"""The recipes that come along: beside the package in a checkout, inside it after an installation."""

from __future__ import annotations

from pathlib import Path

import buddygpt
from buddygpt.recipe.errors import BuddyError, did_you_mean


def shipped_folder() -> Path:
    """Folder of the recipes that come along."""
    package = Path(buddygpt.__file__).parent
    packed = package / "_recipes"
    return packed if packed.is_dir() else package.parent / "recipes"


def shipped_recipes() -> dict[str, Path]:
    """Name to file, the smallest model first."""
    files = sorted(shipped_folder().glob("*.yaml"), key=lambda p: (p.stem != "tiny", p.stem))
    return {p.stem: p for p in files}


def find_recipe(name: str) -> Path:
    """The file that a user means: a path, or a shipped recipe by its name or as `recipes/NAME.yaml`.

    Raises:
        BuddyError: neither; names near ones.
    """
    path = Path(name)
    if path.exists():
        return path
    shipped = shipped_recipes()
    if path.suffix == ".yaml" and str(path.parent) == "recipes":
        name = path.stem
    if name in shipped:
        return shipped[name]
    near = did_you_mean(path.name.removesuffix(".yaml"), shipped)
    raise BuddyError(f"{path}: no such recipe{near}; `buddy recipes` lists those that come along")


def summary(path: Path) -> str:
    """What a recipe's head comment says it is: the line `# NAME: ...`."""
    for line in path.read_text("utf-8").splitlines():
        if line.startswith("# ") and ":" in line and "yaml-language-server" not in line:
            return line.removeprefix("# ").partition(": ")[2]
    return ""
