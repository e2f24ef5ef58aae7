"""The schema for editors and the reference page, both made from the section classes."""

from __future__ import annotations

import json
from typing import Any, get_args

from pydantic_core import PydanticUndefined

from buddygpt.recipe.base import Section
from buddygpt.recipe.names import sections_of
from buddygpt.recipe.schema import Recipe


def json_schema() -> dict[str, Any]:
    """JSON Schema of a recipe file; every field is optional, since `extends` may bring it."""
    schema = Recipe.model_json_schema(by_alias=True)
    schema["properties"]["extends"] = {"type": "string", "description": "A recipe file that is read first."}
    schema["title"] = "buddygpt recipe"
    for part in (schema, *schema.get("$defs", {}).values()):
        part.pop("required", None)
    return schema


def reference_page() -> str:
    """Every field of a recipe as Markdown: name, default, meaning with unit."""
    lines = [
        "# Recipe reference",
        "",
        "Made by `python -m buddygpt.recipe.reference` from the schema; do not edit.",
        "",
        "Numbers may be written `2e-5`, `2_000_000`, `35B` (`k M B T`, decimal) or `64Ki` (`Ki Mi Gi`, binary).",
        "`extends: other.yaml` reads another recipe first; `--set section.key=value` overrides a field.",
        "",
    ]
    lines += _section(Recipe, "")
    return "\n".join(lines) + "\n"


def _section(cls: type[Section], path: str) -> list[str]:
    kind = cls.model_fields.get("kind")
    title = f"`{path}`" if path else "Top level"
    if kind is not None:
        title += f", `kind: {get_args(kind.annotation)[0]}`"
    doc = " ".join((cls.__doc__ or "").split())
    lines = [f"## {title}", "", doc, "", "| field | default | meaning |", "| --- | --- | --- |"]
    below: list[str] = []
    for name, field in cls.model_fields.items():
        shown = field.alias or name
        inner = sections_of(field.annotation)
        default = "required" if field.is_required() else _default(field.get_default(call_default_factory=True))
        lines.append(f"| `{shown}` | {default} | {' '.join((field.description or '').split())} |")
        for section in inner:
            below += _section(section, f"{path}.{shown}" if path else shown)
    return [*lines, "", *below]


def _default(value: Any) -> str:
    if value is None:
        return "left out"
    if isinstance(value, Section) or value is PydanticUndefined:
        return "see below"
    return f"`{json.dumps(value, ensure_ascii=False)}`"


if __name__ == "__main__":
    import sys

    sys.stdout.write(json.dumps(json_schema(), indent=1) + "\n" if "--schema" in sys.argv else reference_page())
