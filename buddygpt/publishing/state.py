"""The state of training without pickles: tensors in safetensors, all else in JSON.

A checkpoint's own optimizer, schedule and random state are pickles, which a stranger would have to trust. They are read
here without running anything of theirs, and `read_state` gives the same objects back.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from buddygpt.publishing.parcel import TRAINING, see_inside
from buddygpt.recipe.errors import BuddyError

_TENSORS, _TREE = "state.safetensors", "state.json"
_PLAIN = ("config.json", "generation_config.json", "trainer_state.json", "origin.json")
_STATES = ("*.pt", "*.pth", "optimizer.bin")
"""The last is the optimizer's where a model was split (FSDP); its weights lie in model.safetensors too."""
_NUMPY = [np._core.multiarray._reconstruct, np.ndarray, np.dtype, *(type(np.dtype(t)) for t in "BHILbhilfd")]


def training_state(chapter: Path, scratch: Path) -> dict[str, Path]:
    """Files of a chapter's newest whole checkpoint, by their names in a repository.

    Args:
        chapter: folder of the stage.
        scratch: where the files without pickles are written.

    Raises:
        BuddyError: there is no checkpoint, or one whose state lies in parts.
    """
    whole = [p for p in (chapter / "checkpoints").glob("checkpoint-*") if (p / "complete.json").is_file()]
    if not whole:
        raise BuddyError(f"{chapter}: no whole checkpoint, whose state --with-training-state could send")
    checkpoint = max(whole, key=lambda p: int(p.name.rpartition("-")[2]))
    if parts := sorted(p.name for p in checkpoint.iterdir() if p.is_dir()):
        raise BuddyError(f"{checkpoint}: its state lies in parts ({parts[0]}/), which are not sent")
    files = {}
    for path in sorted(checkpoint.iterdir()):
        if path.suffix == ".safetensors" or path.name in _PLAIN or path.name.endswith(".safetensors.index.json"):
            see_inside(path, checkpoint)
            files[f"{TRAINING}{path.name}"] = path
    tensors: dict[str, Tensor] = {}
    tree = {}
    for path in sorted(p for pattern in _STATES for p in checkpoint.glob(pattern)):
        see_inside(path, checkpoint)
        tree[path.name] = _encode(_read(path), tensors, path.stem)
    save_file(tensors, scratch / _TENSORS)
    (scratch / _TREE).write_text(json.dumps(tree) + "\n", encoding="utf-8")
    return files | {f"{TRAINING}{name}": scratch / name for name in (_TENSORS, _TREE)}


def read_state(folder: Path) -> dict[str, Any]:
    """What the checkpoint's `optimizer.pt` (`.bin` by FSDP), `scheduler.pt` and `rng_state.pth` held, by those names.

    Args:
        folder: `training` of a repository.
    """
    tensors = load_file(folder / _TENSORS)
    tree = json.loads((folder / _TREE).read_text("utf-8"))
    return {name: _decode(value, tensors) for name, value in tree.items()}


def _read(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(_NUMPY):
            return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError):
        raise BuddyError(f"{path}: holds more than tensors and numbers, or is damaged; it is not sent") from None


def _encode(value: Any, tensors: dict[str, Tensor], name: str) -> Any:
    """The value as JSON: plain ones as they are, all else as an object of one key that says what it is."""
    match value:
        case Tensor() | np.ndarray():
            key = f"{name}.{len(tensors):06d}"
            tensors[key] = torch.as_tensor(value).clone().contiguous()
            return {"tensor" if isinstance(value, Tensor) else "array": key}
        case dict():
            return {"dict": [[_encode(v, tensors, name) for v in pair] for pair in value.items()]}
        case list() | tuple():
            return {type(value).__name__: [_encode(v, tensors, name) for v in value]}
        case bool() | int() | float() | str() | None:
            return value
    raise BuddyError(f"the state of training holds a {type(value).__name__}, which has no form without a pickle")


def _decode(value: Any, tensors: dict[str, Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, inner),) = value.items()
    makers: dict[str, Callable[[Any], Any]] = {
        "tensor": tensors.__getitem__,
        "array": lambda key: tensors[key].numpy(),
        "dict": lambda pairs: {_decode(k, tensors): _decode(v, tensors) for k, v in pairs},
        "list": lambda items: [_decode(v, tensors) for v in items],
        "tuple": lambda items: tuple(_decode(v, tensors) for v in items),
    }
    return makers[kind](inner)
