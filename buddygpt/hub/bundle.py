"""A bundle: a folder that serves in place of all hubs, on a machine without network.

FOLDER/bundle.json             what was asked, who answered, commits, hashes; written last
FOLDER/HUB/ID/COMMIT/path      the files
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from buddygpt.hub.wanted import HubFiles, Wanted
from buddygpt.recipe.errors import BuddyError

FORMAT = 1


def folder_of(bundle: Path, answer: HubFiles) -> Path:
    """Where an answer's files lie."""
    return bundle / answer.hub / answer.id / answer.commit


def read_index(bundle: Path) -> list[dict[str, Any]]:
    """The answers of a bundle, as `HubFiles.as_dict` gives them.

    Raises:
        BuddyError: it is none, or not whole.
    """
    path = bundle / "bundle.json"
    try:
        index = json.loads(path.read_text("utf-8"))
        if index["format"] != FORMAT:
            raise BuddyError(f"{path}: made by another version of buddygpt; make it again with `buddy data fetch --to`")
        return list(index["answers"])
    except OSError as error:
        raise BuddyError(
            f"{path}: cannot be read ({error.strerror}); make the bundle with `buddy data fetch RECIPE --to FOLDER`"
        ) from None
    except (ValueError, KeyError, TypeError):
        raise BuddyError(f"{path}: not a bundle's; make it again with `buddy data fetch RECIPE --to FOLDER`") from None


def read_bundle(bundle: Path, wanted: Mapping[int, Wanted]) -> dict[int, HubFiles]:
    """What a bundle has of all that is wanted; every file is there and of its size.

    Raises:
        BuddyError: one line for each that is missing.
    """
    index = {json.dumps(entry["asked"], sort_keys=True): entry for entry in read_index(bundle)}
    answers, faults = {}, []
    for place, question in wanted.items():
        entry = index.get(json.dumps(question.asked(), sort_keys=True))
        if entry is None:
            near = [e["asked"] for e in index.values() if e["asked"]["huggingface"] == question.huggingface]
            told = f"holds only {', '.join(near[0]['files'])} at {near[0]['revision']}" if near else "has it not"
            faults.append(
                question.fault(f"the bundle {bundle} {told}; make it again with this recipe, where there is a network")
            )
            continue
        answer = HubFiles.from_dict(entry, question)
        try:
            bundled(bundle, answer)
        except BuddyError as error:
            faults.append(str(error))
        answers[place] = answer
    if faults:
        raise BuddyError(faults)
    return answers


def bundled(bundle: Path, answer: HubFiles) -> list[Path]:
    """Where an answer's files lie in a bundle.

    Raises:
        BuddyError: one is missing or of another size; names the first.
    """
    folder = folder_of(bundle, answer)
    wrong = [f for f in answer.files if not (folder / f.name).is_file() or (folder / f.name).stat().st_size != f.size]
    if wrong:
        more = f" and {len(wrong) - 1:,} more" if len(wrong) > 1 else ""
        raise BuddyError(
            f"{folder / wrong[0].name}{more}: missing from the bundle, or not whole; copy the bundle again, or "
            "complete it with `buddy data fetch RECIPE --to FOLDER`, where there is a network"
        )
    return [folder / file.name for file in answer.files]
