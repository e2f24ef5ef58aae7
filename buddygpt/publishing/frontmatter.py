"""The metadata on top of a card, as both hubs read it: what is not known is left out, never null or empty.

Hugging Face checks `license`, `datasets`, `base_model` and `language` when a card is pushed (hub-docs, modelcard.md and
repositories-licenses.md); ModelScope reads `tasks` and `frameworks` beside them.
"""

from __future__ import annotations

import re
from typing import Any

from buddygpt.publishing.sources import is_hub_id
from buddygpt.publishing.story import Story

LICENCES = frozenset(
    "afl-3.0 agpl-3.0 apache-2.0 artistic-2.0 bigcode-openrail-m bigscience-bloom-rail-1.0 bigscience-openrail-m bsd "
    "bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 c-uda cc cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 "
    "cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 "
    "cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0 cdla-permissive-1.0 cdla-permissive-2.0 "
    "cdla-sharing-1.0 creativeml-openrail-m deepfloyd-if-license ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 gemma "
    "gfdl gpl gpl-2.0 gpl-3.0 isc lgpl lgpl-2.1 lgpl-3.0 lgpl-lr llama2 lppl-1.3c mit mpl-2.0 ms-pl ncsa odbl odc-by "
    "ofl-1.1 openrail openrail++ osl-3.0 pddl postgresql unknown unlicense wtfpl zlib".split()
)
"""What Hugging Face takes as `license`; another is `other` with a name."""


def front_matter(story: Story, licence: str | None) -> dict[str, Any]:
    """The fields, in the order in which they are written.

    Args:
        story: of the model.
        licence: of the model, as the recipe says; None where it does not.
    """
    languages = list(dict.fromkeys(code for source in story.sources for code in source.languages))
    fields = {
        "language": sorted(languages, key=lambda code: (code != "zh", languages.index(code))),
        **_licence(licence),
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tasks": ["text-generation"],
        "frameworks": ["pytorch"],
        "tags": ["buddygpt", *(["conversational"] if story.chat else [])],
        "datasets": list(dict.fromkeys(source.id for source in story.sources if source.id)),
        "base_model": story.base,
    }
    return {name: value for name, value in fields.items() if value}


def spell_front_matter(fields: dict[str, Any]) -> str:
    """The fields as YAML, by the hub's own client.

    Raises:
        ValueError: a field would make a hub refuse the card.
    """
    from huggingface_hub.repocard_data import ModelCardData

    if faults := front_matter_faults(fields):
        raise ValueError("; ".join(faults))
    return ModelCardData(**fields).to_yaml(original_order=list(fields))


def front_matter_faults(fields: dict[str, Any]) -> list[str]:
    """Why a hub would refuse these fields; nothing where it would take them."""
    faults = [f"{name}: empty" for name, value in fields.items() if value in (None, "", [], {})]
    lists = {name: value if isinstance(value, list) else [value] for name, value in fields.items() if value}
    faults += [f"{name}: not text: {one!r}" for name, some in lists.items() for one in some if not isinstance(one, str)]
    for name in ("datasets", "base_model"):
        faults += [f"{name}: '{one}' is no owner/name" for one in lists.get(name, []) if not is_hub_id(str(one))]
    for code in lists.get("language", []):
        if not re.fullmatch("[a-z]{2,3}", str(code)):
            faults.append(f"language: '{code}' is no code of two or three letters")
    licence = fields.get("license")
    if licence is not None and licence not in LICENCES | {"other"}:
        faults.append(f"license: '{licence}' is not known to the hub")
    if licence == "other" and not fields.get("license_name"):
        faults.append("license: other needs a license_name")
    return faults


def _licence(licence: str | None) -> dict[str, str | None]:
    told = (licence or "").strip().lower()
    if not told or told in LICENCES:
        return {"license": told or None}
    name = re.sub(r"[^a-z0-9.]+", "-", told).strip("-.") or "other"
    return {"license": "other", "license_name": name}
