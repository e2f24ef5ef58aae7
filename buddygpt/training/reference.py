"""Scores of a reference model on pairs, known by content and kept on disk.

NAME.npz               keys (pairs, 2) uint64: xxh3_128 of prompt, chosen and rejected; scores (pairs, 2) float32
NAME.KEY.part.npz      the same, of what was computed since; KEY is that of its first pair

NAME stands for the reference's weights and all else that its scores hang on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
import xxhash
from torch import nn

from buddygpt.data.staging import whole_file

Pair = Mapping[str, Sequence[int]]
"""`prompt_ids`, `chosen_ids` and `rejected_ids`."""
Score = tuple[float, float]
"""Summed log-probabilities of the chosen and of the rejected answer, in nats."""


def pair_key(pair: Pair) -> bytes:
    """xxh3_128 of the three lists of ids and their lengths."""
    sides = [np.asarray(pair[name], dtype="<i8") for name in ("prompt_ids", "chosen_ids", "rejected_ids")]
    digest = xxhash.xxh3_128(np.array([len(side) for side in sides], dtype="<i8"))
    for side in sides:
        digest.update(side)
    return digest.digest()


def weights_hash(model: nn.Module) -> str:
    """xxh3_128, in hex, of a model's parameters and buffers with their names; adapters are left out."""
    digest = xxhash.xxh3_128()
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    names = {name.removeprefix("base_model.model.").replace(".base_layer.", "."): name for name in tensors}
    for name in sorted(name for name in names if ".lora_" not in name):
        tensor = tensors[names[name]].detach()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


class ScoreFile:
    """The scores of one reference, on disk.

    Args:
        folder: where the file lies.
        parts: what its name stands for.
    """

    def __init__(self, folder: Path, *parts: str):
        self.folder, self.name = folder, xxhash.xxh3_64_hexdigest("\n".join(parts).encode())
        self.path = folder / f"{self.name}.npz"

    def load(self) -> dict[bytes, Score]:
        """All that is known."""
        known: dict[bytes, Score] = {}
        for path in (self.path, *self._parts()):
            known |= _read(path)
        return known

    def add(self, scores: Mapping[bytes, Score]) -> None:
        """Put scores beside the file, so that they are not lost with the process."""
        if scores:
            _write(self.folder / f"{self.name}.{next(iter(scores)).hex()}.part.npz", scores)

    def gather(self) -> None:
        """Make one file of the file and all that was added."""
        if parts := self._parts():
            _write(self.path, self.load())
            for part in parts:
                part.unlink(missing_ok=True)

    def _parts(self) -> list[Path]:
        return sorted(self.folder.glob(f"{self.name}.*.part.npz"))


def _read(path: Path) -> dict[bytes, Score]:
    try:
        with np.load(path) as file:
            keys, scores = file["keys"], file["scores"].tolist()
    except (OSError, ValueError, KeyError, BadZipFile):  # none yet, or damaged: what it held is computed again
        return {}
    return {key.tobytes(): (chosen, rejected) for key, (chosen, rejected) in zip(keys, scores, strict=True)}


def _write(path: Path, scores: Mapping[bytes, Score]) -> None:
    keys: Any = np.frombuffer(b"".join(scores), dtype="<u8").reshape(-1, 2)
    with whole_file(path) as file:
        np.savez(file, keys=keys, scores=np.array(list(scores.values()), dtype=np.float32))
