"""What became of every row, for the manifest: in = out + dropped."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from buddygpt.data import documents
from buddygpt.data.dedup import DUPLICATE, SPLITS
from buddygpt.data.documents import Intake
from buddygpt.data.shards import record_file
from buddygpt.data.sources import Source
from buddygpt.data.staging import Batch, Staged

COUNTS = ("documents", "tokens", "bytes")


def account(source: Source, batches: Sequence[Batch], staged: Staged, fates: Path) -> dict[str, Any]:
    """A source's part of the manifest.

    Counts are of documents, tokens and bytes of UTF-8 text; `bytes_in` is the size of the files, of a demo
    corpus that of its text.
    """
    intake = Intake()
    splits: dict[str, dict[str, Any]] = {name: dict.fromkeys(COUNTS, 0) | {"shards": []} for name in SPLITS.values()}
    text_bytes, made_bytes = 0, 0
    for number, batch in enumerate(batches):
        if batch.source.name != source.name:
            continue
        intake.add(staged.intake(number))
        index, fate = staged.index(number), np.load(fates / f"{number:05d}.npy")
        if len(copies := np.flatnonzero(fate == DUPLICATE)):
            first = index[copies[0]]
            where = documents.place_of(batch.files[first["file"]], int(first["row"]))
            intake.drop(documents.DUPLICATE, where, len(copies))
        made_bytes += int(index["bytes"].sum()) if batch.files[0].demo else 0
        text_bytes += int(index["bytes"][fate != DUPLICATE].sum())
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
    return {
        "kind": source.kind,
        "origin": source.origin,
        "validation": source.share,
        "columns": source.columns,
        "min_score": source.min_score,
        "files": [{"name": f.name, "size": f.size, "content": f.content} for f in source.files],
        "files_skipped": source.skipped,
        "documents_in": intake.rows,
        "bytes_in": made_bytes or sum(f.size for f in source.files),
        "end_markers_stripped": intake.stripped,
        "dropped": intake.as_dict()["dropped"],
        "documents_out": out,
        "splits": splits,
    }
