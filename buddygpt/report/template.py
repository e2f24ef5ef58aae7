"""How every page is made: one environment for the templates, one way to write the file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from buddygpt.recipe.runs import write_atomically
from buddygpt.report.words import CHINESE


@dataclass(frozen=True)
class Headline:
    """One large figure at the top of the page; `note` and `gloss` say the same in Chinese and in English."""

    chinese: str
    english: str
    value: str
    note: str = ""
    gloss: str = ""


def fill(template: str, **values: Any) -> str:
    """The page as HTML text; all values are escaped."""
    environment = Environment(
        loader=PackageLoader("buddygpt", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["chinese"] = CHINESE
    return environment.get_template(template).render(**values)


def write_page(path: Path, html: str) -> None:
    """Write the page, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # A lone surrogate, which JSON can carry, has no UTF-8.
    write_atomically(path, html.encode("utf-8", "replace").decode("utf-8"))
