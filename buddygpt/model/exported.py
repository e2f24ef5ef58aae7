"""The export that a server runs and a hub gets: found where it is of the model's state, made where not.

Beside the folder lies FOLDER.json: the hash of what the export was made of, the hash of each of its files, and what was
found when it was loaded again. A folder without one, or with other files in it, is not ours to replace.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import transformers
from transformers import PreTrainedTokenizerBase
from transformers.utils.hub import cached_file

import buddygpt
from buddygpt.events import Emit, Note
from buddygpt.model.architectures import choose
from buddygpt.model.interop import Exported, export, load
from buddygpt.model.modeling import BuddyGPTForCausalLM
from buddygpt.recipe.errors import BuddyError
from buddygpt.recipe.runs import write_atomically

VERSIONS = (buddygpt.__version__, transformers.__version__)
"""What makes an export and proves it: another version may do otherwise."""


def see_exported(
    source: Path | str, folder: Path, tokenizer: PreTrainedTokenizerBase | None, emit: Emit, arch: str = "auto"
) -> Exported:
    """The export of a model as it is now; made where it is not there, and anew where the model has become another.

    Args:
        source: a BuddyGPT's folder or hub id.
        folder: where the export lies, or will.
        tokenizer: the model's, which goes into an export that has to be made.
        emit: told what is done.
        arch: as for `interop.export`.

    Raises:
        BuddyError: the folder holds something that was not written here; or as `interop.export`.
    """
    state = _state(source)
    if folder.exists() or folder.is_symlink():
        record = _recorded(folder)
        if record is None:
            raise BuddyError(f"{folder}: is not an export as it was written here; move it away")
        if record["state"] == state and arch in ("auto", _architecture(folder)):
            return Exported(folder, **record["found"])
        what = "is of another model or state, and is made anew"
    else:
        what = "is made, and loaded again by transformers alone"
    model = load(source)
    if not isinstance(model, BuddyGPTForCausalLM):
        raise BuddyError(f"{source}: is a {type(model).__name__} already, which transformers loads as it is")
    choose(model.config, arch)  # type: ignore[arg-type]
    emit(Note(f"{folder}: {what}"))
    fresh = folder.with_name(f".{folder.name}.new")  # takes its name when all is told: a kill leaves nothing half done
    try:
        shutil.rmtree(fresh, ignore_errors=True)
        found = asdict(export(model, fresh, arch=arch, tokenizer=tokenizer))
        del found["folder"]
        record = {"state": state, "files": _hashes(fresh.rglob("*"), fresh), "found": found}
        if folder.exists():
            shutil.rmtree(folder)
        write_atomically(_beside(folder), json.dumps(record, indent=1) + "\n")
        fresh.rename(folder)
    except OSError as error:
        raise BuddyError(f"{error.filename or folder}: cannot be replaced: {error.strerror}") from None
    return Exported(folder, **found)


def _architecture(folder: Path) -> str:
    """What `--arch` calls it."""
    return str(json.loads((folder / "config.json").read_text("utf-8"))["model_type"])


def _state(source: Path | str) -> str:
    """Hash of the files in a model's folder, or of its revision on the hub, and of the versions that export it."""
    if isinstance(source, Path):
        files: Any = _hashes(source.iterdir(), source)
    else:
        files = Path(str(cached_file(source, "config.json"))).parent.name
    return hashlib.sha256(json.dumps([VERSIONS, files], sort_keys=True).encode()).hexdigest()


def _recorded(folder: Path) -> dict[str, Any] | None:
    """What was written down beside a folder, where that holds what was written and nothing else."""
    try:
        record = json.loads(_beside(folder).read_text("utf-8"))
        same = record["files"] == _hashes(folder.rglob("*"), folder)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return record if same else None


def _beside(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.json")


def _hashes(paths: Iterable[Path], folder: Path) -> dict[str, str]:
    """SHA-256 of files by their names in a folder."""
    found = {}
    for path in sorted(paths):
        if path.is_file():
            with path.open("rb") as file:
                found[path.relative_to(folder).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return found
