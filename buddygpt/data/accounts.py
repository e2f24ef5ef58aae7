"""What became of every row, for the manifest: in = out + dropped."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from buddygpt.data.documents import place_of
from buddygpt.data.duplicates import Duplicates
from buddygpt.data.fates import REMOVED, SPLITS, fate_file
from buddygpt.data.intake import Intake
from buddygpt.data.shards import record_file
from buddygpt.data.sources import Source
from buddygpt.data.staging import Batch, Staged, load_array

COUNTS = ("documents", "tokens", "bytes", "learned")
SHOWN_PAIRS = 12


def account(
    source: Source, batches: Sequence[Batch], staged: Staged, fates: Path
) -> tuple[dict[str, Any], dict[str, Any]]:
    """A source's part of the manifest, and samples of what was dropped or changed.

    Counts are of documents, tokens, bytes of UTF-8 text, and tokens that are learned of talks and pairs; `bytes_in` is
    the size of the files, of a demo corpus that of its text; `text_bytes_in` that of the texts in their rows.
    """
    intake = Intake()
    splits: dict[str, dict[str, Any]] = {name: dict.fromkeys(COUNTS, 0) | {"shards": []} for name in SPLITS.values()}
    staged_count = dict.fromkeys(("documents", "bytes"), 0)
    text_bytes, made_bytes = 0, 0
    for number, batch in enumerate(batches):
        if batch.source.name != source.name:
            continue
        intake.add(staged.intake(number))
        index, fate = staged.index(number), load_array(fate_file(fates, number))
        staged_count["documents"] += len(index)
        staged_count["bytes"] += int(index["bytes"].sum())
        for code, reason in REMOVED.items():
            if len(gone := np.flatnonzero(fate == code)):
                first = index[gone[0]]
                intake.drop(reason, place_of(batch.files[first["file"]], int(first["row"])), len(gone))
        made_bytes += int(index["bytes"].sum()) if batch.files[0].demo else 0
        text_bytes += int(index["bytes"][fate <= max(SPLITS)].sum())
        for split, record in json.loads(record_file(fates, number).read_text("utf-8")).items():
            splits[split]["shards"].append(record)
            for count in COUNTS:
                splits[split][count] += record[count]
    out = sum(split["documents"] for split in splits.values())
    dropped = sum(drop.count for drop in intake.dropped.values())
    assert intake.rows == out + dropped, f"{source.name}: {intake.rows} rows in, {out} out, {dropped} dropped"
    assert text_bytes == sum(split["bytes"] for split in splits.values()), f"{source.name}: text lost on the way"
    for split in splits.values():
        split["bytes_per_token"] = round(split["bytes"] / split["tokens"], 4) if split["tokens"] else None
    counts = intake.counts()
    facts = {
        "kind": source.kind,
        "origin": source.origin,
        "validation": source.share,
        "map": source.map,
        "render": source.render,
        "min_score": source.min_score,
        "files": [{"name": f.name, "size": f.size, "content": f.content} for f in source.files],
        "files_skipped": source.skipped,
        "documents_in": intake.rows,
        "bytes_in": made_bytes or sum(f.size for f in source.files),
        "text_bytes_in": intake.bytes,
        "edits": counts["edits"],
        "dropped": counts["dropped"],
        "cleaned": staged_count,
        "documents_out": out,
        "splits": splits,
    }
    return facts, intake.samples.as_dict()


def sample_pairs(
    duplicates: Duplicates, batches: Sequence[Batch], staged: Staged, starts: Sequence[int]
) -> dict[str, Any]:
    """Some near duplicates with the texts that stay for them, evenly spread over all."""
    near = duplicates.near
    chosen = np.unique(np.linspace(0, len(near) - 1, min(SHOWN_PAIRS, len(near))).astype(np.int64))
    numbers = np.unique(np.concatenate((near[chosen], duplicates.kept[chosen]))).astype(np.int64)
    found: dict[int, tuple[str, str]] = {}
    for number, batch in enumerate(batches):
        places = numbers[(numbers >= starts[number]) & (numbers < starts[number + 1])] - starts[number]
        if len(places):
            index = staged.index(number)
            for place, text in _pick(staged, number, places.tolist()):
                row = index[place]
                where = place_of(batch.files[row["file"]], int(row["row"]))
                found[starts[number] + place] = (where, text)
    pairs = [{"removed": found[int(near[at])], "kept": found[int(duplicates.kept[at])]} for at in chosen]
    _, sizes = np.unique(duplicates.kept, return_counts=True)
    return {"pairs": pairs, "largest_group": int(sizes.max()) + 1 if len(sizes) else 0}


def _pick(staged: Staged, batch: int, places: list[int]) -> Iterator[tuple[int, str]]:
    """The texts at ascending places of a batch, read block by block."""
    start = 0
    for texts, _ in staged.texts(batch):
        while places and places[0] < start + len(texts):
            place = places.pop(0)
            yield place, texts[place - start]
        start += len(texts)
